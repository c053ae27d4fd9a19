// SPDX-License-Identifier: GPL-2.0

//! File data: maps a request to pieces and folios.
//!
//! Owns the map of each regular file. Uses [`crate::codec`] and the layers below it. Gets metadata
//! as an argument.
//!
//! | module | content |
//! | --- | --- |
//! | `folios`, `widen`, `open` | fill folios; widen requests; open blobs before reads |
//! | `reader` | a file, and all that it takes to read it |
//! | `content` | the chunks of a file, and its open blobs |
//! | `extent_source` | the extents of a file of version 4 |

pub(crate) mod content;
#[allow(dead_code)]
pub(crate) mod extent_source;
pub(crate) mod folios;
pub(crate) mod open;
pub(crate) mod reader;
pub(crate) mod widen;
