// SPDX-License-Identifier: MIT OR Apache-2.0

//! The chunks of images of format 4.

use crate::error::{Error, ImageError, Result};
use crate::model::digest::Digest;
use crate::store::chunks::reader::ChunkReader;
use puzzlefs_schema::v4::{ChunkRef, Layout, MetadataError};
use std::collections::HashSet;

/// The kind of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// It has a part of the metadata, which a walk reads.
    Metadata,
    /// It has data, or the value of an extended attribute.
    Data,
}

/// The chunks that a metadata chunk refers to, in the order of the references.
#[derive(Debug, Default)]
pub(crate) struct References {
    pub metadata: Vec<ChunkRef>,
    /// The others.
    pub data: Vec<ChunkRef>,
}

impl References {
    /// Adds those of the content of a metadata chunk, whose layout is restored. After a fault, those before
    /// it were added.
    pub fn add(&mut self, content: &mut [u8]) -> Result<(), MetadataError> {
        match Layout::restore(content)? {
            Layout::Root(root) => {
                let children = root.children(content)?;
                for number in 0..children.len() {
                    let child = children.get(number)?;
                    self.metadata.extend(child.map(|child| child.chunk));
                }
            }
            Layout::BlockList(list) => {
                let children = list.children(content)?;
                for number in 0..children.len() {
                    let child = children.get(number)?;
                    self.metadata.extend(child.map(|child| child.chunk));
                }
            }
            Layout::Block(block) => {
                self.metadata.extend(block.list_blocks(content));
                self.data.extend(block.chunk_refs(content));
            }
            Layout::List(list) => {
                self.metadata.extend(list.list_blocks(content));
                self.data.extend(list.chunk_refs(content));
            }
        }
        let metadata: HashSet<ChunkRef> = self.metadata.iter().copied().collect();
        self.data.retain(|chunk| !metadata.contains(chunk));
        Ok(())
    }
}

/// A walk through the chunks of several images. Metadata that they share is read once.
pub(crate) struct ChunkWalk<'r, 's> {
    reader: &'r ChunkReader<'s>,
    /// The metadata chunks that were read.
    seen: HashSet<Digest>,
}

impl<'r, 's> ChunkWalk<'r, 's> {
    /// Starts a walk.
    pub fn new(reader: &'r ChunkReader<'s>) -> Self {
        ChunkWalk {
            reader,
            seen: HashSet::new(),
        }
    }

    /// Calls a function with each chunk of an image, the root first. Chunks below metadata of an earlier
    /// image are left out. Other chunks can come several times.
    ///
    /// Memory and depth are bounded by the size of the metadata: a chunk cannot contain its own digest.
    pub fn image(&mut self, root: &Digest, give: impl FnMut(&ChunkRef, ChunkKind)) -> Result<()> {
        let mut first = Ok(());
        self.image_with_faults(root, give, |error| {
            if first.is_ok() {
                first = Err(error);
            }
        });
        first
    }

    /// Does the same, and calls `fail` with the error of each metadata chunk that cannot be read.
    pub fn image_with_faults(
        &mut self,
        root: &Digest,
        mut give: impl FnMut(&ChunkRef, ChunkKind),
        mut fail: impl FnMut(Error),
    ) {
        if self.seen.contains(root) {
            return;
        }
        let mut pending = Vec::new();
        let read = self.reader.root(root).and_then(|(root, mut content)| {
            give(&root, ChunkKind::Metadata);
            self.expand(&root, &mut content, &mut pending, &mut give)
        });
        read.unwrap_or_else(&mut fail);
        let mut content = Vec::new();
        while let Some(chunk) = pending.pop() {
            give(&chunk, ChunkKind::Metadata);
            if self.seen.contains(&Digest::from(*chunk.digest())) {
                continue;
            }
            let read = self.reader.read(&chunk, &mut content);
            read.and_then(|()| self.expand(&chunk, &mut content, &mut pending, &mut give))
                .unwrap_or_else(&mut fail);
        }
    }

    /// Gives the data chunks that a metadata chunk refers to, and adds its metadata chunks to `pending`.
    fn expand(
        &mut self,
        chunk: &ChunkRef,
        content: &mut [u8],
        pending: &mut Vec<ChunkRef>,
        give: &mut impl FnMut(&ChunkRef, ChunkKind),
    ) -> Result<()> {
        let digest = Digest::from(*chunk.digest());
        let malformed = |cause: MetadataError| ImageError::MalformedChunk {
            store: self.reader.store().path().to_path_buf(),
            chunk: digest,
            cause,
        };
        let mut found = References::default();
        let read = found.add(content);
        // The stack gives the first one first.
        pending.extend(found.metadata.into_iter().rev());
        read.map_err(malformed)?;
        for chunk in &found.data {
            give(chunk, ChunkKind::Data);
        }
        // Only now: everything below it was given, or will be.
        self.seen.insert(digest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{names, write_image};
    use crate::store::oci_layout::Store;
    use std::collections::BTreeSet;

    #[test]
    fn every_chunk_is_given() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = write_image(&store, "t", &names("f", 40));
        let reader = ChunkReader::new(&store).unwrap();
        let mut walk = ChunkWalk::new(&reader);
        let (mut metadata, mut data) = (BTreeSet::new(), BTreeSet::new());
        let mut first = None;
        walk.image(&image.root, |chunk, kind| {
            let digest = Digest::from(*chunk.digest());
            first = first.or(Some(digest));
            match kind {
                ChunkKind::Metadata => metadata.insert(digest),
                ChunkKind::Data => data.insert(digest),
            };
        })
        .unwrap();
        assert_eq!(first, Some(image.root));
        assert!(metadata.len() > 3);
        assert_eq!(metadata, image.metadata.iter().copied().collect());
        assert_eq!(data, image.data.iter().copied().collect());
        // Everything of a second walk was given.
        walk.image(&image.root, |_, _| panic!("given again"))
            .unwrap();
    }
}
