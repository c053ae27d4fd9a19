// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pulls images from registries, as containerd's settings say.

use crate::content::Found;
use crate::hosts::{endpoints, Endpoint};
use crate::lazy::Place;
use crate::state::Sources;
use anyhow::{anyhow, bail, Context, Result};
use puzzlefs_lib::builder::BuildOptions;
use puzzlefs_lib::fetch::Fetched;
use puzzlefs_lib::import::Obtained;
use puzzlefs_lib::{Digest, Error, Progress, Store};
use puzzlefs_registry::{pull, PullOptions, RegistryOptions, RemoteImage, RemoteName, Traffic};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The number of further attempts after a failure. Another place, or containerd's own download, is the next
/// one.
const RETRIES: u32 = 1;
/// The number of further attempts at the last place of an image that containers use.
const LAST_RETRIES: u32 = 3;
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
        let (places, mut failures) = self.endpoints(&image.sources);
        for (place, repository) in places {
            match self.pull_from(&place, repository, image, store, tag, runtime) {
                Ok(pulled) => return Ok(pulled),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        Err(without_place(&failures))
    }

    /// Returns the places of an image whose chunks are fetched while containers use it, as containerd's
    /// settings are now. The mirrors come first.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn places(&self, manifest: &Digest, sources: &Sources) -> Result<Vec<Place>> {
        let (endpoints, mut failures) = self.endpoints(sources);
        let mut places = Vec::new();
        for (endpoint, repository) in endpoints {
            match endpoint.image(repository, manifest) {
                Ok(name) => places.push(Place {
                    name: RemoteName::Registry(name.into()),
                    connection: self.connection(&endpoint, RETRIES),
                }),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        match places.last_mut() {
            Some(last) => last.connection.retries = LAST_RETRIES,
            None => return Err(without_place(&failures)),
        }
        Ok(places)
    }

    /// Returns the places of repositories, and the failures to find some.
    fn endpoints<'s>(&self, sources: &'s Sources) -> (Vec<(Endpoint, &'s str)>, Vec<String>) {
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for (host, repository) in sources {
            match endpoints(&self.hosts, host) {
                Ok(places) => found.extend(places.into_iter().map(|place| (place, &**repository))),
                Err(error) => failures.push(format!("{error:#}")),
            }
        }
        (found, failures)
    }

    /// Returns the options for a connection to a place.
    fn connection(&self, place: &Endpoint, retries: u32) -> RegistryOptions {
        RegistryOptions {
            creds: place.credentials.clone(),
            tls_verify: place.tls_verify,
            ca_files: place.certificates.clone(),
            timeout: self.timeout,
            retries,
            ..RegistryOptions::default()
        }
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
            connection: self.connection(place, RETRIES),
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

/// Returns the error of an image that no place has given.
fn without_place(failures: &[String]) -> anyhow::Error {
    if failures.is_empty() {
        return anyhow!("containerd does not say which registry has it");
    }
    anyhow!(failures.join("; "))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn places_are_as_the_settings_say_now() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("a.example");
        fs::create_dir(&directory).unwrap();
        let registries = Registries {
            hosts: scratch.path().to_path_buf(),
            timeout: Duration::from_secs(3),
        };
        let source = |host: &str| (host.to_owned(), "team/app".to_owned());
        let sources = vec![source("../x"), source("a.example"), source("b.example")];
        let digest = Digest::of(b"manifest");
        let found = || {
            let places = registries.places(&digest, &sources).unwrap();
            let shown = places.into_iter().map(|Place { name, connection }| {
                assert_eq!(connection.timeout, registries.timeout);
                let creds = connection.creds.is_some();
                (name.to_string(), creds, connection.retries)
            });
            shown.collect::<Vec<_>>()
        };
        let name = |host: &str| format!("docker://{host}/team/app@{}", digest.to_oci());
        let own = [
            (name("a.example"), false, RETRIES),
            (name("b.example"), false, LAST_RETRIES),
        ];
        assert_eq!(found(), own);
        let mirror = "[host.'https://m.example'.header]\nauthorization = 'Basic bWU6c2VjcmV0'";
        fs::write(directory.join("hosts.toml"), mirror).unwrap();
        let mirrored = [(name("m.example"), true, RETRIES)];
        assert_eq!(found(), [&mirrored[..], &own].concat());
        let without = registries.places(&digest, &Sources::new());
        let message = without.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("which registry"), "{message}");
        let wrong = registries.places(&digest, &vec![source("../x")]);
        let message = wrong.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("'../x'"), "{message}");
    }
}
