// SPDX-License-Identifier: MIT OR Apache-2.0

//! Publishes images between registries and object stores, in any combination. [`crate::publisher`] does the
//! work.

use crate::client::{Registry, RegistryOptions, Stop, Traffic};
use crate::error::{PublishFault, RegistryFault};
use crate::name::RemoteName;
use crate::objects::{ObjectDestination, ObjectImage, ObjectOrigin};
use crate::places::{self, Sought};
use crate::publisher::{
    self, add_new, fallback_tag, listed, Destination, Name, Origin, PublishOptions, Published,
};
use crate::pull::{manifest, Opened, Source, MANIFEST_MAX};
use crate::push::{push_blob, push_image, push_manifest, Placed, Pushed};
use crate::reference::{ImageName, RemoteImage};
use crate::upload::Content;
use oci_client::{Reference, RegistryOperation};
use puzzlefs_lib::fetch::RemoteBlob;
use puzzlefs_lib::oci::{Descriptor, Index, INDEX};
use puzzlefs_lib::tree::AnyImage;
use puzzlefs_lib::{json, Digest, Error, Progress, Result, Store};
use std::fmt::Display;

/// The verbs for messages.
const READ: &str = "read from";
const WRITE: &str = "publish to";

/// Converts a container image, and publishes an index of it and of the PuzzleFS image.
///
/// All images of an index are kept. If `to` is another repository or layout, they are copied, with artifacts
/// that refer to them; only then, the image can come from a mirror. The PuzzleFS images are also in `store`,
/// where an earlier version saves work.
///
/// # Errors
///
/// As for a pull and a push. The tag then stays as it was.
pub fn publish(
    from: &RemoteName,
    to: &RemoteName,
    store: &Store,
    options: &PublishOptions,
    progress: &Progress,
) -> Result<Published> {
    // A registry that is not permitted is refused before anything is read.
    let writing = match to {
        RemoteName::Registry(to) => places::itself(to.target()?, WRITE, &options.connection)?,
        RemoteName::Objects(_) => options.connection.clone(),
    };
    let publication = Publication {
        to,
        writing,
        store,
        options,
        progress,
    };
    match from {
        RemoteName::Registry(from) => publication.of_registry(from),
        RemoteName::Objects(from) => publication.of_layout(from),
    }
}

/// The arguments of [`publish`] but the first.
struct Publication<'p> {
    to: &'p RemoteName,
    /// The connection to the target.
    writing: RegistryOptions,
    store: &'p Store,
    options: &'p PublishOptions,
    progress: &'p Progress,
}

impl Publication<'_> {
    /// Publishes an image of a registry.
    fn of_registry(&self, from: &ImageName) -> Result<Published> {
        let target = match self.to {
            RemoteName::Registry(name) => Some(name.target()?),
            RemoteName::Objects(_) => None,
        };
        let mut reading = self.options.connection.clone();
        // Credentials of one registry never go to another.
        let is_same = { from.only().zip(target) }
            .is_some_and(|(from, target)| from.registry() == target.registry());
        if self.options.source_creds.is_some() || !is_same {
            reading.creds.clone_from(&self.options.source_creds);
        }
        let sought = Sought {
            name: from,
            options: &reading,
            target,
            action: READ,
        };
        let opened = sought.first(|attempt| Opened::at(attempt, &sought, self.progress))?;
        let (origin, document) = opened.source();
        self.publish(&origin, &document, Some(&opened.registry), None)
    }

    /// Publishes an image of a layout in an object store.
    fn of_layout(&self, from: &ObjectImage) -> Result<Published> {
        let reading = RegistryOptions {
            creds: self.options.source_creds.clone(),
            // That is for registries.
            authfile: None,
            ..self.options.connection.clone()
        };
        let (origin, document) = ObjectOrigin::open(from, READ, &reading, self.progress)?;
        self.publish(&origin, &document, None, Some(from.address()))
    }

    /// Publishes an image of an origin, which is a registry, or a layout at an address.
    fn publish(
        &self,
        origin: &impl Origin,
        document: &Descriptor,
        registry: Option<&Registry<'_>>,
        address: Option<&str>,
    ) -> Result<Published> {
        let (tag, options) = (self.to.target()?, self.options);
        match self.to {
            RemoteName::Registry(to) => {
                let connect = || self.registry(to.target()?, registry);
                publisher::publish(origin, document, connect, tag, self.store, options)
            }
            RemoteName::Objects(to) => {
                let connect = || Ok((self.objects(to, registry)?, address == Some(to.address())));
                publisher::publish(origin, document, connect, tag, self.store, options)
            }
        }
    }

    /// Connects to the registry that is published to. Returns true if the origin is the same repository.
    fn registry(
        &self,
        to: &RemoteImage,
        origin: Option<&Registry<'_>>,
    ) -> Result<(RegistryDestination<'_>, bool)> {
        let operation = RegistryOperation::Push;
        let registry = Registry::connect(to, operation, WRITE, &self.writing, self.progress)?;
        let is_same = origin.is_some_and(|origin| to.has_repository_of(&origin.image));
        let mut mount_from = None;
        if let Some(origin) =
            origin.filter(|origin| !is_same && origin.image.registry() == to.registry())
        {
            registry.read_also(origin.reference())?;
            mount_from = Some(origin.reference().clone());
        }
        let destination = RegistryDestination {
            registry,
            mount_from,
        };
        Ok((destination, is_same))
    }

    /// Opens the layout that is published to.
    fn objects(
        &self,
        to: &ObjectImage,
        origin: Option<&Registry<'_>>,
    ) -> Result<ObjectDestination<'_>> {
        let mut writing = self.writing.clone();
        if origin.is_some() {
            // That is for the origin.
            writing.authfile = None;
        }
        ObjectDestination::open(to, WRITE, &writing, self.progress)
    }
}

impl Origin for Source<'_> {
    fn referrers(&self, subject: &str) -> Result<Vec<Descriptor>> {
        Ok(referrers(self.registry, subject)?.unwrap_or_default())
    }

    fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>> {
        tagged(self.registry, tag)
    }

    fn malformed(&self, cause: &dyn Display) -> Error {
        self.registry.fail_protocol(cause)
    }

    fn fail(&self, fault: PublishFault) -> Error {
        self.registry.fail(RegistryFault::Publish(fault))
    }

    fn traffic(&self) -> Traffic {
        self.registry.traffic()
    }
}

/// A repository that is published to.
struct RegistryDestination<'p> {
    registry: Registry<'p>,
    /// Another repository of the registry that has the blobs.
    mount_from: Option<Reference>,
}

impl RegistryDestination<'_> {
    fn error(&self, stop: Stop) -> Error {
        stop.into_error(&self.registry)
    }
}

impl Destination for RegistryDestination<'_> {
    fn push_blob(&self, blob: &RemoteBlob, content: &dyn Content) -> Result<Placed> {
        let (digest, size) = (&blob.digest, blob.size);
        let mount_from = self.mount_from.as_ref();
        let placed = push_blob(&self.registry, digest, size, content, mount_from);
        placed.map_err(|stop| self.error(stop))
    }

    fn push_image(&self, store: &Store, image: &AnyImage) -> Result<Pushed> {
        let name = self.registry.image.at(*image.root.manifest_digest());
        push_image(&self.registry, store, image, &name, None)
    }

    fn push_manifest(&self, name: Name<'_>, bytes: &[u8], media_type: &str) -> Result<Placed> {
        let digest = Digest::of(bytes);
        let name = match name {
            Name::Digest => self.registry.image.at(digest),
            Name::Tag(tag) => self.registry.image.tagged(tag)?,
        };
        push_manifest(&self.registry, &name, &digest, bytes, media_type)
            .map_err(|stop| self.error(stop))?;
        Ok(Placed::New)
    }

    fn list_artifacts(
        &self,
        subject: &str,
        artifacts: &[Descriptor],
    ) -> Result<Option<(String, Vec<u8>)>> {
        if referrers(&self.registry, subject)?.is_some() {
            return Ok(None);
        }
        let tag = fallback_tag(subject);
        let before = tagged(&self.registry, &tag)?.and_then(|bytes| listed(&bytes));
        let mut index = Index {
            media_type: Some(INDEX.to_owned()),
            manifests: before.unwrap_or_default(),
            ..Index::default()
        };
        add_new(&mut index.manifests, artifacts);
        let bytes = serde_json::to_vec(&index);
        let bytes = bytes.map_err(|error| self.registry.fail_protocol(error))?;
        Ok(Some((tag, bytes)))
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn progress(&self) -> &Progress {
        self.registry.progress
    }

    fn traffic(&self) -> Traffic {
        self.registry.traffic()
    }
}

/// Returns the artifacts that a registry lists for a manifest, or `None` if it has no such lists.
fn referrers(registry: &Registry<'_>, subject: &str) -> Result<Option<Vec<Descriptor>>> {
    let path = format!("referrers/{subject}");
    match registry.read_manifest(&path, INDEX, MANIFEST_MAX) {
        Ok(answer) => {
            let index: Index = json::parse(&answer.body, "an OCI image index")
                .map_err(|cause| registry.fail_protocol(cause))?;
            Ok(Some(index.manifests))
        }
        Err(Stop::Failure(failure)) if matches!(failure.status, Some(400..=499)) => Ok(None),
        Err(stop) => Err(stop.into_error(registry)),
    }
}

/// Returns the manifest or the index under a tag, if there is one.
fn tagged(registry: &Registry<'_>, tag: &str) -> Result<Option<Vec<u8>>> {
    match manifest(registry, tag) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Stop::Failure(failure)) if failure.status == Some(404) => Ok(None),
        Err(stop) => Err(stop.into_error(registry)),
    }
}
