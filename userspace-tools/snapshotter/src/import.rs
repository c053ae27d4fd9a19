// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs-snapshotter import`: registers an image of a store with containerd.
//!
//! Containerd gets three small blobs: a manifest, the image's configuration with another list of layers,
//! and, as the only layer, the manifest of the image in its store. This manifest's digest is the layer's
//! ID. The digest that containerd has for the image thus covers everything that a container sees.

use crate::api::content::content_client::ContentClient;
use crate::api::images::images_client::ImagesClient;
use crate::api::leases::leases_client::LeasesClient;
use crate::api::own::images_client::ImagesClient as OwnClient;
use crate::api::snapshots::snapshots_client::SnapshotsClient;
use crate::api::{
    self, AddRequest, ContentInfo, ContentUpdateRequest, FieldMask, ImageRequest, KeyRequest,
    Labels, LeaseCreateRequest, LeaseDeleteRequest, PrepareRequest, WriteAction, WriteRequest,
    REFERENCE,
};
use crate::images;
use crate::ContainerdArgs;
use anyhow::{anyhow, bail, Context, Result};
use clap::Args;
use puzzlefs_lib::json as oci_json;
use puzzlefs_lib::oci::{self, Descriptor, Manifest};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::tree::find_any_image;
use puzzlefs_lib::{message, mount, time, Digest, ImageRef, Store};
use serde_json::{json, Map, Value};
use std::ffi::OsString;
use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// The media type of a configuration.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of the only layer. Containerd recognises a layer by the beginning of its type.
const LAYER: &str = "application/vnd.oci.image.layer.puzzlefs.manifest.v1+json";
/// The largest configuration read.
const CONFIG_MAX: u64 = 16 << 20;
/// Maximum number of bytes in one message. Containerd accepts 16 MiB.
const PIECE: usize = 1 << 20;
/// The time after which the lease of a killed import expires, in seconds.
const LIFETIME: i64 = 3600;

/// Register an image of a store with containerd
///
/// The image stays in the store, which containerd needs as long as it has the image. Keep a tag of the
/// image in the store; otherwise 'puzzlefs gc' removes its blobs when no container uses it. 'ctr image
/// rm' removes the image from containerd, and nothing from the store.
///
/// The mount options apply to all containers of the image. Another import changes them.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[arg(value_name = "IMAGE", help = "Image, STORE:TAG or STORE@sha256:DIGEST")]
    pub image: OsString,
    /// Name in containerd, such as localhost/debian:puzzlefs
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Set mount options of mount.puzzlefs(8), separated by commas
    ///
    /// verify=digest and verify=fsverity make the kernel verify data. digest=HEX authenticates the
    /// manifest and all data.
    #[arg(short, long, value_name = "OPTIONS", default_value = "")]
    pub options: String,
    /// Import into this namespace of containerd
    #[arg(short, long, default_value = "default", env = "CONTAINERD_NAMESPACE")]
    pub namespace: String,
    #[command(flatten)]
    containerd: ContainerdArgs,
    /// Connect to this socket of the snapshotter
    #[arg(long, value_name = "SOCKET", default_value = crate::SOCKET)]
    pub address: PathBuf,
    /// Use the snapshotter of this name in containerd's configuration
    #[arg(long, value_name = "NAME", default_value = "puzzlefs")]
    pub snapshotter: String,
}

/// Imports an image.
pub fn run(arguments: &ImportArgs) -> Result<()> {
    images::parse(&arguments.options)?;
    if arguments.name.is_empty() {
        bail!("give the image a name");
    }
    let reference = ImageRef::parse(&arguments.image)?;
    let (store, image) = find_any_image(&reference)?;
    let parts = Parts::of(&store, &image.manifest, *image.root.manifest_digest())?;
    let (path, _) = mount::find(&reference)?;
    let path = path.to_str().ok_or_else(|| {
        anyhow!(
            "{}: the path is not UTF-8, as containerd requires",
            path.display()
        )
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let own = connect(
            &arguments.address,
            "is puzzlefs-snapshotter.service running?",
        )
        .await?;
        let request = AddRequest {
            store: path.to_owned(),
            manifest: parts.layer.digest.clone(),
            options: arguments.options.clone(),
        };
        let added = OwnClient::new(own).add(request).await;
        added.map_err(|status| anyhow!("the snapshotter: {}", status.message()))?;
        let containerd = Containerd::connect(arguments).await?;
        containerd
            .with_lease(containerd.import(&parts, &arguments.name))
            .await
    })?;
    let line = format!("{} {}\n", arguments.name, parts.manifest.digest);
    match message::print(&line) {
        // The image is imported, so a reader that is gone is not a failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.with_context(|| format!("{} is imported", arguments.name)),
    }
}

/// The blobs that containerd gets.
#[derive(Debug, PartialEq)]
struct Parts {
    manifest: Descriptor,
    manifest_bytes: Vec<u8>,
    config: Descriptor,
    config_bytes: Vec<u8>,
    layer: Descriptor,
    layer_bytes: Vec<u8>,
}

impl Parts {
    /// Makes the blobs for an image.
    fn of(store: &Store, manifest: &Manifest, digest: Digest) -> Result<Self> {
        let original = match &*manifest.config.media_type {
            CONFIG | oci::DOCKER_CONFIG => {
                let found = Digest::from_oci(&manifest.config.digest);
                let found =
                    found.ok_or_else(|| anyhow!("the configuration has no sha256 digest"))?;
                let bytes = store.read_blob(&found, CONFIG_MAX)?;
                let path = store.blob_path(&found);
                oci_json::parse(&bytes, "the configuration of a container image")
                    .map_err(|what| anyhow!("{}: {what}", path.display()))?
            }
            _ => Map::new(),
        };
        // `find_any_image` has read this manifest, and so has limited its size.
        let layer_bytes = store.read_blob(&digest, u64::MAX >> 1)?;
        let config_bytes = serde_json::to_vec(&configuration(original, digest))?;
        let size = |bytes: &[u8]| bytes.len() as u64;
        let layer = Descriptor::new(LAYER, digest, size(&layer_bytes));
        let config = Descriptor::new(CONFIG, Digest::of(&config_bytes), size(&config_bytes));
        let mut outer = Manifest::new(vec![layer.clone()]);
        outer.artifact_type = None;
        outer.config = config.clone();
        let manifest_bytes = outer.to_json();
        let manifest = Descriptor::new(
            oci::MANIFEST,
            Digest::of(&manifest_bytes),
            size(&manifest_bytes),
        );
        Ok(Parts {
            manifest,
            manifest_bytes,
            config,
            config_bytes,
            layer,
            layer_bytes,
        })
    }
}

/// Returns the configuration of the image with a list of one layer.
fn configuration(mut original: Map<String, Value>, layer: Digest) -> Value {
    let platform = Platform::host();
    for (name, value) in [
        ("architecture", platform.architecture()),
        ("os", platform.os()),
    ] {
        if !original.get(name).is_some_and(Value::is_string) {
            original.insert(name.to_owned(), value.into());
        }
    }
    if !original.get("config").is_some_and(Value::is_object) {
        original.insert("config".to_owned(), json!({}));
    }
    // It describes other layers.
    original.remove("history");
    let layers = json!({ "type": "layers", "diff_ids": [layer.to_oci()] });
    original.insert("rootfs".to_owned(), layers);
    original.into()
}

/// Returns the request for a lease that expires after a time, in seconds.
pub fn new_lease(id: String, lifetime: i64) -> LeaseCreateRequest {
    let end = time::utc(api::Timestamp::now().seconds.saturating_add(lifetime));
    let end = format!("{}Z", end.replace(' ', "T"));
    LeaseCreateRequest {
        id,
        labels: Labels::from([("containerd.io/gc.expire".to_owned(), end)]),
    }
}

/// A connection to containerd.
struct Containerd {
    channel: Channel,
    namespace: AsciiMetadataValue,
    lease: AsciiMetadataValue,
    snapshotter: String,
}

impl Containerd {
    async fn connect(arguments: &ImportArgs) -> Result<Self> {
        let namespace = &arguments.namespace;
        let namespace = namespace
            .parse()
            .map_err(|_| anyhow!("'{namespace}' is not the name of a namespace"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos();
        Ok(Containerd {
            channel: connect(&arguments.containerd.socket, "is containerd running?").await?,
            namespace,
            lease: format!("puzzlefs-import-{}-{now}", std::process::id()).parse()?,
            snapshotter: arguments.snapshotter.clone(),
        })
    }

    /// Makes a request in the namespace and under the lease.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.namespace.clone());
        metadata.insert("containerd-lease", self.lease.clone());
        request
    }

    /// Runs `work` under a lease, which makes containerd keep new blobs although nothing refers to them
    /// yet. The lease of a killed import expires.
    async fn with_lease(&self, work: impl Future<Output = Result<()>>) -> Result<()> {
        let id = self.lease.to_str()?.to_owned();
        let mut leases = LeasesClient::new(self.channel.clone());
        let request = new_lease(id.clone(), LIFETIME);
        let created = leases.create(self.request(request)).await;
        created.map_err(|status| anyhow!("containerd: {}", status.message()))?;
        let done = work.await;
        let deleted = leases.delete(self.request(LeaseDeleteRequest { id })).await;
        done?;
        deleted.map_err(|status| anyhow!("containerd: {}", status.message()))?;
        Ok(())
    }

    async fn import(&self, parts: &Parts, name: &str) -> Result<()> {
        let fail = |what: &'static str| {
            move |status: Status| anyhow!("containerd: {what}: {}", status.message())
        };
        let Parts {
            manifest,
            config,
            layer,
            ..
        } = parts;
        let refers =
            |to: &str, value: &str| (format!("containerd.io/gc.ref.{to}"), value.to_owned());
        let snapshot = format!("snapshot.{}", self.snapshotter);
        for (descriptor, bytes, labels) in [
            (
                layer,
                &parts.layer_bytes,
                Labels::from([(
                    "containerd.io/uncompressed".to_owned(),
                    layer.digest.clone(),
                )]),
            ),
            (
                config,
                &parts.config_bytes,
                Labels::from([refers(&snapshot, &layer.digest)]),
            ),
            (
                manifest,
                &parts.manifest_bytes,
                Labels::from([
                    refers("content.config", &config.digest),
                    refers("content.l.0", &layer.digest),
                ]),
            ),
        ] {
            let written = self.write(descriptor, bytes, labels).await;
            written.map_err(fail("cannot write a blob"))?;
        }
        self.forget_lost(layer).await?;
        self.prepare(layer).await?;
        let image = ImageRequest {
            image: Some(api::Image {
                name: name.to_owned(),
                labels: Labels::new(),
                target: Some(api::Descriptor {
                    media_type: manifest.media_type.clone(),
                    digest: manifest.digest.clone(),
                    size: manifest.size.try_into()?,
                }),
            }),
        };
        let mut images = ImagesClient::new(self.channel.clone());
        match images.create(self.request(image.clone())).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                let updated = images.update(self.request(image)).await;
                updated.map_err(fail("cannot replace the image"))?;
            }
            created => drop(created.map_err(fail("cannot make the image"))?),
        }
        Ok(())
    }

    /// Writes a blob, or sets its labels if it exists.
    async fn write(
        &self,
        descriptor: &Descriptor,
        bytes: &[u8],
        labels: Labels,
    ) -> Result<(), Status> {
        let too_large = |_| Status::invalid_argument("too large");
        let total = i64::try_from(bytes.len()).map_err(too_large)?;
        let mut pieces = Vec::new();
        let mut offset = 0;
        for piece in bytes.chunks(PIECE) {
            pieces.push(WriteRequest {
                action: WriteAction::Write.into(),
                reference: format!("puzzlefs-import-{}", descriptor.digest),
                total,
                expected: descriptor.digest.clone(),
                offset,
                data: piece.to_vec(),
                labels: Labels::new(),
            });
            offset += piece.len() as i64;
        }
        if let Some(last) = pieces.last_mut() {
            last.action = WriteAction::Commit.into();
            last.labels.clone_from(&labels);
        }
        let mut content = ContentClient::new(self.channel.clone());
        let write = async {
            let request = self.request(tokio_stream::iter(pieces));
            let mut answers = content.write(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(())
        };
        match write.await {
            Err(status) if status_is(&status, Code::AlreadyExists) => {
                let fields = labels.keys().map(|label| format!("labels.{label}"));
                let request = ContentUpdateRequest {
                    update_mask: Some(FieldMask {
                        paths: fields.collect(),
                    }),
                    info: Some(ContentInfo {
                        digest: descriptor.digest.clone(),
                        labels,
                        ..ContentInfo::default()
                    }),
                };
                content.update(self.request(request)).await.map(drop)
            }
            result => result,
        }
    }

    /// Prepares the layer. The snapshotter answers that it exists, and containerd adds it to its own list
    /// of snapshots.
    async fn prepare(&self, layer: &Descriptor) -> Result<()> {
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let key = format!("puzzlefs-import-{}", layer.digest);
        let request = PrepareRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: String::new(),
            labels: Labels::from([(REFERENCE.to_owned(), layer.digest.clone())]),
        };
        match snapshots.prepare(self.request(request)).await {
            Err(status) if status_is(&status, Code::AlreadyExists) => Ok(()),
            Err(status) => Err(anyhow!(
                "containerd: the snapshotter '{}': {}",
                self.snapshotter,
                status.message()
            )),
            Ok(_) => {
                let _ = snapshots.remove(self.request(self.key(&key))).await;
                bail!(
                    "containerd's snapshotter '{}' does not know the image; check that \
                     --address names its socket",
                    self.snapshotter
                )
            }
        }
    }

    /// Removes a layer from containerd's own list of snapshots if the snapshotter has lost it with its
    /// state. Otherwise containerd would answer that the layer exists.
    async fn forget_lost(&self, layer: &Descriptor) -> Result<()> {
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let key = self.key(&layer.digest);
        match snapshots.stat(self.request(key.clone())).await {
            Err(status) if status_is(&status, Code::NotFound) => {}
            // `prepare` meets any other error again, and reports it.
            _ => return Ok(()),
        }
        match snapshots.remove(self.request(key)).await {
            Err(status) if !status_is(&status, Code::NotFound) => Err(anyhow!(
                "containerd lists a snapshot of the image that the snapshotter '{}' has lost; remove \
                 the snapshots that depend on it first: {}",
                self.snapshotter,
                status.message()
            )),
            _ => Ok(()),
        }
    }

    fn key(&self, key: &str) -> KeyRequest {
        KeyRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
        }
    }
}

fn status_is(status: &Status, code: Code) -> bool {
    status.code() == code
}

/// Connects to a socket.
pub async fn connect(socket: &Path, question: &str) -> Result<Channel> {
    let shown = socket.display();
    // Else the reason would not be told.
    std::os::unix::net::UnixStream::connect(socket)
        .with_context(|| format!("{shown}: cannot connect to it; {question}"))?;
    let path = socket
        .to_str()
        .ok_or_else(|| anyhow!("{shown}: not UTF-8"))?;
    let endpoint = Endpoint::from_shared(format!("unix://{path}"))?;
    endpoint.connect().await.with_context(|| shown.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use puzzlefs_lib::builder::{self, BuildOptions};
    use puzzlefs_lib::Progress;

    #[test]
    fn the_configuration_is_kept_but_for_its_layers() {
        let layer = Digest::of(b"manifest");
        let original = json!({
            "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2026-01-01T00:00:00Z",
            "config": { "Entrypoint": ["/usr/bin/server"], "Env": ["A=b"] },
            "history": [{ "created_by": "sh" }, { "created_by": "sh" }],
            "rootfs": { "type": "layers", "diff_ids": ["sha256:1", "sha256:2"] },
        });
        let Value::Object(original) = original else {
            unreachable!()
        };
        let wanted = json!({
            "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2026-01-01T00:00:00Z",
            "config": { "Entrypoint": ["/usr/bin/server"], "Env": ["A=b"] },
            "rootfs": { "type": "layers", "diff_ids": [layer.to_oci()] },
        });
        assert_eq!(configuration(original, layer), wanted);
        let made = configuration(Map::new(), layer);
        assert_eq!(made["os"], "linux");
        assert_eq!(made["architecture"], Platform::host().architecture());
        assert!(made["config"].is_object());
    }

    #[test]
    fn what_containerd_gets() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "contents").unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        let options = BuildOptions::new("image");
        let built = builder::build(&source, &store, &options, &Progress::default()).unwrap();
        let (manifest, _) = store.manifest(&built.manifest).unwrap();
        let parts = Parts::of(&store, &manifest, built.manifest).unwrap();
        // The same again: an import can be repeated.
        assert_eq!(parts, Parts::of(&store, &manifest, built.manifest).unwrap());
        for (descriptor, bytes) in [
            (&parts.manifest, &parts.manifest_bytes),
            (&parts.config, &parts.config_bytes),
            (&parts.layer, &parts.layer_bytes),
        ] {
            assert_eq!(descriptor.digest, Digest::of(bytes).to_oci());
            assert_eq!(descriptor.size, bytes.len() as u64);
        }
        assert_eq!(parts.layer.digest, built.manifest.to_oci());
        let outer: Value = serde_json::from_slice(&parts.manifest_bytes).unwrap();
        assert_eq!(outer["config"]["digest"], parts.config.digest);
        assert_eq!(outer["layers"].as_array().unwrap().len(), 1);
        assert_eq!(outer["layers"][0]["digest"], parts.layer.digest);
        assert_eq!(outer.get("artifactType"), None);
        let config: Value = serde_json::from_slice(&parts.config_bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"], json!([parts.layer.digest]));
    }
}
