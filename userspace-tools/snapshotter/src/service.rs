// SPDX-License-Identifier: MIT OR Apache-2.0

//! The services of the socket: containerd's services of snapshots and of layers, and our own of images.

use crate::api::diff::diff_server::{Diff, DiffServer};
use crate::api::own::images_server::{Images, ImagesServer};
use crate::api::snapshots::snapshots_server::{self, SnapshotsServer};
use crate::api::{
    AddRequest, ApplyRequest, ApplyResponse, CleanupRequest, CommitRequest, Descriptor, Empty,
    InfoMessage, KeyRequest, Kind, ListRequest, ListResponse, MountsResponse, PrepareRequest,
    UpdateRequest, UsageResponse,
};
use crate::images;
use crate::lazy::Settings;
use crate::metrics::Metrics;
use crate::provide::{Layer, Provider};
use crate::registries::Registries;
use crate::snapshots::{Cause, Mounter, Refusal, Snapshots};
use crate::state::Image;
use puzzlefs_lib::Digest;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::runtime::Handle;
use tonic::body::Body;
use tonic::codegen::{http, BoxFuture, Service};
use tonic::{async_trait, Request, Response, Status};

/// Maximum number of snapshots in one message of a list.
const LIST_PIECE: usize = 100;

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.cause {
            Cause::NotFound => Status::not_found,
            Cause::AlreadyExists => Status::already_exists,
            Cause::Precondition => Status::failed_precondition,
            Cause::Invalid => Status::invalid_argument,
            Cause::Failed => Status::unknown,
        };
        status(refusal.message)
    }
}

/// The media type of the content of a layer that was unpacked, as containerd states it.
const UNPACKED: &str = "application/vnd.oci.image.layer.v1.tar";

/// Answers calls. The work runs on threads that may wait for a disk.
struct Answers<M> {
    snapshots: Arc<Snapshots<M>>,
    provider: Arc<Provider<M>>,
    metrics: Arc<Metrics>,
}

impl<M> Clone for Answers<M> {
    fn clone(&self) -> Self {
        Answers {
            snapshots: Arc::clone(&self.snapshots),
            provider: Arc::clone(&self.provider),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

impl<M: Mounter> Answers<M> {
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Snapshots<M>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let snapshots = Arc::clone(&self.snapshots);
        let began = Instant::now();
        let done = tokio::task::spawn_blocking(move || work(&snapshots)).await;
        let has_failed = match &done {
            Ok(Err(refusal)) => refusal.cause == Cause::Failed,
            done => done.is_err(),
        };
        self.metrics.called(name, began, has_failed);
        let result = done.map_err(|error| Status::internal(error.to_string()))?;
        result.map_err(|refusal| {
            if refusal.cause == Cause::Failed {
                crate::say(&refusal.message);
            }
            refusal.into()
        })
    }

    async fn prepare(
        &self,
        kind: Kind,
        request: PrepareRequest,
    ) -> Result<Response<MountsResponse>, Status> {
        let provider = Arc::clone(&self.provider);
        let runtime = Handle::current();
        let name = match kind {
            Kind::View => "view",
            _ => "prepare",
        };
        let mounts = self
            .call(name, move |_| provider.prepare(kind, request, runtime))
            .await?;
        Ok(Response::new(MountsResponse { mounts }))
    }
}

#[async_trait]
impl<M: Mounter> snapshots_server::Snapshots for Answers<M> {
    async fn prepare(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        self.prepare(Kind::Active, request.into_inner()).await
    }

    async fn view(
        &self,
        request: Request<PrepareRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        self.prepare(Kind::View, request.into_inner()).await
    }

    async fn mounts(
        &self,
        request: Request<KeyRequest>,
    ) -> Result<Response<MountsResponse>, Status> {
        let key = request.into_inner().key;
        let mounts = self.call("mounts", move |s| s.mounts(&key)).await?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<CommitRequest>) -> Result<Response<Empty>, Status> {
        let CommitRequest {
            name, key, labels, ..
        } = request.into_inner();
        self.call("commit", move |s| s.commit(&name, &key, labels))
            .await?;
        Ok(Response::new(Empty {}))
    }

    async fn remove(&self, request: Request<KeyRequest>) -> Result<Response<Empty>, Status> {
        let key = request.into_inner().key;
        self.call("remove", move |s| s.remove(&key)).await?;
        Ok(Response::new(Empty {}))
    }

    async fn stat(&self, request: Request<KeyRequest>) -> Result<Response<InfoMessage>, Status> {
        let key = request.into_inner().key;
        let info = self.call("stat", move |s| s.stat(&key)).await?;
        Ok(Response::new(InfoMessage { info: Some(info) }))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<InfoMessage>, Status> {
        let request = request.into_inner();
        let wanted = request.info.unwrap_or_default();
        let fields = request.update_mask.unwrap_or_default().paths;
        let info = self
            .call("update", move |s| s.update(wanted, &fields))
            .await?;
        Ok(Response::new(InfoMessage { info: Some(info) }))
    }

    type ListStream = tokio_stream::Iter<std::vec::IntoIter<Result<ListResponse, Status>>>;

    /// Lists all snapshots and ignores the filters, because containerd has the users' names and filters
    /// the answer itself.
    async fn list(
        &self,
        _request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let all = self.call("list", |s| Ok(s.list())).await?;
        let pieces = all.chunks(LIST_PIECE);
        let pieces: Vec<_> = pieces
            .map(|piece| {
                Ok(ListResponse {
                    info: piece.to_vec(),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    async fn usage(&self, request: Request<KeyRequest>) -> Result<Response<UsageResponse>, Status> {
        let key = request.into_inner().key;
        let usage = self.call("usage", move |s| s.usage(&key)).await?;
        Ok(Response::new(usage))
    }

    async fn cleanup(&self, _request: Request<CleanupRequest>) -> Result<Response<Empty>, Status> {
        let provider = Arc::clone(&self.provider);
        self.call("cleanup", move |s| {
            s.clean_up();
            provider.collect()?;
            Ok(())
        })
        .await?;
        Ok(Response::new(Empty {}))
    }
}

#[async_trait]
impl<M: Mounter> Diff for Answers<M> {
    /// Unpacks a layer of a PuzzleFS image. containerd asks another service about other layers.
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let ApplyRequest { diff, mounts } = request.into_inner();
        let diff = diff.unwrap_or_default();
        if !Provider::<M>::takes(&diff.media_type) {
            return Err(Status::unimplemented("not a layer of a PuzzleFS image"));
        }
        let layer = Layer {
            digest: diff.digest.clone(),
            mounts,
        };
        let provider = Arc::clone(&self.provider);
        let runtime = Handle::current();
        self.call("apply", move |_| Ok(provider.apply(&layer, &runtime)?))
            .await?;
        let applied = Descriptor {
            media_type: UNPACKED.to_owned(),
            ..diff
        };
        Ok(Response::new(ApplyResponse {
            applied: Some(applied),
        }))
    }
}

#[async_trait]
impl<M: Mounter> Images for Answers<M> {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<Empty>, Status> {
        let AddRequest {
            store,
            manifest,
            options,
        } = request.into_inner();
        let manifest = Digest::from_oci(&manifest)
            .ok_or_else(|| Status::invalid_argument(format!("'{manifest}' is not a digest")))?;
        let image = Image {
            store: PathBuf::from(store),
            options,
            sources: Vec::new(),
        };
        if !image.store.is_absolute() {
            return Err(Status::invalid_argument("the store's path is not absolute"));
        }
        images::parse(&image.options)
            .map_err(|error| Status::invalid_argument(format!("{error:#}")))?;
        self.call("add", move |s| s.add_image(&manifest, image))
            .await?;
        Ok(Response::new(Empty {}))
    }
}

/// All services, distinguished by the path of a call.
pub struct Services<M> {
    snapshots: SnapshotsServer<Answers<M>>,
    images: ImagesServer<Answers<M>>,
    diff: DiffServer<Answers<M>>,
}

impl<M> Clone for Services<M> {
    fn clone(&self) -> Self {
        Services {
            snapshots: self.snapshots.clone(),
            images: self.images.clone(),
            diff: self.diff.clone(),
        }
    }
}

impl<M: Mounter> Services<M> {
    /// Serves these snapshots. Images of the containerd of a socket are brought into a store.
    pub fn new(
        snapshots: Arc<Snapshots<M>>,
        containerd: PathBuf,
        store: PathBuf,
        registries: Registries,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (same, own) = (Arc::clone(&snapshots), Arc::clone(&metrics));
        let provider = Provider::new(containerd, store, same, registries, settings, own);
        let answers = Answers {
            snapshots,
            provider: Arc::new(provider),
            metrics,
        };
        Services {
            snapshots: SnapshotsServer::new(answers.clone()),
            images: ImagesServer::new(answers.clone()),
            diff: DiffServer::new(answers),
        }
    }
}

impl<M: Mounter> Service<http::Request<Body>> for Services<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // Each service refuses an unknown method.
        let path = request.uri().path();
        if path.starts_with("/puzzlefs.") {
            self.images.call(request)
        } else if path.starts_with("/containerd.services.diff.") {
            self.diff.call(request)
        } else {
            self.snapshots.call(request)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::diff::diff_client::DiffClient;
    use crate::api::own::images_client::ImagesClient;
    use crate::api::snapshots::snapshots_client::SnapshotsClient;
    use crate::api::{FieldMask, Info, Labels, REFERENCE};
    use crate::snapshots::tests::Notes;
    use puzzlefs_lib::fetch::Completion;
    use std::time::Duration;
    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::transport::{Channel, Endpoint, Server};
    use tonic::Code;

    /// Has a snapshotter of its own answer on a socket.
    fn with_server<F: std::future::Future>(work: impl FnOnce(Channel) -> F) -> F::Output {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let snapshots = Snapshots::open(&path("root"), &path("mounts"), Notes::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(path("socket")).unwrap();
            let incoming = UnixListenerStream::new(listener);
            let registries = Registries {
                hosts: path("hosts"),
                timeout: Duration::from_secs(1),
            };
            let metrics = Arc::default();
            let (containerd, store) = (path("containerd"), path("store"));
            let settings = Settings {
                is_lazy: false,
                completion: Completion::Idle,
                limit_rate: None,
            };
            let services = Services::new(
                snapshots.into(),
                containerd,
                store,
                registries,
                settings,
                metrics,
            );
            let server = Server::builder().serve_with_incoming(services, incoming);
            let server = tokio::spawn(server);
            let address = format!("unix://{}", path("socket").display());
            let endpoint = Endpoint::from_shared(address).unwrap();
            let result = work(endpoint.connect().await.unwrap()).await;
            server.abort();
            result
        })
    }

    fn prepare(key: &str, parent: &str, labels: Labels) -> PrepareRequest {
        PrepareRequest {
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
            ..PrepareRequest::default()
        }
    }

    fn key(key: &str) -> KeyRequest {
        KeyRequest {
            key: key.to_owned(),
            ..KeyRequest::default()
        }
    }

    fn code<T>(result: Result<T, Status>) -> Code {
        result.map(drop).unwrap_err().code()
    }

    #[test]
    fn what_containerd_asks() {
        with_server(|channel| async {
            let mut snapshots = SnapshotsClient::new(channel);
            let made = snapshots.prepare(prepare("a", "", Labels::new())).await;
            let mounts = made.unwrap().into_inner();
            assert_eq!(mounts.mounts.len(), 1);
            let asked = snapshots.mounts(key("a")).await.unwrap();
            assert_eq!(asked.into_inner(), mounts);
            let usage = snapshots.usage(key("a")).await.unwrap().into_inner();
            assert_eq!(usage.inodes, 1);
            let commit = CommitRequest {
                name: "layer".to_owned(),
                key: "a".to_owned(),
                ..CommitRequest::default()
            };
            snapshots.commit(commit.clone()).await.unwrap();
            assert_eq!(code(snapshots.commit(commit).await), Code::NotFound);
            let seen = snapshots.view(prepare("b", "layer", Labels::new())).await;
            assert_eq!(seen.unwrap().into_inner().mounts[0].options[0], "ro");
            let wanted = Info {
                name: "b".to_owned(),
                labels: Labels::from([("x".to_owned(), "y".to_owned())]),
                ..Info::default()
            };
            let update = UpdateRequest {
                info: Some(wanted.clone()),
                update_mask: Some(FieldMask {
                    paths: vec!["labels.x".to_owned()],
                }),
                ..UpdateRequest::default()
            };
            let updated = snapshots.update(update).await.unwrap().into_inner().info;
            let found = snapshots.stat(key("b")).await.unwrap().into_inner().info;
            assert_eq!(found, updated);
            let found = found.unwrap();
            assert_eq!((found.kind(), &found.labels), (Kind::View, &wanted.labels));
            assert_eq!(
                code(snapshots.remove(key("layer")).await),
                Code::FailedPrecondition
            );
            assert_eq!(code(snapshots.stat(key("a")).await), Code::NotFound);
            assert_eq!(
                code(snapshots.prepare(prepare("", "", Labels::new())).await),
                Code::InvalidArgument
            );
            // More than go into one message.
            for number in 0..2 * LIST_PIECE {
                let key = format!("c{number}");
                snapshots
                    .prepare(prepare(&key, "layer", Labels::new()))
                    .await
                    .unwrap();
            }
            let answer = snapshots.list(ListRequest::default()).await;
            let mut pieces = answer.unwrap().into_inner();
            let mut names = Vec::new();
            while let Some(piece) = pieces.message().await.unwrap() {
                assert!(piece.info.len() <= LIST_PIECE);
                names.extend(piece.info.into_iter().map(|info| info.name));
            }
            assert_eq!(names.len(), 2 * LIST_PIECE + 2);
            snapshots.remove(key("b")).await.unwrap();
            snapshots.cleanup(CleanupRequest::default()).await.unwrap();
        });
    }

    /// Layers of other images are for containerd's own service, and a layer needs its snapshot.
    #[test]
    fn layers_that_are_unpacked() {
        with_server(|channel| async {
            let diff = DiffClient::new(channel);
            let apply = |media_type: &str| {
                let request = ApplyRequest {
                    diff: Some(Descriptor {
                        media_type: media_type.to_owned(),
                        ..Descriptor::default()
                    }),
                    mounts: Vec::new(),
                };
                let mut diff = diff.clone();
                async move { code(diff.apply(request).await) }
            };
            for other in [
                "application/vnd.oci.image.layer.v1.tar+gzip",
                "application/vnd.oci.image.layer.puzzlefs.manifest.v1+json",
                "",
            ] {
                assert_eq!(apply(other).await, Code::Unimplemented, "{other}");
            }
            let pack = "application/vnd.oci.image.layer.puzzlefs.pack.v1";
            assert_eq!(apply(pack).await, Code::Unknown);
        });
    }

    #[test]
    fn what_an_import_tells() {
        with_server(|channel| async {
            let mut images = ImagesClient::new(channel.clone());
            let mut snapshots = SnapshotsClient::new(channel);
            let manifest = Digest::of(b"manifest").to_oci();
            let good = AddRequest {
                store: "/srv/images".to_owned(),
                manifest: manifest.clone(),
                options: "verify=digest".to_owned(),
            };
            let bad = |change: &dyn Fn(&mut AddRequest)| {
                let mut request = good.clone();
                change(&mut request);
                request
            };
            for request in [
                bad(&|request| request.store = "images".to_owned()),
                bad(&|request| request.manifest = "sha256:..".to_owned()),
                bad(&|request| request.options = "rootfs=ab".to_owned()),
                bad(&|request| request.options = "remount".to_owned()),
                bad(&|request| request.options = "a=\"b".to_owned()),
            ] {
                assert_eq!(code(images.add(request).await), Code::InvalidArgument);
            }
            let labels = Labels::from([(REFERENCE.to_owned(), manifest.clone())]);
            images.add(good).await.unwrap();
            let asked = snapshots.prepare(prepare("import", "", labels)).await;
            assert_eq!(code(asked), Code::AlreadyExists);
            let found = snapshots.stat(key(&manifest)).await.unwrap().into_inner();
            assert_eq!(found.info.unwrap().kind(), Kind::Committed);
        });
    }
}
