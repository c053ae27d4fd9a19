// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads the ranges of a start-up order ahead after a mount, in a background process.
//!
//! The process must not keep the mount busy, so it opens files of a copy of the mount, which nothing in the
//! table of mounts shows. The copy keeps the filesystem alive. The process therefore ends as soon as the
//! mount that it follows is gone from the table. If it is asking for a range then, it ends afterwards, so
//! ranges are asked for in small pieces.
//!
//! The mount succeeds whatever happens to the process. It gets its work through its descriptors:
//!
//! | descriptor | content |
//! | --- | --- |
//! | standard input | the root of the copy of the mount |
//! | standard output | a file with the order, which was checked |
//! | standard error | `/dev/null` |
//!
//! An order comes with an image and is untrusted. Only regular files are opened, no symbolic link is
//! followed, and no path leads out of the mount. The number of ranges and the number of bytes are bounded.

use crate::error::{Error, MountError, Result};
use crate::model::digest::Digest;
use crate::model::start_order::{FileRange, StartOrder, ORDER_MAX};
use crate::store::oci_layout::Store;
use crate::sys::beneath::path_of;
use crate::sys::mounts::{Mount, MountId};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{OwnedFd, RawFd};
use rustix::fs::{Advice, FileType, MemfdFlags, Mode, OFlags, ResolveFlags, CWD};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

/// The argument that makes a program the background process.
const ARGUMENT: &str = "--prefetch-mount";
/// The most bytes that one mount reads ahead. Half of the memory that is available is another limit.
const BYTES_MAX: u64 = 1 << 30;
/// The bytes that are asked for at once.
const PIECE: u64 = 512 << 10;
/// The time after which the table of mounts is read again although the kernel has not reported a change.
const PERIOD: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// A copy of a mount, and the ranges of its files that are read ahead.
#[derive(Debug)]
pub struct Prefetch {
    tree: OwnedFd,
    order: OwnedFd,
}

impl Prefetch {
    /// Prepares to read ahead the image of a manifest, which is mounted on a directory.
    ///
    /// # Errors
    ///
    /// If the image has no order, or a malformed one.
    pub fn prepare(directory: &Path, store: &Path, manifest: Option<&Digest>) -> Result<Self> {
        let manifest = manifest.ok_or(MountError::NoManifest)?;
        let store = Store::open(store)?;
        let document = store.manifest(manifest)?.0;
        let order = store.start_order(manifest, &document)?;
        let order = order.ok_or(MountError::NoOrder)?;
        let fail = Error::io(directory, "prepare to read ahead from");
        Self::of(directory, &order).map_err(fail)
    }

    fn of(directory: &Path, order: &StartOrder) -> std::io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, directory, flags)?;
        let mut file = File::from(rustix::fs::memfd_create("order", MemfdFlags::CLOEXEC)?);
        file.write_all(&order.to_text())?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Prefetch {
            tree,
            order: file.into(),
        })
    }

    /// Starts the background process, which ends with the mount on a directory: that of the image, or one
    /// that is made of it.
    pub fn start(self, directory: &Path) -> Result<()> {
        let directory = directory.canonicalize().map_err(MountError::MountPoint)?;
        let mount = Mount::on(&directory).ok_or(MountError::NoTable)?;
        let spawned = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .arg(mount.id.to_string())
            .stdin(Stdio::from(self.tree))
            .stdout(Stdio::from(self.order))
            .stderr(Stdio::null())
            .env_clear()
            .current_dir("/")
            .spawn();
        let mut child = spawned.map_err(Error::io("/proc/self/exe", "start"))?;
        // A program that does not end soon must wait for it.
        thread::spawn(move || child.wait());
        Ok(())
    }
}

/// Reads ahead and returns true if this process was started for that. Each program that mounts calls this
/// first.
///
/// The command line is that of the program, with its name.
pub fn is_prefetch(mut words: impl Iterator<Item = OsString>) -> bool {
    let Some(id) = words
        .nth(1)
        .filter(|word| word == ARGUMENT)
        .and_then(|_| words.next())
    else {
        return false;
    };
    if let Some(id) = id.to_str().and_then(|id| id.parse().ok()) {
        // Nobody is left to report an error to.
        let _ = run(id);
    }
    true
}

/// Reads the ranges ahead while the mount of this number exists.
fn run(mount: MountId) -> std::io::Result<()> {
    // The process that mounted may have had locks, or pipes whose readers wait for their end.
    close_others();
    // A signal to the terminal's processes is not for this one.
    let _ = rustix::process::setsid();
    let tree = rustix::stdio::stdin().try_clone_to_owned()?;
    let mut text = Vec::new();
    let order = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
    order.take(ORDER_MAX).read_to_end(&mut text)?;
    let Ok(order) = StartOrder::parse(&text) else {
        return Ok(());
    };
    let table = File::open("/proc/self/mountinfo")?;
    thread::spawn(move || {
        read_ahead(&tree, &order);
        // This ends the other thread, too.
        std::process::exit(0);
    });
    // The kernel counts changes from the moment at which the table was opened.
    while mount.exists() {
        let mut polled = [PollFd::new(&table, PollFlags::PRI)];
        match rustix::event::poll(&mut polled, Some(&PERIOD)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Closes all descriptors but the standard ones.
fn close_others() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let open: Vec<RawFd> = names.filter_map(|name| name.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The directory that was just read is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Asks the kernel to read ranges of the files beneath a directory, in order, up to a limit.
fn read_ahead(tree: &OwnedFd, order: &StartOrder) {
    let mut left = BYTES_MAX.min(available_memory().unwrap_or(BYTES_MAX) / 2);
    let mut last: Option<(&[u8], Option<File>)> = None;
    for range in order.ranges() {
        if left == 0 {
            return;
        }
        let file = match &last {
            Some((path, file)) if *path == range.path() => file,
            _ => {
                &last
                    .insert((range.path(), open(tree, range.path()).ok().flatten()))
                    .1
            }
        };
        if let Some(file) = file {
            advise(file, range, &mut left);
        }
    }
}

/// Opens a regular file beneath a directory. Opening any other file could have side effects.
fn open(tree: &OwnedFd, path: &[u8]) -> Result<Option<File>, Errno> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    if path.is_empty() {
        return Ok(None);
    }
    let resolve = ResolveFlags::IN_ROOT
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat2(tree, path, flags, Mode::empty(), resolve)?;
    let stat = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME;
    let file = rustix::fs::open(path_of(&place), flags, Mode::empty())?;
    Ok(Some(File::from(file)))
}

/// Asks the kernel to read a range of a file.
fn advise(file: &File, range: &FileRange, left: &mut u64) {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut at = range.offset;
    let end = range.end().min(size);
    while at < end && *left > 0 {
        let length = PIECE.min(end - at).min(*left);
        let advised = rustix::fs::fadvise(file, at, NonZeroU64::new(length), Advice::WillNeed);
        if advised.is_err() {
            return;
        }
        at += length;
        *left -= length;
    }
}

/// Returns the memory in bytes that processes can still take.
fn available_memory() -> Option<u64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let line = table
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_beneath_are_opened() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir_all(root.join("directory")).unwrap();
        fs::write(root.join("directory/file"), "content").unwrap();
        fs::write(scratch.path().join("secret"), "secret").unwrap();
        symlink("file", root.join("directory/link")).unwrap();
        symlink("directory", root.join("way")).unwrap();
        symlink(scratch.path().join("secret"), root.join("out")).unwrap();
        rustix::fs::mkfifoat(CWD, root.join("fifo"), Mode::RUSR).unwrap();
        let tree = rustix::fs::open(&root, OFlags::PATH, Mode::empty()).unwrap();
        let opened = |path: &str| open(&tree, path.as_bytes());
        let mut content = String::new();
        let mut file = opened("/directory/file").unwrap().unwrap();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        // A FIFO would block, and a link at the end is opened as such.
        for path in ["/directory", "/fifo", "/", "/directory/link", "/out"] {
            assert!(opened(path).unwrap().is_none(), "{path}");
        }
        for path in ["/way/file", "/../secret", "/none"] {
            assert!(opened(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_number_of_bytes_is_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("file"), vec![1; 3 << 20]).unwrap();
        let file = File::open(scratch.path().join("file")).unwrap();
        let advised = |offset, length, mut left: u64| {
            let range = FileRange::new(b"/file".to_vec(), offset, length).unwrap();
            let before = left;
            advise(&file, &range, &mut left);
            before - left
        };
        assert_eq!(advised(0, u64::MAX, u64::MAX), 3 << 20);
        assert_eq!(advised(1 << 20, 5000, u64::MAX), 5000);
        assert_eq!(advised(1 << 20, u64::MAX, 1_000_000), 1_000_000);
        assert_eq!(advised(3 << 20, 1, u64::MAX), 0);
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn other_command_lines_are_not_for_it() {
        for words in [
            &["puzzlefs"][..],
            &["puzzlefs", "mount", ARGUMENT],
            &["p", ARGUMENT],
        ] {
            assert!(!is_prefetch(words.iter().map(OsString::from)), "{words:?}");
        }
    }
}
