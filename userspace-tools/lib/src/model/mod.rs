// SPDX-License-Identifier: MIT OR Apache-2.0

//! Plain data: digests, extents, trees, references, rules.
//!
//! Does no I/O.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `rules` | which content is selected or changed |
//! | `owners` | which owners are changed |
//! | `tree` | a directory tree without content |
//! | `start_order` | the ranges of files that a start-up reads |
//! | `media` | documents and blobs by their media types |
//! | `json` | parses JSON, explains faults |
//! | `platform` | platforms of container images |
//! | `oci` | the JSON of OCI layouts |
//! | `extent` | extents |
//! | `chunk` | chunks of format 4: encoding, decoding |
//! | `count` | numbers of blobs |
//! | `verity` | fs-verity digests |
//! | `reference` | names of images |
//! | `transport` | references of other tools |
//! | `digest` | SHA-256 digests |
//! | `version` | versions of the image format |
//! | `acl` | POSIX ACLs |
//! | `path_walk` | walks paths through trees |
//! | `time` | times as text |
//! | `message` | messages for people |
//! | `limits` | limits |

pub(crate) mod acl;
pub(crate) mod chunk;
pub(crate) mod count;
pub(crate) mod digest;
pub(crate) mod extent;
pub(crate) mod json;
pub(crate) mod limits;
pub(crate) mod media;
pub(crate) mod message;
pub(crate) mod oci;
pub(crate) mod owners;
pub(crate) mod path_walk;
pub(crate) mod platform;
pub(crate) mod reference;
pub(crate) mod rules;
pub(crate) mod start_order;
pub(crate) mod time;
pub(crate) mod transport;
pub(crate) mod tree;
pub(crate) mod verity;
pub(crate) mod version;
