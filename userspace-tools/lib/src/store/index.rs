// SPDX-License-Identifier: MIT OR Apache-2.0

//! Changing `index.json`: one writer at a time, and never half a file.
//!
//! Writers of this library wait for each other by a lock. Another tool does not know the lock. If it
//! replaces the index while we change it, we notice, because a new index is exchanged with the one that is
//! there: what comes out must be the index that the change began with. If it is not, it is put back, and
//! the change is made again.

use crate::error::{Result, StoreError};
use crate::model::oci::{Descriptor, Index};
use crate::store::oci_layout::Store;
use crate::store::replace::{WriteLock, ATTEMPTS, INDEX};
use crate::sys::pause::{self, Point};

impl Store {
    /// Puts a manifest under a tag, in the place of what the tag named before.
    ///
    /// The manifest and everything it names must be durable already. Other tags stay, those that
    /// another builder sets at the same time included.
    pub(crate) fn set_tag(&self, tag: &str, manifest: Descriptor) -> Result<()> {
        self.change_index(|index| {
            index.set_tag(tag, manifest.clone());
            Ok(())
        })
    }

    /// Replaces the index by the one that a function makes of it. The function runs again if another
    /// tool replaces the index meanwhile.
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
