// SPDX-License-Identifier: MIT OR Apache-2.0

//! Giving images another name, and taking names away.

use crate::error::{Result, StoreError};
use crate::model::oci::{self, Descriptor};
use crate::model::reference::Selector;
use crate::store::locks::UseLock;
use crate::store::oci_layout::{Image, Store};

impl Store {
    /// Puts an image that is in the store under one more tag, in the place of what that named.
    pub fn tag(&self, image: &Selector, tag: &str) -> Result<Image> {
        // The tag may be the first that the image has: no sweep must come before it is set.
        let _in_use = UseLock::shared(self.locked())?;
        let image = self.image(image)?;
        // And none must have taken a part of it, as one that was interrupted can have.
        for blob in image.manifest.layers.iter().chain([&image.manifest.config]) {
            let digest = self.digest(blob, &self.blob_path(&image.manifest_digest))?;
            self.check_size(&digest, blob)?;
        }
        let digest = image.manifest_digest;
        let size = self.blob_size(&digest)?.unwrap_or_default();
        self.change_index(|index| {
            // What the index says of it beside the tag is as true under the new one.
            let name = digest.to_oci();
            let known = index.manifests.iter().find(|known| known.digest == name);
            let new = || Descriptor::new(oci::MANIFEST, digest, size);
            let manifest = known.cloned().unwrap_or_else(new);
            index.set_tag(tag, manifest);
            Ok(())
        })?;
        Ok(image)
    }

    /// Takes a tag away, or all that `index.json` has of a manifest, be it there or not. The blobs
    /// stay.
    pub fn untag(&self, image: &Selector) -> Result<()> {
        self.change_index(|index| match (index.remove(image), image) {
            (true, _) => Ok(()),
            (false, Selector::Tag(tag)) => Err(self.no_such_tag(index, tag)),
            (false, Selector::Manifest(_)) => Err(StoreError::NotListed {
                path: self.path.join("index.json"),
                image: image.clone(),
            }
            .into()),
        })
    }
}
