// SPDX-License-Identifier: MIT OR Apache-2.0

//! From directories, tar archives and container images to a [`Tree`](crate::model::tree::Tree).
//!
//! Owns the formats that are read. Writes only temporary files, through `store::staging`.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `container` | files of container images |
//! | `archive` | archives, plain or compressed |
//! | `compression` | gzip, zstd, xz and bzip2 |
//! | `assembly` | members of archives to a tree |
//! | `tar` | members of a tar archive |
//! | `walk` | a directory to a tree |

pub(crate) mod archive;
pub(crate) mod assembly;
pub(crate) mod compression;
pub(crate) mod container;
pub(crate) mod tar;
pub(crate) mod walk;
