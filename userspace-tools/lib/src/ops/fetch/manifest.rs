// SPDX-License-Identifier: MIT OR Apache-2.0

//! The manifest of an image that is fetched.

use super::source::RemoteBlob;
use crate::error::{FetchError, Result};
use crate::model::digest::Digest;
use crate::model::json;
use crate::model::media::{Document, NotPuzzlefs};
use crate::model::oci::{self, Descriptor, Manifest};
use std::collections::BTreeSet;

/// The parts of a manifest that lead to blobs.
pub(super) struct RemoteManifest {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The root of an image of format 4.
    pub root: Option<Digest>,
    /// The packs of an image of format 4, each once, in their order.
    pub packs: Vec<RemoteBlob>,
    /// All other blobs, each once.
    pub blobs: Vec<RemoteBlob>,
}

impl RemoteManifest {
    /// Parses a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let not_puzzlefs = || FetchError::NotPuzzlefs {
            cause: NotPuzzlefs::of_bytes(bytes, None),
        };
        let manifest: Manifest = match json::parse(bytes, "an OCI image manifest") {
            Ok(manifest) => manifest,
            Err(cause) => {
                return Err(match Document::of_bytes(bytes) {
                    Document::Unknown | Document::Manifest => FetchError::Manifest { cause },
                    _ => not_puzzlefs(),
                }
                .into())
            }
        };
        if !manifest.is_puzzlefs() {
            return Err(not_puzzlefs().into());
        }
        let not_a_digest = |digest: &str| FetchError::NotADigest {
            digest: digest.to_owned(),
        };
        let root = match (manifest.rootfs(), manifest.annotations.get(oci::ROOT)) {
            (None, Some(hex)) => {
                let root = Digest::from_hex(hex.as_bytes());
                Some(root.ok_or_else(|| not_a_digest(hex))?)
            }
            _ => None,
        };
        let mut seen = BTreeSet::new();
        let (mut packs, mut blobs) = (Vec::new(), Vec::new());
        for layer in [&manifest.config].into_iter().chain(&manifest.layers) {
            let Descriptor { digest, size, .. } = layer;
            let digest = Digest::from_oci(digest).ok_or_else(|| not_a_digest(digest))?;
            if seen.insert(digest) {
                let blob = RemoteBlob {
                    digest,
                    size: *size,
                };
                if root.is_some() && layer.is_pack() {
                    packs.push(blob);
                } else {
                    blobs.push(blob);
                }
            }
        }
        Ok(RemoteManifest {
            digest: Digest::of(bytes),
            root,
            packs,
            blobs,
        })
    }
}
