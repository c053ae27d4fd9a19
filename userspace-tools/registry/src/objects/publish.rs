// SPDX-License-Identifier: MIT OR Apache-2.0

//! Layouts in object stores as the places of a publication.
//!
//! The index of a layout lists an artifact that refers to a manifest without a tag, as the OCI image
//! specification says.

use super::error::ObjectFault;
use super::name::ObjectImage;
use super::push::Target;
use super::source::ObjectSource;
use crate::client::{RegistryOptions, Traffic};
use crate::error::{Message, PublishFault};
use crate::publisher::{add_new, Destination, Name, Origin, MANIFESTS_MAX};
use crate::push::{Placed, Pushed};
use crate::upload::Content;
use puzzlefs_lib::fetch::{BlobSource, ImageSource, RemoteBlob};
use puzzlefs_lib::oci::{Descriptor, Index, INDEX, MANIFEST, ROOT};
use puzzlefs_lib::threads::lock;
use puzzlefs_lib::tree::AnyImage;
use puzzlefs_lib::{json, Digest, Error, Progress, Result, Store};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::sync::{Mutex, OnceLock};

/// The member of a descriptor that only artifacts have.
const ARTIFACT_TYPE: &str = "artifactType";

/// A layout that a publication reads from.
pub(crate) struct ObjectOrigin<'p> {
    source: ObjectSource<'p>,
    index: Index,
    /// The artifacts that the index lists, by the manifests that they refer to.
    artifacts: OnceLock<BTreeMap<String, Vec<Descriptor>>>,
}

/// The member of a manifest that names another.
#[derive(Deserialize)]
struct Referrer {
    subject: Option<Descriptor>,
}

impl<'p> ObjectOrigin<'p> {
    /// Finds the document that a name stands for. Returns it with its descriptor.
    pub fn open(
        image: &ObjectImage,
        action: &'static str,
        options: &RegistryOptions,
        progress: &'p Progress,
    ) -> Result<(Self, Descriptor)> {
        let (source, document, index) = ObjectSource::open(image, action, options, progress)?;
        let index = match index {
            Some(index) => index,
            None => source.connection.entries()?,
        };
        let origin = ObjectOrigin {
            source,
            index,
            artifacts: OnceLock::new(),
        };
        Ok((origin, document))
    }

    /// Reads the manifests that can refer to others: those without a tag, and those of artifacts.
    fn read_artifacts(&self) -> Result<BTreeMap<String, Vec<Descriptor>>> {
        let is_candidate = |entry: &&Descriptor| {
            [MANIFEST, INDEX].contains(&&*entry.media_type)
                && !entry.annotations.contains_key(ROOT)
                && (entry.tag().is_none() || entry.other.contains_key(ARTIFACT_TYPE))
        };
        let candidates: Vec<_> = self.index.manifests.iter().filter(is_candidate).collect();
        if candidates.len() > MANIFESTS_MAX {
            let max = MANIFESTS_MAX;
            return Err(self.fail(PublishFault::TooManyManifests { max }));
        }
        let mut artifacts: BTreeMap<String, Vec<Descriptor>> = BTreeMap::new();
        for candidate in candidates {
            let digest = self.source.connection.digest(&candidate.digest)?;
            let bytes = self.source.manifest(&digest)?;
            let parsed: Referrer =
                json::parse(&bytes, "a manifest").map_err(|cause| self.malformed(&cause))?;
            if let Some(subject) = parsed.subject {
                let of_subject = artifacts.entry(subject.digest).or_default();
                add_new(of_subject, std::slice::from_ref(candidate));
            }
        }
        Ok(artifacts)
    }
}

impl ImageSource for ObjectOrigin<'_> {
    fn name(&self) -> String {
        self.source.name()
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.source.manifest(digest)
    }
}

impl BlobSource for ObjectOrigin<'_> {
    fn read(
        &self,
        blob: &RemoteBlob,
        range: Range<u64>,
        give: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        self.source.read(blob, range, give)
    }
}

impl Origin for ObjectOrigin<'_> {
    fn referrers(&self, subject: &str) -> Result<Vec<Descriptor>> {
        let artifacts = match self.artifacts.get() {
            Some(artifacts) => artifacts,
            None => {
                let read = self.read_artifacts()?;
                self.artifacts.get_or_init(|| read)
            }
        };
        Ok(artifacts.get(subject).cloned().unwrap_or_default())
    }

    fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.index.find(tag) else {
            return Ok(None);
        };
        let digest = self.source.connection.digest(&entry.digest)?;
        self.source.manifest(&digest).map(Some)
    }

    fn malformed(&self, cause: &dyn Display) -> Error {
        let fault = ObjectFault::Protocol(Message::new(cause.to_string()));
        self.source.connection.fail("", fault)
    }

    fn fail(&self, fault: PublishFault) -> Error {
        self.source.connection.fail("", ObjectFault::Publish(fault))
    }

    fn traffic(&self) -> Traffic {
        self.source.connection.traffic()
    }
}

/// A layout that is published to.
pub(crate) struct ObjectDestination<'p> {
    layout: Target<'p>,
    entries: Mutex<Entries>,
}

/// Entries for the index, which are written together.
#[derive(Default)]
struct Entries {
    tagged: Vec<(String, Descriptor)>,
    untagged: Vec<Descriptor>,
}

impl<'p> ObjectDestination<'p> {
    /// Prepares a layout, which need not exist.
    pub fn open(
        to: &ObjectImage,
        action: &'static str,
        options: &RegistryOptions,
        progress: &'p Progress,
    ) -> Result<Self> {
        Ok(ObjectDestination {
            layout: Target::open(to, action, options, progress)?,
            entries: Mutex::default(),
        })
    }
}

impl Destination for ObjectDestination<'_> {
    fn push_blob(&self, blob: &RemoteBlob, content: &dyn Content) -> Result<Placed> {
        self.layout.push_blob(&blob.digest, blob.size, content)
    }

    fn push_image(&self, store: &Store, image: &AnyImage) -> Result<Pushed> {
        self.layout.push_image(store, image)
    }

    fn push_manifest(&self, name: Name<'_>, bytes: &[u8], media_type: &str) -> Result<Placed> {
        let digest = Digest::of(bytes);
        let placed = self.layout.push_document(&digest, bytes)?;
        if let Name::Tag(tag) = name {
            let entry = Descriptor::new(media_type, digest, bytes.len() as u64);
            lock(&self.entries).tagged.push((tag.to_owned(), entry));
        }
        Ok(placed)
    }

    fn list_artifacts(
        &self,
        _: &str,
        artifacts: &[Descriptor],
    ) -> Result<Option<(String, Vec<u8>)>> {
        lock(&self.entries).untagged.extend_from_slice(artifacts);
        Ok(None)
    }

    fn finish(&self) -> Result<()> {
        let entries = lock(&self.entries);
        self.layout.finish(|index| {
            add_new(&mut index.manifests, &entries.untagged);
            for (tag, entry) in &entries.tagged {
                index.set_tag(tag, entry.clone());
            }
        })
    }

    fn progress(&self) -> &Progress {
        self.layout.connection.progress
    }

    fn traffic(&self) -> Traffic {
        self.layout.connection.traffic()
    }
}
