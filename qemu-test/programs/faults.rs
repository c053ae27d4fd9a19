// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fails each allocation of memory in turn that the kernel makes for a call:
//!
//!     faults SOURCE DIRECTORY STORE OPTIONS OPERATION...
//!
//! SOURCE is a tree, STORE and OPTIONS mount its image at DIRECTORY, the root of it at least. Each
//! operation is made on a fresh mount with the first allocation failing, then with the second, and
//! so on until it ends before any has failed (/proc/PID/fail-nth). It must end in ENOMEM, or as it
//! would have without a fault, and then, made again on the same mount, must give what it gives of
//! the source. A line an operation tells how many allocations failed, and how it ended.

#[path = "lib/calls.rs"]
mod calls;

use calls::*;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void, CString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::ExitCode;
use std::time::Instant;
use std::{ptr, slice};

const BUFFER: usize = 4 << 20;
/// No call makes as many allocations.
const MOST: u32 = 20_000;
/// So many of them fail in turn; of those behind them, pages of large buffers that are taken one by
/// one, each of so many.
const EACH: u32 = 300;
const STRIDE: u32 = 17;

extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        fs_type: *const c_char,
        flags: c_ulong,
        data: *const c_char,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    fn getdents64(fd: c_int, buffer: *mut c_void, len: usize) -> isize;
    fn readlink(path: *const c_char, buffer: *mut c_char, len: usize) -> isize;
    fn lgetxattr(path: *const c_char, name: *const c_char, value: *mut c_void, len: usize)
        -> isize;
    fn llistxattr(path: *const c_char, list: *mut c_char, len: usize) -> isize;
    fn name_to_handle_at(
        directory: c_int,
        path: *const c_char,
        handle: *mut Handle,
        mount: *mut c_int,
        flags: c_int,
    ) -> c_int;
    fn open_by_handle_at(mount: c_int, handle: *mut Handle, flags: c_int) -> c_int;
    fn fork() -> c_int;
    fn waitpid(child: c_int, status: *mut c_int, options: c_int) -> c_int;
}
const MS_RDONLY: c_ulong = 1;
const MS_REMOUNT: c_ulong = 32;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;

#[repr(C)]
#[derive(Clone, Copy)]
struct Handle {
    bytes: c_uint,
    kind: c_int,
    handle: [u8; 128],
}

type Answer = Result<usize, i32>;
type Run = fn(&Place, &mut Ready, &mut [u8]) -> Answer;

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

fn code(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// What a system call returned: a count, or -1 and errno.
fn counted(result: isize) -> Answer {
    usize::try_from(result).map_err(|_| errno())
}

/// Where an operation is made: the mount, or the source that it is compared with.
struct Place {
    root: String,
    /// How to mount, where it is a mount.
    mount: Option<Mount>,
    /// A handle of a file, from an earlier mount.
    handle: Option<Handle>,
}

struct Mount {
    store: CString,
    target: CString,
    again: CString,
    options: CString,
}

impl Mount {
    fn mount(&self, target: &CString, flags: c_ulong) -> Answer {
        // SAFETY: Strings that end in a zero.
        counted(unsafe {
            mount(
                self.store.as_ptr(),
                target.as_ptr(),
                c"puzzlefs".as_ptr(),
                MS_RDONLY | flags,
                self.options.as_ptr(),
            )
        } as isize)
    }

    fn unmount(&self, target: &CString) -> Answer {
        // SAFETY: A string that ends in a zero.
        counted(unsafe { umount2(target.as_ptr(), 0) } as isize)
    }
}

impl Place {
    fn path(&self, name: &str) -> CString {
        let path = format!("{}/{name}", self.root);
        CString::new(path).unwrap_or_default()
    }

    fn open(&self, name: &str) -> Result<File, i32> {
        File::open(format!("{}/{name}", self.root)).map_err(code)
    }
}

/// What an operation has at hand that was made before any fault.
struct Ready {
    path: CString,
    file: Option<File>,
    pipe: Option<(File, File)>,
    memory: Option<File>,
    handle: Option<Handle>,
}

struct Operation {
    name: &'static str,
    /// What it is made on.
    path: &'static str,
    /// Whether the path is opened before any fault.
    opened: bool,
    run: Run,
    /// What is made afterwards, if not the same again.
    check: Option<Run>,
    /// Whether it may do less than it was asked for.
    partly: bool,
    /// An errno beside ENOMEM that tells of a lack of memory.
    also: i32,
    /// What is compared of its result.
    show: fn(&[u8]) -> Vec<u8>,
}

fn all(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// The names of a listing, in order.
fn names(mut entries: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    while let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, low, high, _, rest @ ..] = entries {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let name: Vec<u8> = rest.iter().copied().take_while(|byte| *byte != 0).collect();
        if name != b"." && name != b".." {
            found.push(name);
        }
        entries = entries.get(len..).unwrap_or(&[]);
    }
    found.sort();
    found.join(&0)
}

/// The names of a list of attributes, in order.
fn attributes(list: &[u8]) -> Vec<u8> {
    let mut found: Vec<&[u8]> = list.split(|byte| *byte == 0).collect();
    found.sort();
    found.join(&0)
}

/// What they have to be of in common, of inodes of two filesystems.
fn attributes_of(metadata: &fs::Metadata, buffer: &mut [u8]) -> usize {
    let words = [
        u64::from(metadata.mode()),
        metadata.size(),
        metadata.uid().into(),
        metadata.gid().into(),
        metadata.mtime() as u64,
    ];
    for (word, place) in words.iter().zip(buffer.chunks_exact_mut(8)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    words.len() * 8
}

fn stat(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    let path = ready.path.to_str().map_err(|_| EFAULT)?;
    let metadata = fs::symlink_metadata(path).map_err(code)?;
    // Of a directory each filesystem has its own size.
    Ok(attributes_of(&metadata, buffer))
}

fn list(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    let path = ready.path.to_str().map_err(|_| EFAULT)?;
    let directory = File::open(path).map_err(code)?;
    let mut at = 0;
    loop {
        let rest = &mut buffer[at..];
        let len = rest.len().min(32768);
        // SAFETY: There is as much room.
        match counted(unsafe { getdents64(directory.as_raw_fd(), rest.as_mut_ptr().cast(), len) })?
        {
            0 => return Ok(at),
            count => at += count,
        }
    }
}

fn link(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    // SAFETY: A string that ends in a zero, and as much room.
    counted(unsafe {
        readlink(
            ready.path.as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    })
}

fn attribute(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    // SAFETY: Strings that end in a zero, and as much room.
    counted(unsafe {
        lgetxattr(
            ready.path.as_ptr(),
            c"user.long".as_ptr(),
            buffer.as_mut_ptr().cast(),
            65536,
        )
    })
}

fn attribute_names(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    // SAFETY: A string that ends in a zero, and as much room.
    counted(unsafe { llistxattr(ready.path.as_ptr(), buffer.as_mut_ptr().cast(), 65536) })
}

fn opened(ready: &Ready) -> Result<&File, i32> {
    ready.file.as_ref().ok_or(EFAULT)
}

fn open_file(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    // SAFETY: A string that ends in a zero; the descriptor is ours alone.
    let file = unsafe {
        let fd = counted(open(ready.path.as_ptr(), O_CLOEXEC) as isize)?;
        File::from_raw_fd(fd as RawFd)
    };
    Ok(attributes_of(&file.metadata().map_err(code)?, buffer))
}

fn read(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    opened(ready)?.read_at(buffer, 0).map_err(code)
}

fn page(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    opened(ready)?
        .read_at(&mut buffer[..100], 150_000)
        .map_err(code)
}

fn ahead(_: &Place, ready: &mut Ready, _: &mut [u8]) -> Answer {
    // SAFETY: Numbers, and a descriptor that is open.
    match unsafe { posix_fadvise(opened(ready)?.as_raw_fd(), 0, 0, FADV_WILLNEED) } {
        0 => Ok(0),
        error => Err(error),
    }
}

const MAPPED: usize = 200_000;

fn populate(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    let fd = opened(ready)?.as_raw_fd();
    // SAFETY: A new map, of a file that is longer and does not change; it is read only if all of
    // it is in memory, and goes before anybody else has seen it.
    unsafe {
        let at = mmap(ptr::null_mut(), MAPPED, PROT_READ, MAP_SHARED, fd, 0);
        if at as isize == -1 {
            return Err(errno());
        }
        let done = counted(madvise(at, MAPPED, MADV_POPULATE_READ) as isize);
        if done.is_ok() {
            buffer[..MAPPED].copy_from_slice(slice::from_raw_parts(at.cast(), MAPPED));
        }
        munmap(at, MAPPED);
        done.map(|_| MAPPED)
    }
}

fn by_splice(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    let (from, to) = ready.pipe.as_ref().ok_or(EFAULT)?;
    let mut offset = 0;
    let (file, pipe) = (opened(ready)?.as_raw_fd(), to.as_raw_fd());
    // SAFETY: The offset is there, to be read and written.
    let count = counted(unsafe { splice(file, &mut offset, pipe, ptr::null_mut(), MAPPED, 0) })?;
    let mut from = from;
    io::Read::read_exact(&mut from, &mut buffer[..count]).map_err(code)?;
    Ok(count)
}

fn by_sendfile(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    let memory = ready.memory.as_ref().ok_or(EFAULT)?;
    let mut to = memory;
    io::Seek::rewind(&mut to).map_err(code)?;
    let mut offset = 0;
    let (file, to) = (opened(ready)?.as_raw_fd(), memory.as_raw_fd());
    // SAFETY: The offset is there, to be read and written.
    let count = counted(unsafe { sendfile(to, file, &mut offset, MAPPED) })?;
    memory
        .read_exact_at(&mut buffer[..count], 0)
        .map_err(code)?;
    Ok(count)
}

fn by_handle(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    let root = opened(ready)?.as_raw_fd();
    let handle = ready.handle.as_mut().ok_or(EFAULT)?;
    // SAFETY: The handle is there; the descriptor is ours alone.
    let file = unsafe {
        let fd = counted(open_by_handle_at(root, handle, O_CLOEXEC) as isize)?;
        File::from_raw_fd(fd as RawFd)
    };
    file.read_at(&mut buffer[..5000], 0).map_err(code)
}

fn remount(place: &Place, _: &mut Ready, _: &mut [u8]) -> Answer {
    match &place.mount {
        Some(mount) => mount.mount(&mount.target, MS_REMOUNT),
        None => Ok(0),
    }
}

/// The same image once more.
fn again(place: &Place, _: &mut Ready, _: &mut [u8]) -> Answer {
    let Some(mount) = &place.mount else {
        return Ok(0);
    };
    mount.mount(&mount.again, 0)?;
    mount.unmount(&mount.again)
}

fn mount_itself(place: &Place, _: &mut Ready, _: &mut [u8]) -> Answer {
    match &place.mount {
        Some(mount) => mount.mount(&mount.target, 0),
        None => Ok(0),
    }
}

fn unmount_itself(place: &Place, _: &mut Ready, _: &mut [u8]) -> Answer {
    match &place.mount {
        Some(mount) => mount.unmount(&mount.target),
        None => Ok(0),
    }
}

/// What /proc tells of mounts.
fn told(_: &Place, ready: &mut Ready, buffer: &mut [u8]) -> Answer {
    let _ = ready;
    for name in ["/proc/self/mountinfo", "/proc/self/mountstats"] {
        let file = File::open(name).map_err(code)?;
        while io::Read::read(&mut &file, buffer).map_err(code)? > 0 {}
    }
    Ok(0)
}

const PLAIN: Operation = Operation {
    name: "",
    path: "",
    opened: false,
    run: stat,
    check: None,
    partly: false,
    also: ENOMEM,
    show: all,
};
const OPERATIONS: &[Operation] = &[
    // These two are all that `mounts` knows: it makes and undoes them itself.
    Operation {
        name: "mount",
        run: mount_itself,
        ..PLAIN
    },
    Operation {
        name: "unmount",
        run: unmount_itself,
        ..PLAIN
    },
    Operation {
        name: "again",
        run: again,
        ..PLAIN
    },
    Operation {
        name: "remount",
        run: remount,
        ..PLAIN
    },
    Operation {
        name: "told",
        run: told,
        ..PLAIN
    },
    Operation {
        name: "lookup",
        path: "deep/er/still/file",
        ..PLAIN
    },
    Operation {
        name: "missing",
        path: "many/nothing",
        ..PLAIN
    },
    Operation {
        name: "many",
        path: "many/0123",
        ..PLAIN
    },
    Operation {
        name: "list",
        path: "many",
        run: list,
        show: names,
        ..PLAIN
    },
    Operation {
        name: "link",
        path: "link",
        run: link,
        ..PLAIN
    },
    Operation {
        name: "getxattr",
        path: "deep/attributes",
        run: attribute,
        ..PLAIN
    },
    Operation {
        name: "listxattr",
        path: "deep/attributes",
        run: attribute_names,
        show: attributes,
        ..PLAIN
    },
    Operation {
        name: "open",
        path: "large",
        run: open_file,
        ..PLAIN
    },
    Operation {
        name: "handle",
        path: "deep/er/still/file",
        run: by_handle,
        partly: true,
        ..PLAIN
    },
    Operation {
        name: "read",
        path: "large",
        opened: true,
        run: read,
        partly: true,
        ..PLAIN
    },
    Operation {
        name: "page",
        path: "large",
        opened: true,
        run: page,
        partly: true,
        ..PLAIN
    },
    Operation {
        name: "ahead",
        path: "large",
        opened: true,
        run: ahead,
        check: Some(read),
        ..PLAIN
    },
    Operation {
        name: "populate",
        path: "large",
        opened: true,
        run: populate,
        also: EFAULT,
        ..PLAIN
    },
    Operation {
        name: "splice",
        path: "large",
        opened: true,
        run: by_splice,
        partly: true,
        ..PLAIN
    },
    Operation {
        name: "sendfile",
        path: "large",
        opened: true,
        run: by_sendfile,
        partly: true,
        ..PLAIN
    },
];

fn prepare(operation: &Operation, place: &mut Place) -> Result<Ready, i32> {
    let mut ready = Ready {
        path: place.path(operation.path),
        file: None,
        pipe: None,
        memory: None,
        handle: None,
    };
    if operation.opened {
        ready.file = Some(place.open(operation.path)?);
    }
    if operation.name == "handle" {
        ready.file = Some(place.open("")?);
        if place.handle.is_none() {
            let mut handle = Handle {
                bytes: 128,
                kind: 0,
                handle: [0; 128],
            };
            let (path, mut number) = (ready.path.as_ptr(), 0);
            // SAFETY: A string that ends in a zero, and a handle with the room that it says.
            counted(
                unsafe { name_to_handle_at(-100, path, &mut handle, &mut number, 0) } as isize,
            )?;
            place.handle = Some(handle);
        }
        ready.handle = place.handle;
    }
    let mut ends = [0; 2];
    // SAFETY: There is room for two descriptors; all of them are then ours alone.
    unsafe {
        counted(pipe2(ends.as_mut_ptr(), O_CLOEXEC) as isize)?;
        ready.pipe = Some((File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])));
        counted(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) as isize)?;
        let memory = counted(memfd_create(c"faults".as_ptr(), 0) as isize)?;
        ready.memory = Some(File::from_raw_fd(memory as RawFd));
    }
    Ok(ready)
}

/// /proc/self/fail-nth.
struct Nth(File);

impl Nth {
    fn open() -> io::Result<Self> {
        let path = "/proc/thread-self/fail-nth";
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }

    /// Runs something with its n-th allocation failing. Also tells whether there was one.
    fn failing(&self, nth: u32, run: impl FnOnce() -> Answer) -> io::Result<(Answer, bool)> {
        let number = nth.to_string();
        self.0.write_at(number.as_bytes(), 0)?;
        let answer = run();
        let mut left = [0; 16];
        let count = self.0.read_at(&mut left, 0)?;
        self.0.write_at(b"0", 0)?;
        Ok((answer, count > 0 && left[0] == b'0'))
    }
}

/// A page of a map is touched, in a child: it ends by itself, or by SIGBUS.
fn touch(nth: u32, file: &File, wanted: &[u8]) -> io::Result<(Answer, bool)> {
    // SAFETY: There is one thread; the child ends before it returns. The map is of a file that is
    // longer and does not change.
    let status = unsafe {
        let child = fork();
        if child == 0 {
            let Ok(own) = Nth::open() else { _exit(3) };
            let at = mmap(
                ptr::null_mut(),
                MAPPED,
                PROT_READ,
                MAP_SHARED,
                file.as_raw_fd(),
                0,
            );
            if at as isize == -1 {
                _exit(3);
            }
            let place = at.cast::<u8>().add(150_000);
            let answer = own.failing(nth, || {
                place.read_volatile();
                Ok(0)
            });
            let same = slice::from_raw_parts(at.cast::<u8>(), MAPPED) == &wanted[..MAPPED];
            _exit(match answer {
                Ok(_) if !same => 2,
                Ok((_, true)) => 1,
                Ok((_, false)) => 0,
                Err(_) => 3,
            });
        }
        let mut status = 0;
        if child < 0 || waitpid(child, &mut status, 0) != child {
            return Err(io::Error::last_os_error());
        }
        status
    };
    match (status & 0x7f, status >> 8) {
        (SIGBUS, _) => Ok((Err(ENOMEM), true)),
        (0, 0) => Ok((Ok(0), false)),
        (0, 1) => Ok((Ok(0), true)),
        (0, 2) => Err(io::Error::other("the map shows other bytes")),
        _ => Err(io::Error::other(format!("the child: status {status:#x}"))),
    }
}

/// The source, the mount, and what of an operation is in the way of both.
struct Trial<'a> {
    nth: Nth,
    source: Place,
    place: Place,
    buffer: &'a mut [u8],
}

impl Trial<'_> {
    /// What an operation gives of the source, or of a mount where that has nothing alike.
    fn wanted(&mut self, operation: &Operation) -> Result<Result<Vec<u8>, i32>, String> {
        let run = operation.check.unwrap_or(operation.run);
        let mut ready = prepare(operation, &mut self.source)
            .map_err(|error| format!("the source: errno {error}"))?;
        let answer = run(&self.source, &mut ready, self.buffer);
        Ok(answer.map(|count| (operation.show)(&self.buffer[..count])))
    }

    /// One allocation fails. Tells how that ended, or nothing when there was none left to fail.
    fn one(
        &mut self,
        operation: &Operation,
        nth: u32,
        wanted: &Result<Vec<u8>, i32>,
    ) -> Result<Option<String>, String> {
        let told = |what: String| format!("{}, allocation {nth}: {what}", operation.name);
        let failed = |what: &str| told(what.to_string());
        let Some(mount) = &self.place.mount else {
            return Err(failed("nothing is mounted"));
        };
        let (target, again) = (mount.target.clone(), mount.again.clone());
        if operation.name != "mount" {
            mount
                .mount(&target, 0)
                .map_err(|error| told(format!("mount: errno {error}")))?;
        }
        let mut ready = prepare(operation, &mut self.place)
            .map_err(|error| told(format!("before: errno {error}")))?;
        let (answer, fell) = if operation.name == "map" {
            let Ok(bytes) = wanted else {
                return Err(failed("no source"));
            };
            touch(nth, opened(&ready).map_err(|_| failed("no file"))?, bytes)
        } else {
            let (place, buffer) = (&self.place, &mut *self.buffer);
            self.nth
                .failing(nth, || (operation.run)(place, &mut ready, buffer))
        }
        .map_err(|error| told(error.to_string()))?;

        let ended = match &answer {
            Ok(count) if operation.check.is_none() && operation.name != "map" => {
                let shown = (operation.show)(&self.buffer[..*count]);
                match wanted {
                    Ok(wanted) if *wanted == shown => "as ever",
                    Ok(wanted)
                        if operation.partly
                            && fell
                            && !shown.is_empty()
                            && wanted.starts_with(&shown) =>
                    {
                        "in part"
                    }
                    _ => return Err(failed("gives other bytes")),
                }
                .to_string()
            }
            Ok(_) => "as ever".to_string(),
            Err(error) if wanted.as_ref().err() == Some(error) => "as ever".to_string(),
            Err(error) if fell && [ENOMEM, operation.also].contains(error) => {
                format!("errno {error}")
            }
            Err(error) => return Err(told(format!("errno {error}"))),
        };

        // Without a fault, on the same mount.
        let mount = self
            .place
            .mount
            .as_ref()
            .ok_or(failed("nothing is mounted"))?;
        if answer.is_err() && operation.name == "mount" {
            mount
                .mount(&target, 0)
                .map_err(|error| told(format!("then: errno {error}")))?;
        } else if operation.name == "again" && answer.is_err() {
            // Either of its halves has failed.
            let _ = mount.unmount(&again);
        }
        if operation.name == "unmount" {
            if answer.is_err() {
                mount
                    .unmount(&target)
                    .map_err(|error| told(format!("then: errno {error}")))?;
            }
            return Ok(fell.then_some(ended));
        }
        if operation.name != "mount" {
            let run = match operation.name {
                "map" => read,
                _ => operation.check.unwrap_or(operation.run),
            };
            let after = run(&self.place, &mut ready, self.buffer)
                .map(|count| (operation.show)(&self.buffer[..count]));
            if after != *wanted {
                return Err(told(format!(
                    "then: {}",
                    match after {
                        Ok(_) => "other bytes".into(),
                        Err(error) => format!("errno {error}"),
                    }
                )));
            }
        }
        drop(ready);
        let file = self
            .place
            .open("large")
            .map_err(|error| told(format!("a file: errno {error}")))?;
        let count = file
            .read_at(&mut self.buffer[..100], 5000)
            .map_err(|error| told(format!("a file: {error}")))?;
        let source = self
            .source
            .open("large")
            .map_err(|_| failed("the source"))?;
        let mut same = [0; 100];
        source
            .read_exact_at(&mut same, 5000)
            .map_err(|_| failed("the source"))?;
        if self.buffer[..count] != same {
            return Err(failed("then: a file has other bytes"));
        }
        drop(file);
        let mount = self
            .place
            .mount
            .as_ref()
            .ok_or(failed("nothing is mounted"))?;
        mount
            .unmount(&target)
            .map_err(|error| told(format!("unmount: errno {error}")))?;
        Ok(fell.then_some(ended))
    }

    fn all(&mut self, name: &str) -> Result<(), String> {
        let map = Operation {
            name: "map",
            path: "large",
            opened: true,
            run: read,
            ..PLAIN
        };
        let operation = OPERATIONS
            .iter()
            .chain([&map])
            .find(|operation| operation.name == name)
            .ok_or(format!("{name}: no such operation"))?;
        let start = Instant::now();
        let wanted = self.wanted(operation)?;
        let mut ends: BTreeMap<String, u32> = BTreeMap::new();
        let (mut tried, mut nth) = (0, 1);
        while let Some(end) = self.one(operation, nth, &wanted)? {
            tried += 1;
            *ends.entry(end).or_default() += 1;
            if nth > MOST {
                return Err(format!("{name}: no end after {nth} allocations"));
            }
            nth += if nth < EACH { 1 } else { STRIDE };
        }
        println!(
            "{name}: {tried} of some {nth} allocations failed, in {:.1} s: {ends:?}",
            start.elapsed().as_secs_f64()
        );
        if tried == 0 {
            return Err(format!("{name}: no allocation failed"));
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, directory, store, options, operations @ ..] = &arguments[..] else {
        eprintln!("faults SOURCE DIRECTORY STORE OPTIONS OPERATION...");
        return ExitCode::FAILURE;
    };
    let string = |text: &str| CString::new(text).unwrap_or_default();
    // All of it is there before any fault.
    let mut buffer = vec![1; BUFFER];
    let trial = Nth::open().map(|nth| Trial {
        nth,
        source: Place {
            root: source.clone(),
            mount: None,
            handle: None,
        },
        place: Place {
            root: directory.clone(),
            mount: Some(Mount {
                store: string(store),
                target: string(directory),
                again: string(&format!("{directory}.again")),
                options: string(options),
            }),
            handle: None,
        },
        buffer: &mut buffer,
    });
    let result = trial
        .map_err(|error| error.to_string())
        .and_then(|mut trial| operations.iter().try_for_each(|name| trial.all(name)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("faults: {what}");
            ExitCode::FAILURE
        }
    }
}
