// SPDX-License-Identifier: GPL-2.0

//! The metadata of an image: the blob that holds inodes and directories.
//!
//! Owns the bytes of metadata, which the crate `puzzlefs_schema` parses. May use
//! [`crate::store`] and below.

pub(crate) mod metadata_blob;
