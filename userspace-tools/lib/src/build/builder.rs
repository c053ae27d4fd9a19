// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds images of trees in a store.

use crate::build::build_options::BuildOptions;
use crate::build::contents::{self, Blob, Reading};
use crate::build::delta::{Base, OnBase};
use crate::build::metadata;
use crate::build::source::Source;
use crate::error::Result;
use crate::image::v3::reader::ImageReader;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::oci::{self, Descriptor, Manifest};
use crate::model::reference::Selector;
use crate::model::rules::Rules;
use crate::model::tree::{Fresh, Kind, LeftOut, NodeId, Tree};
use crate::model::verity;
use crate::model::version::Format;
use crate::store::oci_layout::{Image, Store};
use crate::store::staging::{Content, Staging};
use crate::sys::progress::Progress;
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::path::PathBuf;

/// The result of a build.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The version of the image format.
    pub format: Format,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the metadata blob, or of the root.
    pub rootfs: Digest,
    /// The size of the metadata blob, or of the chunks with metadata, in bytes.
    pub rootfs_size: u64,
    /// The fs-verity digest of the manifest, which covers the whole image.
    pub manifest_verity: Digest,
    /// The number of inodes.
    pub inodes: u64,
    /// The number of names, without the root.
    pub entries: u64,
    /// The number of regular files.
    pub files: u64,
    /// The size of the regular files in bytes, each inode counted once.
    pub bytes: u64,
    /// The number of extents.
    pub chunks: u64,
    /// Data blobs or packs of the image that the store did not have.
    pub new: Count,
    /// Data blobs or packs of the image that the store had.
    pub shared: Count,
    /// Chunks with data that the store did not have, in format 4.
    pub new_chunks: Count,
    /// Chunks with data that the store had, in format 4.
    pub shared_chunks: Count,
    /// Chunks of the parent that were used instead of compressing their contents, in format 4.
    pub reused_chunks: Count,
    /// The number of chunks of the parent that could not be read.
    pub parent_faults: u64,
    /// The store's own directory, if it was left out of the tree.
    pub skipped_store: Option<PathBuf>,
    /// Mount points that were left empty.
    pub skipped_mounts: Vec<PathBuf>,
    /// Remarks on the source: parts that were ignored, or taken for something else.
    pub remarks: Vec<String>,
    /// The number of paths that were left out because they cannot be read.
    pub unreadable: u64,
    /// The first of these paths, with the causes.
    pub first_unreadable: Vec<String>,
    /// The number of files that changed while they were read, and were read again.
    pub read_again: u64,
}

impl Summary {
    /// The summary of an image of a tree, without counts of stored data.
    pub(crate) fn new(
        format: Format,
        tree: &Tree,
        left_out: LeftOut,
        remarks: Vec<String>,
        digests: ImageDigests,
    ) -> Self {
        let mut summary = Summary {
            format,
            manifest: digests.manifest,
            rootfs: digests.rootfs,
            rootfs_size: 0,
            manifest_verity: digests.manifest_verity,
            inodes: tree.nodes.len() as u64,
            entries: 0,
            files: 0,
            bytes: tree.data_size(),
            chunks: 0,
            new: Count::default(),
            shared: Count::default(),
            new_chunks: Count::default(),
            shared_chunks: Count::default(),
            reused_chunks: Count::default(),
            parent_faults: 0,
            skipped_store: left_out.store,
            skipped_mounts: left_out.mount_points,
            remarks,
            unreadable: left_out.unreadable.len() as u64,
            first_unreadable: left_out.unreadable_causes,
            read_again: 0,
        };
        summary.count_nodes(tree);
        summary
    }

    fn count_nodes(&mut self, tree: &Tree) {
        for node in &tree.nodes {
            match &node.kind {
                Kind::File(_) => self.files += 1,
                Kind::Directory(entries) => self.entries += entries.len() as u64,
                _ => {}
            }
        }
    }

    fn count_blobs<'b>(&mut self, blobs: impl Iterator<Item = &'b Blob>) {
        for blob in blobs {
            let count = if blob.new {
                &mut self.new
            } else {
                &mut self.shared
            };
            count.add(blob.size);
        }
    }
}

/// The digests of an image that was built.
pub(crate) struct ImageDigests {
    pub manifest: Digest,
    pub rootfs: Digest,
    pub manifest_verity: Digest,
}

/// Sets the tag of an image. Returns a remark if the annotations do not fit into the index.
pub(crate) fn tag(
    store: &Store,
    tag: &str,
    manifest: Descriptor,
    annotations: &BTreeMap<String, String>,
    source: &Source,
) -> Result<Option<String>> {
    let annotated = manifest.clone().annotated_for_index(annotations);
    let (descriptor, remark) = match annotated {
        Ok(descriptor) => (descriptor, None),
        Err(cause) => {
            let remark = format!("{}: {cause}, and so none", source.path.display());
            (manifest, Some(remark))
        }
    };
    store.set_tag(tag, descriptor)?;
    Ok(remark)
}

/// Takes over the states of files that were read again, and applies the rules to them. Returns their
/// number.
pub(crate) fn refresh(
    tree: &mut Tree,
    fresh: Vec<(NodeId, Fresh)>,
    rules: &Rules,
    source: &Source,
) -> Result<u64> {
    let count = fresh.len() as u64;
    for (node, fresh) in fresh {
        tree.nodes[node as usize].refresh(fresh);
        rules.apply_to(tree, node, &source.path)?;
    }
    Ok(count)
}

/// A tree to make an image of.
pub(crate) struct Input {
    pub source: Source,
    pub tree: Tree,
    pub left_out: LeftOut,
    /// Remarks on the source.
    pub remarks: Vec<String>,
    /// The configuration of the container image that it came from.
    pub config: Option<Config>,
    /// The annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// The annotations of the index's entry, beside the tag.
    pub index_annotations: BTreeMap<String, String>,
}

impl Input {
    /// A tree without a configuration or annotations.
    pub fn new(source: Source, tree: Tree, left_out: LeftOut) -> Self {
        Input {
            source,
            tree,
            left_out,
            remarks: Vec::new(),
            config: None,
            annotations: BTreeMap::new(),
            index_annotations: BTreeMap::new(),
        }
    }
}

/// The configuration of a container image. It gets OCI's media type. Docker's configuration is the
/// same document, but other tools refuse its media type in a manifest of OCI.
pub(crate) struct Config {
    pub bytes: Vec<u8>,
}

/// Makes an image of a tree, and sets the tag.
pub(crate) fn store(
    input: Input,
    store: &Store,
    staging: &Staging<'_>,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<Summary> {
    Stack::new(store, staging, options, progress)?.finish(input)
}

/// An image that is built layer by layer.
pub(crate) struct Stack<'a> {
    store: &'a Store,
    staging: &'a Staging<'a>,
    options: &'a BuildOptions,
    progress: &'a Progress,
    /// The image below the first layer.
    base: Option<Image>,
    /// The topmost layer that was pushed.
    top: Option<Layer>,
    /// The data blobs of the layers that were pushed.
    blobs: BTreeMap<Digest, Blob>,
    chunks: u64,
    /// The number of files that were read again.
    read_again: u64,
}

/// A layer, and all beneath it.
struct Layer {
    /// The tree of all layers together.
    tree: Tree,
    /// The inode number of each node.
    numbers: Vec<u64>,
    metadata: Vec<u8>,
}

impl<'a> Stack<'a> {
    /// An image on the base that the options name, if any.
    pub fn new(
        store: &'a Store,
        staging: &'a Staging<'a>,
        options: &'a BuildOptions,
        progress: &'a Progress,
    ) -> Result<Self> {
        let base = options.base.as_ref();
        let base = base.map(|tag| store.image(&Selector::Tag(tag.clone())));
        Ok(Stack {
            store,
            staging,
            options,
            progress,
            base: base.transpose()?,
            top: None,
            blobs: BTreeMap::new(),
            chunks: 0,
            read_again: 0,
        })
    }

    /// Adds a layer, so that all layers together are this tree. The source must have the contents
    /// of the earlier trees at the same places.
    pub fn push(&mut self, source: &Source, tree: Tree) -> Result<()> {
        self.top = Some(self.layer(source, tree)?);
        Ok(())
    }

    fn layer(&mut self, source: &Source, mut tree: Tree) -> Result<Layer> {
        let (options, progress) = (self.options, self.progress);
        options.rules.apply(&mut tree, &source.path)?;
        let on_base = match self.below()? {
            Some(below) => Some(OnBase::new(below, source, &tree, progress, options.jobs)?),
            None => None,
        };
        let same = on_base.as_ref().map_or(&[][..], |on_base| &on_base.same);
        let mut contents = contents::store_blobs(&Reading {
            source,
            tree: &tree,
            skip: same,
            options,
            staging: self.staging,
            progress,
        })?;
        let fresh = mem::take(&mut contents.fresh);
        self.read_again += refresh(&mut tree, fresh, &options.rules, source)?;
        let stored = contents.extents.iter().map(|file| file.len() as u64);
        self.chunks += stored.sum::<u64>();
        let top = match &on_base {
            Some(on_base) => Some(on_base.top(&tree, &mut contents)?),
            None => None,
        };
        let metadata = metadata::encode(&tree, &contents, top.as_ref(), self.store.path())?;
        drop(top);
        for (digest, blob) in contents.blobs {
            let known = self.blobs.entry(digest).or_insert(blob);
            known.new |= blob.new;
        }
        let numbers = match on_base {
            Some(on_base) => on_base.into_numbers(),
            None => (1..).take(tree.nodes.len()).collect(),
        };
        Ok(Layer {
            tree,
            numbers,
            metadata,
        })
    }

    /// Returns the base of the next layer.
    fn below(&mut self) -> Result<Option<Base<'a>>> {
        let Some(top) = self.top.take() else {
            let reader = self.base.as_ref();
            let reader = reader.map(|image| ImageReader::new(self.store, image));
            return match reader.transpose()? {
                Some(reader) => Base::new(self.store, reader, HashMap::new()).map(Some),
                None => Ok(None),
            };
        };
        // The comparison reads blobs of the store.
        self.staging.commit()?;
        let reader = ImageReader::of_bytes(self.store, &top.metadata)?;
        let nodes = top.numbers.into_iter().zip(top.tree.nodes);
        let known = nodes.filter_map(|(number, node)| match node.kind {
            Kind::File(state) => Some((number, state)),
            _ => None,
        });
        Base::new(self.store, reader, known.collect()).map(Some)
    }

    /// Adds the last layer, makes the image durable, and sets the tag.
    pub fn finish(mut self, input: Input) -> Result<Summary> {
        let Input {
            source,
            tree,
            left_out,
            mut remarks,
            config,
            annotations,
            index_annotations,
        } = input;
        let Layer { tree, metadata, .. } = self.layer(&source, tree)?;
        let rootfs = self.store_metadata(&metadata)?;
        let (manifest, manifest_verity) =
            self.store_manifest(rootfs.clone(), config, annotations)?;
        self.progress.check()?;
        self.staging.commit()?;
        let (manifest, size) = manifest;
        let descriptor = Descriptor::new(oci::MANIFEST, manifest, size);
        remarks.extend(tag(
            self.store,
            &self.options.tag,
            descriptor,
            &index_annotations,
            &source,
        )?);
        let digests = ImageDigests {
            manifest,
            rootfs: Digest::from_oci(&rootfs.digest).unwrap_or(manifest),
            manifest_verity,
        };
        let mut summary = Summary::new(Format::V3, &tree, left_out, remarks, digests);
        summary.rootfs_size = rootfs.size;
        summary.chunks = self.chunks;
        summary.read_again = self.read_again;
        summary.count_blobs(self.blobs.values());
        Ok(summary)
    }

    /// Writes the metadata blob, and returns its descriptor.
    fn store_metadata(&self, metadata: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(metadata);
        let verity = verity::digest(metadata);
        let size = metadata.len() as u64;
        self.staging.put(&digest, Content::Bytes(&[metadata]))?;
        Ok(Descriptor::new(oci::ROOTFS, digest, size)
            .annotated(oci::VERITY_ROOT_HASH, verity.to_hex()))
    }

    /// Writes the manifest and the configuration that it names, and returns the manifest's digest
    /// and size, and its fs-verity digest.
    fn store_manifest(
        &self,
        rootfs: Descriptor,
        config: Option<Config>,
        annotations: BTreeMap<String, String>,
    ) -> Result<((Digest, u64), Digest)> {
        let mut manifest = Manifest::new(self.manifest_layers(rootfs));
        manifest.annotations = annotations;
        self.store_config(&mut manifest, config)?;
        let text = manifest.to_json();
        let digest = Digest::of(&text);
        self.staging.put(&digest, Content::Bytes(&[&text]))?;
        Ok(((digest, text.len() as u64), verity::digest(&text)))
    }

    /// Returns the layers of the manifest: the metadata blob, then the data blobs.
    fn manifest_layers(&self, rootfs: Descriptor) -> Vec<Descriptor> {
        let media_type = match self.options.compression {
            Some(_) => oci::FILEDATA_ZSTD,
            None => oci::FILEDATA,
        };
        let mut data: BTreeMap<String, Descriptor> = BTreeMap::new();
        if let Some(base) = &self.base {
            let blobs = base.data_blobs();
            data.extend(blobs.map(|blob| (blob.digest.clone(), blob.clone())));
        }
        let blobs = self.blobs.iter();
        let blobs = blobs.map(|(digest, blob)| Descriptor::new(media_type, *digest, blob.size));
        data.extend(blobs.map(|blob| (blob.digest.clone(), blob)));
        // A tree without data gives an image of the metadata alone.
        let mut layers = vec![rootfs];
        layers.extend(data.into_values());
        layers
    }

    /// Writes the configuration, and names it in the manifest.
    fn store_config(&self, manifest: &mut Manifest, config: Option<Config>) -> Result<()> {
        let config = match (config, &self.base) {
            (Some(config), _) => Some(config),
            (None, _) if self.options.config.is_empty() => None,
            (None, base) => {
                let layers = manifest.layers.iter().map(|layer| &*layer.digest);
                let layers: Vec<&str> = layers.collect();
                let options = &self.options.config;
                Some(Config {
                    bytes: options.configuration(self.store, base.as_ref(), &layers)?,
                })
            }
        };
        let mut bytes = oci::EMPTY_CONTENT;
        match (&config, &self.base) {
            (Some(config), _) => {
                bytes = &config.bytes;
                let size = bytes.len() as u64;
                manifest.config = Descriptor::new(oci::CONFIG, Digest::of(bytes), size);
            }
            (None, Some(base)) => manifest.config = base.manifest.config.clone(),
            (None, None) => {}
        }
        // The configuration of the base is in the store. A file of the tree may hold the same bytes
        // as the configuration: its blob is staged already.
        let digest = Digest::of(bytes);
        if manifest.config.digest == digest.to_oci() && !self.blobs.contains_key(&digest) {
            self.staging.put(&digest, Content::Bytes(&[bytes]))?;
        }
        Ok(())
    }
}
