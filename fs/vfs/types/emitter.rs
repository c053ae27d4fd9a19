// SPDX-License-Identifier: GPL-2.0

//! The receiver of a directory's entries.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::vfs::bindings;
use kernel::ffi::{c_int, c_uint};

/// The receiver of a directory's entries, during one call of `getdents(2)` or alike.
///
/// A position is a number of the filesystem's own choice: 0 at the beginning, otherwise the number
/// given with the last entry that was emitted.
pub(crate) struct DirEmitter<'a> {
    context: &'a mut bindings::dir_context,
}

impl<'a> DirEmitter<'a> {
    /// Wraps a context whose entries `.` and `..` have been emitted.
    pub(in crate::vfs) fn new(context: &'a mut bindings::dir_context) -> Self {
        Self { context }
    }

    /// Returns the position at which to begin or continue.
    pub(crate) fn position(&self) -> u64 {
        self.context.pos.saturating_sub(DOTS).max(0) as u64
    }

    /// Emits an entry; `next` is the position behind it.
    ///
    /// Returns true if there is room for more. If there is not, the entry was not taken and the
    /// iteration must end.
    pub(crate) fn emit(&mut self, name: &[u8], ino: u64, kind: DirEntryType, next: u64) -> bool {
        let (Ok(len), Some(next)) = (
            c_int::try_from(name.len()),
            i64::try_from(next).ok().and_then(|n| n.checked_add(DOTS)),
        ) else {
            return false;
        };
        // SAFETY: `context` is borrowed mutably, hence valid and ours; the name is `len` bytes
        // long.
        let taken = unsafe {
            bindings::vfs_rs_dir_emit(self.context, name.as_ptr().cast(), len, ino, kind as c_uint)
        };
        if taken {
            self.context.pos = next;
        }
        taken
    }
}

/// The type of a directory entry, as `getdents(2)` gives it in `d_type`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum DirEntryType {
    /// Not known without a look at the inode.
    Unknown = bindings::DT_UNKNOWN,
    /// A named pipe.
    Fifo = bindings::DT_FIFO,
    /// A character device.
    CharDevice = bindings::DT_CHR,
    /// A directory.
    Directory = bindings::DT_DIR,
    /// A block device.
    BlockDevice = bindings::DT_BLK,
    /// A regular file.
    Regular = bindings::DT_REG,
    /// A symbolic link.
    Symlink = bindings::DT_LNK,
    /// A socket.
    Socket = bindings::DT_SOCK,
}

/// The number of positions that stand for `.` and `..`.
const DOTS: i64 = 2;
