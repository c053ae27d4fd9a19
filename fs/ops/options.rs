// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! | option | value |
//! | --- | --- |
//! | `source` | the store: a directory that is an OCI image layout |
//! | `rootfs` | the SHA-256 digest of the image's metadata blob, in hexadecimal |
//! | `verify` | how data blobs are verified: `none`, `fsverity` or `digest` |
//! | `share`, `noshare` | whether files of equal contents share their pages with other mounts |
//! | `escape_overlay` | escapes the names of extended attributes that overlayfs claims |
//! | `rootfs_verity` | the fs-verity digest that the metadata blob has to have |
//!
//! `oci_root_dir` and `image_manifest` are what an older prototype called the two.

use crate::vfs::prelude::*;
use crate::{
    base::message::Text,
    ops::image::Image,
    vfs::{Param, ParamOutcome, ParamValue},
    MountContext,
};
use kernel::str::{CStr, CString};
use puzzlefs_schema::Digest;

/// How data blobs are verified.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Not at all.
    #[default]
    None,
    /// Each blob has to have the fs-verity digest that the metadata has for it: the filesystem that
    /// the store is on checks each page against it.
    FsVerity,
    /// Each blob is read as a whole, and hashed, for whatever part of it enters the page cache.
    Digest,
}

impl Verify {
    /// The option's value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FsVerity => "fsverity",
            Self::Digest => "digest",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        [Self::None, Self::FsVerity, Self::Digest]
            .into_iter()
            .find(|verify| verify.name().as_bytes() == name)
    }
}

/// The mount options given so far.
#[derive(Default)]
pub(crate) struct Options {
    /// The store, if it was named by `oci_root_dir` rather than as the source.
    store: Option<CString>,
    rootfs: Option<Digest>,
    rootfs_verity: Option<Digest>,
    verify: Option<Verify>,
    share: Option<bool>,
    escape_overlay: bool,
}

impl Options {
    /// Takes an option.
    pub(crate) fn parse(
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
                if !matches!(param.value, ParamValue::Flag) {
                    context.error(fmt!("{}: takes no value", Text(param.key)));
                    return Err(EINVAL);
                }
                self.share = Some(param.key.to_bytes() == b"share");
            }
            b"escape_overlay" => {
                if !matches!(param.value, ParamValue::Flag) {
                    context.error(fmt!("escape_overlay: takes no value"));
                    return Err(EINVAL);
                }
                self.escape_overlay = true;
            }
            b"oci_root_dir" => self.store = Some(CString::try_from(string(context, param)?)?),
            _ => return Ok(ParamOutcome::Unknown),
        }
        Ok(ParamOutcome::Taken)
    }

    /// Makes the store that `oci_root_dir` names the source, which is what is shown of a mount.
    pub(crate) fn settle_source(&self, context: &mut MountContext) -> Result {
        match &self.store {
            Some(store) => context.set_source(store),
            None => Ok(()),
        }
    }

    /// The store's directory.
    pub(crate) fn store(context: &MountContext) -> Result<&CStr> {
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

    /// The digest of the metadata blob.
    pub(crate) fn rootfs(&self, context: &MountContext) -> Result<Digest> {
        self.rootfs.ok_or_else(|| {
            context.error(fmt!(
                "no image: mount.puzzlefs finds it by its tag; without it, \
                 rootfs=<SHA-256 of the metadata blob> is needed"
            ));
            EINVAL
        })
    }

    /// The fs-verity digest that the metadata blob has to have.
    pub(crate) fn rootfs_verity(&self) -> Option<Digest> {
        self.rootfs_verity
    }

    /// How data blobs are to be verified.
    pub(crate) fn verify(&self) -> Verify {
        self.verify.unwrap_or_default()
    }

    /// Whether files share their pages with those of other mounts of the store.
    pub(crate) fn share(&self) -> bool {
        self.share.unwrap_or(true)
    }

    /// Returns true if the names of extended attributes that overlayfs claims are escaped.
    pub(crate) fn escape_overlay(&self) -> bool {
        self.escape_overlay
    }

    /// Whether the options, given to a remount, are those of the mount or none.
    pub(crate) fn check_remount(&self, context: &MountContext, image: &Image) -> Result {
        let fixed = |name: &str| {
            context.error(fmt!("{name} cannot be changed by a remount"));
            Err(EINVAL)
        };
        if self.rootfs.is_some_and(|digest| digest != *image.rootfs()) {
            return fixed("rootfs");
        }
        if self.rootfs_verity.is_some() && self.rootfs_verity != image.rootfs_verity() {
            return fixed("rootfs_verity");
        }
        if self.verify.is_some_and(|verify| verify != image.verify()) {
            return fixed("verify");
        }
        if self
            .share
            .is_some_and(|share| share != image.shares_pages())
        {
            return fixed("share");
        }
        if self.escape_overlay && !image.escapes_overlay() {
            return fixed("escape_overlay");
        }
        Ok(())
    }
}

/// The value of an option that is a digest.
fn digest(context: &MountContext, param: &Param<'_>) -> Result<Digest> {
    Digest::from_hex(string(context, param)?.to_bytes()).map_err(|_| {
        context.error(fmt!(
            "{}: not a SHA-256 digest: 64 digits 0-9 and a-f are expected",
            Text(param.key)
        ));
        EINVAL
    })
}

/// The value of an option that takes a string.
fn string<'a>(context: &MountContext, param: &Param<'a>) -> Result<&'a CStr> {
    match param.value {
        ParamValue::String(value) => Ok(value),
        _ => {
            context.error(fmt!("{}: a value is needed", Text(param.key)));
            Err(EINVAL)
        }
    }
}
