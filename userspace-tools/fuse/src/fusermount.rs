// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mounting over FUSE by `fusermount3`, for a process that may not mount by itself.
//!
//! The program gets one end of a socket as its standard input, mounts, and sends the connection to the
//! kernel, a descriptor of `/dev/fuse`, through the socket. It can be a wrapper for a service outside
//! a container, so nothing is assumed of the privileges that it has.

use fuser::{Config, MountOption, SessionACL};
use puzzlefs_lib::error::MountError;
use puzzlefs_lib::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::{retry_on_intr, Errno};
use rustix::net::{
    recvmsg, socketpair, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags,
    SocketFlags, SocketType,
};
use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program, and the name that it has on older systems.
const PROGRAMS: [&str; 2] = ["fusermount3", "fusermount"];
/// The variable that names the descriptor of the socket.
const SOCKET: &str = "_FUSE_COMMFD";
/// The number of the capability that mounting takes.
const CAP_SYS_ADMIN: u32 = 21;

/// Checks whether this process may mount over FUSE by itself: it has `/dev/fuse` and the capability.
///
/// # Errors
///
/// The reason why it may not.
pub(crate) fn check_direct() -> Result<(), String> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => {
            "/dev/fuse does not exist; load the module with 'modprobe fuse'".to_owned()
        }
        errno => format!("cannot open /dev/fuse: {}", io::Error::from(errno)),
    })?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    match effective {
        Some(mask) if (mask >> CAP_SYS_ADMIN) & 1 == 0 => {
            Err("this process lacks CAP_SYS_ADMIN".to_owned())
        }
        // Without /proc, the mount itself shows whether it is allowed.
        _ => Ok(()),
    }
}

/// Mounts on a directory by `fusermount3`, and returns the connection. `reason` explains, in errors, why
/// this process does not mount by itself.
pub(crate) fn mount(directory: &Path, config: &Config, reason: &str) -> Result<OwnedFd> {
    let failure = |what: String| Error::from(MountError::Fuse(format!("{reason}; {what}")));
    let options: Vec<String> = config.mount_options.iter().filter_map(option).collect();
    let mut options = options.join(",");
    if config.acl != SessionACL::Owner {
        options.push_str(",allow_other");
    }
    for program in PROGRAMS {
        let sockets = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) =
            sockets.map_err(|errno| failure(format!("cannot make a socket: {errno}")))?;
        let mut command = Command::new(program);
        command
            .args(["-o", &options, "--"])
            .arg(directory)
            .env(SOCKET, "0")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failure(format!("cannot run {program}: {error}"))),
        };
        // Only the program has this end of the socket now, so it is closed when the program ends.
        drop(command);
        let connection = receive(&ours);
        let output = child
            .wait_with_output()
            .map_err(|error| failure(format!("cannot wait for {program}: {error}")))?;
        return match connection {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = said.trim();
                let said = match said {
                    "" => format!("{program} failed: {}", output.status),
                    said => said.to_owned(),
                };
                Err(failure(said))
            }
            Err(error) => Err(failure(format!(
                "cannot receive the connection from {program}: {error}"
            ))),
        };
    }
    let what = "fusermount3 is missing; install the package fuse3";
    Err(failure(what.to_owned()))
}

/// Receives a descriptor; none if the other end was closed.
fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    retry_on_intr(|| {
        let mut buffers = [IoSliceMut::new(&mut byte)];
        recvmsg(socket, &mut buffers, &mut control, flags)
    })?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors.next())
}

/// Returns an option as `fusermount3` spells it. It has no options that undo a default.
fn option(option: &MountOption) -> Option<String> {
    let word = match option {
        MountOption::FSName(name) => return Some(format!("fsname={name}")),
        MountOption::CUSTOM(option) => return Some(option.clone()),
        MountOption::RO => "ro",
        MountOption::DefaultPermissions => "default_permissions",
        MountOption::NoSuid => "nosuid",
        MountOption::NoDev => "nodev",
        MountOption::NoExec => "noexec",
        MountOption::NoAtime => "noatime",
        _ => return None,
    };
    Some(word.to_owned())
}
