// SPDX-License-Identifier: MIT OR Apache-2.0

//! The name of a container image in a directory or an archive.

use crate::model::platform::Platform;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Which container image to import.
#[derive(Clone, Debug)]
pub struct ImportSource {
    /// A directory or an archive; `-` is one on the standard input.
    pub path: PathBuf,
    /// Its tag or name there, needed where there are several.
    pub tag: Option<String>,
    /// For which platform, if not for this one.
    pub platform: Option<Platform>,
}

impl ImportSource {
    /// Reads `<path>` or `<path>:<name>`. The path ends at the last colon before which a file exists.
    pub fn parse(text: &OsStr, platform: Option<Platform>) -> Self {
        let bytes = text.as_bytes();
        let mut source = ImportSource {
            path: PathBuf::from(text),
            tag: None,
            platform,
        };
        let colons = (0..bytes.len()).rev().filter(|&at| bytes[at] == b':');
        for colon in colons.take_while(|_| !source.path.exists()) {
            let path = PathBuf::from(OsStr::from_bytes(&bytes[..colon]));
            if path.exists() || path.as_os_str() == "-" {
                let tag = String::from_utf8_lossy(&bytes[colon + 1..]);
                source.tag = Some(tag.into_owned());
                source.path = path;
                break;
            }
        }
        source
    }
}
