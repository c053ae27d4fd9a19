// SPDX-License-Identifier: MIT OR Apache-2.0

//! An OCI image layout: as a container image that is imported, and as a store that images are
//! looked up in.
//!
//! The bytes are the files of the layout, with a line `%%` between them. The first is `index.json`,
//! the others are blobs. In each, `@N` stands for the digest of the file of that number, one of
//! those that follow, and `#N` for its size: so that all digests are right whatever is changed.

use crate::archive::{check_image, limited};
use puzzlefs_lib::builder::BuildOptions;
use puzzlefs_lib::import::{import, ImportSource};
use puzzlefs_lib::reader::ImageReader;
use puzzlefs_lib::{Digest, Selector, Store};
use std::path::Path;

const SEPARATOR: &[u8] = b"\n%%\n";

/// The most files of a layout.
const FILES_MAX: usize = 9;

/// Imports the image of a layout, and looks up all images of it as a store.
pub fn run(data: &[u8]) {
    let scratch = crate::scratch();
    let layout = scratch.path().join("layout");
    write(data, &layout).expect("the layout is written");

    let there = Store::open(&layout).expect("it is a store");
    if let Ok(index) = there.index() {
        for tag in index.tags().into_iter().take(FILES_MAX) {
            if let Ok(image) = there.image(&Selector::Tag(tag)) {
                let _ = ImageReader::new(&there, &image).map(|reader| reader.counts());
            }
        }
    }

    let store = Store::create(&scratch.path().join("store")).expect("a store is made");
    let source = ImportSource {
        path: layout,
        tag: None,
        platform: None,
    };
    let options = BuildOptions::new("fuzz");
    if limited(|progress| import(&source, &store, &options, progress)).is_ok() {
        check_image(&store);
    }
}

fn write(data: &[u8], layout: &Path) -> std::io::Result<()> {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    std::fs::write(layout.join("oci-layout"), puzzlefs_lib::oci::LAYOUT)?;

    let mut files: Vec<&[u8]> = Vec::new();
    let mut rest = data;
    while let Some(at) = rest
        .windows(SEPARATOR.len())
        .position(|window| window == SEPARATOR)
        .filter(|_| files.len() + 1 < FILES_MAX)
    {
        files.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    files.push(rest);

    // The last first: what names a file needs its digest.
    let mut known: Vec<Option<(String, usize)>> = vec![None; files.len()];
    for number in (0..files.len()).rev() {
        let contents = filled_in(files[number], &known);
        if number == 0 {
            return std::fs::write(layout.join("index.json"), contents);
        }
        let digest = Digest::of(&contents).to_string();
        std::fs::write(blobs.join(&digest), &contents)?;
        known[number] = Some((digest, contents.len()));
    }
    Ok(())
}

/// A file, with the digests and sizes of others.
fn filled_in(file: &[u8], known: &[Option<(String, usize)>]) -> Vec<u8> {
    let mut contents = Vec::new();
    let mut bytes = file.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let number = match (byte, bytes.peek()) {
            (b'@' | b'#', Some(digit)) => usize::from(digit.wrapping_sub(b'0')),
            _ => usize::MAX,
        };
        match known.get(number) {
            Some(Some((digest, size))) => {
                bytes.next();
                match byte {
                    b'@' => contents.extend_from_slice(digest.as_bytes()),
                    _ => contents.extend_from_slice(size.to_string().as_bytes()),
                }
            }
            _ => contents.push(byte),
        }
    }
    contents
}
