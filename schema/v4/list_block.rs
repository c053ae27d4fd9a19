// SPDX-License-Identifier: MIT OR Apache-2.0

//! List blocks: parts of long lists.

use super::{
    chunk::ChunkRef,
    chunks::{Chunks, StoredRef},
    directory::{Entries, StoredEntry},
    error::{ListName, MetadataError, MetadataErrorKind as Kind, Result},
    extents::{BoundsError, Extents, StoredExtent},
    inode_type::InodeType,
    limits::LIST_LEVELS,
    message::{List, Message, MessageKind, Pool},
    parts::{part_chunks, Bounds, Part, Parts, StoredPart},
    words::halves,
};

/// The type of the inode that a list belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListType {
    Directory,
    File,
}

/// The layout of a list block: the places of its lists, checked once against all rules that do not
/// depend on the reference to it.
///
/// # Invariants
///
/// - The bytes that it was made of, `len` of them, keep the rules of a list block, except where the
///   first element begins and the last one ends.
/// - Of `entries`, `extents` and `parts`, the one of `list_type` and `level` has elements. The others
///   are empty.
#[derive(Clone, Copy, Debug)]
pub struct ListLayout {
    len: u32,
    list_type: ListType,
    level: u8,
    /// The number of entries or extents, in this list block or below it.
    count: u32,
    entries: List,
    extents: List,
    chunks: List,
    parts: List,
    pool: Pool,
}

impl ListLayout {
    /// Checks a list block, the content of whose chunk is `bytes`.
    ///
    /// Cost: proportional to the length of the bytes, as [`BlockLayout::check`].
    ///
    /// # Errors
    ///
    /// Those of directories, files and long lists; [`MetadataErrorKind::ListType`],
    /// [`MetadataErrorKind::ListLevel`].
    ///
    /// [`BlockLayout::check`]: super::BlockLayout::check
    /// [`MetadataErrorKind::ListType`]: super::MetadataErrorKind::ListType
    /// [`MetadataErrorKind::ListLevel`]: super::MetadataErrorKind::ListLevel
    pub fn check(bytes: &[u8]) -> Result<Self> {
        let message = Message::parse(bytes, MessageKind::ListBlock, 1)?;
        let (_, described) = halves(message.data(0)?);
        let [code, level, ..] = described.to_le_bytes();
        let list_type = match InodeType::from_code(code) {
            Some(InodeType::Directory) => ListType::Directory,
            Some(InodeType::File) => ListType::File,
            _ => return Err(Kind::ListType.into()),
        };
        let mut layout = Self {
            // Messages are small.
            len: bytes.len() as u32,
            list_type,
            level,
            count: 0,
            entries: message.list::<StoredEntry>(0)?,
            extents: message.list::<StoredExtent>(1)?,
            chunks: message.list::<StoredRef>(2)?,
            parts: message.list::<StoredPart>(3)?,
            pool: message.pool(4)?,
        };
        let lists = [layout.entries, layout.extents, layout.chunks, layout.parts];
        message.check_order(&lists, layout.pool)?;
        layout.check_level()?;
        layout.chunks(bytes).check()?;
        // INVARIANT: The rest of the rules.
        layout.count = match layout.elements(bytes, layout.any_bounds()) {
            ListElements::Entries(entries) => {
                entries.check()?;
                entries.len()
            }
            ListElements::Extents(extents) => {
                extents.check()?;
                extents.len()
            }
            ListElements::Parts(parts) => parts.check()?,
        };
        Ok(layout)
    }

    /// Checks that the list of the type and the level has elements, and no other.
    fn check_level(&self) -> Result<()> {
        let lens = [self.entries, self.extents, self.parts].map(|list| list.len() != 0);
        let expected = match (self.level, self.list_type) {
            (LIST_LEVELS.., _) => return Err(Kind::ListLevel.into()),
            (1.., _) => [false, false, true],
            (0, ListType::Directory) => [true, false, false],
            (0, ListType::File) => [false, true, false],
        };
        if lens != expected {
            return Err(Kind::ListLevel.into());
        }
        Ok(())
    }

    /// Bounds of the type of list that exclude nothing.
    fn any_bounds(&self) -> Bounds<'static> {
        match self.list_type {
            ListType::Directory => Bounds::Names {
                first: None,
                before: None,
            },
            ListType::File => Bounds::Offsets {
                start: 0,
                end: u64::MAX,
            },
        }
    }

    /// The chunks that the list block refers to, of every kind. `bytes` are those that the layout was
    /// made of.
    ///
    /// Cost of each step: constant.
    pub fn chunk_refs<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = ChunkRef> + 'a {
        self.chunks(bytes).iter()
    }

    /// The list blocks that the list block refers to, which are among its chunks.
    ///
    /// Cost of each step: constant.
    pub fn list_blocks<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = ChunkRef> + 'a {
        part_chunks(self.parts.of(bytes), self.chunks(bytes))
    }

    fn chunks<'a>(&self, bytes: &'a [u8]) -> Chunks<'a> {
        Chunks::new(self.chunks.of(bytes))
    }

    /// The elements, whose bounds are of the same type of list.
    fn elements<'a>(&self, bytes: &'a [u8], bounds: Bounds<'a>) -> ListElements<'a> {
        let strings = self.pool.of(bytes);
        let chunks = self.chunks(bytes);
        if self.level > 0 {
            let parts = self.parts.of(bytes);
            let parts = Parts::new(parts, chunks, strings, bounds, self.level);
            return ListElements::Parts(parts);
        }
        match bounds {
            Bounds::Names { .. } => {
                ListElements::Entries(Entries::new(self.entries.of(bytes), strings))
            }
            Bounds::Offsets { end, .. } => {
                ListElements::Extents(Extents::new(self.extents.of(bytes), chunks, end))
            }
        }
    }

    /// Reads a list block by the reference to it. `bytes` are those that the layout was made of.
    ///
    /// Cost: constant.
    ///
    /// # Errors
    ///
    /// Those of references between chunks; [`MetadataErrorKind::ExtentContent`] if the last extent
    /// exceeds its chunk; [`MetadataErrorKind::Misuse`] if the bytes have another length.
    ///
    /// [`MetadataErrorKind::ExtentContent`]: super::MetadataErrorKind::ExtentContent
    /// [`MetadataErrorKind::Misuse`]: super::MetadataErrorKind::Misuse
    pub fn read<'a>(&self, bytes: &'a [u8], part: &Part<'a>) -> Result<ListElements<'a>> {
        if bytes.len() != self.len as usize {
            return Err(Kind::Misuse.into());
        }
        let expected = match part.bounds {
            Bounds::Names { .. } => ListType::Directory,
            Bounds::Offsets { .. } => ListType::File,
        };
        if self.list_type != expected {
            return Err(Kind::ListTypeMismatch.into());
        }
        if self.level >= part.level {
            return Err(Kind::ListLevelMismatch.into());
        }
        if self.count != part.count {
            return Err(Kind::ListCountMismatch.into());
        }
        let elements = self.elements(bytes, part.bounds);
        match &elements {
            ListElements::Entries(entries) => check_entries(entries, part.bounds)?,
            ListElements::Extents(extents) => check_extents(extents, part.bounds)?,
            ListElements::Parts(parts) => parts.check_bounds()?,
        }
        Ok(elements)
    }
}

/// The elements of a list block.
#[derive(Clone, Copy, Debug)]
pub enum ListElements<'a> {
    /// Entries of a directory.
    Entries(Entries<'a>),
    /// Extents of a file.
    Extents(Extents<'a>),
    /// Parts of a long list.
    Parts(Parts<'a>),
}

/// Checks the first and the last of some entries.
fn check_entries(entries: &Entries<'_>, bounds: Bounds<'_>) -> Result<()> {
    let Bounds::Names {
        first: name,
        before,
    } = bounds
    else {
        return Err(Kind::Misuse.into());
    };
    let last = entries.len().saturating_sub(1);
    let (Some(first), Some(last)) = (entries.get(0)?, entries.get(last)?) else {
        return Err(Kind::Misuse.into());
    };
    if name.is_some_and(|name| name != first.name) {
        return Err(Kind::ListFirstMismatch.into());
    }
    if before.is_some_and(|before| last.name >= before) {
        return Err(Kind::ListEndMismatch.into());
    }
    Ok(())
}

/// Checks where some extents begin and end.
fn check_extents(extents: &Extents<'_>, bounds: Bounds<'_>) -> Result<()> {
    let Bounds::Offsets { start, .. } = bounds else {
        return Err(Kind::Misuse.into());
    };
    extents.check_bounds(start).map_err(|e| match e {
        BoundsError::Start => Kind::ListFirstMismatch.into(),
        BoundsError::End(index) => {
            MetadataError::from(Kind::ListEndMismatch).at(ListName::Extents, extents.place(index))
        }
        BoundsError::Content(e) => e,
    })
}
