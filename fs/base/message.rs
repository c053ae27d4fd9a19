// SPDX-License-Identifier: GPL-2.0

//! How things are printed in messages.

use crate::vfs::prelude::*;
use kernel::{
    fmt,
    str::{BStr, CStr},
};

/// Prints what is printable by the standard library's trait, as the crates are that userspace
/// compiles too.
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

/// Prints an error by its name, which is what people look for in a manual.
pub(crate) struct ErrorName(pub(crate) Error);

impl fmt::Display for ErrorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.name() {
            Some(name) => fmt::Display::fmt(BStr::from_bytes(name.to_bytes()), f),
            None => write!(f, "error {}", self.0.to_errno()),
        }
    }
}
