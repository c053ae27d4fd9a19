// SPDX-License-Identifier: MIT OR Apache-2.0

//! Unpacks PuzzleFS images that containerd has downloaded.
//!
//! containerd calls [`Unpacker::apply`] for each layer, in their order. The last layer brings the whole image
//! into the snapshotter's own store: chunks that the store lacks are copied from containerd's content store,
//! and verified. The snapshot of that layer becomes the image, and hides the snapshots of the other layers,
//! which are empty.
//!
//! containerd does not name the manifest. The snapshot's future name, the chain ID, is a digest of all layers
//! up to this one, and identifies the manifest among those in containerd's content store.

use crate::api::content::content_client::ContentClient;
use crate::api::{ListContentRequest, Mount, ReadContentRequest};
use crate::import::connect;
use crate::snapshots::{Mounter, Snapshots};
use crate::state::Image;
use anyhow::{anyhow, bail, Context, Result};
use puzzlefs_lib::fetch::{fetch, BlobSource, FetchOptions, RemoteBlob};
use puzzlefs_lib::gc::{collect, GcOptions};
use puzzlefs_lib::oci::Manifest;
use puzzlefs_lib::threads::lock;
use puzzlefs_lib::{Digest, Error, Progress, Selector, Store};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The media types of the layers of a PuzzleFS image begin with it.
const LAYERS: &str = "application/vnd.oci.image.layer.puzzlefs.";
/// The largest manifest that is read, in bytes, as in registries.
const MANIFEST_MAX: i64 = 4 << 20;
/// The largest number of layers of an image.
const LAYERS_MAX: usize = 128;
/// The number of blobs and ranges that are copied at once.
const JOBS: usize = 2;
/// The prefix of the tags in the store.
const TAG: &str = "containerd-";

/// Unpacks images into a store.
pub struct Unpacker<M> {
    /// The socket of containerd.
    containerd: PathBuf,
    store: PathBuf,
    snapshots: Arc<Snapshots<M>>,
    /// Held while the store and the list of images change together.
    alone: Mutex<()>,
}

/// A layer that containerd wants to be unpacked.
pub struct Layer {
    /// The digest.
    pub digest: String,
    /// The mounts of its snapshot.
    pub mounts: Vec<Mount>,
}

impl<M: Mounter> Unpacker<M> {
    /// `store` is created by the first image.
    pub fn new(containerd: PathBuf, store: PathBuf, snapshots: Arc<Snapshots<M>>) -> Self {
        Unpacker {
            containerd,
            store,
            snapshots,
            alone: Mutex::default(),
        }
    }

    /// Returns true for the media type of a layer of a PuzzleFS image, a pack or a start-up order. The layer
    /// of an import is a JSON document, and never unpacked.
    pub fn takes(media_type: &str) -> bool {
        media_type.starts_with(LAYERS) && !media_type.ends_with("+json")
    }

    /// Unpacks a layer. Waits on `runtime`, so it must run in another thread.
    pub fn apply(&self, layer: Layer, runtime: Handle) -> Result<()> {
        let name = self.snapshots.layer_of(&layer.mounts);
        let name = name.map_err(|refusal| anyhow!(refusal.message))?;
        let channel = runtime.block_on(connect(&self.containerd, "is containerd running?"))?;
        let content = Content {
            client: ContentClient::new(channel),
            namespace: AsciiMetadataValue::try_from(&*name.namespace)?,
            runtime,
        };
        let (manifest, is_last) = content.manifest(&layer.digest, &name.chain)?;
        if !is_last {
            return Ok(());
        }
        let _alone = lock(&self.alone);
        let store = Store::create(&self.store)?;
        let digest = Digest::of(&manifest);
        let tag = format!("{TAG}{}", digest.to_hex());
        let options = FetchOptions { jobs: JOBS };
        fetch(
            &content,
            &manifest,
            &store,
            &tag,
            options,
            &Progress::default(),
        )?;
        let image = Image {
            store: self.store.clone(),
            options: String::new(),
        };
        let applied = self.snapshots.apply(&layer.mounts, &digest, image);
        applied.map_err(|refusal| anyhow!(refusal.message))
    }

    /// Removes images from the store that no snapshot has.
    pub fn collect(&self) -> Result<()> {
        let _alone = lock(&self.alone);
        if !self.store.exists() {
            return Ok(());
        }
        let store = Store::open(&self.store)?;
        let images: BTreeSet<String> = self.snapshots.images_in(&self.store).into_iter().collect();
        let mut is_changed = false;
        for descriptor in store.index()?.manifests {
            let Some(tag) = descriptor.tag() else {
                continue;
            };
            let unused = tag
                .strip_prefix(TAG)
                .is_some_and(|hex| !images.contains(hex));
            if unused {
                store.untag(&Selector::Tag(tag.to_owned()))?;
                is_changed = true;
            }
        }
        if is_changed {
            collect(&store, GcOptions::default(), || true)?;
        }
        Ok(())
    }
}

/// The blobs of containerd's content store.
struct Content {
    client: ContentClient<Channel>,
    namespace: AsciiMetadataValue,
    runtime: Handle,
}

impl Content {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.namespace.clone();
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        request
    }

    /// Finds the manifest of an image with this layer, whose layers up to it have this chain ID. Returns its
    /// bytes, and true if the layer is the last one.
    fn manifest(&self, layer: &str, chain: &str) -> Result<(Vec<u8>, bool)> {
        // containerd keeps the blobs that a manifest lists by labels of the manifest.
        let labels = ["", "l."]
            .into_iter()
            .flat_map(|kind| (0..LAYERS_MAX).map(move |number| (kind, number)));
        let filters = labels.map(|(kind, number)| {
            format!("labels.\"containerd.io/gc.ref.content.{kind}{number}\"==\"{layer}\"")
        });
        let request = ListContentRequest {
            filters: filters.collect(),
        };
        let found = self.runtime.block_on(self.list(request));
        let found = found.map_err(|status| anyhow!("containerd: {}", status.message()))?;
        for digest in found {
            let Some(bytes) = self.small(&digest)? else {
                continue;
            };
            let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
                continue;
            };
            if !manifest.is_puzzlefs() || manifest.layers.len() > LAYERS_MAX {
                continue;
            }
            let mut so_far = String::new();
            for (number, one) in manifest.layers.iter().enumerate() {
                so_far = chained(&so_far, &one.digest);
                if one.digest == layer && so_far == chain {
                    return Ok((bytes, number + 1 == manifest.layers.len()));
                }
            }
        }
        bail!("containerd has no manifest of a PuzzleFS image with the layer {layer} at this place")
    }

    async fn list(&self, request: ListContentRequest) -> Result<Vec<String>, Status> {
        let mut client = self.client.clone();
        let mut answers = client.list(self.request(request)).await?.into_inner();
        let mut found = Vec::new();
        while let Some(answer) = answers.message().await? {
            found.extend(answer.info.into_iter().map(|info| info.digest));
        }
        Ok(found)
    }

    /// Reads a blob of at most the size of a manifest; `None` if it is larger.
    fn small(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = self.read_range(digest, 0, 0, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(bytes.len() as i64 <= MANIFEST_MAX)
        });
        let is_whole = read.with_context(|| format!("containerd: {digest}"))?;
        Ok(is_whole.then_some(bytes))
    }

    /// Reads bytes of a blob; `size` is 0 for all. Returns false if `give` has ended it.
    fn read_range(
        &self,
        digest: &str,
        offset: i64,
        size: i64,
        give: &mut dyn FnMut(&[u8]) -> puzzlefs_lib::Result<bool>,
    ) -> puzzlefs_lib::Result<bool> {
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            offset,
            size,
        };
        let failed = |status: Status| Error::Remote(status.message().to_owned().into());
        let mut client = self.client.clone();
        let answers = self.runtime.block_on(client.read(self.request(request)));
        let mut answers = answers.map_err(failed)?.into_inner();
        while let Some(answer) = self.runtime.block_on(answers.message()).map_err(failed)? {
            if !give(&answer.data)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl BlobSource for Content {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> puzzlefs_lib::Result<()>,
    ) -> puzzlefs_lib::Result<bool> {
        let failed = |message: &str| Error::Remote(message.to_owned().into());
        let mut left = range.end.saturating_sub(range.start);
        if left == 0 {
            return Ok(true);
        }
        let number = |value: u64| i64::try_from(value).map_err(|_| failed("the blob is too large"));
        let digest = blob.digest.to_oci();
        self.read_range(&digest, number(range.start)?, number(left)?, &mut |piece| {
            let wanted = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= wanted as u64;
            give(piece.get(..wanted).unwrap_or_default())?;
            Ok(left > 0)
        })?;
        if left > 0 {
            return Err(failed("containerd's content store has a shorter blob"));
        }
        Ok(true)
    }
}

/// Returns the chain ID of a layer on others, as the OCI image specification defines it.
fn chained(below: &str, layer: &str) -> String {
    if below.is_empty() {
        return layer.to_owned();
    }
    Digest::of(format!("{below} {layer}").as_bytes()).to_oci()
}
