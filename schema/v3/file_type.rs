// SPDX-License-Identifier: MIT OR Apache-2.0

//! The type of an inode.

use crate::metadata_capnp::inode;
use capnp::traits::IntoInternalStructReader;

/// The offset of the discriminant of the union `mode` in an inode's data, in units of two bytes.
/// The wire format fixes the offset and the numbers of the variants.
const DISCRIMINANT: usize = 4;

/// The type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// Unknown to the builder, or to this reader.
    Unknown,
    /// A named pipe.
    Fifo,
    /// A character device.
    Chr,
    /// A directory.
    Dir,
    /// A block device.
    Blk,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A socket.
    Sock,
    /// A whiteout, which removes the inode of this number from lower layers.
    Whiteout,
}

impl FileType {
    /// Returns the type of an inode.
    ///
    /// Only the discriminant of the union is read, because reading its value follows pointers.
    pub(crate) fn of(inode: inode::Reader<'_>) -> Self {
        match inode
            .into_internal_struct_reader()
            .get_data_field::<u16>(DISCRIMINANT)
        {
            1 => Self::Fifo,
            2 => Self::Chr,
            3 => Self::Dir,
            4 => Self::Blk,
            5 => Self::File,
            6 => Self::Symlink,
            7 => Self::Sock,
            8 => Self::Whiteout,
            _ => Self::Unknown,
        }
    }
}
