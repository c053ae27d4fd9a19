// SPDX-License-Identifier: GPL-2.0

//! The metadata of an image.
//!
//! Owns its bytes, which only the crate `puzzlefs_schema` parses. Uses [`crate::store`] and the
//! layers below it.
//!
//! | module | content |
//! | --- | --- |
//! | `merged_dir`, `metadata_blob` | directories of all layers; the metadata blob in memory |

pub(crate) mod merged_dir;
pub(crate) mod metadata_blob;
