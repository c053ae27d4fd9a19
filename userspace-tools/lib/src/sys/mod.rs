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
//! | `stoppable` | input that may never come |
//! | `parallel` | work in several threads |
//! | `progress` | counters, and the request to stop |
//! | `beneath` | opens paths below a directory |
//! | `pause` | pauses a command for a test |

pub mod beneath;
pub mod mounts;
pub mod parallel;
pub mod pause;
pub mod progress;
pub mod stoppable;
pub mod xattrs;
