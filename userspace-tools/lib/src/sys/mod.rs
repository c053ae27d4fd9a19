// SPDX-License-Identifier: MIT OR Apache-2.0

//! Wrappers of Linux interfaces, threads, progress and interruption.
//!
//! Knows nothing of images.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `mounts` | the table of mounts |
//! | `xattrs` | reads extended attributes |
//! | `verity` | measures and enables fs-verity |
//! | `stoppable` | input that may never come |
//! | `parallel` | work in several threads |
//! | `pipe` | bytes from one thread to another |
//! | `progress` | counters, and the request to stop |
//! | `beneath` | opens paths below a directory |
//! | `pause` | pauses a command for a test |

pub(crate) mod beneath;
pub(crate) mod mounts;
pub(crate) mod parallel;
pub(crate) mod pause;
pub(crate) mod pipe;
pub(crate) mod progress;
pub(crate) mod stoppable;
pub(crate) mod verity;
pub(crate) mod xattrs;
