// SPDX-License-Identifier: GPL-2.0

//! The page cache of regular files: which folios are read when, and by which task.
//!
//! | module | is |
//! | --- | --- |
//! | `readahead`, `read` | readahead, reads of one folio that a reader waits for |
//! | `read_folios` | the operations that a filesystem implements |
//! | `folio` | a run of locked folios to fill |

mod folio;
mod read;
mod read_folios;
mod readahead;

pub(crate) use folio::FolioRun;
pub(crate) use read_folios::ReadFolios;

pub(super) use read::read_folio;
pub(super) use readahead::read_ahead;
