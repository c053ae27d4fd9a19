// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds images of format 4: contents, metadata, packs, manifest, chunk index, tag.
//!
//! The packs become durable before the chunk index names them, and both before the tag names the image.

use crate::build::blocks;
use crate::build::build_options::{BuildOptions, OrderChoice};
use crate::build::builder::{self, Config, ImageDigests, Input, Summary};
use crate::build::contents::Reading;
use crate::build::flusher::Flusher;
use crate::build::packs::{
    store_chunks, FirstFiles, ImagePacks, KnownChunks, PackPolicy, Packs, Parent,
};
use crate::error::{Error, Result};
use crate::image::config::{self, ConfigOptions};
use crate::model::chunk::ChunkEncoder;
use crate::model::digest::Digest;
use crate::model::oci::{self, Descriptor, Manifest};
use crate::model::start_order::StartOrder;
use crate::model::verity;
use crate::model::version::Format;
use crate::store::chunks::update::{add_packs, adopt_packs_of};
use crate::store::oci_layout::Store;
use crate::store::staging::{Content, Staging};
use crate::sys::progress::Progress;
use std::collections::BTreeMap;
use std::iter;

/// The least level of zstd for metadata, of which an image has little. Above it, metadata does not become
/// much smaller.
const METADATA_LEVEL: i32 = 9;

/// Makes an image of a tree in the format that the options name, and sets the tag.
pub(crate) fn store(
    input: Input,
    store: &Store,
    staging: &Staging<'_>,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<Summary> {
    match options.format {
        Format::V3 => builder::store(input, store, staging, options, progress),
        Format::V4 => store_packed(input, store, staging, options, progress),
    }
}

fn store_packed(
    input: Input,
    store: &Store,
    staging: &Staging<'_>,
    options: &BuildOptions,
    progress: &Progress,
) -> Result<Summary> {
    check_options(options)?;
    let Input {
        source,
        mut tree,
        left_out,
        mut remarks,
        config,
        mut annotations,
        index_annotations,
    } = input;
    options.rules.apply(&mut tree, &source.path)?;
    let known = if options.fresh {
        KnownChunks::none(store)
    } else {
        adopt_parent(store, options)?;
        KnownChunks::open(store, options.check)?
    };
    let level = options.compression.map(|compression| compression.level);
    let encoder = ChunkEncoder::new(level);
    let flusher = Flusher::default();
    let reading = Reading {
        source: &source,
        tree: &tree,
        skip: &[],
        options,
        staging,
        progress,
    };
    let packs = Packs::new(staging, &known, &flusher, PackPolicy::default());
    let compression = encoder.compression();
    let parent = match &compression {
        Some(compression) => Parent::choose(store, options, &tree, compression, &mut remarks)?,
        None => None,
    };
    let order = order(store, options, &mut remarks)?;
    let first = order.as_ref().map(|order| FirstFiles::find(order, &tree));
    remarks.extend(
        first
            .as_ref()
            .and_then(|first| missing_paths(first.missing)),
    );
    let contents = store_chunks(
        &reading,
        &encoder,
        parent.as_ref(),
        first.as_ref(),
        packs,
        &flusher,
    )?;
    let (extents, packs) = (contents.extents, contents.packs);
    let read_again = builder::refresh(&mut tree, contents.fresh, &options.rules, &source)?;
    let chunks = extents.iter().map(|file| file.len() as u64).sum();
    let for_metadata = ChunkEncoder::new(level.map(|level| level.max(METADATA_LEVEL)));
    let first = first.unwrap_or_default().nodes;
    let metadata = blocks::encode(&tree, &extents, &first, &for_metadata, options.jobs)?;
    let packs = packs.finish(iter::once(&metadata.root).chain(&metadata.chunks))?;
    let rootfs = Digest::from(*metadata.root.chunk.digest());
    annotations.remove(oci::COMPRESSION);
    annotations.extend(compression.map(|compression| (oci::COMPRESSION.to_owned(), compression)));
    let layers = layers(staging, &packs, order.as_ref())?;
    let (manifest, manifest_verity) =
        put_manifest(staging, store, options, layers, rootfs, config, annotations)?;
    progress.check()?;
    staging.commit()?;
    add_packs(store, &packs.written)?;
    let digests = ImageDigests {
        manifest: manifest.0,
        rootfs,
        manifest_verity,
    };
    let descriptor = Descriptor::new(oci::MANIFEST, manifest.0, manifest.1);
    let remark = builder::tag(store, &options.tag, descriptor, &index_annotations, &source)?;
    remarks.extend(remark);
    let reuse = parent.map(|parent| parent.finish(&mut remarks));
    let mut summary = Summary::new(Format::V4, &tree, left_out, remarks, digests);
    summary.rootfs_size = packs.metadata.bytes;
    summary.chunks = chunks;
    (summary.reused_chunks, summary.parent_faults) = reuse.unwrap_or_default();
    summary.read_again = read_again;
    (summary.new, summary.shared) = (packs.new_packs, packs.shared_packs);
    (summary.new_chunks, summary.shared_chunks) = (packs.new, packs.shared);
    Ok(summary)
}

/// Adds the packs of the parent to the chunk index, if another tool has copied it. [`Parent`] reports a
/// parent that cannot be read.
fn adopt_parent(store: &Store, options: &BuildOptions) -> Result<()> {
    let Some(parent) = options.parent_image(store)? else {
        return Ok(());
    };
    match store.any_image(&parent) {
        Ok(parent) => adopt_packs_of(store, &parent.manifest),
        Err(_) => Ok(()),
    }
}

/// Returns the start-up order that the options name.
fn order(
    store: &Store,
    options: &BuildOptions,
    remarks: &mut Vec<String>,
) -> Result<Option<StartOrder>> {
    match &options.order {
        OrderChoice::None => Ok(None),
        OrderChoice::Given(order) => Ok(Some(order.clone())),
        OrderChoice::Parent => {
            let Some(parent) = options.parent_image(store)? else {
                remarks.push("--order parent: there is no parent, and so no order".to_owned());
                return Ok(None);
            };
            let image = store.any_image(&parent)?;
            let order = store.start_order(image.root.manifest_digest(), &image.manifest)?;
            if order.is_none() {
                remarks.push(format!("--order parent: {parent} has no start-up order"));
            }
            Ok(order)
        }
    }
}

/// Returns a remark on ranges whose path the tree does not have.
fn missing_paths(count: usize) -> Option<String> {
    let ranges = if count == 1 { "range is" } else { "ranges are" };
    (count > 0).then(|| format!("start-up order: {count} {ranges} of paths that do not exist"))
}

/// Fails for options that only one format has, if the image is of the other.
pub(crate) fn check_options(options: &BuildOptions) -> Result<()> {
    if options.format == Format::V3 {
        return match options.order {
            OrderChoice::None => Ok(()),
            _ => Err(Error::Usage(
                "--order is for --format 4; format 3 has no packs".to_owned(),
            )),
        };
    }
    let what = if options.base.is_some() {
        "--base"
    } else if options.keep_layers {
        "--layers"
    } else {
        return Ok(());
    };
    Err(Error::Usage(format!(
        "{what} is for --format 3; images of format 4 have no layers"
    )))
}

/// Returns the descriptors of the packs and of the start-up order, which is written.
fn layers(
    staging: &Staging<'_>,
    packs: &ImagePacks,
    order: Option<&StartOrder>,
) -> Result<Vec<Descriptor>> {
    let layers = packs.layers.iter();
    let layers = layers.map(|pack| Descriptor::new(oci::PACK, pack.digest, pack.size));
    let order = order.map(|order| put_order(staging, order)).transpose()?;
    Ok(layers.chain(order).collect())
}

/// Writes a start-up order, and returns its descriptor.
pub(crate) fn put_order(staging: &Staging<'_>, order: &StartOrder) -> Result<Descriptor> {
    let text = order.to_text();
    let digest = Digest::of(&text);
    staging.put(&digest, Content::Bytes(&[&text]))?;
    Ok(Descriptor::new(oci::ORDER, digest, text.len() as u64))
}

/// Writes the manifest and the configuration that it names. Returns the manifest's digest and size, and
/// its fs-verity digest.
fn put_manifest(
    staging: &Staging<'_>,
    store: &Store,
    options: &BuildOptions,
    layers: Vec<Descriptor>,
    rootfs: Digest,
    config: Option<Config>,
    annotations: BTreeMap<String, String>,
) -> Result<((Digest, u64), Digest)> {
    let config = configuration(store, &options.config, config, &layers)?;
    let config_digest = Digest::of(&config);
    staging.put(&config_digest, Content::Bytes(&[&config]))?;
    let config = Descriptor::new(oci::CONFIG, config_digest, config.len() as u64);
    let mut manifest = Manifest::packed(config, layers);
    manifest.annotations = annotations;
    let root = rootfs.to_hex();
    manifest.annotations.insert(oci::ROOT.to_owned(), root);
    let text = manifest.to_json();
    let digest = Digest::of(&text);
    staging.put(&digest, Content::Bytes(&[&text]))?;
    Ok(((digest, text.len() as u64), verity::digest(&text)))
}

/// Returns the bytes of the configuration: that of the container image that the tree came from, if any,
/// with the options and these layers.
fn configuration(
    store: &Store,
    options: &ConfigOptions,
    config: Option<Config>,
    layers: &[Descriptor],
) -> Result<Vec<u8>> {
    let layers: Vec<&str> = layers.iter().map(|layer| &*layer.digest).collect();
    let mut options = options.clone();
    if let Some(Config { bytes }) = config {
        let original = config::parse_original(store.path().to_path_buf(), &bytes)?;
        options.original.get_or_insert(original);
    }
    options.configuration(store, None, &layers)
}
