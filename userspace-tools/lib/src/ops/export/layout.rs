// SPDX-License-Identifier: MIT OR Apache-2.0

//! An ordinary OCI image of an image's tree: one layer, and the configuration of the image.

use super::{Archive, Exported};
use crate::error::{CommandError, Error, Result};
use crate::image::image_tree::ImageTree;
use crate::model::digest::Digest;
use crate::model::limits::READ_SIZE;
use crate::model::oci::{self, Descriptor, Manifest};
use crate::model::platform::Platform;
use crate::store::oci_layout::{AnyImage, Store};
use crate::store::staging::{Content, Staging};
use crate::sys::progress::Progress;
use flate2::write::GzEncoder;
use serde_json::{json, Value};
use sha2::{Digest as _, Sha256};
use std::io::{self, BufWriter, Write};
use tempfile::NamedTempFile;

/// The largest configuration read, in bytes.
const CONFIG_MAX: u64 = 64 << 20;

/// The compression of the layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerCompression {
    /// None.
    None,
    /// gzip, which every container tool reads.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

impl LayerCompression {
    /// The media type of a layer.
    fn media_type(self) -> &'static str {
        match self {
            LayerCompression::None => "application/vnd.oci.image.layer.v1.tar",
            LayerCompression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            LayerCompression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// The form of the exported image.
#[derive(Clone, Debug, Default)]
pub struct LayoutOptions {
    /// The compression of the layer.
    pub compression: LayerCompression,
    /// The platform, if the configuration has none or another.
    pub platform: Option<Platform>,
}

/// The result of an export to a layout.
#[derive(Clone, Debug)]
pub struct LayoutSummary {
    /// The contents of the layer.
    pub exported: Exported,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the layer.
    pub layer: Digest,
    /// The size of the layer.
    pub layer_size: u64,
    /// The digest of the layer's archive before compression.
    pub diff_id: Digest,
}

/// Writes an image as an ordinary OCI image with one layer into the layout `to`, and sets the tag.
///
/// The configuration is that of the image, if it has one. Entries of its history stay, as entries
/// without a layer.
///
/// # Errors
///
/// If the image cannot be read, if the layout cannot be written, or if the name of a file would be a
/// whiteout in a layer. The tag does not change then.
pub fn export_layout(
    store: &Store,
    image: &AnyImage,
    to: &Store,
    tag: &str,
    options: &LayoutOptions,
    progress: &Progress,
) -> Result<LayoutSummary> {
    if store.is_same(to)? && is_tag_of(store, tag, image.root.manifest_digest())? {
        return Err(CommandError::ExportOverItself {
            store: to.path().into(),
            tag: tag.to_owned(),
        }
        .into());
    }
    let staging = Staging::new(to)?;
    let layer = write_layer(store, image, &staging, options.compression, progress)?;
    let config = configuration(store, image, &layer.diff_id, options.platform.as_ref())?;
    let config_digest = Digest::of(&config);
    staging.put(&config_digest, Content::Bytes(&[&config]))?;
    let config = Descriptor::new(oci::CONFIG, config_digest, config.len() as u64);
    let media_type = options.compression.media_type();
    let mut manifest = Manifest::new(vec![Descriptor::new(media_type, layer.digest, layer.size)]);
    manifest.artifact_type = None;
    manifest.annotations = image.manifest.annotations.clone();
    // The exported image has neither a root nor chunks.
    manifest.annotations.remove(oci::ROOT);
    manifest.annotations.remove(oci::COMPRESSION);
    manifest.config = config;
    let text = manifest.to_json();
    let digest = Digest::of(&text);
    staging.put(&digest, Content::Bytes(&[&text]))?;
    progress.check()?;
    staging.commit()?;
    to.set_tag(
        tag,
        Descriptor::new(oci::MANIFEST, digest, text.len() as u64),
    )?;
    Ok(LayoutSummary {
        exported: layer.exported,
        manifest: digest,
        layer: layer.digest,
        layer_size: layer.size,
        diff_id: layer.diff_id,
    })
}

/// Returns true if a tag names the manifest of this digest.
fn is_tag_of(store: &Store, tag: &str, manifest: &Digest) -> Result<bool> {
    let index = store.index()?;
    Ok(index
        .find(tag)
        .is_some_and(|found| found.digest == manifest.to_oci()))
}

/// A layer in the staging directory.
struct Layer {
    exported: Exported,
    digest: Digest,
    size: u64,
    diff_id: Digest,
}

fn write_layer(
    store: &Store,
    image: &AnyImage,
    staging: &Staging<'_>,
    compression: LayerCompression,
    progress: &Progress,
) -> Result<Layer> {
    let path = &staging.path;
    let file = NamedTempFile::new_in(path).map_err(Error::io(path, "create a file in"))?;
    let fail = || Error::io(path, "write the layer in");
    let compressor = Compressor::new(compression, Hashing::new(file)).map_err(fail())?;
    let mut output = BufWriter::with_capacity(READ_SIZE, Hashing::new(compressor));
    let tree = ImageTree::new(store, &image.root)?;
    let mut archive = Archive::new(&tree, &mut output, progress);
    archive.is_layer = true;
    archive.tree(&tree.root()?)?;
    let exported = archive.finish()?;
    let content = output
        .into_inner()
        .map_err(|error| fail()(error.into_error()))?;
    let diff_id = Digest(content.hasher.finalize().into());
    let stored = content.inner.finish().map_err(fail())?;
    let digest = Digest(stored.hasher.finalize().into());
    let size = stored.bytes;
    staging.put_file(stored.inner, &digest, size)?;
    Ok(Layer {
        exported,
        digest,
        size,
        diff_id,
    })
}

/// The configuration of the exported image.
fn configuration(
    store: &Store,
    image: &AnyImage,
    diff_id: &Digest,
    platform: Option<&Platform>,
) -> Result<Vec<u8>> {
    let descriptor = &image.manifest.config;
    let digest = store.digest(descriptor, &store.blob_path(image.root.manifest_digest()))?;
    let bytes = match &*descriptor.media_type {
        oci::EMPTY => oci::EMPTY_CONTENT.to_vec(),
        _ => store.read_blob(&digest, CONFIG_MAX)?,
    };
    let malformed = |cause| CommandError::Configuration {
        path: store.blob_path(&digest),
        cause,
    };
    let config = serde_json::from_slice(&bytes);
    let mut config: serde_json::Map<String, Value> = config.map_err(malformed)?;
    set_platform(&mut config, platform);
    if !config.get("config").is_some_and(Value::is_object) {
        config.insert("config".to_owned(), json!({}));
    }
    let rootfs = json!({"type": "layers", "diff_ids": [diff_id.to_oci()]});
    config.insert("rootfs".to_owned(), rootfs);
    set_history(&mut config, image);
    Ok(serde_json::to_vec(&config).map_err(malformed)?)
}

/// Sets the platform. Without one, sets that of this machine if the configuration has none.
fn set_platform(config: &mut serde_json::Map<String, Value>, platform: Option<&Platform>) {
    let host = Platform::host();
    for (key, default) in [("os", host.os()), ("architecture", host.architecture())] {
        let is_set = |value: &Value| value.as_str().is_some_and(|value| !value.is_empty());
        if !config.get(key).is_some_and(is_set) {
            config.insert(key.to_owned(), json!(default));
        }
    }
    if let Some(platform) = platform {
        config.insert("os".to_owned(), json!(platform.os()));
        config.insert("architecture".to_owned(), json!(platform.architecture()));
        match platform.given_variant() {
            Some(variant) => config.insert("variant".to_owned(), json!(variant)),
            None => config.remove("variant"),
        };
    }
}

/// Marks the entries of the history as entries without a layer, and adds one for the layer.
fn set_history(config: &mut serde_json::Map<String, Value>, image: &AnyImage) {
    // As many entries must have a layer as there are layers.
    let mut history = match config.remove("history") {
        Some(Value::Array(history)) => history,
        _ => Vec::new(),
    };
    for entry in &mut history {
        if let Value::Object(entry) = entry {
            entry.insert("empty_layer".to_owned(), json!(true));
        }
    }
    history.retain(Value::is_object);
    history.push(json!({
        "created_by": "puzzlefs export",
        "comment": format!("of the PuzzleFS image {}", image.root.manifest_digest().to_oci()),
    }));
    config.insert("history".to_owned(), Value::Array(history));
}

/// A writer that hashes and counts the bytes that it passes on.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Hashing {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A writer that compresses.
pub enum Compressor<W: Write> {
    /// Passes on the bytes as they are.
    None(W),
    /// Compresses with gzip. The header has neither a time nor a name.
    Gzip(GzEncoder<W>),
    /// Compresses with zstd.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Compresses to a writer.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub fn new(compression: LayerCompression, inner: W) -> io::Result<Self> {
        /// zstd's level, which is its own default.
        const LEVEL: i32 = 3;
        Ok(match compression {
            LayerCompression::None => Compressor::None(inner),
            LayerCompression::Gzip => {
                Compressor::Gzip(GzEncoder::new(inner, flate2::Compression::default()))
            }
            LayerCompression::Zstd => {
                Compressor::Zstd(zstd::stream::write::Encoder::new(inner, LEVEL)?)
            }
        })
    }

    /// Ends the compressed stream, and returns the writer.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(inner) => Ok(inner),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(inner) => inner.write(bytes),
            Compressor::Gzip(encoder) => encoder.write(bytes),
            Compressor::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(inner) => inner.flush(),
            Compressor::Gzip(encoder) => encoder.flush(),
            Compressor::Zstd(encoder) => encoder.flush(),
        }
    }
}
