// SPDX-License-Identifier: GPL-2.0

//! The lower filesystem: directories and files that a stacked filesystem reads.
//!
//! Files are opened and read with the mounter's credentials. Reads happen while folios of the upper
//! filesystem are locked; therefore no lock is waited for whose holder can wait for a folio.
//! `open`, `cached` and `direct` state how each avoids that.
//!
//! | module | is |
//! | --- | --- |
//! | `started` | direct reads that any number of tasks wait for |
//! | `directory`, `buffer` | directories; memory that files are read to |
//! | `file` | regular files that are open for reading |
//! | `direct` | reads past the page cache, several at once |
//! | `cached` | reads through the page cache, without the file's lock |
//! | `open`, `credentials` | opening a file by its name; acting with other credentials |

mod buffer;
mod cached;
mod credentials;
mod direct;
mod directory;
mod file;
mod open;
mod started;

pub(crate) use buffer::{FileRead, ReadBuffer};
pub(crate) use directory::Directory;
pub(crate) use file::{BackingFile, Version};
pub(crate) use started::StartedRead;
