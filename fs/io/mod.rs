// SPDX-License-Identifier: GPL-2.0

//! Reads of blobs into buffers.
//!
//! Owns the buffers and the decoders of readers. May use [`crate::base`] and below.

pub(crate) mod workspace;
