// SPDX-License-Identifier: GPL-2.0

//! File data: maps a request to chunks, blobs and folios.
//!
//! Owns nothing but the map of a file. May use [`crate::codec`] and below.

pub(crate) mod file;
