// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! | option | value |
//! | --- | --- |
//! | `source` | the store: a directory that is an OCI image layout |
//! | `rootfs` | the SHA-256 digest of the image's metadata blob or root, in hexadecimal |
//! | `verify` | verification of data blobs: `none`, `fsverity` or `digest` |
//! | `share`, `noshare` | share the pages of files of equal content with other mounts, or not |
//! | `escape_overlay` | escape the names of extended attributes that overlayfs claims |
//! | `fetch` | a chunk that the store lacks: `wait` until a fetcher has brought it, or `fail` |
//! | `fetch_timeout` | the time that a reader waits for a chunk at most, in seconds |
//! | `rootfs_verity` | the fs-verity digest that the metadata blob must have |
//!
//! An older prototype called `source` `oci_root_dir`, and `rootfs` `image_manifest`.

use super::fs_type::MountContext;
use crate::{
    base::{
        limits::{FETCH_TIMEOUT, MAX_FETCH_TIMEOUT},
        message::Text,
        verify::Verify,
    },
    vfs::{prelude::*, Param, ParamOutcome, ParamValue},
};
use kernel::{
    str::{CStr, CString},
    time::Msecs,
};
use puzzlefs_schema::Digest;

/// The settings of a mount, which a remount cannot change.
pub(crate) struct Settings {
    /// The digest of the metadata blob, or of the root.
    pub(crate) rootfs: Digest,
    /// The fs-verity digest that the metadata blob must have.
    pub(crate) rootfs_verity: Option<Digest>,
    /// The verification of data blobs.
    pub(crate) verify: Verify,
    /// True if files share their pages with those of other mounts of the store.
    pub(crate) share: bool,
    /// True if the names of extended attributes that overlayfs claims are escaped.
    pub(crate) escape_overlay: bool,
    /// The time that a reader waits for a chunk that the store lacks, if it does.
    pub(crate) fetch: Option<Msecs>,
}

/// The mount options given so far.
#[derive(Default)]
pub(crate) struct Options {
    /// The store, if `oci_root_dir` named it instead of the source.
    store: Option<CString>,
    rootfs: Option<Digest>,
    rootfs_verity: Option<Digest>,
    verify: Option<Verify>,
    share: Option<bool>,
    escape_overlay: bool,
    /// True if readers wait for chunks that the store lacks.
    fetch: Option<bool>,
    /// In milliseconds.
    fetch_timeout: Option<Msecs>,
}

impl Options {
    /// Takes an option.
    pub(super) fn parse(
        &mut self,
        context: &MountContext,
        param: &Param<'_>,
    ) -> Result<ParamOutcome> {
        match param.key.to_bytes() {
            b"rootfs" | b"image_manifest" => self.rootfs = Some(digest(context, param)?),
            b"rootfs_verity" => self.rootfs_verity = Some(digest(context, param)?),
            b"verify" => {
                let Some(verify) = Verify::from_name(string(context, param)?.to_bytes()) else {
                    context.error(fmt!("verify: one of none, fsverity and digest is expected"));
                    return Err(EINVAL);
                };
                self.verify = Some(verify);
            }
            b"share" | b"noshare" => {
                flag(context, param)?;
                self.share = Some(param.key.to_bytes() == b"share");
            }
            b"escape_overlay" => {
                flag(context, param)?;
                self.escape_overlay = true;
            }
            b"fetch" => self.fetch = Some(fetch(context, param)?),
            b"fetch_timeout" => self.fetch_timeout = Some(timeout(context, param)?),
            b"oci_root_dir" => self.store = Some(CString::try_from(string(context, param)?)?),
            _ => return Ok(ParamOutcome::Unknown),
        }
        Ok(ParamOutcome::Taken)
    }

    /// Makes the store that `oci_root_dir` names the source, which `/proc/mounts` shows.
    pub(super) fn settle_source(&self, context: &mut MountContext) -> Result {
        match &self.store {
            Some(store) => context.set_source(store),
            None => Ok(()),
        }
    }

    /// Returns the directory of the store.
    pub(super) fn store(context: &MountContext) -> Result<&CStr> {
        match context.source() {
            Some(source) if !source.is_empty() => Ok(source),
            _ => {
                context.error(fmt!(
                    "no source: name the directory of the OCI image layout"
                ));
                Err(EINVAL)
            }
        }
    }

    /// Returns the settings of a new mount.
    pub(super) fn settings(&self, context: &MountContext) -> Result<Settings> {
        let Some(rootfs) = self.rootfs else {
            context.error(fmt!(
                "no image: mount.puzzlefs finds it by its tag; without it, \
                 rootfs=<SHA-256 of the metadata blob> is needed"
            ));
            return Err(EINVAL);
        };
        let fetch = match (self.fetch, self.fetch_timeout) {
            (Some(true), timeout) => Some(timeout.unwrap_or(FETCH_TIMEOUT)),
            (_, None) => None,
            (_, Some(_)) => {
                context.error(fmt!("fetch_timeout: only with fetch=wait"));
                return Err(EINVAL);
            }
        };
        let default = if fetch.is_some() {
            Verify::Digest
        } else {
            Verify::default()
        };
        let verify = self.verify.unwrap_or(default);
        if fetch.is_some() && verify != Verify::Digest {
            context.error(fmt!(
                "fetch=wait: only with verify=digest, because what a fetcher brings is not trusted"
            ));
            return Err(EINVAL);
        }
        Ok(Settings {
            rootfs,
            rootfs_verity: self.rootfs_verity,
            verify,
            fetch,
            share: self.share.unwrap_or(true),
            escape_overlay: self.escape_overlay,
        })
    }

    /// Checks that the options of a remount change no setting of the mount.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if they do.
    pub(super) fn check_remount(&self, context: &MountContext, mounted: &Settings) -> Result {
        let changed = if self.rootfs.is_some_and(|digest| digest != mounted.rootfs) {
            "rootfs"
        } else if self.rootfs_verity.is_some() && self.rootfs_verity != mounted.rootfs_verity {
            "rootfs_verity"
        } else if self.verify.is_some_and(|verify| verify != mounted.verify) {
            "verify"
        } else if self.share.is_some_and(|share| share != mounted.share) {
            "share"
        } else if self.escape_overlay && !mounted.escape_overlay {
            "escape_overlay"
        } else if self
            .fetch
            .is_some_and(|wait| wait != mounted.fetch.is_some())
        {
            "fetch"
        } else if self.fetch_timeout.is_some() && self.fetch_timeout != mounted.fetch {
            "fetch_timeout"
        } else {
            return Ok(());
        };
        context.error(fmt!("{changed} cannot be changed by a remount"));
        Err(EINVAL)
    }
}

/// Checks that an option has no value.
fn flag(context: &MountContext, param: &Param<'_>) -> Result {
    if matches!(param.value, ParamValue::Flag) {
        return Ok(());
    }
    context.error(fmt!("{}: takes no value", Text(param.key)));
    Err(EINVAL)
}

/// Returns the value of an option that is a digest.
fn digest(context: &MountContext, param: &Param<'_>) -> Result<Digest> {
    Digest::from_hex(string(context, param)?.to_bytes()).map_err(|_| {
        context.error(fmt!(
            "{}: not a SHA-256 digest: 64 digits 0-9 and a-f are expected",
            Text(param.key)
        ));
        EINVAL
    })
}

/// Returns true if readers wait for missing chunks.
fn fetch(context: &MountContext, param: &Param<'_>) -> Result<bool> {
    let value = string(context, param)?.to_bytes();
    if value == b"wait" || value == b"fail" {
        return Ok(value == b"wait");
    }
    context.error(fmt!("fetch: one of wait and fail is expected"));
    Err(EINVAL)
}

/// Returns the value of an option that is a time in seconds, in milliseconds.
fn timeout(context: &MountContext, param: &Param<'_>) -> Result<Msecs> {
    let value = string(context, param)?;
    let seconds = core::str::from_utf8(value.to_bytes())
        .ok()
        .and_then(|text| text.parse::<Msecs>().ok())
        .filter(|seconds| (1..=MAX_FETCH_TIMEOUT).contains(seconds));
    seconds.map(|seconds| seconds * 1000).ok_or_else(|| {
        context.error(fmt!(
            "{}: a number of seconds from 1 to {MAX_FETCH_TIMEOUT} is expected",
            Text(param.key)
        ));
        EINVAL
    })
}

/// Returns the value of an option that takes a string.
fn string<'a>(context: &MountContext, param: &Param<'a>) -> Result<&'a CStr> {
    match param.value {
        ParamValue::String(value) => Ok(value),
        _ => {
            context.error(fmt!("{}: a value is needed", Text(param.key)));
            Err(EINVAL)
        }
    }
}
