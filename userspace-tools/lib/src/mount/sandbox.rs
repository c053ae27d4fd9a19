// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs a program in a root directory with `/proc`, `/sys` and `/dev` as a container has them.
//!
//! The program has its own mounts and processes. It keeps all privileges, so this is not a security boundary.
//!
//! 1. The caller enters a mount namespace and mounts a root directory in it.
//! 2. [`spawn`] starts a copy of the caller's program as the first process of a PID namespace.
//! 3. That process enters the root directory and starts the program. The kernel ends all processes of the
//!    namespace when it ends.

use crate::error::{Error, MountError, Result};
use crate::sys::beneath::{open_beneath, path_of};
use nix::sched::{unshare, CloneFlags};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use std::ffi::CStr;
use std::path::Path;
use std::process::{Child, Command};
use std::{io, thread};

/// The devices of a container.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// The symbolic links in `/dev`, and their targets.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Moves this process, which has one thread, into a mount namespace of its own. Mounts that it makes are not
/// visible outside.
pub fn enter_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| MountError::Isolation(errno.into()))?;
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    let changed = rustix::mount::mount_change("/", propagation);
    Ok(changed.map_err(|errno| MountError::Isolation(errno.into()))?)
}

/// Starts a program as the first process of a PID namespace.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    // The thread that creates the namespace can have no other thread any more.
    let spawned = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWPID)?;
        command.spawn()
    });
    let panicked = |_| Err(io::Error::other("the thread has panicked"));
    spawned.join().unwrap_or_else(panicked)
}

/// Mounts `/proc`, `/sys` and `/dev` in a root directory, and makes it the root of this process.
pub fn enter_root(root: &Path) -> Result<()> {
    let fail = |action: &'static str| Error::io(root, action);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).map_err(fail("open"))?;
    for (name, fs_type, flags, data) in [
        ("proc", "proc", RESTRICTED, None),
        ("sys", "sysfs", RESTRICTED.union(MountFlags::RDONLY), None),
        ("dev", "tmpfs", MountFlags::NOSUID, Some(c"mode=755")),
    ] {
        mount_in(&directory, name, fs_type, flags, data)
            .map_err(fail("mount /proc, /sys and /dev in"))?;
    }
    fill_devices(&directory).map_err(fail("make devices in"))?;
    rustix::process::fchdir(&directory)
        .and_then(|()| rustix::process::chroot("."))
        .map_err(fail("enter"))
}

const RESTRICTED: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Mounts a filesystem on a directory, which is made if it does not exist.
fn mount_in(
    root: &OwnedFd,
    name: &str,
    fs_type: &str,
    flags: MountFlags,
    data: Option<&CStr>,
) -> Result<(), Errno> {
    match rustix::fs::mkdirat(root, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // No symbolic link of an image leads elsewhere.
    let place = open_beneath(root, &[name], OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::mount::mount(fs_type, path_of(&place), fs_type, flags, data)
}

/// Fills `/dev` of a root directory, which is a new tmpfs.
fn fill_devices(root: &OwnedFd) -> Result<(), Errno> {
    for name in DEVICES {
        let path = format!("dev/{name}");
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(
            root,
            &*path,
            flags,
            Mode::from_raw_mode(0o644),
        )?);
        let place = open_beneath(root, &[path], OFlags::PATH)?;
        match rustix::mount::mount_bind(format!("/dev/{name}"), path_of(&place)) {
            // This host does not have it.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    let restricted = MountFlags::NOSUID | MountFlags::NOEXEC;
    let terminals = Some(c"newinstance,ptmxmode=0666,mode=0620");
    mount_in(root, "dev/pts", "devpts", restricted, terminals)?;
    let restricted = restricted | MountFlags::NODEV;
    mount_in(root, "dev/shm", "tmpfs", restricted, Some(c"mode=1777"))?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, root, format!("dev/{name}"))?;
    }
    Ok(())
}
