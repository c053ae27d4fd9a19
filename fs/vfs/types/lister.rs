// SPDX-License-Identifier: GPL-2.0

//! The receiver of the names of extended attributes.

use crate::vfs::compat::prelude::*;
use core::{marker::PhantomData, ptr};

/// The receiver of the names of an inode's extended attributes.
///
/// # Invariants
///
/// `buffer` is valid for writes of `capacity` bytes that nothing else refers to, or null if only
/// the size is wanted. `used` is at most `capacity` unless `buffer` is null.
pub(crate) struct XattrLister<'a> {
    buffer: *mut u8,
    capacity: usize,
    used: usize,
    shows_trusted: bool,
    _buffer: PhantomData<&'a mut [u8]>,
}

impl XattrLister<'_> {
    /// Makes a lister. `shows_trusted` includes the names in `trusted.`.
    ///
    /// # Safety
    ///
    /// `buffer` must be null, or valid for writes of `capacity` bytes that nothing else refers to
    /// while the lister exists.
    pub(in crate::vfs) unsafe fn new(
        buffer: *mut u8,
        capacity: usize,
        shows_trusted: bool,
    ) -> Self {
        // INVARIANT: By the safety requirements; nothing is used yet.
        Self {
            buffer,
            capacity,
            used: 0,
            shows_trusted,
            _buffer: PhantomData,
        }
    }

    /// Returns the number of bytes that the names take.
    pub(in crate::vfs) fn used(&self) -> usize {
        self.used
    }

    /// Lists a name that consists of these parts.
    ///
    /// A name in `trusted.` is left out if the task may not read it.
    ///
    /// # Errors
    ///
    /// [`ERANGE`] if there is no room left.
    pub(crate) fn add(&mut self, parts: &[&[u8]]) -> Result {
        // The first part has the namespace.
        let is_trusted = parts
            .first()
            .is_some_and(|part| part.starts_with(b"trusted."));
        if is_trusted && !self.shows_trusted {
            return Ok(());
        }
        for part in parts {
            self.append(part)?;
        }
        self.append(&[0])
    }

    /// Appends bytes to the list.
    fn append(&mut self, bytes: &[u8]) -> Result {
        let end = self.used.checked_add(bytes.len()).ok_or(ERANGE)?;
        if !self.buffer.is_null() {
            if end > self.capacity {
                return Err(ERANGE);
            }
            // SAFETY: By the type invariants the buffer has `capacity` bytes, and `end` is not
            // beyond it. The bytes cannot overlap the buffer, because nothing else refers to it.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), self.buffer.add(self.used), bytes.len());
            }
        }
        // INVARIANT: `end` was checked against the capacity if there is a buffer.
        self.used = end;
        Ok(())
    }
}
