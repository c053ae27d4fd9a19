// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of images in registries and in object stores.

use crate::objects::ObjectImage;
use crate::reference::{ImageName, RemoteImage};
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::Digest;
use std::ffi::OsStr;
use std::fmt;

/// The name of an image that is not in a store of this host.
#[derive(Clone, Debug)]
pub enum RemoteName {
    /// In a registry, or in one of several.
    Registry(ImageName),
    /// In an object store, or on a server of files.
    Objects(ObjectImage),
}

impl RemoteName {
    /// Returns true if a name on a command line is one of these.
    pub fn is_remote(name: &OsStr) -> bool {
        RemoteImage::is_remote(name) || ObjectImage::is_object(name)
    }

    /// Parses a name. `search` has the registries for one that names none.
    ///
    /// # Errors
    ///
    /// If it is not the name of an image.
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

    /// Returns the name of the image with this manifest at the same place.
    pub fn at(&self, digest: Digest) -> Self {
        match self {
            RemoteName::Registry(name) => RemoteName::Registry(name.at(digest)),
            RemoteName::Objects(image) => RemoteName::Objects(image.at(digest)),
        }
    }

    /// Returns the tag that a command sets.
    ///
    /// # Errors
    ///
    /// If the name has a digest, or can be in several registries.
    pub fn target(&self) -> Result<&str, ReferenceError> {
        let name = match self {
            RemoteName::Registry(name) => name.target()?,
            RemoteName::Objects(image) => return image.target(),
        };
        name.tag()
            .filter(|_| name.digest().is_none())
            .ok_or_else(|| {
                let what = "give a tag to set, docker://HOST/NAME:TAG";
                ReferenceError::refused(name.to_string(), what)
            })
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
