// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of images in registries and in object stores.

use puzzlefs_lib::error::ReferenceError;
use puzzlefs_registry::objects::ObjectImage;
use puzzlefs_registry::ImageName;
use std::ffi::OsStr;
use std::fmt;

/// The form of the names, in the help.
pub const FORM: &str = "docker://HOST/NAME:TAG|s3://BUCKET/PREFIX:TAG";

/// The name of an image that is not in a store of this host.
#[derive(Clone, Debug)]
pub enum RemoteName {
    /// In a registry, or in one of several.
    Registry(ImageName),
    /// In an object store, or on a server of files.
    Objects(ObjectImage),
}

impl RemoteName {
    /// Parses a name. `search` has the registries for one that names none.
    pub fn parse(name: &OsStr, search: &[String]) -> Result<Self, ReferenceError> {
        if ObjectImage::is_object(name) {
            Ok(RemoteName::Objects(ObjectImage::parse(name)?))
        } else {
            Ok(RemoteName::Registry(ImageName::parse(name, search)?))
        }
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        match self {
            RemoteName::Registry(name) => name.tag(),
            RemoteName::Objects(image) => image.tag(),
        }
    }
}

impl fmt::Display for RemoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteName::Registry(name) => name.fmt(f),
            RemoteName::Objects(image) => image.fmt(f),
        }
    }
}
