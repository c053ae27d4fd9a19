// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pulls images from registries, as containerd's settings say.

use crate::content::Found;
use crate::hosts::{endpoints, Endpoint};
use anyhow::{anyhow, bail, Context, Result};
use puzzlefs_lib::builder::BuildOptions;
use puzzlefs_lib::fetch::Fetched;
use puzzlefs_lib::import::Obtained;
use puzzlefs_lib::{Digest, Error, Progress, Store};
use puzzlefs_registry::{pull, PullOptions, RegistryOptions, RemoteImage, Traffic};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The number of further attempts after a failure. containerd's own download is the next one.
const RETRIES: u32 = 1;
/// The time of a pull beside that for its bytes.
const PULL_TIME: Duration = Duration::from_secs(120);
/// The least speed of a pull, in bytes per second.
const SPEED_MIN: u64 = 128 << 10;

/// Registries.
#[derive(Clone, Debug)]
pub struct Registries {
    /// The directory of containerd's settings.
    pub hosts: PathBuf,
    /// The longest silence of a registry.
    pub timeout: Duration,
}

impl Registries {
    /// Pulls what the store lacks of an image, and sets the tag. The mirrors come first, as in containerd's
    /// settings.
    ///
    /// # Errors
    ///
    /// The failure of each place.
    pub fn pull(
        &self,
        image: &Found,
        store: &Store,
        tag: &str,
        runtime: &Handle,
    ) -> Result<(Fetched, Traffic)> {
        let mut failures = Vec::new();
        for (host, repository) in &image.sources {
            let places = match endpoints(&self.hosts, host) {
                Ok(places) => places,
                Err(error) => {
                    failures.push(format!("{error:#}"));
                    continue;
                }
            };
            for place in places {
                match self.pull_from(&place, repository, image, store, tag, runtime) {
                    Ok(pulled) => return Ok(pulled),
                    Err(error) => failures.push(format!("{error:#}")),
                }
            }
        }
        if failures.is_empty() {
            bail!("containerd does not say which registry has it");
        }
        Err(anyhow!(failures.join("; ")))
    }

    fn pull_from(
        &self,
        place: &Endpoint,
        repository: &str,
        image: &Found,
        store: &Store,
        tag: &str,
        runtime: &Handle,
    ) -> Result<(Fetched, Traffic)> {
        let name = place.image(repository, &image.digest)?;
        let options = PullOptions {
            connection: RegistryOptions {
                creds: place.credentials.clone(),
                tls_verify: place.tls_verify,
                ca_files: place.certificates.clone(),
                timeout: self.timeout,
                retries: RETRIES,
                ..RegistryOptions::default()
            },
            platform: None,
            build: BuildOptions::new(tag),
        };
        let limit = PULL_TIME + Duration::from_secs(image.size / SPEED_MIN);
        let is_late = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&is_late);
        let clock = runtime.spawn(async move {
            tokio::time::sleep(limit).await;
            late.store(true, Relaxed);
        });
        let pulled = pull(&name.into(), store, &options, &Progress::new(is_late));
        clock.abort();
        let pulled = match pulled {
            Err(Error::Interrupted) => {
                let seconds = limit.as_secs();
                bail!("{}: it takes longer than {seconds} s", place.host)
            }
            pulled => pulled?,
        };
        match pulled.obtained {
            Obtained::Fetched(fetched) => Ok((fetched, pulled.traffic)),
            // The manifest has the digest of that of a PuzzleFS image.
            Obtained::Imported(_) | Obtained::Known { .. } => {
                bail!("{}: it has another image", place.host)
            }
        }
    }
}

impl Endpoint {
    /// Returns the name of an image at this place.
    fn image(&self, repository: &str, manifest: &Digest) -> Result<RemoteImage> {
        let name = format!(
            "docker://{}/{}{repository}@{}",
            self.host,
            self.prefix,
            manifest.to_oci()
        );
        RemoteImage::parse(&OsString::from(name)).context("containerd names a repository")
    }
}
