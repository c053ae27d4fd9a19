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
//! | `media` | documents and blobs by their media types |
//! | `json` | parses JSON, explains faults |
//! | `platform` | platforms of container images |
//! | `oci` | the JSON of OCI layouts |
//! | `extent` | extents |
//! | `count` | numbers of blobs |
//! | `verity` | fs-verity digests |
//! | `reference` | names of images |
//! | `transport` | references of other tools |
//! | `digest` | SHA-256 digests |
//! | `acl` | POSIX ACLs |
//! | `time` | times as text |
//! | `message` | messages for people |
//! | `limits` | limits |

pub mod acl;
pub mod count;
pub mod digest;
pub mod extent;
pub mod json;
pub mod limits;
pub mod media;
pub mod message;
pub mod oci;
pub mod owners;
pub mod platform;
pub mod reference;
pub mod rules;
pub mod time;
pub mod transport;
pub mod tree;
pub mod verity;
