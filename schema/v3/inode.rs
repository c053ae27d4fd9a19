// SPDX-License-Identifier: MIT OR Apache-2.0

//! Inodes.

use super::{
    dir::DirLayer,
    extents::{ExtentList, Extents},
    file_type::FileType,
    message::{Locator, Metadata, View},
    xattr::Xattrs,
};
use crate::{
    error::{Error, ErrorKind, Result},
    limits::{MAX_FILE_SIZE, MAX_SYMLINK_LEN},
    metadata_capnp::inode::mode,
    timestamp::Timestamp,
};

/// The lower twelve bits of a mode.
const PERMISSIONS: u16 = 0o7777;

/// The largest major number of a device: the kernel's has twelve bits.
const MAX_MAJOR: u64 = (1 << 12) - 1;

/// The largest minor number of a device: the kernel's has twenty bits.
const MAX_MINOR: u64 = (1 << 20) - 1;

/// The type of an inode, and the number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Chr {
        /// The major number, of twelve bits.
        major: u32,
        /// The minor number, of twenty bits.
        minor: u32,
    },
    /// A block device.
    Blk {
        /// The major number, of twelve bits.
        major: u32,
        /// The minor number, of twenty bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Sock,
    /// A whiteout, which removes the inode of this number from lower layers.
    Whiteout,
    /// Unknown to the builder.
    Unknown,
}

impl Kind {
    /// Returns the type alone.
    pub fn file_type(self) -> FileType {
        match self {
            Self::File => FileType::File,
            Self::Dir => FileType::Dir,
            Self::Symlink => FileType::Symlink,
            Self::Chr { .. } => FileType::Chr,
            Self::Blk { .. } => FileType::Blk,
            Self::Fifo => FileType::Fifo,
            Self::Sock => FileType::Sock,
            Self::Whiteout => FileType::Whiteout,
            Self::Unknown => FileType::Unknown,
        }
    }
}

/// Fields that the reference implementation does not write.
#[derive(Clone, Copy, Debug)]
struct Extension {
    mtime: Timestamp,
    size: u64,
    nlink: u32,
}

/// An inode.
#[derive(Clone, Copy, Debug)]
pub struct Inode<'a> {
    metadata: Metadata<'a>,
    at: Locator,
    ino: u64,
    kind: Kind,
    uid: u32,
    gid: u32,
    permissions: u16,
    extension: Option<Extension>,
    /// The chunks of a regular file; `None` also if the list is malformed, which [`Inode::extents`]
    /// reports.
    chunks: Option<ExtentList>,
    /// True if there may be extended attributes.
    has_additional: bool,
}

impl<'a> Inode<'a> {
    /// Reads the inode at a place.
    pub(crate) fn read(metadata: Metadata<'a>, view: &View<'_>, at: Locator) -> Result<Self> {
        let inode = view.inode(at)?;
        let ino = inode.get_ino();
        if ino == 0 {
            return Err(ErrorKind::InodeNumber.into());
        }
        let permissions = inode.get_permissions();
        if permissions & !PERMISSIONS != 0 {
            return Err(Error::new(ErrorKind::Permissions).of(ino));
        }
        // An inode that can be reached has a link. If the count is 0, there is no extension.
        let nlink = inode.get_nlink();
        let extension = (nlink != 0).then(|| Extension {
            mtime: Timestamp {
                seconds: inode.get_mtime_seconds(),
                nanoseconds: inode.get_mtime_nanoseconds(),
            },
            size: inode.get_size(),
            nlink,
        });
        let mode = inode.get_mode().which();
        let chunks = match &mode {
            Ok(mode::File(Ok(chunks))) => view.bounded(*chunks).ok(),
            _ => None,
        };
        let declared_size = extension.map(|e| e.size);
        Ok(Self {
            metadata,
            at,
            ino,
            kind: kind(mode).map_err(|e| e.of(ino))?,
            uid: inode.get_uid(),
            gid: inode.get_gid(),
            permissions,
            extension,
            chunks: chunks.map(|chunks| ExtentList::new(at, ino, declared_size, chunks)),
            has_additional: inode.has_additional(),
        })
    }

    /// Returns the place of the inode in the metadata.
    pub fn locator(&self) -> Locator {
        self.at
    }

    /// Returns the inode's number, which is not 0.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Returns the inode's type, and the number of a device.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the inode's type.
    pub fn file_type(&self) -> FileType {
        self.kind.file_type()
    }

    /// Returns the owner.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns the group.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Returns the lower twelve bits of the mode. No others are set.
    pub fn permissions(&self) -> u16 {
        self.permissions
    }

    /// Returns the time of the last modification, or the epoch if the image has none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timestamp`].
    pub fn mtime(&self) -> Result<Timestamp> {
        let mtime = self.extension.map(|e| e.mtime).unwrap_or_default();
        if mtime.nanoseconds >= 1_000_000_000 {
            return Err(self.error(ErrorKind::Timestamp));
        }
        Ok(mtime)
    }

    /// Returns the number of links, which is not 0; `None` if the image has none.
    pub fn nlink(&self) -> Option<u32> {
        self.extension.map(|e| e.nlink)
    }

    /// Returns the declared size of a regular file in bytes; `None` if the image has none, or if
    /// the inode is of another type.
    ///
    /// [`Extents::index`] refuses a file whose chunks have another size in total.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::FileTooLarge`].
    pub fn declared_size(&self) -> Result<Option<u64>> {
        match (self.kind, self.extension) {
            (Kind::File, Some(Extension { size, .. })) if size > MAX_FILE_SIZE => {
                Err(self.error(ErrorKind::FileTooLarge))
            }
            (Kind::File, extension) => Ok(extension.map(|e| e.size)),
            _ => Ok(None),
        }
    }

    /// Returns the chunks of a regular file.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotAFile`], and those of [`declared_size`](Self::declared_size) and of the
    /// encoding.
    pub fn extents(&self) -> Result<Extents<'a>> {
        let declared_size = self.declared_size()?;
        match self.chunks {
            Some(chunks) => Ok(Extents::of(self.metadata, chunks)),
            None => Extents::read(self.metadata, self.at, self.ino, declared_size)
                .map_err(|e| e.of(self.ino)),
        }
    }

    /// Returns this layer's part of a directory.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotADirectory`], and those of the encoding.
    pub fn dir(&self) -> Result<DirLayer<'a>> {
        self.metadata.dir_at(self.at).map_err(|e| e.of(self.ino))
    }

    /// Returns the target of a symbolic link: 1 to [`MAX_SYMLINK_LEN`] bytes, none of them NUL.
    ///
    /// Cost: the length of the target.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotASymlink`], [`ErrorKind::SymlinkTarget`], and those of the encoding.
    pub fn symlink_target(&self) -> Result<&'a [u8]> {
        if self.kind != Kind::Symlink {
            return Err(self.error(ErrorKind::NotASymlink));
        }
        self.metadata
            .read(|view| {
                let additional = view.inode(self.at)?.get_additional()?;
                let target = additional.get_symlink_target()?;
                if target.is_empty() || target.len() > MAX_SYMLINK_LEN || target.contains(&0) {
                    return Err(ErrorKind::SymlinkTarget.into());
                }
                self.metadata.keep(target)
            })
            .map_err(|e| e.of(self.ino))
    }

    /// Returns the extended attributes.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// Those of the encoding.
    pub fn xattrs(&self) -> Result<Xattrs<'a>> {
        Xattrs::read(self.metadata, self.at, self.ino).map_err(|e| e.of(self.ino))
    }

    /// Returns true if there are extended attributes.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// Those of the encoding.
    pub fn has_xattrs(&self) -> Result<bool> {
        Ok(self.has_additional && !self.xattrs()?.is_empty())
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind).of(self.ino)
    }
}

/// Returns the kind of an inode, and checks a device number.
fn kind(mode: core::result::Result<mode::WhichReader<'_>, capnp::NotInSchema>) -> Result<Kind> {
    Ok(match mode {
        Ok(mode::Unknown(())) => Kind::Unknown,
        Ok(mode::Fifo(())) => Kind::Fifo,
        Ok(mode::Chr(device)) => {
            let device = device?;
            let (major, minor) = device_number(device.get_major(), device.get_minor())?;
            Kind::Chr { major, minor }
        }
        Ok(mode::Dir(_)) => Kind::Dir,
        Ok(mode::Blk(device)) => {
            let device = device?;
            let (major, minor) = device_number(device.get_major(), device.get_minor())?;
            Kind::Blk { major, minor }
        }
        Ok(mode::File(_)) => Kind::File,
        Ok(mode::Lnk(())) => Kind::Symlink,
        Ok(mode::Sock(())) => Kind::Sock,
        Ok(mode::Wht(())) => Kind::Whiteout,
        Err(capnp::NotInSchema(_)) => return Err(ErrorKind::UnknownKind.into()),
    })
}

/// Checks a device number.
fn device_number(major: u64, minor: u64) -> Result<(u32, u32)> {
    if major > MAX_MAJOR || minor > MAX_MINOR {
        return Err(ErrorKind::DeviceNumber.into());
    }
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok((major, minor)),
        _ => Err(ErrorKind::DeviceNumber.into()),
    }
}
