// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of one of two versions.

use super::{
    metadata::{Entry, ImageMetadata, Link},
    stat::Stat,
};
use core::ops::ControlFlow;

/// An image of version 3 or 4, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Versions<A, B> {
    /// Version 3.
    V3(A),
    /// Version 4.
    V4(B),
}

/// Calls an operation of the image with an inode of its version.
macro_rules! with_inode {
    ($image:expr, $inode:expr, |$this:ident, $of:ident| $operation:expr) => {
        match ($image, $inode) {
            (Versions::V3($this), Versions::V3($of)) => $operation,
            (Versions::V4($this), Versions::V4($of)) => $operation,
            (image, _) => Err(image.other_image()),
        }
    };
}

impl<P> Link<P> {
    /// The same link with another type of place.
    fn with_place<Q>(self, place: impl FnOnce(P) -> Q) -> Link<Q> {
        Link {
            ino: self.ino,
            file_type: self.file_type,
            place: place(self.place),
        }
    }
}

impl<A, B> ImageMetadata for Versions<A, B>
where
    A: ImageMetadata,
    B: ImageMetadata<Error = A::Error>,
{
    type Error = A::Error;
    type Place = Versions<A::Place, B::Place>;
    type Inode = Versions<A::Inode, B::Inode>;

    fn inode_count(&self) -> Result<u64, A::Error> {
        match self {
            Self::V3(image) => image.inode_count(),
            Self::V4(image) => image.inode_count(),
        }
    }

    fn data_size(&self) -> Result<u64, A::Error> {
        match self {
            Self::V3(image) => image.data_size(),
            Self::V4(image) => image.data_size(),
        }
    }

    fn root(&self) -> Result<Self::Inode, A::Error> {
        match self {
            Self::V3(image) => image.root().map(Versions::V3),
            Self::V4(image) => image.root().map(Versions::V4),
        }
    }

    fn find(&self, ino: u64) -> Result<Option<Link<Self::Place>>, A::Error> {
        Ok(match self {
            Self::V3(image) => image.find(ino)?.map(|link| link.with_place(Versions::V3)),
            Self::V4(image) => image.find(ino)?.map(|link| link.with_place(Versions::V4)),
        })
    }

    fn open(&self, link: &Link<Self::Place>) -> Result<Self::Inode, A::Error> {
        match (self, link.place) {
            (Self::V3(image), Versions::V3(place)) => {
                image.open(&link.with_place(|_| place)).map(Versions::V3)
            }
            (Self::V4(image), Versions::V4(place)) => {
                image.open(&link.with_place(|_| place)).map(Versions::V4)
            }
            _ => Err(self.other_image()),
        }
    }

    fn ino(&self, inode: &Self::Inode) -> u64 {
        match (self, inode) {
            (Self::V3(image), Versions::V3(inode)) => image.ino(inode),
            (Self::V4(image), Versions::V4(inode)) => image.ino(inode),
            // No inode has this number.
            _ => 0,
        }
    }

    fn stat(&self, inode: &Self::Inode) -> Result<Stat, A::Error> {
        with_inode!(self, inode, |image, inode| image.stat(inode))
    }

    fn lookup(
        &self,
        directory: &Self::Inode,
        name: &[u8],
    ) -> Result<Option<Link<Self::Place>>, A::Error> {
        match (self, directory) {
            (Self::V3(image), Versions::V3(directory)) => {
                let found = image.lookup(directory, name)?;
                Ok(found.map(|link| link.with_place(Versions::V3)))
            }
            (Self::V4(image), Versions::V4(directory)) => {
                let found = image.lookup(directory, name)?;
                Ok(found.map(|link| link.with_place(Versions::V4)))
            }
            _ => Err(self.other_image()),
        }
    }

    fn for_each_entry<C>(
        &self,
        directory: &Self::Inode,
        cursor: u64,
        mut give: impl FnMut(Entry<'_, Self::Place>) -> ControlFlow<C>,
    ) -> Result<ControlFlow<C>, A::Error> {
        match (self, directory) {
            (Self::V3(image), Versions::V3(directory)) => {
                image.for_each_entry(directory, cursor, |entry| {
                    give(Entry {
                        name: entry.name,
                        link: entry.link.with_place(Versions::V3),
                        cursor: entry.cursor,
                    })
                })
            }
            (Self::V4(image), Versions::V4(directory)) => {
                image.for_each_entry(directory, cursor, |entry| {
                    give(Entry {
                        name: entry.name,
                        link: entry.link.with_place(Versions::V4),
                        cursor: entry.cursor,
                    })
                })
            }
            _ => Err(self.other_image()),
        }
    }

    fn parent(&self, directory: &Self::Inode) -> Result<Option<Link<Self::Place>>, A::Error> {
        match (self, directory) {
            (Self::V3(image), Versions::V3(directory)) => {
                let found = image.parent(directory)?;
                Ok(found.map(|link| link.with_place(Versions::V3)))
            }
            (Self::V4(image), Versions::V4(directory)) => {
                let found = image.parent(directory)?;
                Ok(found.map(|link| link.with_place(Versions::V4)))
            }
            _ => Err(self.other_image()),
        }
    }

    fn symlink_target<'a>(&'a self, inode: &'a Self::Inode) -> Result<&'a [u8], A::Error> {
        with_inode!(self, inode, |image, inode| image.symlink_target(inode))
    }

    fn has_xattrs(&self, inode: &Self::Inode) -> Result<bool, A::Error> {
        with_inode!(self, inode, |image, inode| image.has_xattrs(inode))
    }

    fn for_each_xattr_name<C>(
        &self,
        inode: &Self::Inode,
        give: impl FnMut(&[u8]) -> ControlFlow<C>,
    ) -> Result<ControlFlow<C>, A::Error> {
        with_inode!(self, inode, |image, inode| image
            .for_each_xattr_name(inode, give))
    }

    fn for_each_xattr<C>(
        &self,
        inode: &Self::Inode,
        give: impl FnMut(&[u8], &[u8]) -> ControlFlow<C>,
    ) -> Result<ControlFlow<C>, A::Error> {
        with_inode!(self, inode, |image, inode| image
            .for_each_xattr(inode, give))
    }

    fn xattr<T>(
        &self,
        inode: &Self::Inode,
        name: [&[u8]; 2],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, A::Error> {
        with_inode!(self, inode, |image, inode| image.xattr(inode, name, read))
    }

    fn other_image(&self) -> A::Error {
        match self {
            Self::V3(image) => image.other_image(),
            Self::V4(image) => image.other_image(),
        }
    }
}
