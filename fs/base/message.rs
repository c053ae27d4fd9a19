// SPDX-License-Identifier: GPL-2.0

//! Wrappers that print values in messages.

use crate::vfs::prelude::*;
use kernel::{
    fmt,
    str::{BStr, CStr},
};

/// Prints a value that implements `Display` of the core library, as those of the crates do that
/// userspace compiles too.
pub(crate) struct Show<T>(pub(crate) T);

impl<T: core::fmt::Display> fmt::Display for Show<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

/// Prints a C string, which need not be UTF-8.
pub(crate) struct Text<'a>(pub(crate) &'a CStr);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(BStr::from_bytes(self.0.to_bytes()), f)
    }
}

/// Prints an error by its name, under which manuals list it.
pub(crate) struct ErrorName(pub(crate) Error);

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.name() {
            Some(name) => fmt::Display::fmt(BStr::from_bytes(name.to_bytes()), f),
            None => write!(f, "error {}", self.0.to_errno()),
        }
    }
}
