// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads tar archives: ustar, PAX (POSIX.1-2001), GNU, and the formats before them.
//!
//! An archive may be hostile: sizes and counts are checked before anything is allocated by them,
//! and nothing here writes. The `tar` crate is not used for reading: it ends a PAX record at the
//! first newline, so that it loses binary extended attributes, and it does not know PAX's sparse
//! files.
//!
//! | module | content |
//! | --- | --- |
//! | `reader` | members in their order, the end of an archive |
//! | `sparse` | maps of sparse files |
//! | `pax` | records of PAX headers |
//! | `member` | a member |
//! | `stream` | blocks and data |
//! | `header` | header blocks |
//! | `fault` | errors |

mod fault;
mod header;
mod member;
mod pax;
mod reader;
mod sparse;
mod stream;

pub(crate) use fault::Fault;
pub(crate) use header::is_header;
pub(crate) use member::{FileData, Member, MemberKind};
pub(crate) use reader::{Oddities, Reader};
pub(crate) use stream::Input;
