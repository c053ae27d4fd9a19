// SPDX-License-Identifier: GPL-2.0

//! The operations that the page cache needs of a filesystem.

use super::folio::FolioRun;
use crate::vfs::{
    compat::prelude::*, filesystem_type::FileSystemType, types::INode, types::SuperBlock,
    work::WorkQueue,
};
use core::ops::Range;

/// A filesystem that fills folios with the contents of its regular files.
pub(crate) trait ReadFolios: FileSystemType {
    /// Fills a run of folios of a regular file.
    ///
    /// Bytes that are not filled when the run is dropped count as unreadable. The filesystem logs
    /// errors instead of returning them, because the caller may only be reading ahead.
    fn read_folios(inode: &INode<Self>, run: &mut FolioRun<'_>);

    /// Does the work of a range that [`Self::read_folios`] has postponed, without folio locks.
    ///
    /// The caller may hold other locks: waits must be killable and bounded. An error is that of the
    /// read. After success the read is repeated.
    fn prepare(_inode: &INode<Self>, _range: &Range<u64>) -> Result {
        Ok(())
    }

    /// Returns false if a range of a regular file should not be read ahead now, because
    /// [`Self::read_folios`] would postpone it. Reads wait for it when they need it.
    fn can_read_ahead(_inode: &INode<Self>, _range: &Range<u64>) -> bool {
        true
    }

    /// Returns the range that is best read where `range` is wanted: the bytes that come without
    /// more work, inside the file.
    fn read_extent(_inode: &INode<Self>, range: &Range<u64>) -> Range<u64> {
        range.clone()
    }

    /// Returns the work queue that reads ahead for a mount. Without one, the task that asks for
    /// readahead does all of it.
    fn readahead_queue(_sb: &SuperBlock<Self>) -> Option<&WorkQueue> {
        None
    }
}
