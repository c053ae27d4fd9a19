// SPDX-License-Identifier: MIT OR Apache-2.0

//! A compressed blob: the frames of its seek table, decompressed for a file.

use puzzlefs_lib::builder::{build, BuildOptions, Format};
use puzzlefs_lib::reader::{Blobs, ImageReader};
use puzzlefs_lib::seekable::Compression;
use puzzlefs_lib::{Progress, Selector, Store};
use puzzlefs_schema::Locator;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The size of the file.
const SIZE: usize = 40_000;

/// An image of one file, whose one blob is replaced again and again.
struct Fixture {
    store: Store,
    blob: PathBuf,
    file: Locator,
    _scratch: tempfile::TempDir,
}

static FIXTURE: OnceLock<Fixture> = OnceLock::new();

fn fixture() -> Fixture {
    let scratch = crate::scratch();
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).expect("a directory is made");
    let text: Vec<u8> = (0..SIZE).map(|at| (at / 64) as u8).collect();
    std::fs::write(tree.join("file"), text).expect("a file is written");
    let store = Store::create(&scratch.path().join("store")).expect("a store is made");
    let mut options = BuildOptions::new("fuzz");
    options.format = Format::V3;
    options.compression = Some(Compression {
        frame_size: 8192,
        ..Compression::default()
    });
    build(&tree, &store, &options, &Progress::default()).expect("the image is built");
    let image = store.image(&Selector::Tag("fuzz".to_owned()));
    let image = image.expect("the image is there");
    let reader = ImageReader::new(&store, &image).expect("its metadata is right");
    let root = reader.metadata().find(puzzlefs_schema::ROOT_INO);
    let entry = reader.lookup(root.expect("it has a root"), b"file");
    let file = entry.expect("the root can be read").expect("a file").at;
    let inode = reader.metadata().inode_at(file).expect("an inode");
    let chunk = inode.extents().expect("extents").get(0).expect("a chunk");
    assert!(chunk.compressed);
    let blob = store.blob_path(&puzzlefs_lib::Digest(*chunk.blob.as_bytes()));
    Fixture {
        store,
        blob,
        file,
        _scratch: scratch,
    }
}

/// Reads the file, `data` being its blob.
pub fn run(data: &[u8]) {
    let fixture = FIXTURE.get_or_init(fixture);
    std::fs::write(&fixture.blob, data).expect("the blob is replaced");
    let (read, result) = read(fixture);
    assert!(read <= SIZE && (result.is_err() || read == SIZE));
}

/// Reads the file, and says how much of it there was.
fn read(fixture: &Fixture) -> (usize, puzzlefs_lib::Result<()>) {
    let Fixture { store, file, .. } = fixture;
    let image = store.image(&Selector::Tag("fuzz".to_owned()));
    let reader = ImageReader::new(store, &image.expect("the image is there"));
    let reader = reader.expect("its metadata is right");
    let mut read = 0;
    let result = reader.read_file(*file, &mut Blobs::default(), |piece| {
        assert!(!piece.is_empty());
        read += piece.len();
        Ok(())
    });
    (read, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_blob_is_read_whole() {
        let (read, result) = read(&fixture());
        result.unwrap();
        assert_eq!(read, SIZE);
    }
}
