// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands on images and stores: one module per command.
//!
//! May use everything below. Nothing below may use it.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `enable_verity` | enables fs-verity on blobs |
//! | `verify` | checks images and stores |
//! | `structure` | checks manifests and metadata |
//! | `chunk_check` | checks images of format 4 |
//! | `report` | the result of a verification |
//! | `build` | builds an image of a directory or an archive |
//! | `convert` | builds an image of another version of the format |
//! | `import` | builds an image of a container image |
//! | `fetch` | fetches images from sources that are not trusted |
//! | `complete` | creates the packs that an image lacks |
//! | `copy` | copies images between stores |
//! | `diff` | compares two images |
//! | `extract` | writes an image into a directory |
//! | `export` | writes an image as an archive |
//! | `gc` | removes blobs that no image needs |
//! | `usage` | counts the blobs of images |
//! | `chunk_map` | describes the chunks of an image of format 4 |

pub(crate) mod build;
pub(crate) mod chunk_check;
pub(crate) mod chunk_map;
pub(crate) mod complete;
pub(crate) mod convert;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod enable_verity;
pub(crate) mod export;
pub(crate) mod extract;
pub(crate) mod fetch;
pub(crate) mod gc;
pub(crate) mod import;
pub(crate) mod report;
pub(crate) mod structure;
#[cfg(test)]
pub(crate) mod test_images;
pub(crate) mod usage;
pub(crate) mod verify;
