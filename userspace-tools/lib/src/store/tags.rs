// SPDX-License-Identifier: MIT OR Apache-2.0

//! Adding tags to images, and removing tags.

use crate::error::{Result, StoreError};
use crate::model::oci::{self, Descriptor};
use crate::model::reference::Selector;
use crate::store::chunks::reader::ChunkReader;
use crate::store::locks::UseLock;
use crate::store::oci_layout::{AnyImage, AnyRoot, Store};

impl Store {
    /// Adds a tag to an image of the store. The tag is taken from the image that had it.
    pub fn tag(&self, image: &Selector, tag: &str) -> Result<AnyImage> {
        // If the tag is the first of the image, no `gc` may run before it is set.
        let _in_use = UseLock::shared(self.locked())?;
        let image = self.any_image(image)?;
        let digest = *image.root.manifest_digest();
        // An interrupted `gc` may have removed a part of the image. The chunks of a pack can lie elsewhere.
        let blobs = image.manifest.layers.iter().chain([&image.manifest.config]);
        for blob in blobs.filter(|blob| !blob.is_pack()) {
            let found = self.digest(blob, &self.blob_path(&digest))?;
            self.check_size(&found, blob)?;
        }
        if let AnyRoot::V4(root) = &image.root {
            ChunkReader::new(self)?.read_root(&root.root)?;
        }
        let size = self.blob_size(&digest)?.unwrap_or_default();
        self.change_index(|index| {
            // Other annotations and fields of its entry apply to the new tag, too.
            let name = digest.to_oci();
            let known = index.manifests.iter().find(|known| known.digest == name);
            let new = || Descriptor::new(oci::MANIFEST, digest, size);
            let manifest = known.cloned().unwrap_or_else(new);
            index.set_tag(tag, manifest);
            Ok(())
        })?;
        Ok(image)
    }

    /// Removes a tag, or all entries of a manifest, which need not exist. The blobs stay.
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
