// SPDX-License-Identifier: MIT OR Apache-2.0

//! The start-up orders of images, and the chunks that they lead to.

use crate::error::{Error, ImageError, Result, StoreError};
use crate::image::store_chunks::{MetadataBlock, StoreChunks};
use crate::model::digest::Digest;
use crate::model::oci::Manifest;
use crate::model::start_order::{FileRange, StartOrder, ORDER_MAX};
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::{
    ChunkRef, ChunkSource, ExtentData, InodeType, MetadataError, Node, Tree,
};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

/// The most extents that a search in a part of an image visits.
const EXTENTS_MAX: usize = 1 << 20;

impl StartOrder {
    /// Reads an order from a file.
    pub fn read(path: &Path) -> Result<Self> {
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(ORDER_MAX + 1).read_to_end(&mut text))
            .map_err(Error::io(path, "read the start-up order"))?;
        parse(path, &text)
    }
}

impl Store {
    /// Reads the start-up order that a manifest lists, if there is one.
    pub fn start_order(&self, digest: &Digest, manifest: &Manifest) -> Result<Option<StartOrder>> {
        let mut layers = manifest.layers.iter();
        let Some(layer) = layers.find(|layer| layer.is_order()) else {
            return Ok(None);
        };
        let order = self.digest(layer, &self.blob_path(digest))?;
        let text = self.read_blob(&order, ORDER_MAX)?;
        parse(&self.blob_path(&order), &text).map(Some)
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<StartOrder> {
    StartOrder::parse(text).map_err(|(line, fault)| {
        let path = path.to_path_buf();
        ImageError::Order { path, line, fault }.into()
    })
}

/// The chunks of an image that an order leads to, each once.
#[derive(Debug, Default)]
pub(crate) struct OrderedChunks {
    /// The metadata that leads to the data, in the order in which a reader needs it. The root is first.
    pub metadata: Vec<Digest>,
    /// The data, in the order of the ranges.
    pub data: Vec<Digest>,
    /// The number of ranges whose path the image does not have.
    pub missing: usize,
}

impl OrderedChunks {
    /// Finds the chunks of the image with this root.
    ///
    /// Each byte of a file is in one range of an order, so time is bounded by the sizes of order and image.
    pub fn find(store: &Store, root: &Digest, order: &StartOrder) -> Result<Self> {
        let mut search = Search::new(StoreChunks::new(store)?, root, usize::MAX)?;
        for range in order.ranges() {
            search.add(range)?;
        }
        Ok(search.finish(*root))
    }

    /// Finds chunks of an image as far as the store has the metadata. Also returns the metadata chunks that
    /// it lacks: the first one on the way to each range. `check` is called before each range, and its error
    /// ends the search.
    ///
    /// At most 1,048,576 extents are visited, because a hostile order can name a large file by many names.
    pub fn find_local(
        store: &Store,
        root: &Digest,
        order: &StartOrder,
        mut check: impl FnMut() -> Result<()>,
    ) -> Result<(Self, Vec<Digest>)> {
        let mut search = Search::new(StoreChunks::of_index(store)?, root, EXTENTS_MAX)?;
        let (mut lacking, mut seen) = (Vec::new(), HashSet::new());
        for range in order.ranges() {
            check()?;
            match search.add(range) {
                Err(Error::Store(StoreError::ChunkMissing { digest, .. })) => {
                    if seen.insert(digest) {
                        lacking.push(digest);
                    }
                }
                added => added?,
            }
        }
        Ok((search.finish(*root), lacking))
    }
}

/// A search for the chunks of ranges.
struct Search<'s> {
    tree: Tree<TracedChunks<'s>>,
    seen: HashSet<Digest>,
    data: Vec<Digest>,
    missing: usize,
    /// The number of extents that may still be visited.
    extents_left: usize,
}

impl<'s> Search<'s> {
    fn new(chunks: StoreChunks<'s>, root: &Digest, extents_max: usize) -> Result<Self> {
        let source = TracedChunks {
            chunks,
            loaded: Mutex::default(),
        };
        let (chunk, content) = source.chunks.reader().root(root)?;
        let block = source.chunks.check(&chunk, content)?;
        Ok(Search {
            tree: Tree::new(source, block)?,
            seen: HashSet::new(),
            data: Vec::new(),
            missing: 0,
            extents_left: extents_max,
        })
    }

    /// Adds the chunks of a range.
    fn add(&mut self, range: &FileRange) -> Result<()> {
        let Search {
            tree,
            seen,
            data,
            missing,
            extents_left,
        } = self;
        let Some((node, inode_type)) = find(tree, range)? else {
            *missing += 1;
            return Ok(());
        };
        if inode_type != InodeType::File {
            // This loads its block.
            tree.open(node, Some(inode_type))?;
            return Ok(());
        }
        let file = tree.open(node, Some(InodeType::File))?;
        if range.length == 0 {
            return Ok(());
        }
        let _ = tree.for_each_extent(&file, range.offset, |extent| {
            let Some(left) = extents_left
                .checked_sub(1)
                .filter(|_| extent.start < range.end())
            else {
                return ControlFlow::Break(());
            };
            *extents_left = left;
            if let ExtentData::Chunk { chunk, .. } = extent.data {
                let digest = Digest::from(*chunk.digest());
                if seen.insert(digest) {
                    data.push(digest);
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn finish(self, root: Digest) -> OrderedChunks {
        let mut metadata = vec![root];
        metadata.append(&mut lock(&self.tree.source().loaded).order);
        OrderedChunks {
            metadata,
            data: self.data,
            missing: self.missing,
        }
    }
}

/// Finds the inode of a range. Symbolic links are not followed.
fn find(tree: &Tree<TracedChunks<'_>>, range: &FileRange) -> Result<Option<(Node, InodeType)>> {
    let mut here = (Node::ROOT, InodeType::Directory);
    for name in range.names() {
        if here.1 != InodeType::Directory {
            return Ok(None);
        }
        let directory = tree.open(here.0, Some(InodeType::Directory))?;
        let Some(target) = tree.lookup(&directory, name)? else {
            return Ok(None);
        };
        here = (target.node, target.inode_type);
    }
    Ok(Some(here))
}

/// The chunks of a store, and the metadata chunks that were loaded.
struct TracedChunks<'s> {
    chunks: StoreChunks<'s>,
    loaded: Mutex<Loaded>,
}

/// Metadata chunks, each once, in the order of their first use.
#[derive(Default)]
struct Loaded {
    seen: HashSet<Digest>,
    order: Vec<Digest>,
}

impl ChunkSource for TracedChunks<'_> {
    type Error = Error;
    type Chunk = MetadataBlock;
    type Content = Vec<u8>;

    fn load(&self, chunk: &ChunkRef) -> Result<MetadataBlock> {
        let digest = Digest::from(*chunk.digest());
        let mut loaded = lock(&self.loaded);
        if loaded.seen.insert(digest) {
            loaded.order.push(digest);
        }
        drop(loaded);
        self.chunks.load(chunk)
    }

    fn content(&self, chunk: &ChunkRef) -> Result<Vec<u8>> {
        self.chunks.content(chunk)
    }

    fn malformed(&self, chunk: &ChunkRef, cause: MetadataError) -> Error {
        self.chunks.malformed(chunk, cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_images::{names, write_image};
    use std::fs;

    #[test]
    fn chunks_are_found_as_far_as_metadata_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let create = |name: &str| Store::create(&scratch.path().join(name)).unwrap();
        let (from, to) = (create("from"), create("to"));
        let image = write_image(&from, "t", &names("a", 300));
        let order = StartOrder::parse(b"/a5\n/missing\n/a100\n/a0\n").unwrap();
        let whole = OrderedChunks::find(&from, &image.root, &order).unwrap();
        assert_eq!((whole.data.len(), whole.missing), (3, 1));
        let find = |store| OrderedChunks::find_local(store, &image.root, &order, || Ok(()));
        let (found, lacking) = find(&from).unwrap();
        assert_eq!((&found.data, found.missing), (&whole.data, 1));
        assert!(lacking.is_empty() && found.metadata == whole.metadata);
        let mut next = vec![image.root];
        let mut searches = 0;
        while !next.is_empty() {
            for digest in &next {
                let path = to.blob_path(digest);
                assert!(!path.exists() && image.metadata.contains(digest));
                fs::write(path, &image.chunks[digest]).unwrap();
            }
            let (found, lacking) = find(&to).unwrap();
            if lacking.is_empty() {
                assert_eq!(found.data, whole.data);
            }
            next = lacking;
            searches += 1;
        }
        assert!(searches > 1);
        let stop = || Err(Error::Interrupted);
        let stopped = OrderedChunks::find_local(&from, &image.root, &order, stop);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }

    #[test]
    fn the_extents_of_a_search_are_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = write_image(&store, "t", &names("a", 20));
        // A file of 6,000 extents, and one of one.
        let order = StartOrder::parse(b"/a0\n/a5\n").unwrap();
        for (most, wanted) in [(6000, 1), (6001, 2)] {
            let chunks = StoreChunks::of_index(&store).unwrap();
            let mut search = Search::new(chunks, &image.root, most).unwrap();
            for range in order.ranges() {
                search.add(range).unwrap();
            }
            assert_eq!(search.finish(image.root).data.len(), wanted);
        }
    }
}
