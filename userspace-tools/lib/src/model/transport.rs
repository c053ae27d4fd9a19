// SPDX-License-Identifier: MIT OR Apache-2.0

//! References of other tools: `docker://debian:13`, `oci:DIRECTORY:TAG`.

use std::ffi::OsStr;
use std::path::Path;

/// The transports of skopeo, Podman and BuildKit, with which their references begin.
const TRANSPORTS: [(&str, Place); 23] = [
    ("docker://", Place::Registry),
    (
        "docker-image://",
        Place::Elsewhere("an image in a registry"),
    ),
    (
        "docker-daemon:",
        Place::Elsewhere("an image of the Docker daemon"),
    ),
    (
        "containers-storage:",
        Place::Elsewhere("an image of Podman's storage"),
    ),
    (
        "ostree:",
        Place::Elsewhere("an image in an OSTree repository"),
    ),
    ("atomic:", Place::Elsewhere("an image in a registry")),
    ("sif:", Place::Elsewhere("a Singularity image")),
    ("dir:", Place::Elsewhere("an image in skopeo's own format")),
    ("oci:", Place::Here),
    ("oci-layout://", Place::Here),
    ("oci-archive:", Place::Here),
    ("docker-archive:", Place::Here),
    ("https://", Place::Network),
    ("http://", Place::Network),
    ("s3://", Place::Network),
    ("s3a://", Place::Network),
    ("gs://", Place::Network),
    ("az://", Place::Network),
    ("azure://", Place::Network),
    ("adl://", Place::Network),
    ("abfs://", Place::Network),
    ("abfss://", Place::Network),
    ("file://", Place::Network),
];

/// The place of the images of a transport.
enum Place {
    /// In a directory or an archive that `puzzlefs import` reads.
    Here,
    /// In a registry, from which `puzzlefs pull` gets PuzzleFS images.
    Registry,
    /// A place from which another tool has to fetch the image.
    Elsewhere(&'static str),
    /// In an object store or on a server of files, from which `puzzlefs pull` gets images of a layout.
    Network,
}

/// A reference of another tool, with the remedy for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// The image is in a directory or an archive that `puzzlefs import` reads.
    #[error(
        "'{prefix}' is a transport of other tools; give '{rest}' alone. 'puzzlefs import' reads image \
         layouts and image archives, all other commands read PuzzleFS images")]
    Here {
        /// The name of the transport.
        prefix: &'static str,
        /// The reference without it.
        rest: String,
    },
    /// `puzzlefs pull` gets the image if it is a PuzzleFS image.
    #[error(
        "an image in a registry; 'puzzlefs pull {reference} STORE:TAG' gets it if it is a PuzzleFS image. \
         Copy any other into a directory by 'skopeo copy {reference} oci:DIRECTORY:TAG', and give \
         DIRECTORY:TAG to 'puzzlefs import'")]
    Registry {
        /// The reference.
        reference: String,
    },
    /// Another tool has to fetch the image.
    #[error(
        "{place}, which puzzlefs does not read; copy it into a directory by 'skopeo copy {reference} \
         oci:DIRECTORY:TAG', and give DIRECTORY:TAG to 'puzzlefs import'")]
    Elsewhere {
        /// The place of the image.
        place: &'static str,
        /// The reference.
        reference: String,
    },
    /// The reference is the address of an object store or a server of files.
    #[error(
        "an address; 'puzzlefs pull {reference} STORE:TAG' gets an image from an image layout there. \
         Download an archive first, and give the file to 'puzzlefs import'")]
    Network {
        /// The reference.
        reference: String,
    },
}

/// Recognises a reference of another tool. The name of a source, unlike that of an image in a store,
/// has no tag.
pub(crate) fn foreign(reference: &OsStr, is_source: bool) -> Option<Foreign> {
    let text = reference.to_string_lossy();
    let (prefix, place) = TRANSPORTS
        .iter()
        .find(|(prefix, _)| text.starts_with(prefix))?;
    let rest = &text[prefix.len()..];
    // A store may be called 'oci'. Hardly any is called 'oci-archive'.
    let name = prefix.trim_end_matches(['/', ':']);
    let is_tag = !is_source && !rest.contains([':', '/']) && !name.contains('-');
    if !prefix.ends_with('/') && (is_tag || Path::new(name).is_dir()) {
        return None;
    }
    Some(match place {
        Place::Here => Foreign::Here {
            prefix,
            rest: rest.to_owned(),
        },
        Place::Registry => Foreign::Registry {
            reference: text.into_owned(),
        },
        Place::Elsewhere(place) => Foreign::Elsewhere {
            place,
            reference: text.into_owned(),
        },
        Place::Network => Foreign::Network {
            reference: text.into_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_other_tools() {
        let source = |text: &str| foreign(OsStr::new(text), true);
        assert!(source("dir:flat").is_some() && source("oci:layout").is_some());
        let refusal = |text: &str| foreign(OsStr::new(text), false);
        for text in [
            "docker://debian:13",
            "docker://debian",
            "docker-daemon:debian:13",
            "containers-storage:localhost/x:latest",
            "oci:/srv/layout:13",
            "oci:layout:13",
            "oci-archive:a.tar:13",
            "docker-archive:/tmp/a.tar",
            "docker-archive:a.tar",
            "containers-storage:x",
            "https://example.org/x.tar",
            "s3://bucket/x",
            "dir:/tmp/image",
        ] {
            assert!(refusal(text).is_some(), "{text}");
        }
        for text in [
            "oci:13",
            "/srv/oci:13",
            "docker:13",
            "dir:13",
            "images:13",
            "",
        ] {
            assert_eq!(refusal(text), None, "{text}");
        }
        assert!(refusal("oci:layout:13")
            .unwrap()
            .to_string()
            .contains("give 'layout:13' alone"));
    }
}
