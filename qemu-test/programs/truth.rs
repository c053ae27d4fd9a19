// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads at random from mounts of one tree, by every call that reads, and compares with the tree:
//!
//!     truth [OPTION...] SOURCE MOUNT...
//!
//!     --seed N         what is drawn: the same each time for the same number of threads (1)
//!     --operations N   how many operations of all threads together (10000)
//!     --seconds N      end after that long, however many these are
//!     --threads N      so many at once (1)
//!     --drop           drop caches now and then
//!     --signals        a signal every millisecond
//!     --stacked        another filesystem is above, and may take O_DIRECT
//!
//! The first byte that is wrong, and the first call that fails, end it: with what was asked for, and
//! the numbers that bring it back. Else a line tells how many operations there were, how many of
//! them were refused as they have to be, and how long they took.

#[path = "lib/calls.rs"]
mod calls;

use calls::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, slice, thread};

const PAGE: usize = 4096;
const LONGEST: usize = 300_000;

#[repr(C)]
struct IoVec {
    base: *mut c_void,
    len: usize,
}

#[repr(C)]
struct Timer {
    interval: [c_long; 2],
    value: [c_long; 2],
}

extern "C" {
    fn preadv2(fd: c_int, iov: *const IoVec, count: c_int, offset: c_long, flags: c_int) -> isize;
    fn readahead(fd: c_int, offset: c_long, count: usize) -> isize;
    fn copy_file_range(
        from: c_int,
        from_offset: *mut c_long,
        to: c_int,
        to_offset: *mut c_long,
        len: usize,
        flags: c_uint,
    ) -> isize;
    fn setrlimit(resource: c_int, limits: *const [u64; 2]) -> c_int;
    fn setitimer(which: c_int, new: *const Timer, old: *mut Timer) -> c_int;
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn write(fd: c_int, buffer: *const c_void, count: usize) -> isize;
}
const RWF_NOWAIT: c_int = 8;
const O_DIRECT: c_int = 0o40000;
const RLIMIT_NOFILE: c_int = 7;
const ITIMER_REAL: c_int = 0;
const SIGALRM: c_int = 14;
const FADV_NORMAL: c_int = 0;
const FADV_RANDOM: c_int = 1;
const FADV_SEQUENTIAL: c_int = 2;
const FADV_DONTNEED: c_int = 4;
const EAGAIN: i32 = 11;
const EXDEV: i32 = 18;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

/// Random numbers: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below another.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What a system call returned: a count, or -1 and errno.
fn counted(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A map of a part of a file.
struct Map {
    at: *mut c_void,
    len: usize,
}

impl Map {
    fn new(file: &File, start: usize, len: usize, flags: c_int) -> io::Result<Self> {
        // SAFETY: A new map of a file that is open.
        let at = unsafe {
            mmap(
                ptr::null_mut(),
                len,
                PROT_READ,
                flags,
                file.as_raw_fd(),
                start as c_long,
            )
        };
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Map { at, len })
    }

    fn populate(&self) -> io::Result<()> {
        // SAFETY: The map is there.
        counted(unsafe { madvise(self.at, self.len, MADV_POPULATE_READ) } as isize).map(|_| ())
    }

    /// Its bytes. No page of it may be wholly past the file's end.
    fn bytes(&self) -> &[u8] {
        // SAFETY: The map is there and of this length, and nobody writes to the file: it is one of a
        // filesystem that cannot be written to. A page that cannot be read ends the process.
        unsafe { slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: The map is there, and `bytes` does not outlive it.
        unsafe { munmap(self.at, self.len) };
    }
}

/// What a thread has for itself.
struct Tools {
    buffer: Vec<u8>,
    pipe: (File, File),
    memory: File,
}

impl Tools {
    fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: There is room for two descriptors, which are then ours alone.
        let (pipe, memory) = unsafe {
            counted(pipe2(ends.as_mut_ptr(), O_CLOEXEC) as isize)?;
            let pipe = (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]));
            // Where an ordinary user may not have so large a pipe, reads are shorter.
            fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
            let memory = counted(memfd_create(c"truth".as_ptr(), 0) as isize)?;
            (pipe, File::from_raw_fd(memory as RawFd))
        };
        let buffer = vec![0; LONGEST + 2 * PAGE];
        Ok(Tools {
            buffer,
            pipe,
            memory,
        })
    }

    /// `RWF_NOWAIT`, or several buffers at once.
    fn preadv(&mut self, fd: RawFd, at: usize, len: usize, flags: c_int) -> io::Result<usize> {
        let (one, two) = self.buffer[..len].split_at_mut(len / 3);
        let parts = [one, two].map(|part| IoVec {
            base: part.as_mut_ptr().cast(),
            len: part.len(),
        });
        // SAFETY: Both parts are there to be written to.
        counted(unsafe { preadv2(fd, parts.as_ptr(), 2, at as c_long, flags) })
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Call {
    Read,
    Pread,
    Preadv,
    Nowait,
    Direct,
    PrivateMap,
    SharedMap,
    PopulatedMap,
    Splice,
    Sendfile,
    CopyFileRange,
}

/// How often each is drawn.
const CALLS: [Call; 16] = [
    Call::Read,
    Call::Read,
    Call::Pread,
    Call::Pread,
    Call::Pread,
    Call::Preadv,
    Call::Nowait,
    Call::Nowait,
    Call::Direct,
    Call::PrivateMap,
    Call::SharedMap,
    Call::SharedMap,
    Call::PopulatedMap,
    Call::Splice,
    Call::Sendfile,
    Call::CopyFileRange,
];

/// What a call has to give.
enum Wanted {
    /// All that was asked for, as far as the file goes.
    All,
    /// At least a byte, where there is one.
    Some,
    /// Anything, or nothing.
    Any,
}

fn different(got: &[u8], truth: &[u8], wanted: Wanted) -> Option<String> {
    if got.len() > truth.len() {
        return Some(format!("{} bytes, of {}", got.len(), truth.len()));
    }
    let enough = match wanted {
        Wanted::All => truth.len(),
        Wanted::Some => truth.len().min(1),
        Wanted::Any => 0,
    };
    if got.len() < enough {
        return Some(format!("{} bytes of {}", got.len(), truth.len()));
    }
    if got == &truth[..got.len()] {
        return None;
    }
    let first = got.iter().zip(truth).position(|(a, b)| a != b)?;
    Some(format!(
        "byte {first} is {:#x}, should be {:#x}; {} of {} are wrong",
        got[first],
        truth[first],
        got.iter().zip(truth).filter(|(a, b)| a != b).count(),
        got.len()
    ))
}

enum Outcome {
    Right,
    Refused,
    /// What may be refused, but was not.
    Taken,
    Wrong(String),
}

/// One call, compared with what the file holds.
fn make(
    call: Call,
    file: &mut File,
    at: usize,
    len: usize,
    data: &[u8],
    tools: &mut Tools,
) -> io::Result<Outcome> {
    let fd = file.as_raw_fd();
    let end = data.len().min(at.saturating_add(len));
    let truth = &data[at.min(end)..end];
    let mut offset = at as c_long;
    let refusal = |error: io::Error, numbers: &[i32]| match error.raw_os_error() {
        Some(number) if numbers.contains(&number) => Ok(Outcome::Refused),
        _ => Err(error),
    };
    let (count, wanted) = match call {
        Call::Read => {
            file.seek(SeekFrom::Start(at as u64))?;
            (file.read(&mut tools.buffer[..len])?, Wanted::All)
        }
        Call::Pread => (
            file.read_at(&mut tools.buffer[..len], at as u64)?,
            Wanted::All,
        ),
        Call::Preadv => (tools.preadv(fd, at, len, 0)?, Wanted::All),
        Call::Nowait => match tools.preadv(fd, at, len, RWF_NOWAIT) {
            Ok(count) => (count, Wanted::Any),
            Err(error) => return refusal(error, &[EAGAIN, EOPNOTSUPP]),
        },
        Call::Direct => {
            let again = fs::OpenOptions::new()
                .read(true)
                .custom_flags(O_DIRECT)
                .open(format!("/proc/self/fd/{fd}"));
            return match again {
                Ok(_) => Ok(Outcome::Taken),
                Err(error) => refusal(error, &[EINVAL]),
            };
        }
        Call::PrivateMap | Call::SharedMap | Call::PopulatedMap => {
            if truth.is_empty() {
                return Ok(Outcome::Right);
            }
            let start = at - at % PAGE;
            let flags = if call == Call::PrivateMap {
                MAP_PRIVATE
            } else {
                MAP_SHARED
            };
            let map = Map::new(file, start, (end - start).next_multiple_of(PAGE), flags)?;
            if call == Call::PopulatedMap {
                map.populate()?;
            }
            let bytes = map.bytes();
            if end == data.len() && bytes[end - start..].iter().any(|byte| *byte != 0) {
                return Ok(Outcome::Wrong("no zeros past the end".into()));
            }
            return Ok(
                match different(&bytes[at - start..end - start], truth, Wanted::All) {
                    Some(what) => Outcome::Wrong(what),
                    None => Outcome::Right,
                },
            );
        }
        Call::Splice => {
            let to = tools.pipe.1.as_raw_fd();
            // SAFETY: The offset is there, to be read and written.
            let count = counted(unsafe { splice(fd, &mut offset, to, ptr::null_mut(), len, 0) })?;
            tools.pipe.0.read_exact(&mut tools.buffer[..count])?;
            (count, Wanted::Some)
        }
        Call::Sendfile => {
            tools.memory.seek(SeekFrom::Start(0))?;
            // SAFETY: The offset is there, to be read and written.
            let count =
                counted(unsafe { sendfile(tools.memory.as_raw_fd(), fd, &mut offset, len) })?;
            let got = &mut tools.buffer[..count];
            tools.memory.read_exact_at(got, 0)?;
            (count, Wanted::Some)
        }
        Call::CopyFileRange => {
            let (to, mut start) = (tools.memory.as_raw_fd(), 0);
            // SAFETY: Both offsets are there, to be read and written.
            match counted(unsafe { copy_file_range(fd, &mut offset, to, &mut start, len, 0) }) {
                Ok(count) => {
                    let got = &mut tools.buffer[..count];
                    tools.memory.read_exact_at(got, 0)?;
                    (count, Wanted::Some)
                }
                Err(error) => return refusal(error, &[EXDEV]),
            }
        }
    };
    Ok(match different(&tools.buffer[..count], truth, wanted) {
        Some(what) => Outcome::Wrong(what),
        None => Outcome::Right,
    })
}

thread_local! {
    /// For the handler: the thread, and the operation it is at.
    static AT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// A page of a map could not be read.
extern "C" fn on_bus_error(_: c_int) {
    let (thread, operation) = AT.get();
    let mut text = [b' '; 80];
    let opening = b"truth: SIGBUS: thread ";
    text[..opening.len()].copy_from_slice(opening);
    let mut put = |end: usize, mut number: u64| {
        for place in text[..end].iter_mut().rev().take(20) {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
    };
    put(opening.len() + 4, thread);
    put(opening.len() + 36, operation);
    let word = b", operation ";
    text[opening.len() + 4..][..word.len()].copy_from_slice(word);
    text[opening.len() + 36] = b'\n';
    // SAFETY: The text is there; nothing runs after it.
    unsafe {
        write(2, text.as_ptr().cast(), opening.len() + 37);
        _exit(1);
    }
}

extern "C" fn on_alarm(_: c_int) {}

struct Options {
    seed: u64,
    operations: u64,
    deadline: Option<Instant>,
    threads: u64,
    drop: bool,
    stacked: bool,
}

/// One of the mounts' files, and what it holds.
struct Target<'a> {
    path: PathBuf,
    data: &'a [u8],
}

#[derive(Default)]
struct Counts {
    refused: u64,
    calls: BTreeMap<Call, u64>,
}

/// What has an effect on the pages, and none on what is read.
fn disturb(random: &mut Random, options: &Options, file: &File, size: usize) -> io::Result<()> {
    let fd = file.as_raw_fd();
    // SAFETY: Each takes numbers, and a descriptor that is open.
    let advise = |at: usize, len: usize, advice| unsafe {
        posix_fadvise(fd, at as c_long, len as c_long, advice)
    };
    let draw = random.below(10_000);
    let (at, len) = (random.below(size), random.below(LONGEST));
    let answer = match draw {
        0 | 1 if options.drop => {
            fs::write(
                "/proc/sys/vm/drop_caches",
                format!("{}", 1 + random.below(3)),
            )?;
            0
        }
        2..300 => advise(0, 0, FADV_DONTNEED),
        300..350 => advise(at, len, FADV_DONTNEED),
        350..400 => advise(at, len, FADV_WILLNEED),
        400..450 => {
            // SAFETY: Numbers, and a descriptor that is open.
            counted(unsafe { readahead(fd, at as c_long, len) })?;
            0
        }
        450..460 => advise(0, 0, FADV_RANDOM),
        460..470 => advise(0, 0, FADV_SEQUENTIAL),
        470..490 => advise(0, 0, FADV_NORMAL),
        _ => 0,
    };
    if answer != 0 {
        return Err(io::Error::from_raw_os_error(answer));
    }
    Ok(())
}

fn work(
    thread: u64,
    options: &Options,
    targets: &[Target<'_>],
    stop: &AtomicBool,
) -> Result<Counts, String> {
    let mut random = Random(options.seed.wrapping_mul(0x1_0000_0001) ^ (thread << 40));
    let mut tools = Tools::new().map_err(|error| format!("thread {thread}: {error}"))?;
    let mut files: Vec<Option<File>> = targets.iter().map(|_| None).collect();
    let mut counts = Counts::default();
    let mine = options.operations / options.threads
        + u64::from(thread < options.operations % options.threads);
    for operation in 0..mine {
        if stop.load(Ordering::Relaxed)
            || operation % 16 == 0 && options.deadline.is_some_and(|at| Instant::now() > at)
        {
            break;
        }
        AT.set((thread, operation));
        let number = random.below(targets.len());
        let target = &targets[number];
        let size = target.data.len();
        let at = match random.below(4) {
            0 => random.below(size) / PAGE * PAGE,
            1 => size.saturating_sub(random.below(5000)),
            _ => random.below(size),
        };
        let len = match random.below(8) {
            0 => 1,
            1 => 17,
            2 => PAGE,
            3 => PAGE + 1,
            // As many of each magnitude.
            4..7 => {
                let magnitude = random.below(18);
                1 + random.below(1 << magnitude)
            }
            _ => 1 + random.below(LONGEST),
        };
        let call = CALLS[random.below(CALLS.len())];
        let reopen = random.below(50) == 0;
        let slot = &mut files[number];
        let outcome = (|| {
            if reopen {
                *slot = None;
            }
            let file = match slot {
                Some(file) => file,
                None => slot.insert(File::open(&target.path)?),
            };
            disturb(&mut random, options, file, size)?;
            make(call, file, at, len, target.data, &mut tools)
        })();
        let what = match outcome {
            Ok(Outcome::Taken) if !options.stacked => "is not refused".into(),
            Ok(Outcome::Right | Outcome::Taken) => {
                *counts.calls.entry(call).or_default() += 1;
                continue;
            }
            Ok(Outcome::Refused) => {
                *counts.calls.entry(call).or_default() += 1;
                counts.refused += 1;
                continue;
            }
            Ok(Outcome::Wrong(what)) => what,
            Err(error) => error.to_string(),
        };
        stop.store(true, Ordering::Relaxed);
        return Err(format!(
            "seed {}, thread {thread} of {}, operation {operation}: {call:?} of {len} at {at} of {}: {what}",
            options.seed,
            options.threads,
            target.path.display()
        ));
    }
    Ok(counts)
}

/// The regular files below a directory, by name.
fn contents(directory: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let data = fs::read(entry.path())?;
            if !data.is_empty() {
                found.push((entry.file_name().into(), data));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("truth: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let start = Instant::now();
    let mut options = Options {
        seed: 1,
        operations: 10_000,
        deadline: None,
        threads: 1,
        drop: false,
        stacked: false,
    };
    let mut signals = false;
    let mut directories = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64, String> {
            arguments
                .next()
                .and_then(|text| text.parse().ok())
                .ok_or(format!("{argument} takes a number"))
        };
        match argument.as_str() {
            "--seed" => options.seed = number()?,
            "--operations" => options.operations = number()?,
            "--seconds" => options.deadline = Some(start + Duration::from_secs(number()?)),
            "--threads" => options.threads = number()?.max(1),
            "--drop" => options.drop = true,
            "--stacked" => options.stacked = true,
            "--signals" => signals = true,
            _ => directories.push(PathBuf::from(argument)),
        }
    }
    let [source, mounts @ ..] = &directories[..] else {
        return Err("truth [OPTION...] SOURCE MOUNT...".into());
    };
    let files = contents(source).map_err(|error| format!("{}: {error}", source.display()))?;
    let targets: Vec<_> = mounts
        .iter()
        .flat_map(|mount| {
            files.iter().map(|(name, data)| Target {
                path: mount.join(name),
                data,
            })
        })
        .collect();
    if targets.is_empty() {
        return Err("nothing to read".into());
    }
    // SAFETY: Numbers; the handlers do only what handlers may.
    unsafe {
        setrlimit(RLIMIT_NOFILE, &[1 << 16, 1 << 16]);
        signal(SIGBUS, on_bus_error);
        if signals {
            signal(SIGALRM, on_alarm);
            let each = Timer {
                interval: [0, 1000],
                value: [0, 1000],
            };
            setitimer(ITIMER_REAL, &each, ptr::null_mut());
        }
    }
    let stop = AtomicBool::new(false);
    let results: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..options.threads)
            .map(|thread| {
                let (options, targets, stop) = (&options, &targets, &stop);
                scope.spawn(move || work(thread, options, targets, stop))
            })
            .collect();
        all.into_iter()
            .map(|one| one.join().unwrap_or(Err("a thread panicked".into())))
            .collect()
    });
    let mut total = Counts::default();
    for result in results {
        let counts = result?;
        total.refused += counts.refused;
        for (call, count) in counts.calls {
            *total.calls.entry(call).or_default() += count;
        }
    }
    Ok(format!(
        "{} operations, {} refused, in {:.1} s: {:?}",
        total.calls.values().sum::<u64>(),
        total.refused,
        start.elapsed().as_secs_f64(),
        total.calls
    ))
}
