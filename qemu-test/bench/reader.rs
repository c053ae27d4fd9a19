// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads a tree in some way and prints how many nanoseconds that took, how many things it read, and how often
//! it slept, which is the number of voluntary context switches:
//!
//!     reader walk DIR              lstat everything
//!     reader read DIR              read all regular files, in order, 128 KiB at a time
//!     reader readers DIR COUNT     the same by COUNT threads, each of which takes the next file
//!     reader random FILE COUNT     read 4 KiB at COUNT random places, the same each time
//!     reader map FILE COUNT        touch a page at COUNT random places of a map
//!     reader run ROOT COMMAND...   run the command in ROOT, to its end
//!     reader mark                  nothing
//!
//! It does as little as possible beside, so that what is measured is the filesystem. Before and
//! behind, or once if there is nothing to do, it executes the instruction at which
//! `instructions.c` says how many have been.

#[path = "../programs/lib/calls.rs"]
mod calls;

use calls::*;
use std::ffi::c_int;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;
use std::{ptr, thread};

/// Gives the entries of a tree as `os.walk` of Python does, and `find` but for the names between two
/// directories: those of a directory, then each directory in it, in the order in which they are listed.
fn each(
    directory: &Path,
    give: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let mut pending: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let mut directories = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            give(&path, &metadata)?;
            if metadata.is_dir() {
                directories.push(path);
            }
        }
        pending.extend(directories.into_iter().rev());
    }
    Ok(())
}

fn walk(directory: &Path) -> io::Result<u64> {
    let mut count = 0;
    each(directory, &mut |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

fn read_file(path: &Path, buffer: &mut [u8]) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut bytes = 0;
    loop {
        match file.read(buffer)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}

fn read(directory: &Path) -> io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut bytes = 0;
    each(directory, &mut |path, metadata| {
        if metadata.is_file() {
            bytes += read_file(path, &mut buffer)?;
        }
        Ok(())
    })?;
    Ok(bytes)
}

fn readers(directory: &Path, count: usize) -> io::Result<u64> {
    let mut files = Vec::new();
    each(directory, &mut |path, metadata| {
        if metadata.is_file() {
            files.push(path.to_owned());
        }
        Ok(())
    })?;
    let files = Mutex::new(files.into_iter());
    let work = || {
        let mut buffer = vec![0; 128 << 10];
        let mut bytes = 0;
        loop {
            let next = files
                .lock()
                .map_err(|_| io::Error::other("a reader failed"))?
                .next();
            match next {
                Some(path) => bytes += read_file(&path, &mut buffer)?,
                None => return Ok(bytes),
            }
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        all.into_iter()
            .map(|one| {
                one.join()
                    .map_err(|_| io::Error::other("a reader failed"))?
            })
            .sum()
    })
}

/// Random numbers of blocks, the same each time.
fn places(blocks: u64, count: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..count).map(move |_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % blocks * 4096
    })
}

fn random(path: &Path, count: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut buffer = [0; 4096];
    for place in places(file.metadata()?.len() / 4096, count) {
        file.read_exact_at(&mut buffer, place)?;
    }
    Ok(count)
}

fn map(path: &Path, count: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let size = usize::try_from(len).map_err(io::Error::other)?;
    // SAFETY: A new map of a file that is open.
    let at = unsafe {
        mmap(
            ptr::null_mut(),
            size,
            PROT_READ,
            MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if at as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    for place in places(len / 4096, count) {
        // SAFETY: The place is within the map, which stays until the process ends.
        unsafe { at.cast::<u8>().add(place as usize).read_volatile() };
    }
    Ok(count)
}

/// Runs a command whose paths begin at `root`, and counts it as one thing.
fn run(root: &str, command: &[&str]) -> io::Result<u64> {
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")?;
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::other("no command"))?;
    let status = Command::new(program).args(arguments).status()?;
    if status.success() {
        Ok(1)
    } else {
        Err(io::Error::other(format!("{program}: {status}")))
    }
}

/// Returns how often this process, or with `RUSAGE_CHILDREN` one that it has waited for, has slept.
fn sleeps(who: c_int) -> io::Result<i64> {
    let mut usage = Rusage::default();
    // SAFETY: The kernel writes a `struct rusage`, which `Rusage` has the layout of.
    if unsafe { getrusage(who, &mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usage.ru_nvcsw)
}

/// Executes an instruction that does nothing, `MARK` of `instructions.c`.
fn mark() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: It does nothing.
    unsafe {
        std::arch::asm!(".byte 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x50, 0x46, 0x53, 0x4d")
    };
}

const USAGE: &str =
    "reader walk|read DIR, reader readers DIR COUNT, reader random|map FILE COUNT, \
                     reader run ROOT COMMAND..., reader mark";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let slept = sleeps(RUSAGE_SELF)?;
    mark();
    let start = Instant::now();
    let done = match arguments[..] {
        ["walk", directory] => walk(Path::new(directory))?,
        ["read", directory] => read(Path::new(directory))?,
        ["readers", directory, count] => readers(
            Path::new(directory),
            count.parse().map_err(io::Error::other)?,
        )?,
        ["random", file, count] => {
            random(Path::new(file), count.parse().map_err(io::Error::other)?)?
        }
        ["map", file, count] => map(Path::new(file), count.parse().map_err(io::Error::other)?)?,
        ["run", root, ref command @ ..] => run(root, command)?,
        ["mark"] => return Ok(()),
        _ => return Err(io::Error::other(USAGE)),
    };
    let took = start.elapsed();
    mark();
    let slept = if arguments[0] == "run" {
        sleeps(RUSAGE_CHILDREN)?
    } else {
        sleeps(RUSAGE_SELF)? - slept
    };
    println!("{} {done} {slept}", took.as_nanos());
    Ok(())
}
