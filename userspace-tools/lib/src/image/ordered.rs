// SPDX-License-Identifier: MIT OR Apache-2.0

//! The start-up orders of images, and the chunks that they lead to.

use crate::error::{Error, ImageError, Result};
use crate::image::store_chunks::{MetadataBlock, StoreChunks};
use crate::model::digest::Digest;
use crate::model::oci::Manifest;
use crate::model::start_order::{FileRange, StartOrder, ORDER_MAX};
use crate::store::oci_layout::Store;
use crate::sys::parallel::lock;
use puzzlefs_schema::v4::{
    ChunkRef, ChunkSource, ExtentData, InodeType, LoadedInode, MetadataError, Node, Tree,
};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

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
        let source = TracedChunks {
            chunks: StoreChunks::new(store)?,
            loaded: Mutex::default(),
        };
        let (chunk, content) = source.chunks.reader().root(root)?;
        let block = source.chunks.check(&chunk, content)?;
        let tree = Tree::new(source, block)?;
        let (mut data, mut missing) = (Vec::new(), 0);
        let mut seen = HashSet::new();
        for range in order.ranges() {
            let Some((node, inode_type)) = find(&tree, range)? else {
                missing += 1;
                continue;
            };
            if inode_type != InodeType::File {
                // This loads its block.
                tree.open(node, Some(inode_type))?;
                continue;
            }
            let file = tree.open(node, Some(InodeType::File))?;
            add_data(&tree, &file, range, |digest| {
                if seen.insert(digest) {
                    data.push(digest);
                }
            })?;
        }
        let mut metadata = vec![*root];
        metadata.append(&mut lock(&tree.source().loaded).order);
        Ok(OrderedChunks {
            metadata,
            data,
            missing,
        })
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

/// Passes the chunks of a range to a function, in the order of the file.
fn add_data(
    tree: &Tree<TracedChunks<'_>>,
    file: &LoadedInode<MetadataBlock>,
    range: &FileRange,
    mut give: impl FnMut(Digest),
) -> Result<()> {
    if range.length == 0 {
        return Ok(());
    }
    let _ = tree.for_each_extent(file, range.offset, |extent| {
        if extent.start >= range.end() {
            return ControlFlow::Break(());
        }
        if let ExtentData::Chunk { chunk, .. } = extent.data {
            give(Digest::from(*chunk.digest()));
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
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
