// SPDX-License-Identifier: MIT OR Apache-2.0

//! The size of a directory on disk.

use crate::api::UsageResponse;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Counts a directory and its content. A container may use it at the same time: removed files are not
/// counted, and symbolic links out of the directory are not followed.
pub fn of(root: &Path) -> Result<UsageResponse, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    let mut usage = UsageResponse::default();
    let mut linked = HashSet::new();
    let mut directories = vec![PathBuf::from(".")];
    while let Some(path) = directories.pop() {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let directory = match rustix::fs::openat2(&root, &path, flags, Mode::empty(), resolve) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => continue,
            // The lookup raced with a rename.
            Err(Errno::AGAIN | Errno::INTR) => {
                directories.push(path);
                continue;
            }
            Err(errno) => return Err(errno),
        };
        let mut entries = Dir::read_from(&directory)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == ".." || (name == "." && path != Path::new(".")) {
                continue;
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory && name != "." {
                directories.push(path.join(name));
            }
            if is_directory || stat.st_nlink < 2 || linked.insert(stat.st_ino) {
                usage.inodes += 1;
                usage.size += stat.st_blocks * 512;
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn links_count_once_and_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let empty = of(root).unwrap();
        assert_eq!(empty.inodes, 1);
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(root.join("a/file"), root.join("a/b/link")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("usr")).unwrap();
        let usage = of(root).unwrap();
        assert_eq!(usage.inodes, 5);
        assert!((100_000..200_000).contains(&usage.size), "{usage:?}");
        assert_eq!(of(&root.join("usr")), Err(Errno::NOTDIR));
        assert_eq!(of(&root.join("none")), Err(Errno::NOENT));
    }
}
