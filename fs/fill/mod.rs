// SPDX-License-Identifier: GPL-2.0

//! File data: maps a request to pieces and folios.
//!
//! Owns the map of each regular file. Uses [`crate::codec`] and the layers below it. Gets metadata
//! as an argument.
//!
//! | module | content |
//! | --- | --- |
//! | `folios`, `widen`, `open` | fill folios; widen requests; open blobs before reads |
//! | `piece` | parts of files that lie in one extent |
//! | `reader` | a file, and all that it takes to read it |
//! | `content` | the size of a file, its open blobs, its chunks in version 3 |
//! | `extent_map` | maps offsets in a file to stored bytes |

pub(crate) mod content;
pub(crate) mod extent_map;
pub(crate) mod folios;
pub(crate) mod open;
mod piece;
pub(crate) mod reader;
pub(crate) mod widen;
