// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads images as a filesystem does.

use crate::bytes::Bytes;
use puzzlefs_schema::{Dir, DirEntry, DirLayer, Error, Framing, Metadata, Order, Part, MAX_LAYERS};
use std::ops::ControlFlow;

/// Opens the metadata in some bytes, and calls a function with it.
pub fn open<T>(bytes: &Bytes, then: impl FnOnce(Metadata<'_>) -> T) -> T {
    let framing = Framing::parse(bytes.as_slice()).expect("the framing is right");
    then(Metadata::new(&framing, bytes.as_slice()))
}

/// Returns the parts of the directory whose topmost part is given.
pub fn parts(top: DirLayer<'_>) -> Result<Vec<Part<Vec<u32>>>, Error> {
    let mut parts = Vec::new();
    let mut layer = Some(top);
    while let Some(dir) = layer {
        let index = match dir.order()? {
            Order::Sorted => None,
            Order::Unsorted => {
                let mut index = vec![0; dir.len()];
                dir.sort_index(&mut index)?;
                Some(index)
            }
        };
        parts.push(Part::new(&dir, index));
        assert!(parts.len() <= MAX_LAYERS as usize);
        layer = dir.below()?;
    }
    Ok(parts)
}

/// Returns the parts of the directory of an inode number.
pub fn dir_parts(metadata: &Metadata<'_>, ino: u64) -> Result<Vec<Part<Vec<u32>>>, Error> {
    parts(metadata.dir_at(metadata.find(ino)?)?)
}

/// Returns all entries of a directory.
pub fn list<'a>(dir: &Dir<'a, '_, Vec<u32>>) -> Result<Vec<DirEntry<'a>>, Error> {
    let mut entries = Vec::new();
    let end = dir.for_each(0, |entry| {
        entries.push(entry);
        ControlFlow::<()>::Continue(())
    })?;
    assert_eq!(end, ControlFlow::Continue(()));
    Ok(entries)
}
