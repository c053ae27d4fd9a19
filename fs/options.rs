// SPDX-License-Identifier: GPL-2.0

//! Mount options.
//!
//! | option | value |
//! | --- | --- |
//! | `source` | the store: a directory that is an OCI image layout |
//! | `rootfs` | the SHA-256 digest of the image's metadata blob, in hexadecimal |
//!
//! `oci_root_dir` and `image_manifest` are what an older prototype called the two.

use crate::{
    message::Text,
    vfs::{MountContext, Param, ParamOutcome, ParamValue},
};
use kernel::{
    prelude::*,
    str::{CStr, CString},
};
use puzzlefs_schema::Digest;

/// The mount options given so far.
#[derive(Default)]
pub(crate) struct Options {
    /// The store, if it was named by `oci_root_dir` rather than as the source.
    store: Option<CString>,
    rootfs: Option<Digest>,
}

impl Options {
    /// Takes an option.
    pub(crate) fn parse(
        &mut self,
        context: &MountContext,
        param: &Param<'_>,
    ) -> Result<ParamOutcome> {
        match param.key.to_bytes() {
            b"rootfs" | b"image_manifest" => {
                let value = string(context, param)?;
                let Ok(digest) = Digest::from_hex(value.to_bytes()) else {
                    context.error(fmt!(
                        "{}: not a SHA-256 digest: 64 digits 0-9 and a-f are expected",
                        Text(param.key)
                    ));
                    return Err(EINVAL);
                };
                self.rootfs = Some(digest);
            }
            b"oci_root_dir" => self.store = Some(CString::try_from(string(context, param)?)?),
            _ => return Ok(ParamOutcome::Unknown),
        }
        Ok(ParamOutcome::Taken)
    }

    /// The store's directory.
    pub(crate) fn store<'a>(&'a self, context: &'a MountContext) -> Result<&'a CStr> {
        if let Some(store) = &self.store {
            return Ok(store);
        }
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
                "no image: mount.puzzlefs finds it by its tag; without it, rootfs=<SHA-256 of the metadata blob> is needed"
            ));
            EINVAL
        })
    }

    /// Whether the options, given to a remount, are those of the mount or none.
    pub(crate) fn check_remount(&self, context: &MountContext, rootfs: &Digest) -> Result {
        if self.rootfs.is_some_and(|digest| digest != *rootfs) {
            context.error(fmt!("rootfs cannot be changed by a remount"));
            return Err(EINVAL);
        }
        Ok(())
    }
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
