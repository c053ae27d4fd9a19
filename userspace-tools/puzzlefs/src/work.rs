// SPDX-License-Identifier: MIT OR Apache-2.0

//! What commands that take a while have in common.

use anyhow::Context;
use puzzlefs_lib::{Error, ImageRef, Progress, Selector, Store};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsStr;
use std::fs;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::thread;

/// Progress of work that SIGINT, SIGTERM and SIGHUP end soon, but for nohup(1). A second one ends
/// the program at once, should the first not be heeded.
pub fn stoppable() -> anyhow::Result<Progress> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    for signal in signals {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot handle signals")?;
    }
    Ok(Progress::new(stop))
}

/// Whether whoever started this program has it ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| (mask >> (signal - 1)) & 1 != 0)
}

/// How many threads to use: as many as asked for, otherwise one a processor.
pub fn jobs(asked: Option<u16>) -> usize {
    match asked {
        Some(jobs) => jobs.into(),
        None => thread::available_parallelism().map_or(1, NonZero::get),
    }
}

/// Opens what is either an image of a store or a whole one: a directory is a store.
pub fn image_or_store(name: &OsStr) -> anyhow::Result<(Store, Option<Selector>)> {
    if Path::new(name).is_dir() {
        return Ok((Store::open(Path::new(name))?, None));
    }
    let image = match ImageRef::parse(name) {
        Err(Error::Reference { reference, .. }) if !name.as_bytes().contains(&b':') => {
            let what = "neither a directory nor <oci-dir>:<tag> or \
                        <oci-dir>@sha256:<manifest digest>";
            let what = what.to_owned();
            return Err(Error::Reference { reference, what }.into());
        }
        image => image?,
    };
    Ok((Store::open(&image.store)?, Some(image.selector)))
}

/// Opens a store, for a command that is about the whole of it.
pub fn store(path: &Path) -> anyhow::Result<Store> {
    let image = ImageRef::parse(path.as_os_str());
    match (Store::open(path), image) {
        (Err(_), Ok(image)) if !path.exists() && image.store.is_dir() => Err(Error::Reference {
            reference: path.to_string_lossy().into_owned(),
            what: format!("give the store alone, {}", image.store.display()),
        }
        .into()),
        (Err(error), _) => {
            ImageRef::check_source(path.as_os_str())?;
            Err(error.into())
        }
        (store, _) => Ok(store?),
    }
}
