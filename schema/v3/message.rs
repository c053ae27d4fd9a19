// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metadata as a message: opening it, and finding inodes in it.
//!
//! Everything else of version 3 reads through the [`View`] that is open for one operation.

use super::{
    file_type::FileType,
    framing::{Framing, Segments},
    names::Names,
};
use crate::{
    error::{ErrorKind, Result},
    limits::MAX_LAYERS,
    metadata_capnp::{inode, inode_vector, rootfs, verity_data},
    search::partition_point,
    steps::step,
};
use capnp::{
    message::{Reader, ReaderOptions},
    struct_list,
    traits::OwnedStruct,
};

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

    /// Returns true if the bytes are as many as those that the framing was made of.
    pub(super) fn is_complete(&self) -> bool {
        self.bytes.len() == self.framing.byte_len()
    }

    /// The length of the message, in words.
    pub(crate) fn words(&self) -> usize {
        self.framing.words()
    }

    /// Opens the message for something that is in its root.
    pub(super) fn root<T>(
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

    /// The fs-verity digests of blobs.
    pub(super) fn verity(&self) -> Result<struct_list::Reader<'r, verity_data::Owned>> {
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
