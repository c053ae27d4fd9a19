// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs-snapshotter serve`: the server to which containerd's proxy plugin connects.

use crate::images::Kernel;
use crate::lazy::Settings;
use crate::metrics::{self, Metrics};
use crate::registries::Registries;
use crate::service::Services;
use crate::snapshots::Snapshots;
use crate::ContainerdArgs;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use puzzlefs_lib::fetch::{parse_rate, Completion};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{self as unix, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::signal::unix::{signal, SignalKind};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// `puzzlefs-snapshotter serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Keep containers' changes, the state of snapshots and a store of images in this directory
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/var/lib/puzzlefs-snapshotter"
    )]
    pub root: PathBuf,
    /// Mount images in this directory
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/run/puzzlefs-snapshotter/images"
    )]
    pub mounts: PathBuf,
    #[command(flatten)]
    containerd: ContainerdArgs,
    /// Read the settings of registries in this directory, containerd's config_path
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "/etc/containerd/certs.d"
    )]
    pub hosts: PathBuf,
    /// Let containerd download an image if its registry does not answer for this time, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub registry_timeout: u64,
    /// Make images of registries available before their data has arrived
    ///
    /// The snapshotter then brings the metadata of an image into its store, and answers containerd that the
    /// layers exist. Processes of containers wait for chunks that they read and that have not arrived. The
    /// snapshotter fetches these first, and the rest in the background. After 60 s without a chunk, its
    /// readers get EIO. All data is verified when it is read. If an image cannot be fetched so, the
    /// snapshotter pulls it.
    ///
    /// Images that are not complete are continued when the snapshotter starts, also without this option.
    #[arg(long)]
    pub lazy: bool,
    /// With --lazy, choose when chunks are fetched that no container reads
    #[arg(long, value_name = "WHEN", default_value = "idle")]
    pub complete: Complete,
    /// With --lazy, fetch chunks that no container reads at RATE bytes per second at most for each image;
    /// with a suffix, KiB (K), MiB (M) or GiB (G) [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub limit_rate: Option<NonZeroU64>,
    /// Answer requests for Prometheus metrics on this address, http://ADDRESS:PORT/metrics
    ///
    /// The metrics have no names of images. All hosts that reach the address can read them: use a loopback
    /// address, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Listen on this socket
    #[arg(long, value_name = "SOCKET", default_value = crate::SOCKET)]
    pub address: PathBuf,
}

/// The values of `--complete`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Complete {
    /// At once, beside chunks that containers wait for, which come first
    Now,
    /// While containers wait for no chunks, one range at a time
    Idle,
}

/// Serves until SIGTERM or SIGINT. Mounts and snapshots stay.
pub fn run(arguments: &ServeArgs) -> Result<()> {
    let address = &arguments.address;
    let shown = || address.display().to_string();
    let metrics = Arc::new(Metrics::default());
    let kernel = Kernel::new(Arc::clone(&metrics));
    let snapshots = Snapshots::open(&arguments.root, &arguments.mounts, kernel)?;
    let snapshots = Arc::new(snapshots);
    let registries = Registries {
        hosts: arguments.hosts.clone(),
        timeout: Duration::from_secs(arguments.registry_timeout),
    };
    let settings = Settings {
        is_lazy: arguments.lazy,
        completion: match arguments.complete {
            Complete::Now => Completion::Now,
            Complete::Idle => Completion::Idle,
        },
        limit_rate: arguments.limit_rate,
    };
    let services = Services::new(
        Arc::clone(&snapshots),
        arguments.containerd.socket.clone(),
        arguments.root.join("store"),
        registries,
        settings,
        Arc::clone(&metrics),
    );
    if let Some(parent) = address.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.with_context(|| parent.display().to_string())?;
    }
    // Its former owner is gone, because `Snapshots::open` has the lock.
    match fs::remove_file(address) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(shown),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = bind(address).with_context(shown)?;
        if let Some(address) = arguments.metrics {
            let listener = metrics::listen(address).await?;
            let refresh = move |metrics: &Metrics| {
                let (all, mounted) = snapshots.counts();
                metrics.snapshots.set(all as i64);
                metrics.mounted.set(mounted as i64);
            };
            tokio::spawn(metrics::serve(metrics, refresh, listener));
        }
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let told_to_end = async move {
            std::future::poll_fn(|context| {
                let ends = [
                    terminate.poll_recv(context).is_ready(),
                    interrupt.poll_recv(context).is_ready(),
                ];
                if ends.contains(&true) {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
        };
        tell_systemd();
        crate::say(format_args!("listening on {}", address.display()));
        let incoming = UnixListenerStream::new(listener);
        Server::builder()
            .serve_with_incoming_shutdown(services, incoming, told_to_end)
            .await?;
        Ok(())
    })
}

/// Makes the socket. Only root may connect, because a client can mount images.
fn bind(address: &Path) -> Result<UnixListener> {
    let directory = address.parent().unwrap_or(Path::new("/"));
    // The socket gets its name after its permissions, so no other user can connect in between.
    let hidden = directory.join(format!(".socket.{}", std::process::id()));
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))?;
    fs::rename(&hidden, address)?;
    Ok(listener)
}

/// Notifies systemd of readiness if systemd started this program; see sd_notify(3).
fn tell_systemd() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let tell = || -> std::io::Result<()> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => unix::SocketAddr::from_abstract_name(name)?,
            _ => unix::SocketAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)?;
        Ok(())
    };
    if let Err(error) = tell() {
        crate::say(format_args!("{}: {error}", path.to_string_lossy()));
    }
}
