// SPDX-License-Identifier: GPL-2.0

//! The shared resources of a read.

use super::frame_cache::FrameCache;
use crate::{base::statistics::Statistics, io::pool::Workspaces, vfs::WorkQueue};
use kernel::sync::Arc;

/// The shared resources of a read, and the counters of its mount.
#[derive(Clone, Copy)]
pub(crate) struct ReadContext<'a> {
    pub(crate) workspaces: &'a Arc<Workspaces>,
    /// The work queue that takes workspaces back which killed tasks leave behind.
    pub(crate) returns: &'a WorkQueue,
    pub(crate) frames: &'a FrameCache,
    pub(crate) statistics: &'a Statistics,
}
