// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mount itself, through the system calls of the new mount API: of whatever type.

use super::options::Options;
use super::TYPE;
use crate::error::{Error, MountError, Result, VALUE_MAX};
use rustix::fd::OwnedFd;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A filesystem that can be attached, and the kernel's remarks about it.
#[derive(Debug)]
pub struct Prepared {
    mount: OwnedFd,
    /// Warnings and notes.
    pub remarks: Vec<String>,
}

/// Makes a mount of `source` that is not attached.
pub fn prepare(fs_type: &str, source: &OsStr, options: &Options, sloppy: bool) -> Result<Prepared> {
    let context = open_context(fs_type)?;
    let set = |name: &OsStr, value: Option<&OsStr>| match value {
        Some(value) if value.len() > VALUE_MAX => Err(Errno::NAMETOOLONG),
        Some(value) => mount::fsconfig_set_string(&context, name, value),
        None => mount::fsconfig_set_flag(&context, name),
    };
    set(OsStr::new("source"), Some(source)).map_err(|errno| failure(&context, "source", errno))?;
    if options
        .attributes
        .contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    {
        set(OsStr::new("ro"), None).map_err(|errno| failure(&context, "ro", errno))?;
    }
    let mut remarks = Vec::new();
    for (name, value) in &options.parameters {
        match set(name, value.as_deref()) {
            Ok(()) => {}
            Err(Errno::INVAL) if sloppy => {
                let said = failure(&context, &name.to_string_lossy(), Errno::INVAL);
                remarks.push(format!("left out an option: {said}"));
            }
            Err(errno) => return Err(failure(&context, &name.to_string_lossy(), errno)),
        }
    }
    mount::fsconfig_create(&context).map_err(|errno| failure(&context, "mount", errno))?;
    let mount = mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, options.attributes)
        .map_err(|errno| failure(&context, "mount", errno))?;
    remarks.extend(messages(&context).into_iter().map(|(_, text)| text));
    Ok(Prepared { mount, remarks })
}

/// Attaches a mount to a directory.
pub fn attach(prepared: &Prepared, directory: &Path) -> Result<()> {
    let from_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    // mount(8) follows symbolic links to the mount point.
    let flags = from_descriptor
        | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS
        | MoveMountFlags::MOVE_MOUNT_T_AUTOMOUNTS;
    mount::move_mount(&prepared.mount, "", CWD, directory, flags)
        .map_err(|errno| call_error("the mount point", errno))
}

/// The classic mount(2), for a source that fsconfig(2) finds too long.
pub fn mount_classic(
    fs_type: &str,
    source: &OsStr,
    directory: &Path,
    options: &Options,
) -> Result<()> {
    // Loads the module, and fails if it does not exist.
    drop(open_context(fs_type)?);
    let data = std::ffi::CString::new(options.data().as_bytes()).map_err(|_| MountError::Nul)?;
    mount::mount(
        source,
        directory,
        fs_type,
        options.flags(),
        Some(data.as_c_str()),
    )
    .map_err(|errno| call_error("mount", errno))
}

/// Returns true if a source is too long for [`prepare`].
pub fn is_long(source: &OsStr) -> bool {
    source.len() > VALUE_MAX
}

/// Changes the attributes and parameters of a mount that exists.
pub fn remount(directory: &Path, options: &Options) -> Result<()> {
    mount::mount_remount(directory, options.flags(), options.data().as_os_str())
        .map_err(|errno| call_error("remount", errno))
}

/// Opens a file system context, loading the kernel module if need be.
fn open_context(fs_type: &str) -> Result<OwnedFd> {
    let open = || mount::fsopen(fs_type, FsOpenFlags::FSOPEN_CLOEXEC);
    match open() {
        Ok(context) => Ok(context),
        Err(Errno::NODEV) => {
            let modprobe = load_module(fs_type);
            open().map_err(|errno| match errno {
                Errno::NODEV if fs_type == TYPE => MountError::UnknownType {
                    modprobe,
                    or_fuse: false,
                }
                .into(),
                Errno::NODEV => MountError::NoModule {
                    fs_type: fs_type.to_owned(),
                    modprobe,
                }
                .into(),
                errno => call_error("fsopen", errno),
            })
        }
        Err(errno) => Err(call_error("fsopen", errno)),
    }
}

/// Runs modprobe, and describes its result.
pub(super) fn load_module(fs_type: &str) -> String {
    for program in ["/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"] {
        let mut command = Command::new(program);
        command.args(["-q", "--", fs_type]).stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => return "did not bring it".to_owned(),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                return match text.lines().next() {
                    Some(line) => format!("failed: {}", line.trim_start_matches("modprobe: ")),
                    None => "found none; install it, or load it with insmod".to_owned(),
                };
            }
            Err(_) => {}
        }
    }
    "cannot be run; load the module with insmod".to_owned()
}

/// Returns the error of a call, with the errors that the kernel wrote to the context's log.
fn failure(context: &OwnedFd, object: &str, errno: Errno) -> Error {
    let messages = messages(context).into_iter();
    let errors = messages.filter(|(level, _)| *level == b'e');
    let log: Vec<String> = errors.map(|(_, text)| text).collect();
    if log.is_empty() {
        return call_error(object, errno);
    }
    MountError::Refused { log, errno }.into()
}

/// Returns the error of a call.
fn call_error(object: &str, errno: Errno) -> Error {
    let object = object.to_owned();
    MountError::Call { object, errno }.into()
}

/// Reads the log of a context: each message has a level, which is `e`, `w` or `i`.
fn messages(context: &OwnedFd) -> Vec<(u8, String)> {
    let mut messages = Vec::new();
    let mut buffer = [0; 4096];
    // The kernel keeps eight; the bound is for a kernel that keeps them coming.
    while messages.len() < 64 {
        match rustix::io::read(context, &mut buffer) {
            Ok(0) => break,
            Ok(size) => messages.push(message(&buffer[..size])),
            Err(Errno::INTR) => {}
            // ENODATA: that was all.
            Err(_) => break,
        }
    }
    messages
}

fn message(line: &[u8]) -> (u8, String) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end();
    match text.as_bytes() {
        [level @ (b'e' | b'w' | b'i'), b' ', ..] => (*level, text[2..].to_owned()),
        _ => (b'i', text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines() {
        assert_eq!(
            message(b"e puzzlefs: bad\n"),
            (b'e', "puzzlefs: bad".to_owned())
        );
        assert_eq!(message(b"w x"), (b'w', "x".to_owned()));
        assert_eq!(message(b"other"), (b'i', "other".to_owned()));
        assert_eq!(message(b""), (b'i', String::new()));
    }

    /// On a file system that every kernel has: tmpfs takes sources and logs what it refuses.
    /// Nothing is attached, so the host stays as it is. Mounting takes root.
    #[test]
    #[ignore = "needs root"]
    fn the_kernels_words_are_passed_on() {
        let options = |list: &str| Options::parse(&[list.into()]).unwrap();
        let source = OsStr::new("none");
        prepare("tmpfs", source, &options("size=4096,nosuid"), false).unwrap();
        let refused = prepare("tmpfs", source, &options("rootfs=ab"), false).unwrap_err();
        assert!(matches!(refused, Error::Mount(MountError::Refused { .. })));
        assert_eq!(refused.to_string(), "tmpfs: Unknown parameter 'rootfs'");
        let sloppy = prepare("tmpfs", source, &options("rootfs=ab"), true).unwrap();
        assert_eq!(
            sloppy.remarks,
            ["left out an option: tmpfs: Unknown parameter 'rootfs'"]
        );
        let unknown = prepare("nonesuch-fs", source, &options(""), false).unwrap_err();
        assert!(
            unknown.to_string().contains("modprobe nonesuch-fs"),
            "{unknown}"
        );
    }
}
