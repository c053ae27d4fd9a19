// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of images in registries: `docker://HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]`.

use oci_client::Reference;
use puzzlefs_lib::error::ReferenceError;
use puzzlefs_lib::Digest;
use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;

/// The transport that references begin with.
const TRANSPORT: &str = "docker://";

/// The name of an image in a registry.
///
/// The host is needed: there is no default registry. A name without tag and digest has the tag `latest`, as
/// for other tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteImage {
    reference: Reference,
    digest: Option<Digest>,
}

impl RemoteImage {
    /// Returns true if a name on a command line is that of an image in a registry.
    pub fn is_remote(name: &OsStr) -> bool {
        name.to_string_lossy().starts_with(TRANSPORT)
    }

    /// Parses a name.
    ///
    /// # Errors
    ///
    /// If the transport is missing, or a part breaks a rule of the OCI distribution specification. A name
    /// therefore has no empty part, no `..` and no `/` at an end.
    pub fn parse(name: &OsStr) -> Result<Self, ReferenceError> {
        let refused = |what: &str| ReferenceError::refused(name, what);
        let text = name.to_str().and_then(|text| text.strip_prefix(TRANSPORT));
        let text =
            text.ok_or_else(|| refused("give an image in a registry, docker://HOST/NAME:TAG"))?;
        if !text.is_ascii() {
            return Err(refused("the name of an image in a registry is ASCII"));
        }
        // Without this, the client would take a registry of its own choice.
        let host = text.split_once('/').map_or("", |(host, _)| host);
        if host != "localhost" && !host.contains(['.', ':']) {
            return Err(refused(
                "the registry is missing; give docker://HOST[:PORT]/NAME:TAG, with a dot in HOST or a port",
            ));
        }
        let reference = Reference::try_from(text).map_err(|cause| {
            refused(&format!(
                "not an image in a registry: {cause}; give docker://HOST[:PORT]/NAME:TAG"
            ))
        })?;
        let digest = match reference.digest() {
            None => None,
            Some(digest) => match Digest::from_oci(digest) {
                Some(digest) => Some(digest),
                None => {
                    return Err(refused(
                        "a digest is sha256: and 64 lower-case hexadecimal digits",
                    ))
                }
            },
        };
        Ok(RemoteImage { reference, digest })
    }

    /// Names another repository of the same registry.
    pub fn sibling(&self, repository: &str) -> Result<Self, ReferenceError> {
        let name = format!("{TRANSPORT}{}/{repository}", self.registry());
        Self::parse(OsStr::new(&name))
    }

    /// Names a manifest of the same repository by its digest.
    pub fn at(&self, digest: Digest) -> Self {
        let (registry, repository) = (self.registry().to_owned(), self.repository().to_owned());
        RemoteImage {
            reference: Reference::with_digest(registry, repository, digest.to_oci()),
            digest: Some(digest),
        }
    }

    /// Names a tag of the same repository.
    pub fn tagged(&self, tag: &str) -> Result<Self, ReferenceError> {
        let name = format!("{TRANSPORT}{}/{}:{tag}", self.registry(), self.repository());
        Self::parse(OsStr::new(&name))
    }

    /// Returns true if another image is in the same repository.
    pub fn has_repository_of(&self, other: &Self) -> bool {
        (self.registry(), self.repository()) == (other.registry(), other.repository())
    }

    /// The host of the registry, with its port if that was given.
    pub fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// The name of the repository.
    pub fn repository(&self) -> &str {
        self.reference.repository()
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.reference.tag()
    }

    /// The digest of the manifest, if it was given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns true if the registry is on this host.
    pub(crate) fn is_loopback(&self) -> bool {
        let registry = self.registry();
        let host = registry.split_once(':').map_or(registry, |(host, _)| host);
        let address = host.parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// The name in the form of the client.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }
}

impl fmt::Display for RemoteImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TRANSPORT}{}", self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RemoteImage, ReferenceError> {
        RemoteImage::parse(OsStr::new(text))
    }

    #[test]
    fn names_of_images_in_registries() {
        for (text, registry, repository, tag) in [
            ("docker://localhost:5000/a:t", "localhost:5000", "a", "t"),
            (
                "docker://127.0.0.1:5000/a/b_c:1.0",
                "127.0.0.1:5000",
                "a/b_c",
                "1.0",
            ),
            (
                "docker://registry.example/a/b/c",
                "registry.example",
                "a/b/c",
                "latest",
            ),
            ("docker://localhost/a", "localhost", "a", "latest"),
        ] {
            let image = parse(text).unwrap();
            let found = (image.registry(), image.repository(), image.tag());
            assert_eq!(found, (registry, repository, Some(tag)), "{text}");
        }
        let hex = "a".repeat(64);
        let image = parse(&format!("docker://registry.example/a@sha256:{hex}")).unwrap();
        assert_eq!((image.tag(), image.digest().unwrap().to_hex()), (None, hex));
    }

    #[test]
    fn other_names_are_refused() {
        let upper = "A".repeat(64);
        for text in [
            "docker://debian:13",
            "docker://user/image",
            "localhost:5000/a:t",
            "docker://",
            "docker://localhost:5000/",
            "docker://localhost:5000/../a:t",
            "docker://localhost:5000/a/../b:t",
            "docker://localhost:5000/a//b:t",
            "docker://localhost:5000/%2e%2e/a:t",
            "docker://localhost:5000/a:t?x=y",
            "docker://user@localhost:5000/a:t",
            "docker://localhost:5000/a:t/b",
            "docker://localhost:5000/a:t\n",
            "docker://localhost:5000/a:\u{e9}",
            "docker://localhost:5000/a@sha256:12",
            &format!("docker://localhost:5000/a@sha256:{upper}"),
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn registries_on_this_host() {
        let is_loopback = |text: &str| parse(text).unwrap().is_loopback();
        assert!(is_loopback("docker://localhost:5000/a"));
        assert!(is_loopback("docker://127.3.4.5/a"));
        for text in [
            "docker://other.example/debian",
            "docker://localhost.example/a",
            "docker://10.0.0.1:80/a",
        ] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
