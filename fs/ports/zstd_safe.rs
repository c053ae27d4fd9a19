// SPDX-License-Identifier: GPL-2.0

//! zstd, by the kernel's library, with the names of the crate `zstd-safe`.
//!
//! Unlike there, a context is made of memory that is taken when it is created: to decompress with
//! it takes none.
//!
//! C header: [`include/linux/zstd.h`](srctree/include/linux/zstd.h)

use super::bindings;
use crate::vfs::prelude::*;
use core::{mem::MaybeUninit, ptr::NonNull};

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
    /// The memory, to which nothing but initialised bytes must be written.
    fn memory(&mut self) -> &mut Memory;

    /// Says that so many bytes from the beginning of the memory have been written.
    ///
    /// # Safety
    ///
    /// They must have been.
    unsafe fn filled_until(&mut self, _bytes: usize) {}
}

/// The memory of a [`WriteBuf`].
#[repr(transparent)]
pub(crate) struct Memory([MaybeUninit<u8>]);

impl WriteBuf for [MaybeUninit<u8>] {
    fn memory(&mut self) -> &mut Memory {
        // SAFETY: `Memory` is a transparent wrapper.
        unsafe { &mut *(core::ptr::from_mut(self) as *mut Memory) }
    }
}

impl WriteBuf for [u8] {
    fn memory(&mut self) -> &mut Memory {
        // SAFETY: Bytes may be seen as bytes that need not be initialised, as long as nothing else
        // is written to them: zstd writes bytes, and nobody else can reach into a `Memory`.
        unsafe { &mut *(core::ptr::from_mut(self) as *mut Memory) }
    }
}

/// All of a vector's capacity; it is as long then as what was written.
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

impl DCtx {
    /// Makes a context.
    pub(crate) fn try_create() -> Result<Self> {
        // SAFETY: No requirements.
        let size = unsafe { bindings::zstd_dctx_workspace_bound() };
        // Words, since the context has to be aligned.
        let mut workspace = KVVec::<u64>::zeroed(size.div_ceil(size_of::<u64>()), GFP_KERNEL)?;
        // SAFETY: The memory is ours, aligned and of that size; it does not move when the vector
        // does.
        let context = unsafe { bindings::zstd_init_dctx(workspace.as_mut_ptr().cast(), size) };
        Ok(Self {
            context: NonNull::new(context).ok_or(EINVAL)?,
            _workspace: workspace,
        })
    }

    /// Decompresses frames, and gives what has been written: a beginning of `dst`.
    pub(crate) fn decompress<'b, W: WriteBuf + ?Sized>(
        &mut self,
        dst: &'b mut W,
        src: &[u8],
    ) -> Result<&'b mut [u8], ErrorCode> {
        let memory = dst.memory();
        // SAFETY: By the type invariants the context is valid, and nobody else uses it; the slices
        // are valid for their lengths.
        let written = unsafe {
            bindings::zstd_decompress_dctx(
                self.context.as_ptr(),
                memory.0.as_mut_ptr().cast(),
                memory.0.len(),
                src.as_ptr().cast(),
                src.len(),
            )
        };
        // SAFETY: No requirements.
        if unsafe { bindings::zstd_is_error(written) } != 0 {
            return Err(ErrorCode);
        }
        let written = memory.0.get_mut(..written).ok_or(ErrorCode)?;
        // SAFETY: zstd has written as many bytes as it says, from the beginning of the memory.
        let written = unsafe { &mut *(core::ptr::from_mut(written) as *mut [u8]) };
        let (written, bytes) = (core::ptr::from_mut(written), written.len());
        // SAFETY: As above.
        unsafe { dst.filled_until(bytes) };
        // SAFETY: The memory is borrowed as long as `dst` is, and does not move.
        Ok(unsafe { &mut *written })
    }
}
