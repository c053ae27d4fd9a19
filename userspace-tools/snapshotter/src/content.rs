// SPDX-License-Identifier: MIT OR Apache-2.0

//! The content store of containerd: blobs, and the images that their manifests describe.
//!
//! containerd does not name the image whose layer it prepares or unpacks. It names a chain ID, which is a
//! digest of all layers up to this one. The manifests of the namespace are read once, and their chain IDs are
//! remembered.

use crate::api::content::content_client::ContentClient;
use crate::api::leases::leases_client::LeasesClient;
use crate::api::{
    ContentInfo, Labels, LeaseAddResourceRequest, LeaseDeleteRequest, LeaseResource,
    ListContentRequest, ReadContentRequest,
};
use crate::import::{connect, new_lease};
use crate::state::Sources;
use anyhow::{anyhow, Context, Result};
use puzzlefs_lib::fetch::{BlobSource, RemoteBlob};
use puzzlefs_lib::oci::Manifest;
use puzzlefs_lib::threads::lock;
use puzzlefs_lib::{Digest, Error};
use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// The largest manifest that is read, in bytes, as in registries.
const MANIFEST_MAX: i64 = 4 << 20;
/// The largest number of layers of an image.
const LAYERS_MAX: usize = 128;
/// The largest number of manifests that are remembered.
const KNOWN_MAX: usize = 10_000;
/// The label of a blob that names the repositories that it is from. A registry follows.
const SOURCE: &str = "containerd.io/distribution.source.";
/// The largest number of repositories that an image is sought in.
const SOURCES_MAX: usize = 4;
/// The label of a snapshot by which CRI names the manifest, if it is configured to.
pub const MANIFEST_DIGEST: &str = "containerd.io/snapshot/cri.manifest-digest";
/// The time for which layers are kept that no image has taken up, in seconds. containerd keeps the remains
/// of its own interrupted pulls for as long.
const KEPT: i64 = 24 * 3600;
/// The longest silence of containerd.
const PATIENCE: Duration = Duration::from_secs(60);

/// The manifests that have been read, by their digests. Digests of other documents have no chain IDs.
#[derive(Default)]
pub struct Chains {
    known: Mutex<HashMap<String, Arc<[String]>>>,
}

/// A manifest of an image whose first layers have a chain ID.
struct Candidate {
    info: ContentInfo,
    layers: usize,
    is_whole: bool,
}

/// An image whose first layers have a chain ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The bytes of the manifest.
    pub manifest: Vec<u8>,
    /// The number of layers with this chain ID.
    pub layers: usize,
    /// The image has no more layers.
    pub is_whole: bool,
    /// The size of all layers in bytes.
    pub size: u64,
    /// Registries with repositories that have the image.
    pub sources: Sources,
}

/// The content store, as a namespace sees it.
pub struct Content {
    client: ContentClient<Channel>,
    leases: LeasesClient<Channel>,
    namespace: AsciiMetadataValue,
    runtime: Handle,
}

impl Content {
    /// Connects to the containerd of a socket. Waits on `runtime`, here and later, so it must run in another
    /// thread.
    pub fn connect(containerd: &Path, namespace: &str, runtime: Handle) -> Result<Self> {
        let channel = runtime.block_on(connect(containerd, "is containerd running?"))?;
        Ok(Content {
            client: ContentClient::new(channel.clone()),
            leases: LeasesClient::new(channel),
            namespace: AsciiMetadataValue::try_from(namespace)?,
            runtime,
        })
    }

    /// Finds the PuzzleFS image with this chain ID. If there are several, it is the one of the manifest that
    /// `labels` of a snapshot name, or otherwise the one that was last pulled.
    ///
    /// # Errors
    ///
    /// If containerd fails, or two images with the same layers differ.
    pub fn find(&self, chain: &str, labels: &Labels, chains: &Chains) -> Result<Option<Found>> {
        let candidates = self.candidates(chain, chains)?;
        self.choose(candidates, labels)
    }

    /// Finds the PuzzleFS image whose layers are those of the chain ID.
    ///
    /// # Errors
    ///
    /// Like [`Content::find`].
    pub fn find_whole(&self, chain: &str, chains: &Chains) -> Result<Option<Found>> {
        let mut candidates = self.candidates(chain, chains)?;
        candidates.retain(|candidate| candidate.is_whole);
        self.choose(candidates, &Labels::new())
    }

    fn candidates(&self, chain: &str, chains: &Chains) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for info in self.manifests()? {
            let known = self.chains_of(&info.digest, chains)?;
            if let Some(position) = known.iter().position(|one| one == chain) {
                let layers = position + 1;
                candidates.push(Candidate {
                    info,
                    layers,
                    is_whole: layers == known.len(),
                });
            }
        }
        Ok(candidates)
    }

    fn choose(&self, mut candidates: Vec<Candidate>, labels: &Labels) -> Result<Option<Found>> {
        let named = labels.get(MANIFEST_DIGEST);
        candidates.sort_by_key(|Candidate { info, .. }| {
            let time = info.updated.unwrap_or_default();
            (Some(&info.digest) == named, time.seconds, time.nanos)
        });
        let Some(chosen) = candidates.pop() else {
            return Ok(None);
        };
        let found = self.read_found(&chosen)?;
        if found.is_whole {
            for other in candidates.iter().filter(|other| other.is_whole) {
                let other = self.read_found(other)?;
                if root(&other.manifest) != root(&found.manifest) {
                    return Err(anyhow!(
                        "the images {} and {} differ, and have the same layers; remove one of them",
                        found.digest.to_oci(),
                        other.digest.to_oci()
                    ));
                }
            }
        }
        Ok(Some(found))
    }

    fn read_found(&self, candidate: &Candidate) -> Result<Found> {
        let Candidate { info, .. } = candidate;
        let bytes = self.small(&info.digest)?;
        let lost = || anyhow!("containerd's content store: {} has changed", info.digest);
        let bytes = bytes.ok_or_else(lost)?;
        let digest = Digest::of(&bytes);
        if digest.to_oci() != info.digest {
            return Err(lost());
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)?;
        let sizes = manifest.layers.iter().map(|layer| layer.size);
        Ok(Found {
            digest,
            layers: candidate.layers,
            is_whole: candidate.is_whole,
            size: sizes.fold(0, u64::saturating_add),
            sources: sources(&info.labels),
            manifest: bytes,
        })
    }

    /// Returns the chain IDs of the layers of a manifest; none for another document.
    fn chains_of(&self, digest: &str, chains: &Chains) -> Result<Arc<[String]>> {
        if let Some(known) = lock(&chains.known).get(digest) {
            return Ok(Arc::clone(known));
        }
        let bytes = self.small(digest)?.unwrap_or_default();
        let found: Arc<[String]> = chain_ids(&bytes).into();
        let mut known = lock(&chains.known);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(digest.to_owned(), Arc::clone(&found));
        Ok(found)
    }

    /// Lists the manifests of the namespace. containerd keeps their configurations by a label. It does not
    /// keep layers in this way if it is configured to discard them.
    fn manifests(&self) -> Result<Vec<ContentInfo>> {
        let filters =
            ["config", "0"].map(|name| format!("labels.\"containerd.io/gc.ref.content.{name}\""));
        let request = ListContentRequest {
            filters: filters.into(),
        };
        let mut client = self.client.clone();
        let list = async {
            let mut answers = client.list(self.request(request)).await?.into_inner();
            let mut found = Vec::new();
            while let Some(answer) = answers.message().await? {
                found.extend(answer.info);
            }
            Ok(found)
        };
        let found = self.wait(list);
        found.map_err(|status| anyhow!("containerd: {}", status.message()))
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
        let answers = self.wait(client.read(self.request(request)));
        let mut answers = answers.map_err(failed)?.into_inner();
        while let Some(answer) = self.wait(answers.message()).map_err(failed)? {
            if !give(&answer.data)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes containerd keep the layers of an image that it downloads, until [`Content::release_layers`].
    ///
    /// The last layer makes the image available, and needs the others. If a pull ends before it, the next
    /// pull finds the snapshots of the other layers, and downloads these layers no more. Nothing else keeps
    /// them then, if containerd is configured to discard layers.
    pub fn keep_layers(&self, image: &Found) -> Result<()> {
        let manifest: Manifest = serde_json::from_slice(&image.manifest)?;
        let id = lease_of(image);
        let mut leases = self.leases.clone();
        let keep = async {
            match leases
                .create(self.request(new_lease(id.clone(), KEPT)))
                .await
            {
                Err(status) if status.code() != Code::AlreadyExists => return Err(status),
                _ => {}
            }
            for layer in manifest.layers {
                let resource = LeaseResource {
                    id: layer.digest,
                    r#type: "content".to_owned(),
                };
                let request = LeaseAddResourceRequest {
                    id: id.clone(),
                    resource: Some(resource),
                };
                leases.add_resource(self.request(request)).await?;
            }
            Ok(())
        };
        let kept = self.wait(keep);
        kept.map_err(|status| anyhow!("containerd: {}", status.message()))
    }

    /// Ends [`Content::keep_layers`], which need not have been called.
    pub fn release_layers(&self, image: &Found) -> Result<()> {
        let request = self.request(LeaseDeleteRequest {
            id: lease_of(image),
        });
        match self.wait(self.leases.clone().delete(request)) {
            Err(status) if status.code() != Code::NotFound => {
                Err(anyhow!("containerd: {}", status.message()))
            }
            _ => Ok(()),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.namespace.clone();
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        request
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let late = || Status::deadline_exceeded("containerd does not answer");
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(PATIENCE, answer).await;
            answered.unwrap_or_else(|_| Err(late()))
        })
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

/// Returns the name of the lease that keeps the layers of an image.
fn lease_of(image: &Found) -> String {
    format!("puzzlefs-layers-{}", image.digest.to_hex())
}

/// Returns the chain IDs of the layers of a manifest, as the OCI image specification defines them; none if it
/// is not that of a PuzzleFS image, or has too many layers.
fn chain_ids(bytes: &[u8]) -> Vec<String> {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else {
        return Vec::new();
    };
    if !manifest.is_puzzlefs() || manifest.layers.len() > LAYERS_MAX {
        return Vec::new();
    }
    let mut chains: Vec<String> = Vec::new();
    for layer in manifest.layers {
        chains.push(match chains.last() {
            Some(below) => Digest::of(format!("{below} {}", layer.digest).as_bytes()).to_oci(),
            None => layer.digest,
        });
    }
    chains
}

/// Returns what distinguishes images with the same layers: the digest of the root.
fn root(manifest: &[u8]) -> Option<String> {
    let manifest: Manifest = serde_json::from_slice(manifest).ok()?;
    manifest.annotations.get(puzzlefs_lib::oci::ROOT).cloned()
}

/// Returns the registries and repositories that labels of a blob name.
fn sources(labels: &Labels) -> Sources {
    let named = labels.iter().filter_map(|(label, repositories)| {
        let registry = label.strip_prefix(SOURCE)?;
        Some(repositories.split(',').map(move |repository| {
            let name = |text: &str| text.trim().to_owned();
            (name(registry), name(repository))
        }))
    });
    let named = named
        .flatten()
        .filter(|(_, repository)| !repository.is_empty());
    named.take(SOURCES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(layers: &[&str], annotation: &str) -> Vec<u8> {
        let layers: Vec<_> = layers
            .iter()
            .map(|digest| json!({ "mediaType": "x", "digest": digest, "size": 1 }))
            .collect();
        let config = json!({ "mediaType": "y", "digest": "sha256:c", "size": 1 });
        let manifest = json!({
            "schemaVersion": 2, "config": config, "layers": layers, "annotations": { annotation: "r" },
        });
        manifest.to_string().into_bytes()
    }

    #[test]
    fn chain_ids_of_manifests() {
        let root = puzzlefs_lib::oci::ROOT;
        let second = Digest::of(b"sha256:a sha256:b").to_oci();
        let third = Digest::of(format!("{second} sha256:a").as_bytes()).to_oci();
        let found = chain_ids(&manifest(&["sha256:a", "sha256:b", "sha256:a"], root));
        assert_eq!(found, ["sha256:a".to_owned(), second, third]);
        assert!(chain_ids(&manifest(&["sha256:a"], "other")).is_empty());
        assert!(chain_ids(&manifest(&["sha256:a"; LAYERS_MAX + 1], root)).is_empty());
        assert!(chain_ids(b"{}").is_empty());
    }

    #[test]
    fn sources_of_a_manifest() {
        let labels = [
            (
                "containerd.io/distribution.source.localhost:5000",
                "team/app,other",
            ),
            ("containerd.io/distribution.source.b.example", "c, ,d,e"),
            ("containerd.io/gc.ref.content.config", "sha256:c"),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let found = sources(&Labels::from(labels));
        let found: Vec<String> = found
            .iter()
            .map(|(host, name)| format!("{host}/{name}"))
            .collect();
        assert_eq!(
            found,
            [
                "b.example/c",
                "b.example/d",
                "b.example/e",
                "localhost:5000/team/app"
            ]
        );
    }
}
