// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mounting images by the kernel module.

use crate::metrics::Metrics;
use crate::snapshots::Mounter;
use crate::state::Image;
use anyhow::{anyhow, ensure, Context, Result};
use puzzlefs_lib::mount::{self, Mount, Options};
use puzzlefs_lib::{Digest, ImageRef, Selector, Store};
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The kernel module.
pub struct Kernel {
    metrics: Arc<Metrics>,
}

impl Kernel {
    /// Counts mounts.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Kernel { metrics }
    }
}

impl Mounter for Kernel {
    fn mount(&self, manifest: &Digest, image: &Image, directory: &Path) -> Result<bool> {
        // By its digest, because tags move. The manifest is checked against the digest, so a writer to
        // the store cannot exchange it.
        let mut name = image.store.clone().into_os_string();
        name.push("@");
        name.push(manifest.to_oci());
        let began = Instant::now();
        let mount = || -> Result<bool> {
            let mut options = parse(&image.options)?;
            let source = mount::resolve(&name, &mut options)?;
            let is_complete = image.sources.is_empty();
            let waits = Mount::on(directory).is_some_and(|mount| mount.option("fetch").is_some());
            let present = if waits {
                waiting(options.clone())
            } else {
                options.clone()
            };
            let mut escaping = present.clone();
            escaping.escape_overlay();
            // A mount that waits for chunks also serves the complete image.
            let is_sufficient = waits || is_complete;
            for (options, escapes) in [(&present, false), (&escaping, true)] {
                if is_sufficient && mount::is_mounted(&source, options, directory) == Some(true) {
                    return Ok(escapes);
                }
            }
            let (store, found) = mount::find(&ImageRef::parse(&name)?)?;
            let escapes = mount::needs_escape(&store, &found)?;
            if !is_complete {
                options = waiting(options);
            }
            if escapes {
                options.escape_overlay();
            }
            // Another program's mount, or one with other options.
            self.unmount(directory)?;
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
            let remarks = mount::mount(&source, &options, directory, false)?;
            self.metrics.mounts.inc();
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.mount_seconds.observe(seconds);
            for remark in remarks {
                crate::say(format_args!("{}: {remark}", name.to_string_lossy()));
            }
            Ok(escapes)
        };
        let mounted = mount();
        if mounted.is_err() {
            self.metrics.mount_failures.inc();
        }
        mounted.with_context(|| format!("cannot mount {}", name.to_string_lossy()))
    }

    fn unmount(&self, directory: &Path) -> Result<()> {
        // Mounts can be stacked. Overlays of containers keep the mounts that they use.
        while directory.exists() {
            match mount::unmount(directory, true)? {
                mount::Unmounted::Done => {}
                mount::Unmounted::Nothing => break,
            }
        }
        Ok(())
    }

    fn keep(&self, manifest: &Digest, store: &Path, tag: &str) -> Result<()> {
        let tagged = Store::open(store)?.tag(&Selector::Manifest(*manifest), tag);
        tagged.map(drop).context("cannot set a tag")
    }

    fn release(&self, path: &Path, tag: &str) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let store = Store::open(path)?;
        let index = store.index()?;
        if index.manifests.iter().any(|one| one.tag() == Some(tag)) {
            let removed = store.untag(&Selector::Tag(tag.to_owned()));
            removed.context("cannot remove a tag")?;
        }
        Ok(())
    }
}

/// Returns the options of a mount whose readers wait for chunks. They verify what a fetcher brings.
fn waiting(mut options: Options) -> Options {
    for (name, value) in [("fetch", "wait"), ("verify", "digest")] {
        let parameter = (name.into(), Some(value.into()));
        options.parameters.push(parameter);
    }
    options
}

/// Reads mount options, which must not name an image.
pub fn parse(list: &str) -> Result<Options> {
    let options = Options::parse(&[OsString::from(list)]).map_err(|error| anyhow!(error))?;
    ensure!(
        !options.name_image() && !options.remount,
        "mount options cannot name an image: '{list}'"
    );
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_waits_verifies() {
        let options = waiting(parse("nosuid").unwrap());
        assert_eq!(options, parse("nosuid,fetch=wait,verify=digest").unwrap());
    }

    /// A start-up order is used only on request, as for other mounts.
    #[test]
    fn prefetch_is_an_option() {
        assert!(parse("prefetch,verify=digest").unwrap().prefetch);
        assert!(!parse("verify=digest").unwrap().prefetch);
        assert!(parse("rootfs=0").is_err());
    }
}
