// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opens the metadata as a message, and finds inodes in it.
//!
//! All other modules of version 3 read through the [`View`] of one operation.

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

/// The limits of Cap'n Proto's reader.
const OPTIONS: ReaderOptions = ReaderOptions {
    // Cap'n Proto can limit the words that it visits in the lifetime of a reader. Here each
    // operation has its own bound, which its documentation states.
    traversal_limit_in_words: None,
    // The schema's deepest path is Rootfs, metadatas, InodeVector, inodes, Inode, file, FileChunk,
    // BlobRef. No type of the schema contains itself.
    nesting_limit: 12,
};

/// The place of an inode in the metadata.
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
/// Making one has no cost.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    framing: &'a Framing,
    bytes: &'a [u8],
    go_on: fn() -> bool,
}

impl<'a> Metadata<'a> {
    /// Makes metadata of a message and the framing that was made of these bytes.
    ///
    /// Other bytes of the same length are malformed, or other metadata. With bytes of another
    /// length or alignment, every operation returns an error.
    pub fn new(framing: &'a Framing, bytes: &'a [u8]) -> Self {
        Self {
            framing,
            bytes,
            go_on: || true,
        }
    }

    /// Calls a function regularly during operations on lists. If it returns false, the operation
    /// returns [`ErrorKind::Interrupted`].
    ///
    /// A list can be as long as the message. Sorting a directory of tens of millions of entries
    /// takes minutes.
    #[must_use]
    pub fn interruptible(self, go_on: fn() -> bool) -> Self {
        Self { go_on, ..self }
    }

    /// Returns a counter of which each element of a list must take a step.
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

    /// Returns true if the bytes have the length of those that the framing was made of.
    pub(super) fn is_complete(&self) -> bool {
        self.bytes.len() == self.framing.byte_len()
    }

    /// Returns the length of the message, in words.
    pub(crate) fn words(&self) -> usize {
        self.framing.words()
    }

    /// Opens the root of the message.
    pub(super) fn root<T>(
        &self,
        operation: impl for<'r> FnOnce(rootfs::Reader<'r>, Names<'r>) -> Result<T>,
    ) -> Result<T> {
        let segments = Segments::new(self.framing, self.bytes);
        let names = Names::new(segments.first());
        let message = Reader::new(segments, OPTIONS);
        operation(message.get_root()?, names)
    }

    /// Returns data of an operation with the lifetime of the bytes.
    ///
    /// Data from Cap'n Proto is borrowed from its reader, which ends with the operation. The data
    /// lies in the message, so that the same range of the bytes can be returned.
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

/// Calls the function that can interrupt an operation, regularly.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    go_on: fn() -> bool,
    left: u32,
}

impl Pace {
    /// The number of steps between two calls: some tens of microseconds.
    const STEPS: u32 = 1024;

    /// Takes a step.
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

/// The result of a search for an inode.
#[derive(Clone, Copy)]
pub(crate) enum Found {
    /// The inode exists, and has this type.
    At(Locator, FileType),
    /// The number is that of a whiteout.
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
    /// Returns a list of the message, if it is not longer than the message.
    pub(crate) fn bounded<T: OwnedStruct>(
        &self,
        list: struct_list::Reader<'r, T>,
    ) -> Result<struct_list::Reader<'r, T>> {
        bounded(list, self.words)
    }

    /// Returns the length of the message, in words.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// Returns the reader of names in directories.
    pub(crate) fn names(&self) -> Names<'r> {
        self.names
    }

    /// Returns the number of layers.
    pub(crate) fn layers(&self) -> Result<u32> {
        match self.layers.len() {
            layers @ ..=MAX_LAYERS => Ok(layers),
            _ => Err(ErrorKind::TooManyLayers.into()),
        }
    }

    /// Returns the inodes of a layer.
    pub(crate) fn inodes(&self, layer: u32) -> Result<struct_list::Reader<'r, inode::Owned>> {
        match self.top.filter(|_| layer == 0) {
            Some(top) => Ok(top),
            None => self.bounded(element(self.layers, layer)?.get_inodes()?),
        }
    }

    /// Returns the inode at a place.
    pub(crate) fn inode(&self, at: Locator) -> Result<inode::Reader<'r>> {
        element(self.inodes(at.layer)?, at.index)
    }

    /// Returns the fs-verity digests of blobs.
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

/// Returns a list of a message of so many words, if it is not longer.
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

/// Returns an element of a list.
pub(crate) fn element<T: OwnedStruct>(
    list: struct_list::Reader<'_, T>,
    index: u32,
) -> Result<T::Reader<'_>> {
    step();
    list.try_get(index).ok_or(ErrorKind::NoSuchPlace.into())
}

/// Returns the last inode of a number in a layer, and its place.
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
