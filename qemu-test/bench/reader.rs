// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads a tree in some way and prints how many nanoseconds that took, and how many things it read:
//!
//!     reader walk DIR              lstat everything
//!     reader read DIR              read all regular files, in order, 128 KiB at a time
//!     reader random FILE COUNT     read 4 KiB at COUNT random places, the same each time
//!
//! It does as little as possible beside, so that what is measured is the filesystem.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn each(
    directory: &Path,
    give: &mut dyn FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let mut pending: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            give(&path, &metadata)?;
            if metadata.is_dir() {
                pending.push(path);
            }
        }
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

fn read(directory: &Path) -> io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut bytes = 0;
    each(directory, &mut |path, metadata| {
        if metadata.is_file() {
            let mut file = File::open(path)?;
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    count => bytes += count as u64,
                }
            }
        }
        Ok(())
    })?;
    Ok(bytes)
}

fn random(path: &Path, count: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let blocks = file.metadata()?.len() / 4096;
    let mut buffer = [0; 4096];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..count {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        file.read_exact_at(&mut buffer, (state >> 33) % blocks * 4096)?;
    }
    Ok(count)
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let start = Instant::now();
    let done = match arguments[..] {
        ["walk", directory] => walk(Path::new(directory))?,
        ["read", directory] => read(Path::new(directory))?,
        ["random", file, count] => {
            random(Path::new(file), count.parse().map_err(io::Error::other)?)?
        }
        _ => {
            return Err(io::Error::other(
                "reader walk|read DIR, reader random FILE COUNT",
            ))
        }
    };
    println!("{} {done}", start.elapsed().as_nanos());
    Ok(())
}
