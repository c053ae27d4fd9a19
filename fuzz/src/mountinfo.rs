// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mount table, `/proc/self/mountinfo`. Anybody with permission to mount chooses the names of mount
//! points, filesystems and sources.

use puzzlefs_lib::mount::Mount;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Reads a table, writes each mount that was found as the kernel writes it, and reads that again.
pub fn run(data: &[u8]) {
    let mounts = Mount::parse_table(data);
    let lines = data.split(|&byte| byte == b'\n').count();
    assert!(mounts.len() <= lines, "{} mounts", mounts.len());
    for mount in &mounts {
        let line = [
            b"1 2 0:3 / ",
            &*escaped(mount.directory.as_os_str()),
            b" ro - ",
            mount.fs_type.as_bytes(),
            b" ",
            &*escaped(&mount.source),
            b" rw",
        ];
        let again = Mount::parse_table(&line.concat());
        assert_eq!(again.len(), 1, "{mount:?}");
        assert_eq!(again[0].directory, mount.directory);
        assert_eq!(again[0].fs_type, mount.fs_type);
        assert_eq!(again[0].source, mount.source);
        assert!(again[0].has_attribute("ro") && again[0].has_option("rw"));
        for name in ["rootfs", "lowerdir", ""] {
            let _ = (mount.option(name), mount.has_option(name));
        }
    }
}

/// A field as the kernel writes it: as octal digits what would end it, or look like such digits.
fn escaped(field: &OsStr) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in field.as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => {
                escaped.extend_from_slice(format!("\\{byte:03o}").as_bytes());
            }
            _ => escaped.push(byte),
        }
    }
    escaped
}
