// SPDX-License-Identifier: MIT OR Apache-2.0

//! Changing `index.json`: one writer at a time, and never half a file.
//!
//! Writers of this library wait for each other by a lock, which other tools do not know. So the new index
//! is exchanged with the old one by one system call, and the old one is compared with the index that the
//! change began with. If another tool has replaced it, its index is put back, and the change is made
//! again.

use crate::error::{Result, StoreError};
use crate::model::oci::{Descriptor, Index};
use crate::store::oci_layout::Store;
use crate::store::replace::{WriteLock, ATTEMPTS, INDEX};
use crate::sys::pause::{self, Point};

impl Store {
    /// Sets a tag to a manifest.
    ///
    /// The manifest and all blobs that it names must be durable. Other tags stay, including those that
    /// another builder sets at the same time.
    pub(crate) fn set_tag(&self, tag: &str, manifest: Descriptor) -> Result<()> {
        self.change_index(|index| {
            index.set_tag(tag, manifest.clone());
            Ok(())
        })
    }

    /// Changes the index by a function. The function runs again if another tool replaces the index
    /// meanwhile.
    pub(crate) fn change_index<T>(
        &self,
        mut change: impl FnMut(&mut Index) -> Result<T>,
    ) -> Result<T> {
        let lock = WriteLock::take(&self.path, &self.root)?;
        let path = self.path.join(INDEX);
        for _ in 0..ATTEMPTS {
            let before = self.index_text()?;
            let mut index = self.known_index_of(before.as_deref())?;
            pause::at(Point::Locked);
            let result = change(&mut index)?;
            let text = serde_json::to_vec(&index).map_err(|cause| StoreError::NotJson {
                path: path.clone(),
                cause,
            })?;
            if lock.exchange_index(before.as_deref(), &text)? {
                return Ok(result);
            }
        }
        Err(StoreError::Contended { path }.into())
    }
}
