// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of images in object stores: `s3://BUCKET/PREFIX[:TAG][@sha256:DIGEST]`.

use crate::error::Message;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::{Digest, ImageRef};
use reqwest::Url;
use std::ffi::OsStr;
use std::fmt;

/// The schemes of addresses, and the backend for each.
const SCHEMES: [(&str, Backend); 11] = [
    ("s3://", Backend::S3),
    ("s3a://", Backend::S3),
    ("gs://", Backend::Gcs),
    ("az://", Backend::Azure),
    ("azure://", Backend::Azure),
    ("adl://", Backend::Azure),
    ("abfs://", Backend::Azure),
    ("abfss://", Backend::Azure),
    ("file://", Backend::File),
    ("https://", Backend::Http),
    ("http://", Backend::Http),
];

/// The kind of an object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Amazon S3, and servers with its interface.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage, Azure Data Lake Storage.
    Azure,
    /// A directory of this host.
    File,
    /// A server of files, which is only read.
    Http,
}

/// The name of an image in an object store. An OCI image layout is at its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectImage {
    backend: Backend,
    /// The address of the layout, without a `/` at its end.
    address: String,
    /// The keys of the layout's objects begin with this, for stores that have keys.
    prefix: Path,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ObjectImage {
    /// Returns true if a name on a command line is that of an image in an object store.
    pub fn is_object(name: &OsStr) -> bool {
        backend(&name.to_string_lossy()).is_some()
    }

    /// Parses a name.
    ///
    /// # Errors
    ///
    /// If the scheme is not one of an object store, or the address is not plain: with credentials, a query, a
    /// fragment, or a part that is empty, `.` or `..`.
    pub fn parse(name: &OsStr) -> Result<Self, ReferenceError> {
        let refused = |what: &str| ReferenceError::refused(name, what);
        let text = name
            .to_str()
            .ok_or_else(|| refused("the address of an image layout is UTF-8"))?;
        let Some((scheme, backend)) = backend(text) else {
            return Err(refused(
                "give the address of an image layout, such as s3://BUCKET/PREFIX:TAG",
            ));
        };
        let (text, digest) = match text.split_once("@sha256:") {
            None => (text, None),
            Some((text, hex)) => match Digest::from_hex(hex.as_bytes()) {
                Some(digest) => (text, Some(digest)),
                None => {
                    return Err(refused(
                        "a digest is sha256: and 64 lower-case hexadecimal digits",
                    ))
                }
            },
        };
        let (address, tag) = split_tag(text, scheme, backend);
        let tag = match tag {
            None => None,
            Some(tag) => Some(ImageRef::parse_tag(OsStr::new(tag))?),
        };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        let address = address.strip_suffix('/').unwrap_or(address);
        let path = check(address, scheme, backend).map_err(|what| refused(&what))?;
        let prefix = match backend {
            Backend::Http | Backend::File => Path::default(),
            _ => Path::parse(path).map_err(|cause| {
                refused(&format!(
                    "not a prefix of keys: {}",
                    Message::new(cause.to_string())
                ))
            })?,
        };
        Ok(ObjectImage {
            backend,
            address: address.to_owned(),
            prefix,
            tag,
            digest,
        })
    }

    /// The address of the layout: `s3://BUCKET/PREFIX`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The tag. It is absent if a digest alone was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, if it was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the name of the image with this manifest in the same layout.
    pub fn at(&self, digest: Digest) -> Self {
        ObjectImage {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Returns the tag that a command sets.
    ///
    /// # Errors
    ///
    /// If the name has a digest.
    pub fn target(&self) -> Result<&str, ReferenceError> {
        match (&self.tag, self.digest) {
            (Some(tag), None) => Ok(tag),
            _ => {
                let what = format!("give a tag to set, {}:TAG", self.address);
                Err(ReferenceError::refused(self.to_string(), what))
            }
        }
    }

    pub(super) fn backend(&self) -> Backend {
        self.backend
    }

    pub(super) fn prefix(&self) -> &Path {
        &self.prefix
    }
}

impl fmt::Display for ObjectImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        let host = self.address.split_once("://").map(|(_, host)| host);
        if self.backend == Backend::Http && host.is_some_and(|host| !host.contains('/')) {
            // A tag would be the port.
            f.write_str("/")?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{}", digest.to_oci()),
            None => Ok(()),
        }
    }
}

/// Returns the scheme of an address, and its backend.
fn backend(text: &str) -> Option<(&'static str, Backend)> {
    let mut schemes = SCHEMES.into_iter();
    schemes.find(|(scheme, _)| text.starts_with(scheme))
}

/// Splits an address and a tag. A `:` in the host of a server of files is that of its port.
fn split_tag<'t>(text: &'t str, scheme: &str, backend: Backend) -> (&'t str, Option<&'t str>) {
    let rest = text.get(scheme.len()..).unwrap_or_default();
    let Some((before, tag)) = rest.rsplit_once(':') else {
        return (text, None);
    };
    let is_port = backend == Backend::Http && !before.contains('/');
    if tag.contains('/') || is_port {
        return (text, None);
    }
    let end = scheme.len() + before.len();
    (text.get(..end).unwrap_or(text), Some(tag))
}

/// Checks an address without a tag. Returns its path.
fn check<'t>(address: &'t str, scheme: &str, backend: Backend) -> Result<&'t str, String> {
    let rest = address.get(scheme.len()..).unwrap_or_default();
    if rest.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '?' | '#' | '\\'))
    {
        return Err("an address has no query, no fragment, no backslash and no space".to_owned());
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.split('/').any(is_special) && !path.is_empty() {
        return Err("a part of the path is empty, '.' or '..'".to_owned());
    }
    let has_container = matches!(scheme, "abfs://" | "abfss://") && host.split('@').count() == 2;
    if host.contains('@') && !has_container {
        return Err(
            "an address has no credentials; give them by the environment or --creds".to_owned(),
        );
    }
    match backend {
        Backend::File if !host.is_empty() => {
            Err("give an absolute path, file:///PATH:TAG".to_owned())
        }
        Backend::File => Ok(path),
        _ if host.is_empty() => Err(format!("give {scheme}{}", form(backend))),
        _ => match Url::parse(address) {
            Ok(url) if url.host_str().is_some() => Ok(path),
            Ok(_) => Err("the host is missing".to_owned()),
            Err(cause) => Err(format!("not an address: {cause}")),
        },
    }
}

/// Returns true for a part of a path that leads elsewhere, also if it is encoded.
fn is_special(part: &str) -> bool {
    let part = percent_decode_str(part).collect::<Vec<u8>>();
    part.is_empty() || part == b"." || part == b".." || part.contains(&b'/')
}

/// The form of addresses, without the scheme.
fn form(backend: Backend) -> &'static str {
    match backend {
        Backend::S3 | Backend::Gcs => "BUCKET/PREFIX:TAG",
        Backend::Azure => "CONTAINER/PREFIX:TAG",
        Backend::File => "/PATH:TAG",
        Backend::Http => "HOST/PATH:TAG",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ObjectImage, ReferenceError> {
        ObjectImage::parse(OsStr::new(text))
    }

    #[test]
    fn addresses_tags_and_digests() {
        for (text, address, prefix, tag) in [
            ("s3://b/p/q:13", "s3://b/p/q", "p/q", Some("13")),
            ("s3://b/p/", "s3://b/p", "p", Some("latest")),
            ("s3://b:t", "s3://b", "", Some("t")),
            ("gs://b/a:b/c", "gs://b/a:b/c", "a:b/c", Some("latest")),
            ("az://c/p:1", "az://c/p", "p", Some("1")),
            (
                "abfs://c@acc.dfs.example/p:1",
                "abfs://c@acc.dfs.example/p",
                "p",
                Some("1"),
            ),
            ("file:///srv/x:1", "file:///srv/x", "", Some("1")),
            ("https://h:8443", "https://h:8443", "", Some("latest")),
            ("http://h:80/a:1", "http://h:80/a", "", Some("1")),
            (
                "https://[::1]:80/a%20b",
                "https://[::1]:80/a%20b",
                "",
                Some("latest"),
            ),
        ] {
            let image = parse(text).unwrap();
            assert_eq!(image.address(), address, "{text}");
            assert_eq!(image.prefix().as_ref(), prefix, "{text}");
            assert_eq!(image.tag(), tag, "{text}");
            assert_eq!(parse(&image.to_string()).unwrap(), image, "{text}");
        }
        let hex = "ab".repeat(32);
        let image = parse(&format!("s3://b/p@sha256:{hex}")).unwrap();
        assert_eq!((image.tag(), image.digest().unwrap().to_hex()), (None, hex));
        assert!(image.target().is_err());
    }

    #[test]
    fn addresses_that_lead_elsewhere_are_refused() {
        for text in [
            "docker://b/p",
            "s3:///p",
            "s3://",
            "s3://b//p",
            "s3://b/../p",
            "s3://b/p/..",
            "s3://b/%2e%2E/p",
            "https://h/a%2f..%2fb",
            "https://me:secret@h/p",
            "https://h/p?x",
            "https://h/p#x",
            "https://h/a b",
            "https:///p",
            "file://host/p",
            "s3://b/p:",
            "s3://b/p:a b",
            "s3://b/p@sha256:12",
            "s3://b/p\u{7}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
