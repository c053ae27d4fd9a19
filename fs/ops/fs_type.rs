// SPDX-License-Identifier: GPL-2.0

//! The filesystem type.

use crate::vfs;

/// The filesystem type, which `filesystem` implements.
pub(crate) struct PuzzleFs;

/// The context of a mount or a remount.
pub(crate) type MountContext = vfs::MountContext<PuzzleFs>;

/// The number that `statfs(2)` gives as the filesystem's type: "PZFS".
pub(crate) const MAGIC: u32 = 0x505a_4653;
