// SPDX-License-Identifier: MIT OR Apache-2.0

//! References of other tools: `docker://debian:13`, `oci:DIRECTORY:TAG`.

use std::ffi::OsStr;
use std::path::Path;

/// What a reference names that begins with the name of a transport of skopeo, Podman or BuildKit.
const TRANSPORTS: [(&str, Place); 15] = [
    ("docker://", Place::Elsewhere("an image in a registry")),
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
];

/// Where the image of a transport is.
enum Place {
    /// In a directory or an archive that `puzzlefs import` reads.
    Here,
    /// Where another tool has to fetch it.
    Elsewhere(&'static str),
    /// On a server that is not a registry.
    Network,
}

/// Says what a reference is and which command takes it, if it is one of another tool. What names a
/// source, and no image of a store, has no tag.
pub(crate) fn refusal(reference: &OsStr, is_source: bool) -> Option<String> {
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
        Place::Here => format!(
            "'{prefix}' is a transport of other tools; give '{rest}' alone. 'puzzlefs import' reads \
             image layouts and image archives, all other commands read PuzzleFS images"
        ),
        Place::Elsewhere(what) => format!(
            "{what}, which puzzlefs does not read; copy it into a directory by 'skopeo copy {text} \
             oci:DIRECTORY:TAG', and give DIRECTORY:TAG to 'puzzlefs import'"
        ),
        Place::Network => format!(
            "puzzlefs reads no '{prefix}' addresses; download an archive first, or copy an image from a \
             registry by 'skopeo copy docker://HOST/NAME:TAG oci:DIRECTORY:TAG'"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_of_other_tools() {
        let source = |text: &str| super::refusal(OsStr::new(text), true);
        assert!(source("dir:flat").is_some() && source("oci:layout").is_some());
        let refusal = |text: &str| super::refusal(OsStr::new(text), false);
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
            .contains("give 'layout:13' alone"));
    }
}
