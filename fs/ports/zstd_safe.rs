// SPDX-License-Identifier: GPL-2.0

//! zstd, by the kernel's library, with the names of the crate `zstd-safe`.
//!
//! Unlike there, a context allocates its memory when it is created. Decompression allocates none.
//!
//! C header: [`include/linux/zstd.h`](srctree/include/linux/zstd.h)

use super::bindings;
use crate::vfs::prelude::*;
use core::{mem::MaybeUninit, ptr::NonNull, slice};

/// A decompression context.
///
/// # Invariants
///
/// `context` was made in the memory of `_workspace`, which nothing else uses.
pub(crate) struct DCtx {
    context: NonNull<bindings::zstd_dctx>,
    _workspace: KVVec<u64>,
}

// SAFETY: A context may be used from any thread, by one at a time: its methods take `&mut self`.
unsafe impl Send for DCtx {}

/// Memory that can be decompressed to, initialised or not.
pub(crate) trait WriteBuf {
    /// Returns the memory. Only initialised bytes may be written to it.
    fn memory(&mut self) -> &mut Memory;

    /// Notes that bytes have been written from the beginning of the memory on. Keeps them in place.
    ///
    /// # Safety
    ///
    /// The first `bytes` bytes of the memory must be initialised.
    unsafe fn filled_until(&mut self, _bytes: usize) {}
}

/// The memory of a [`WriteBuf`], which only this module reaches into.
#[repr(transparent)]
pub(crate) struct Memory([MaybeUninit<u8>]);

impl WriteBuf for [MaybeUninit<u8>] {
    fn memory(&mut self) -> &mut Memory {
        // SAFETY: `Memory` is a transparent wrapper of `[MaybeUninit<u8>]`, so both pointers have
        // the same layout and metadata; the lifetime is that of `self`.
        unsafe { &mut *(core::ptr::from_mut(self) as *mut Memory) }
    }
}

impl WriteBuf for [u8] {
    fn memory(&mut self) -> &mut Memory {
        // SAFETY: `Memory` is a transparent wrapper of `[MaybeUninit<u8>]`, which has the layout of
        // `[u8]`. Only initialised bytes may be written through it: only this module can reach into
        // a `Memory`, and passes it to zstd alone, which writes bytes.
        unsafe { &mut *(core::ptr::from_mut(self) as *mut Memory) }
    }
}

/// Writes to the whole capacity of a vector, whose length becomes the number of bytes written.
impl WriteBuf for KVVec<u8> {
    fn memory(&mut self) -> &mut Memory {
        self.clear();
        self.spare_capacity_mut().memory()
    }

    unsafe fn filled_until(&mut self, bytes: usize) {
        self.clear();
        // SAFETY: By the safety requirements so many bytes are initialised, from the beginning of
        // the vector's memory on, which is as large as its capacity.
        unsafe { self.inc_len(bytes) };
    }
}

/// The data is not a valid frame, or does not fit.
#[derive(Debug)]
pub(crate) struct ErrorCode;

/// Returns the size of the compressed frame that some data begins with, in bytes.
pub(crate) fn find_frame_compressed_size(src: &[u8]) -> Result<usize, ErrorCode> {
    // SAFETY: The slice is valid for reads of its length. `zstd_is_error` only looks at the number.
    unsafe {
        let size = bindings::zstd_find_frame_compressed_size(src.as_ptr().cast(), src.len());
        match bindings::zstd_is_error(size) {
            0 => Ok(size),
            _ => Err(ErrorCode),
        }
    }
}

impl DCtx {
    /// Makes a context.
    pub(crate) fn try_create() -> Result<Self> {
        // SAFETY: `zstd_dctx_workspace_bound` reads no memory of ours.
        let size = unsafe { bindings::zstd_dctx_workspace_bound() };
        // Words, since the context has to be aligned.
        let mut workspace = KVVec::<u64>::zeroed(size.div_ceil(size_of::<u64>()), GFP_KERNEL)?;
        // SAFETY: The memory is ours, aligned and of that size; it does not move when the vector
        // does.
        let context = unsafe { bindings::zstd_init_dctx(workspace.as_mut_ptr().cast(), size) };
        // INVARIANT: The context was made in this memory just now.
        Ok(Self {
            context: NonNull::new(context).ok_or(EINVAL)?,
            _workspace: workspace,
        })
    }

    /// Decompresses frames, and returns the bytes written, from the beginning of `dst`.
    pub(crate) fn decompress<'b, W: WriteBuf + ?Sized>(
        &mut self,
        dst: &'b mut W,
        src: &[u8],
    ) -> Result<&'b mut [u8], ErrorCode> {
        let memory = dst.memory();
        let room = memory.0.len();
        let start = memory.0.as_mut_ptr().cast::<u8>();
        // SAFETY: By the type invariants the context is valid, and `&mut self` makes this the only
        // use of it. The memory is valid for writes of `room` bytes, the slice for reads.
        let result = unsafe {
            bindings::zstd_decompress_dctx(
                self.context.as_ptr(),
                start.cast(),
                room,
                src.as_ptr().cast(),
                src.len(),
            )
        };
        // SAFETY: `zstd_is_error` only looks at the number.
        if unsafe { bindings::zstd_is_error(result) } != 0 || result > room {
            return Err(ErrorCode);
        }
        // SAFETY: zstd reported no error: it has written `result` bytes from `start` on.
        unsafe { dst.filled_until(result) };
        // SAFETY: zstd has initialised these bytes. `dst` keeps its memory in place, and is
        // borrowed as long as the result.
        Ok(unsafe { slice::from_raw_parts_mut(start, result) })
    }
}
