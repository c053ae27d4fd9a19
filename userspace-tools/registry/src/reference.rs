// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of images in registries: `docker://[HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]`.

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
/// It has a host: there is no default registry. A name without tag and digest has the tag `latest`, as
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
        if is_short(text) {
            return Err(refused(
                "the registry is missing; give docker://HOST[:PORT]/NAME:TAG, with a dot in HOST or a port, \
                 or set unqualified-search-registries in registries.conf",
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

    /// The name without the transport.
    pub(crate) fn name(&self) -> String {
        self.reference.to_string()
    }

    /// The name in the form of the client.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }
}

/// Returns true if a name, without the transport, has no registry.
fn is_short(text: &str) -> bool {
    let host = text.split_once('/').map_or("", |(host, _)| host);
    host != "localhost" && !host.contains(['.', ':'])
}

/// A name on a command line. Without a registry, it stands for an image in each of several registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    first: RemoteImage,
    others: Vec<RemoteImage>,
}

impl From<RemoteImage> for ImageName {
    fn from(image: RemoteImage) -> Self {
        ImageName {
            first: image,
            others: Vec::new(),
        }
    }
}

impl ImageName {
    /// Parses a name. `search` has the registries for one that names none.
    ///
    /// # Errors
    ///
    /// As for [`RemoteImage::parse`].
    pub fn parse(name: &OsStr, search: &[String]) -> Result<Self, ReferenceError> {
        let text = name.to_str().and_then(|text| text.strip_prefix(TRANSPORT));
        let Some(short) = text.filter(|text| is_short(text)) else {
            return Ok(RemoteImage::parse(name)?.into());
        };
        let mut images = search.iter().map(|registry| {
            let full = format!("{TRANSPORT}{registry}/{short}");
            // The message shows the name that was given.
            RemoteImage::parse(OsStr::new(&full)).map_err(|_| {
                let what = "not an image in a registry; give docker://[HOST[:PORT]/]NAME:TAG";
                ReferenceError::refused(name, what)
            })
        });
        let first = images.next().unwrap_or_else(|| RemoteImage::parse(name))?;
        let others = images.collect::<Result<_, _>>()?;
        Ok(ImageName { first, others })
    }

    /// Returns the images in the order in which they are tried.
    pub fn images(&self) -> impl Iterator<Item = &RemoteImage> {
        [&self.first].into_iter().chain(&self.others)
    }

    /// Returns the name of the image with this manifest in the same repositories.
    pub fn at(&self, digest: Digest) -> Self {
        ImageName {
            first: self.first.at(digest),
            others: self.others.iter().map(|image| image.at(digest)).collect(),
        }
    }

    /// Returns the image, if the name stands for one alone.
    pub fn only(&self) -> Option<&RemoteImage> {
        self.others.is_empty().then_some(&self.first)
    }

    /// Returns the image that a command writes.
    ///
    /// # Errors
    ///
    /// If the name stands for several images.
    pub fn target(&self) -> Result<&RemoteImage, ReferenceError> {
        self.only().ok_or_else(|| {
            let registries: Vec<&str> = self.images().map(RemoteImage::registry).collect();
            let what = format!(
                "registries.conf has several search registries ({}); give one, docker://HOST/NAME:TAG",
                registries.join(", ")
            );
            ReferenceError::refused(self.to_string(), &what)
        })
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.first.tag()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only() {
            Some(image) => image.fmt(f),
            None => {
                let name = self.first.name();
                let short = name.split_once('/').map_or(&*name, |(_, short)| short);
                write!(f, "{TRANSPORT}{short}")
            }
        }
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
    fn names_without_a_registry() {
        let names = |text: &str, search: &[&str]| -> Vec<String> {
            let search: Vec<String> = search.iter().map(|&name| name.to_owned()).collect();
            match ImageName::parse(OsStr::new(text), &search) {
                Ok(name) => name.images().map(RemoteImage::name).collect(),
                Err(error) => vec![error.to_string()],
            }
        };
        let search = ["a.example", "localhost:5000"];
        assert_eq!(
            names("docker://debian:13", &search),
            ["a.example/debian:13", "localhost:5000/debian:13"]
        );
        assert_eq!(
            names("docker://team/app", &search),
            [
                "a.example/team/app:latest",
                "localhost:5000/team/app:latest"
            ]
        );
        assert_eq!(names("docker://b.example/a:1", &search), ["b.example/a:1"]);
        let missing = names("docker://debian:13", &[]);
        assert!(
            missing[0].contains("the registry is missing"),
            "{missing:?}"
        );
        assert!(missing[0].contains("registries.conf"), "{missing:?}");
        for wrong in ["docker://", "docker://../a", "docker:///a", "docker://a b"] {
            assert!(names(wrong, &search)[0].contains("not an image"), "{wrong}");
        }
        let name = |search: &[String]| ImageName::parse(OsStr::new("docker://a"), search).unwrap();
        let several = name(&search.map(str::to_owned));
        assert_eq!(several.to_string(), "docker://a:latest");
        let message = several.target().unwrap_err().to_string();
        assert!(message.contains("a.example, localhost:5000"), "{message}");
        let one = name(&["a.example".to_owned()]);
        assert_eq!(one.target().unwrap().name(), "a.example/a:latest");
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
