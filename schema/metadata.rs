// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata of an image as a whole.

use crate::{
    dir::{self, EntryOf},
    framing::{Framing, Segments},
    metadata_capnp::{inode, inode_vector, rootfs, verity_data},
    names::Names,
    search::partition_point,
    steps::step,
    Digest, Dir, DirLayer, ErrorKind, ExtentList, Extents, FileType, Inode, Part, Result,
    MANIFEST_VERSION, MAX_FILE_SIZE, MAX_LAYERS, ROOT_INO,
};
use capnp::{
    message::{Reader, ReaderOptions},
    struct_list,
    traits::OwnedStruct,
};
use core::ops::{ControlFlow, Deref};

/// How a message is read.
const OPTIONS: ReaderOptions = ReaderOptions {
    // Cap'n Proto can count the words that it visits. What would be too much here depends on the
    // operation, not on how long the image has been mounted: the bounds of each operation stand in
    // its documentation.
    traversal_limit_in_words: None,
    // The schema's deepest path is Rootfs, metadatas, InodeVector, inodes, Inode, file, FileChunk,
    // BlobRef. No type of the schema contains itself.
    nesting_limit: 12,
};

/// Where an inode is in the metadata.
///
/// It stays valid for as long as the blob is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Locator {
    /// The layer, counted from the topmost.
    pub layer: u32,
    /// The inode's place in the layer.
    pub index: u32,
}

/// The metadata of an image: a message and its framing.
///
/// To make one costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    framing: &'a Framing,
    bytes: &'a [u8],
    go_on: fn() -> bool,
}

impl<'a> Metadata<'a> {
    /// Makes metadata of a message and the framing that was made of these bytes.
    ///
    /// Of other bytes, of the same length, it makes something malformed, or other metadata; of
    /// bytes of another length or alignment it makes something that gives nothing but errors.
    pub fn new(framing: &'a Framing, bytes: &'a [u8]) -> Self {
        Self {
            framing,
            bytes,
            go_on: || true,
        }
    }

    /// Has a function be asked now and then, in whatever goes through a list of the image, whether
    /// to go on. Where it says no, [`ErrorKind::Interrupted`] is the result.
    ///
    /// A list can be as long as the message: to sort a directory of tens of millions of entries
    /// takes minutes.
    #[must_use]
    pub fn interruptible(self, go_on: fn() -> bool) -> Self {
        Self { go_on, ..self }
    }

    /// Whoever goes through a list takes a step of this for each element.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            go_on: self.go_on,
            left: Pace::STEPS,
        }
    }

    /// Checks what concerns the image as a whole, and that it has a root directory.
    ///
    /// To be called once, before anything else is read.
    ///
    /// Cost: that of [`find`](Self::find). What else is wrong will show when it is read.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Version`], [`ErrorKind::NoLayers`], [`ErrorKind::TooManyLayers`],
    /// [`ErrorKind::DataSize`], [`ErrorKind::NoRoot`], [`ErrorKind::RootNotADirectory`]; and
    /// whatever is wrong with the encoding of what is read for this, or with the root's inode.
    pub fn check(&self) -> Result<()> {
        if self.bytes.len() != self.framing.byte_len() {
            return Err(ErrorKind::OtherBytes.into());
        }
        // What another version has elsewhere in the message is not known.
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
        if self.inode_at(root)?.file_type() != crate::FileType::Dir {
            return Err(ErrorKind::RootNotADirectory.into());
        }
        Ok(())
    }

    /// The number of layers.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TooManyLayers`], and those of the encoding.
    pub fn layers(&self) -> Result<u32> {
        self.read(|view| view.layers())
    }

    /// The number of inodes in a layer, whiteouts included.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoSuchPlace`] if there is no such layer, and those of the encoding.
    pub fn layer_len(&self, layer: u32) -> Result<u32> {
        self.read(|view| Ok(view.inodes(layer)?.len()))
    }

    /// The number of inodes in all layers together: exact if there is one layer, otherwise not less
    /// than those that can be reached.
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

    /// The total size of all regular files, in bytes, as it is declared; 0 if it is not.
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
    /// Should a layer have a number several times, the last one counts: when one of several links
    /// is removed, the reference builder writes a whiteout for the inode and then, after it, the
    /// inode itself, for the links that remain.
    ///
    /// Cost: per layer, two looks where the numbers have no gaps, otherwise a binary search.
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

    /// One layer's part of the directory at a place.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotADirectory`], [`ErrorKind::NoSuchPlace`], and those of the encoding.
    pub fn dir_at(&self, at: Locator) -> Result<DirLayer<'a>> {
        self.read(|view| DirLayer::read(*self, view, at, view.inode(at)?))
    }

    /// The chunks of a file, of which this list was kept.
    ///
    /// Cost: none.
    pub fn extents(&self, list: ExtentList) -> Extents<'a> {
        Extents::of(*self, list)
    }

    /// Gives to a function, until it breaks off, each entry for an inode that any layer's part of any
    /// directory has, the topmost layer's first: those too that are hidden by upper layers.
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

    /// A directory, merged from the parts that its layers have.
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

    /// The fs-verity digest of a blob; `None` if the image has none for it.
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

    /// The number of blobs that the image has fs-verity digests for.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// Those of the encoding.
    pub fn verity_len(&self) -> Result<u32> {
        self.read(|view| Ok(view.verity()?.len()))
    }

    /// A blob that the image has an fs-verity digest for, and that digest, by its place.
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

    /// Checks the order of all inodes and of the fs-verity digests, which a mount does not, since
    /// what is not in order is just not found.
    ///
    /// Cost: the number of inodes in all layers and that of fs-verity digests.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InodeOrder`] with the first inode that has no larger number than the one before
    /// it, [`ErrorKind::VerityOrder`], [`ErrorKind::DigestLength`], and those of the encoding.
    pub fn check_order(&self) -> Result<()> {
        self.read(|view| {
            let mut pace = self.pace();
            for layer in 0..view.layers()? {
                let mut last = None;
                for inode in view.inodes(layer)?.iter() {
                    pace.step()?;
                    let ino = inode.get_ino();
                    if last >= Some(ino) {
                        return Err(crate::Error::new(ErrorKind::InodeOrder).of(ino));
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

    /// Opens the message for one operation.
    pub(crate) fn read<T>(&self, operation: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        let words = self.words();
        self.root(|root, names| {
            let layers = bounded(root.get_metadatas()?, words)?;
            let top = match layers.try_get(0) {
                Some(top) => Some(bounded(top.get_inodes()?, words)?),
                None => None,
            };
            operation(&View {
                root,
                names,
                layers,
                top,
                words,
            })
        })
    }

    /// The length of the message, in words.
    pub(crate) fn words(&self) -> usize {
        self.framing.words()
    }

    /// Opens the message for something that is in its root.
    fn root<T>(
        &self,
        operation: impl for<'r> FnOnce(rootfs::Reader<'r>, Names<'r>) -> Result<T>,
    ) -> Result<T> {
        let segments = Segments::new(self.framing, self.bytes);
        let names = Names::new(segments.first());
        let message = Reader::new(segments, OPTIONS);
        operation(message.get_root()?, names)
    }

    /// Data that was read in an operation, for as long as the bytes live.
    ///
    /// What Cap'n Proto gives is borrowed from its reader, which ends with the operation. It lies in
    /// our bytes nevertheless, and so can be had from them.
    pub(crate) fn keep(&self, data: &[u8]) -> Result<&'a [u8]> {
        if data.is_empty() {
            return Ok(&[]);
        }
        data.as_ptr()
            .addr()
            .checked_sub(self.bytes.as_ptr().addr())
            .and_then(|start| self.bytes.get(start..start.checked_add(data.len())?))
            .ok_or(ErrorKind::OutOfBounds.into())
    }
}

/// Asks now and then whether to go on.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    go_on: fn() -> bool,
    left: u32,
}

impl Pace {
    /// How many steps there are from one question to the next: some tens of microseconds.
    const STEPS: u32 = 1024;

    /// Goes a step on.
    pub(crate) fn step(&mut self) -> Result<()> {
        step();
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.left = Self::STEPS;
            if !(self.go_on)() {
                return Err(ErrorKind::Interrupted.into());
            }
        }
        Ok(())
    }
}

/// What a search for an inode comes to.
#[derive(Clone, Copy)]
pub(crate) enum Found {
    /// The inode is there, of that type.
    At(Locator, FileType),
    /// A whiteout is there.
    Whiteout,
    /// No layer has the number.
    Nothing,
}

/// A message that is open for one operation.
pub(crate) struct View<'r> {
    root: rootfs::Reader<'r>,
    names: Names<'r>,
    /// The layers, a list that is within its bounds.
    layers: struct_list::Reader<'r, inode_vector::Owned>,
    /// The inodes of the topmost layer, mostly the only one.
    top: Option<struct_list::Reader<'r, inode::Owned>>,
    /// The length of the message.
    words: usize,
}

impl<'r> View<'r> {
    /// A list of the message, if it is not longer than the message.
    pub(crate) fn bounded<T: OwnedStruct>(
        &self,
        list: struct_list::Reader<'r, T>,
    ) -> Result<struct_list::Reader<'r, T>> {
        bounded(list, self.words)
    }

    /// The length of the message, in words.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// What reads the names of its directories.
    pub(crate) fn names(&self) -> Names<'r> {
        self.names
    }

    /// The number of layers.
    pub(crate) fn layers(&self) -> Result<u32> {
        match self.layers.len() {
            layers @ ..=MAX_LAYERS => Ok(layers),
            _ => Err(ErrorKind::TooManyLayers.into()),
        }
    }

    /// The inodes of a layer.
    pub(crate) fn inodes(&self, layer: u32) -> Result<struct_list::Reader<'r, inode::Owned>> {
        match self.top.filter(|_| layer == 0) {
            Some(top) => Ok(top),
            None => self.bounded(element(self.layers, layer)?.get_inodes()?),
        }
    }

    /// The inode at a place.
    pub(crate) fn inode(&self, at: Locator) -> Result<inode::Reader<'r>> {
        element(self.inodes(at.layer)?, at.index)
    }

    fn verity(&self) -> Result<struct_list::Reader<'r, verity_data::Owned>> {
        self.bounded(self.root.get_fs_verity_data()?)
    }

    /// Finds the inode of a number, in the topmost layer that has it.
    pub(crate) fn find(&self, ino: u64) -> Result<Found> {
        Ok(match self.find_from(0, ino)? {
            None => Found::Nothing,
            Some((at, inode)) => match FileType::of(inode) {
                FileType::Whiteout => Found::Whiteout,
                file_type => Found::At(at, file_type),
            },
        })
    }

    /// Finds the inode, or the whiteout, of a number, in the topmost layer that has it, of those
    /// from `layer` on.
    pub(crate) fn find_from(
        &self,
        layer: u32,
        ino: u64,
    ) -> Result<Option<(Locator, inode::Reader<'r>)>> {
        // Nothing that exists has this number: directories that name it are malformed.
        if ino == 0 {
            return Ok(None);
        }
        for layer in layer..self.layers()? {
            let inodes = self.inodes(layer)?;
            if let Some((index, inode)) = position(inodes, ino)? {
                return Ok(Some((Locator { layer, index }, inode)));
            }
        }
        Ok(None)
    }
}

/// A list of a message of so many words, if it is not longer.
///
/// An element of a list of structs has at least a word, except where it is nothing but zeros: such a
/// list says no more than its length, which can be billions, and no builder writes one.
fn bounded<T: OwnedStruct>(
    list: struct_list::Reader<'_, T>,
    words: usize,
) -> Result<struct_list::Reader<'_, T>> {
    if list.len() as usize > words {
        return Err(ErrorKind::ListTooLong.into());
    }
    Ok(list)
}

/// An element of a list.
pub(crate) fn element<T: OwnedStruct>(
    list: struct_list::Reader<'_, T>,
    index: u32,
) -> Result<T::Reader<'_>> {
    step();
    list.try_get(index).ok_or(ErrorKind::NoSuchPlace.into())
}

/// The last inode of a number in a layer, and its place.
fn position(
    inodes: struct_list::Reader<'_, inode::Owned>,
    ino: u64,
) -> Result<Option<(u32, inode::Reader<'_>)>> {
    let at = |index| {
        let inode = inodes.try_get(index)?;
        (inode.get_ino() == ino).then_some((index, inode))
    };

    // A builder numbers inodes one by one: mostly the number says where the inode is.
    if let Some(guess) = inodes
        .try_get(0)
        .and_then(|first| ino.checked_sub(first.get_ino()))
        .and_then(|distance| u32::try_from(distance).ok())
    {
        let found = at(guess);
        if found.is_some() && guess.checked_add(1).and_then(at).is_none() {
            return Ok(found);
        }
    }
    let after = partition_point(inodes.len(), |index| {
        Ok(element(inodes, index)?.get_ino() <= ino)
    })?;
    Ok(after.checked_sub(1).and_then(at))
}
