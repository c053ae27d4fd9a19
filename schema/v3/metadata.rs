// SPDX-License-Identifier: MIT OR Apache-2.0

//! Operations on the metadata of an image as a whole.

use super::{
    dir::{self, Dir, DirLayer, EntryOf, Part},
    extents::{ExtentList, Extents},
    file_type::FileType,
    inode::Inode,
    message::{element, Found, Locator, Metadata},
};
use crate::{
    digest::Digest,
    error::{Error, ErrorKind, Result},
    limits::{MANIFEST_VERSION, MAX_FILE_SIZE, ROOT_INO},
    search::partition_point,
};
use core::ops::{ControlFlow, Deref};

impl<'a> Metadata<'a> {
    /// Checks the properties of the image as a whole, and that it has a root directory.
    ///
    /// Call it once, before any other operation.
    ///
    /// Cost: that of [`find`](Self::find). Other errors are reported when the data is read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Version`], [`ErrorKind::NoLayers`], [`ErrorKind::TooManyLayers`],
    /// [`ErrorKind::DataSize`], [`ErrorKind::NoRoot`], [`ErrorKind::RootNotADirectory`]; and those
    /// of the encoding and of the root's inode.
    pub fn check(&self) -> Result<()> {
        if !self.is_complete() {
            return Err(ErrorKind::OtherBytes.into());
        }
        // Another version may have other data elsewhere in the message.
        self.root(|root, _| match root.get_manifest_version() {
            MANIFEST_VERSION => Ok(()),
            version => Err(ErrorKind::Version(version).into()),
        })?;
        self.read(|view| {
            let layers = view.layers()?;
            if layers == 0 {
                return Err(ErrorKind::NoLayers.into());
            }
            for layer in 0..layers {
                view.inodes(layer)?;
            }
            view.verity()?;
            Ok(())
        })?;
        self.data_size()?;

        let root = self.find(ROOT_INO).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::Whiteout => ErrorKind::NoRoot.into(),
            _ => e,
        })?;
        if self.inode_at(root)?.file_type() != FileType::Dir {
            return Err(ErrorKind::RootNotADirectory.into());
        }
        Ok(())
    }

    /// Returns the number of layers.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooManyLayers`], and those of the encoding.
    pub fn layers(&self) -> Result<u32> {
        self.read(|view| view.layers())
    }

    /// Returns the number of inodes in a layer, whiteouts included.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchPlace`] if there is no such layer, and those of the encoding.
    pub fn layer_len(&self, layer: u32) -> Result<u32> {
        self.read(|view| Ok(view.inodes(layer)?.len()))
    }

    /// Returns the number of inodes in all layers. With one layer it is exact, otherwise an upper
    /// bound of those that can be reached.
    ///
    /// Cost: the number of layers.
    ///
    /// # Errors
    ///
    /// Those of [`layers`](Self::layers) and of the encoding.
    pub fn inode_count(&self) -> Result<u64> {
        self.read(|view| {
            (0..view.layers()?).try_fold(0u64, |sum, layer| {
                Ok(sum.saturating_add(view.inodes(layer)?.len().into()))
            })
        })
    }

    /// Returns the declared total size of all regular files in bytes, or 0 if there is none.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DataSize`] if it is larger than [`MAX_FILE_SIZE`](crate::MAX_FILE_SIZE).
    pub fn data_size(&self) -> Result<u64> {
        self.root(|root, _| match root.get_data_size() {
            size @ ..=MAX_FILE_SIZE => Ok(size),
            _ => Err(ErrorKind::DataSize.into()),
        })
    }

    /// Finds the inode of a number, in the topmost layer that has it.
    ///
    /// If a layer has a number several times, the last one counts. When one of several links is
    /// removed, the reference implementation writes a whiteout for the inode, and behind it the
    /// inode itself for the remaining links.
    ///
    /// Cost: per layer, two reads if the numbers have no gaps, otherwise a binary search.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], [`ErrorKind::Whiteout`], and those of the encoding.
    pub fn find(&self, ino: u64) -> Result<Locator> {
        self.read(|view| match view.find(ino)? {
            Found::At(at, _) => Ok(at),
            Found::Whiteout => Err(ErrorKind::Whiteout.into()),
            Found::Nothing => Err(ErrorKind::NotFound.into()),
        })
        .map_err(|e| e.of(ino))
    }

    /// Reads the inode at a place.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchPlace`], [`ErrorKind::InodeNumber`], [`ErrorKind::UnknownKind`],
    /// [`ErrorKind::DeviceNumber`], [`ErrorKind::Permissions`], and those of the encoding.
    pub fn inode_at(&self, at: Locator) -> Result<Inode<'a>> {
        self.read(|view| Inode::read(*self, view, at))
    }

    /// Returns one layer's part of the directory at a place.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotADirectory`], [`ErrorKind::NoSuchPlace`], and those of the encoding.
    pub fn dir_at(&self, at: Locator) -> Result<DirLayer<'a>> {
        self.read(|view| DirLayer::read(*self, view, at, view.inode(at)?))
    }

    /// Returns the chunks of a file from a kept list.
    ///
    /// Cost: none.
    pub fn extents(&self, list: ExtentList) -> Extents<'a> {
        Extents::of(*self, list)
    }

    /// Passes each entry of an inode to a function, until it returns `Break`: those of any layer's
    /// part of any directory, also hidden ones, the topmost layer's first.
    ///
    /// Cost: the number of inodes in all layers, and the length of the message.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ListTooLong`] if the directories have more entries together than the message
    /// could hold, [`ErrorKind::Name`], and those of the encoding.
    pub fn for_each_entry_of<B>(
        &self,
        ino: u64,
        give: impl FnMut(EntryOf<'a>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        dir::for_each_entry_of(self, ino, give)
    }

    /// Returns a directory, merged from the parts of its layers.
    ///
    /// Cost: the number of parts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ListTooLong`] if the parts have more entries together than the message could
    /// hold.
    pub fn dir<'p, I: Deref<Target = [u32]>>(
        &self,
        parts: &'p [Part<I>],
    ) -> Result<Dir<'a, 'p, I>> {
        Dir::new(*self, parts)
    }

    /// Returns the fs-verity digest of a blob; `None` if the image has none for it.
    ///
    /// Cost: a binary search.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DigestLength`], and those of the encoding.
    pub fn verity(&self, blob: &Digest) -> Result<Option<Digest>> {
        self.read(|view| {
            let list = view.verity()?;
            let at = partition_point(list.len(), |index| {
                Ok(Digest::from_slice(element(list, index)?.get_digest()?)? < *blob)
            })?;
            let Some(found) = list.try_get(at) else {
                return Ok(None);
            };
            if found.get_digest()? != blob.as_bytes() {
                return Ok(None);
            }
            Digest::from_slice(found.get_verity()?).map(Some)
        })
    }

    /// Returns the number of blobs with fs-verity digests.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// Those of the encoding.
    pub fn verity_len(&self) -> Result<u32> {
        self.read(|view| Ok(view.verity()?.len()))
    }

    /// Returns the blob and the fs-verity digest at a place.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchPlace`], [`ErrorKind::DigestLength`], and those of the encoding.
    pub fn verity_at(&self, index: u32) -> Result<(Digest, Digest)> {
        self.read(|view| {
            let data = element(view.verity()?, index)?;
            Ok((
                Digest::from_slice(data.get_digest()?)?,
                Digest::from_slice(data.get_verity()?)?,
            ))
        })
    }

    /// Checks the order of all inodes and of the fs-verity digests. A mount does not: elements out
    /// of order are only not found.
    ///
    /// Cost: the number of inodes in all layers and that of fs-verity digests.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InodeOrder`] with the first inode whose number is not larger than the one
    /// before it, [`ErrorKind::VerityOrder`], [`ErrorKind::DigestLength`], and those of the
    /// encoding.
    pub fn check_order(&self) -> Result<()> {
        self.read(|view| {
            let mut pace = self.pace();
            for layer in 0..view.layers()? {
                let mut last = None;
                for inode in view.inodes(layer)?.iter() {
                    pace.step()?;
                    let ino = inode.get_ino();
                    if last >= Some(ino) {
                        return Err(Error::new(ErrorKind::InodeOrder).of(ino));
                    }
                    last = Some(ino);
                }
            }
            let mut last = None;
            for data in view.verity()?.iter() {
                pace.step()?;
                let digest = Digest::from_slice(data.get_digest()?)?;
                if last >= Some(digest) {
                    return Err(ErrorKind::VerityOrder.into());
                }
                last = Some(digest);
            }
            Ok(())
        })
    }
}
