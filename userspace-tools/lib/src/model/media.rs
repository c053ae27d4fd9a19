// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds out the kind of a document or a blob by its media type, before its bytes are read.

use crate::model::oci::{self, Descriptor, Index};
use crate::model::platform::Platform;
use serde::Deserialize;
use std::fmt;

/// The kind of a JSON document of an image layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest,
    Index,
    /// A manifest of Docker's schema 1, which is older than OCI's.
    Schema1,
    /// A manifest of artifacts, from a draft of OCI's specification.
    Artifact,
    Unknown,
}

impl Document {
    /// Returns the kind that a descriptor says.
    pub fn of_type(media_type: &str) -> Self {
        match media_type {
            oci::MANIFEST | oci::DOCKER_MANIFEST => Document::Manifest,
            oci::INDEX | oci::DOCKER_LIST => Document::Index,
            "application/vnd.docker.distribution.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v1+prettyjws" => Document::Schema1,
            "application/vnd.oci.artifact.manifest.v1+json" => Document::Artifact,
            _ => Document::Unknown,
        }
    }

    /// Returns the kind that the document itself says, by its type or by its fields.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            media_type: Option<String>,
            #[serde(default)]
            config: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let Ok(probe) = serde_json::from_slice::<Probe>(bytes) else {
            return Document::Unknown;
        };
        match Document::of_type(&probe.media_type.unwrap_or_default()) {
            Document::Unknown if probe.config.is_some() => Document::Manifest,
            Document::Unknown if probe.manifests.is_some() => Document::Index,
            Document::Unknown if probe.fs_layers.is_some() => Document::Schema1,
            document => document,
        }
    }
}

/// The parts of any manifest that show its kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kind {
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "oci::or_null")]
    layers: Vec<Descriptor>,
}

/// A document that is not the manifest of a PuzzleFS image.
#[derive(Debug)]
pub struct NotPuzzlefs {
    format: Format,
    /// The name of the document on the command line of `puzzlefs import`.
    name: Option<String>,
}

/// The format of a document that is not the manifest of a PuzzleFS image.
#[derive(Debug)]
enum Format {
    /// An index of container images for these platforms.
    Index(Vec<Platform>),
    /// A container image.
    Container,
    /// An image that `import` cannot read.
    NotImportable(Box<NotImportable>),
    /// A manifest that cannot be parsed.
    Malformed,
    /// An image of Docker's schema 1.
    Schema1,
    /// An artifact.
    Artifact,
    /// Anything else.
    Unknown,
}

impl NotPuzzlefs {
    /// Finds out the format of a document.
    pub(crate) fn of_bytes(bytes: &[u8], name: Option<String>) -> Self {
        const SHOWN: usize = 10;
        let format = match Document::of_bytes(bytes) {
            Document::Index => {
                let index: Option<Index> = serde_json::from_slice(bytes).ok();
                let manifests = index.map(|index| index.manifests).unwrap_or_default();
                let platforms = manifests.iter().filter_map(Platform::of);
                Format::Index(platforms.filter(Platform::is_known).take(SHOWN).collect())
            }
            Document::Manifest => match serde_json::from_slice::<Kind>(bytes) {
                Ok(kind) => match kind.not_importable() {
                    Some(cause) => Format::NotImportable(Box::new(cause)),
                    None => Format::Container,
                },
                Err(_) => Format::Malformed,
            },
            Document::Schema1 => Format::Schema1,
            Document::Artifact => Format::Artifact,
            Document::Unknown => Format::Unknown,
        };
        NotPuzzlefs { format, name }
    }

    /// Writes the remedy for a container image.
    fn import(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(
                f,
                "; 'puzzlefs import {name} STORE:TAG' makes a PuzzleFS image of it"
            ),
            None => f.write_str("; 'puzzlefs import' makes a PuzzleFS image of it, by its tag"),
        }
    }
}

impl fmt::Display for NotPuzzlefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a PuzzleFS image")?;
        match &self.format {
            Format::Index(platforms) => {
                f.write_str(": it is an index of container images")?;
                if !platforms.is_empty() {
                    let platforms: Vec<_> = platforms.iter().map(Platform::to_string).collect();
                    write!(f, " ({})", platforms.join(", "))?;
                }
                self.import(f)
            }
            Format::Container => {
                f.write_str(": it is an ordinary container image")?;
                self.import(f)
            }
            Format::NotImportable(cause) => write!(f, ": {cause}"),
            Format::Malformed => f.write_str(": its manifest is malformed"),
            Format::Schema1 => write!(f, ": {SCHEMA1}"),
            Format::Artifact => write!(f, ": {}", artifact("")),
            Format::Unknown => f.write_str(", nor any image of OCI or Docker"),
        }
    }
}

impl std::error::Error for NotPuzzlefs {}

pub(crate) const SCHEMA1: &str = "it is an image of Docker's schema 1; 'skopeo copy --format oci' \
                                  converts it, and 'puzzlefs import' reads the result";

/// Says that something is an artifact, perhaps of this type.
pub(crate) fn artifact(media_type: &str) -> String {
    let of_type = match media_type {
        "" => String::new(),
        media_type => format!(" of the type '{media_type}'"),
    };
    format!(
        "it is an artifact{of_type}, not an image of a root filesystem; \
         no command of puzzlefs reads artifacts"
    )
}

/// A cause why `import` cannot read an image, by the media types in its manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotImportable {
    /// It is an image of PuzzleFS.
    #[error("it is a PuzzleFS image already; 'puzzlefs copy' copies it to another store")]
    Puzzlefs,
    /// It is an artifact of this type, which is empty if it is unknown.
    #[error("{}", artifact(.0))]
    Artifact(String),
    /// A layer is encrypted.
    #[error(
        "layer {number} of it is encrypted ('{media_type}'); decrypt the image with \
         'skopeo copy --decryption-key', and import the result"
    )]
    Encrypted {
        /// The number of the layer, from 1 on.
        number: usize,
        /// The media type of the layer.
        media_type: String,
    },
    /// A layer is not a tar archive.
    #[error(
        "layer {number} of it is {} of the type '{media_type}'; 'puzzlefs import' reads layers that \
         are tar archives", content_of(.media_type))]
    NotAnArchive {
        /// The number of the layer, from 1 on.
        number: usize,
        /// The media type of the layer.
        media_type: String,
    },
}

impl NotImportable {
    /// Returns the cause if a layer of this type is none that `import` reads.
    fn of_layer(number: usize, media_type: &str) -> Option<Self> {
        if is_archive(media_type) {
            return None;
        }
        let is_encrypted = media_type.contains("+encrypted");
        let media_type = media_type.to_owned();
        Some(if is_encrypted {
            NotImportable::Encrypted { number, media_type }
        } else {
            NotImportable::NotAnArchive { number, media_type }
        })
    }
}

impl Kind {
    /// Returns the cause why `import` cannot read the image, if there is one.
    pub fn not_importable(&self) -> Option<NotImportable> {
        let types = || self.layers.iter().map(|layer| &*layer.media_type);
        let has_packs = self.layers.iter().any(Descriptor::is_pack);
        if has_packs || types().any(|layer| layer == oci::ROOTFS) {
            return Some(NotImportable::Puzzlefs);
        }
        let artifact = |media_type: &str| Some(NotImportable::Artifact(media_type.to_owned()));
        let config = self.config.as_ref().map(|config| &*config.media_type);
        let of_an_image = types().all(is_layer_of_image);
        let artifact_type = self
            .artifact_type
            .as_deref()
            .filter(|text| !text.is_empty());
        match (artifact_type, config) {
            (_, Some(oci::CONFIG | oci::DOCKER_CONFIG)) => {}
            (Some(text), _) => return artifact(text),
            // Some registries and builders had no type of their own for it.
            (None, Some(oci::EMPTY) | None) => return artifact(""),
            (None, Some(_)) if of_an_image && !self.layers.is_empty() => {}
            (None, Some(text)) => return artifact(text),
        }
        let mut numbered = (1..).zip(types());
        numbered.find_map(|(number, media_type)| NotImportable::of_layer(number, media_type))
    }
}

/// Returns true for the type of a layer that is a tar archive, compressed in whatever way.
fn is_archive(media_type: &str) -> bool {
    media_type.contains(".tar") && !media_type.contains("+encrypted")
}

/// Returns true for the types of layers that images alone have.
fn is_layer_of_image(media_type: &str) -> bool {
    let prefixes = [
        "application/vnd.oci.image.layer.",
        "application/vnd.docker.image.rootfs.",
    ];
    is_archive(media_type) && prefixes.iter().any(|prefix| media_type.starts_with(prefix))
}

/// Returns true for the type of a layer that may be distributed by its vendor only, and so may not
/// be there.
pub(crate) fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

/// Describes the content of a blob of this type.
fn content_of(media_type: &str) -> &'static str {
    let known = [
        ("in-toto", "an attestation"),
        ("cosign", "a signature"),
        ("helm", "a Helm chart"),
        ("wasm", "a WebAssembly module"),
        ("nydus", "a blob of nydus"),
        ("squashfs", "a squashfs filesystem"),
        ("erofs", "an EROFS filesystem"),
        ("overlaybd", "a blob of overlaybd"),
        (".sif", "a Singularity image"),
    ];
    let what = known.iter().find(|(part, _)| media_type.contains(part));
    what.map_or("a blob", |(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    #[test]
    fn layers() {
        for media_type in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.v1.tar+xz",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ] {
            assert_eq!(NotImportable::of_layer(1, media_type), None);
        }
        for (media_type, wanted) in [
            (
                "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                "layer 2 of it is encrypted (",
            ),
            (
                "application/vnd.in-toto+json",
                "layer 2 of it is an attestation of the type",
            ),
            (
                "application/octet-stream",
                "layer 2 of it is a blob of the type",
            ),
        ] {
            let cause = NotImportable::of_layer(2, media_type).unwrap();
            assert!(cause.to_string().starts_with(wanted), "{cause}");
        }
    }

    #[test]
    fn documents() {
        let of = |value: Value| Document::of_bytes(value.to_string().as_bytes());
        assert_eq!(of(json!({"manifests": []})), Document::Index);
        assert_eq!(of(json!({"config": {}, "layers": []})), Document::Manifest);
        assert_eq!(of(json!({"fsLayers": []})), Document::Schema1);
        assert_eq!(of(json!({"mediaType": oci::DOCKER_LIST})), Document::Index);
        assert_eq!(of(json!({})), Document::Unknown);
        assert_eq!(Document::of_bytes(b"x"), Document::Unknown);
    }
}
