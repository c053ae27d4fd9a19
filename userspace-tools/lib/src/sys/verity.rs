// SPDX-License-Identifier: MIT OR Apache-2.0

//! fs-verity on files.

use crate::error::{Error, Result};
use crate::model::digest::Digest;
use rustix::io::Errno;
use std::fs::File;
use std::path::Path;

/// Returns the fs-verity digest of a file; `None` if fs-verity is not enabled on it. `path` is for messages.
pub(crate) fn measure(file: &File, path: &Path) -> Result<Option<Digest>> {
    let found = puzzlefs_fsverity::measure(file);
    let found = found.map_err(Error::io(path, "measure the fs-verity digest of"))?;
    Ok(found.map(Digest))
}

/// Enables fs-verity on a file. [`Errno::EXIST`] means that it is enabled already.
pub(crate) fn enable(file: &File) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| puzzlefs_fsverity::enable(file))
}
