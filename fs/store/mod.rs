// SPDX-License-Identifier: GPL-2.0

//! The blob store: its directory, and the blobs that are open.
//!
//! Owns open files of the lower filesystem. May use [`crate::io`] and below.

pub(crate) mod blob;
pub(crate) mod blob_store;
pub(crate) mod open_blobs;
pub(crate) mod opener;
pub(crate) mod pins;
