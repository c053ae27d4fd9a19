// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs fetch --all`: continues the images of many stores, each store by a process of its own.

use super::LAZY_STORES;
use crate::output::say;
use anyhow::{bail, Context, Result};
use puzzlefs_lib::error::StoreError;
use puzzlefs_lib::fetch::FetchRecord;
use puzzlefs_lib::{Error, Progress, Store};
use rustix::process::{kill_process, Pid, Signal};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// The file that names stores, one a line.
const CONFIGURATION: &str = "/etc/puzzlefs/fetchd.conf";
/// The largest file read, in bytes.
const CONFIGURATION_MAX: u64 = 1 << 20;
/// The interval at which processes that have ended are found.
const PATIENCE: Duration = Duration::from_millis(200);

/// The process of a store.
struct Fetcher {
    store: PathBuf,
    child: Child,
}

/// Continues the images of all stores, until they are complete or a signal arrives.
pub fn run(device: &Path, progress: &Progress) -> Result<()> {
    let mut failures = 0;
    let mut fetchers = Vec::new();
    for store in stores(Path::new(CONFIGURATION), Path::new(LAZY_STORES))? {
        match start(&store, device) {
            Ok(None) => {}
            Ok(Some(child)) => fetchers.push(Fetcher { store, child }),
            Err(error) => {
                say(format_args!("{error:#}"));
                failures += 1;
            }
        }
    }
    let mut is_stopping = false;
    while !fetchers.is_empty() {
        if !is_stopping && progress.check().is_err() {
            is_stopping = true;
            fetchers.iter().for_each(Fetcher::stop);
        }
        fetchers.retain_mut(|fetcher| match fetcher.child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) if status.success() || is_stopping => false,
            // The process has reported the cause.
            Ok(Some(_)) | Err(_) => {
                say(format_args!("cannot continue {}", fetcher.store.display()));
                failures += 1;
                false
            }
        });
        thread::sleep(PATIENCE);
    }
    if is_stopping {
        return Ok(());
    }
    if failures > 0 {
        bail!("the images of {failures} of the stores are not complete");
    }
    Ok(())
}

impl Fetcher {
    /// Ends the process. It may have ended.
    fn stop(&self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }
}

/// Starts the process of a store that has something to continue.
fn start(store: &Path, device: &Path) -> Result<Option<Child>> {
    let (records, errors) = FetchRecord::read_all(&Store::open(store)?)?;
    if records.is_empty() && errors.is_empty() {
        return Ok(None);
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(["fetch", "--device"]).arg(device);
    command.arg("--").arg(store).stdin(Stdio::null());
    command.spawn().map(Some).context("cannot start a fetcher")
}

/// Returns the stores that a file names, and those below a directory. Neither needs to exist.
fn stores(configuration: &Path, directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut stores = BTreeSet::new();
    let mut text = Vec::new();
    match File::open(configuration)
        .and_then(|file| file.take(CONFIGURATION_MAX + 1).read_to_end(&mut text))
    {
        Ok(_) if text.len() as u64 > CONFIGURATION_MAX => bail!(
            "cannot use {}: it has more than {CONFIGURATION_MAX} bytes",
            configuration.display()
        ),
        Err(cause) if cause.kind() != ErrorKind::NotFound => {
            return Err(cause).with_context(|| configuration.display().to_string());
        }
        _ => {}
    }
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let store = Path::new(OsStr::from_bytes(line));
        if !store.is_absolute() {
            bail!(
                "cannot use {}: '{}' is not an absolute path",
                configuration.display(),
                store.display()
            );
        }
        stores.insert(store.to_path_buf());
    }
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                let path = entry
                    .with_context(|| directory.display().to_string())?
                    .path();
                // A lazy mount may be creating the store.
                match Store::open(&path) {
                    Ok(_) => {
                        stores.insert(path);
                    }
                    Err(Error::Store(
                        StoreError::NotALayout { .. } | StoreError::NotADirectory { .. },
                    )) => {}
                    Err(error) => say(error),
                }
            }
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound => {}
        Err(cause) => return Err(cause).with_context(|| directory.display().to_string()),
    }
    Ok(stores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_the_file_and_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        let (file, lazy) = (path("fetchd.conf"), path("lazy"));
        assert!(stores(&file, &lazy).unwrap().is_empty());
        Store::create(&lazy.join("one")).unwrap();
        fs::create_dir(lazy.join("empty")).unwrap();
        let one = lazy.join("one");
        let found = |text: &str| {
            fs::write(&file, text).unwrap();
            stores(&file, &lazy)
        };
        let text = format!("# comment\n\n  /srv/images \n{}\n", one.display());
        let wanted = BTreeSet::from([PathBuf::from("/srv/images"), one.clone()]);
        assert_eq!(found(&text).unwrap(), wanted);
        let error = found("images\n").unwrap_err().to_string();
        assert!(
            error.contains("'images' is not an absolute path"),
            "{error}"
        );
        let long = "#".repeat(CONFIGURATION_MAX as usize + 1);
        assert!(found(&long).is_err());
        assert_eq!(found("").unwrap(), BTreeSet::from([one]));
    }
}
