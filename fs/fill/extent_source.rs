// SPDX-License-Identifier: GPL-2.0

//! The extents of a file of version 4, as the layers above give them.

use crate::{base::fault::Fault, store::opening::Opening};
use core::ops::ControlFlow;
use puzzlefs_schema::v4::Extent;

/// A source of the extents of one regular file.
pub(crate) trait ExtentSource {
    /// Gives the extents of the file in order, from the one that contains `offset` on, until `give`
    /// returns `Break` or the file ends.
    ///
    /// With [`Opening::Now`] the caller has folios locked.
    ///
    /// # Errors
    ///
    /// [`Fault::NotOpen`] if extents must be read first, and the caller does not wait as long as
    /// that takes; other faults if they cannot be read.
    fn for_each_extent(
        &self,
        offset: u64,
        how: Opening,
        give: &mut dyn FnMut(&Extent) -> ControlFlow<()>,
    ) -> Result<(), Fault>;
}
