// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs verify` finds every fault.

use crate::common::*;
use puzzlefs_lib::oci::{self, Descriptor};
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::reader::{Blobs, ImageReader};
use puzzlefs_lib::verify::verify_image;
use puzzlefs_lib::{verity, Digest, Image, Progress, Selector, Store};
use puzzlefs_test_support::{self as model, dir, image, inode, Chunk, Inode, Mode};
use rustix::fs::{FileType, CWD};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// What `verify --json` finds: all of it, and the faults, which decide the exit status.
fn verify(what: &str) -> (Value, Vec<String>) {
    let output = run(&["verify", "--quiet", "--json", what]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let faults = report["faults"].as_array().unwrap().iter();
    let faults: Vec<_> = faults
        .map(|f| f["fault"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(!faults.is_empty())));
    (report, faults)
}

fn store_of_two(scratch: &Path) -> PathBuf {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    build_twins(&["--format=3"], &["-z"], &tree, &store);
    store
}

#[test]
fn a_sound_store_has_no_faults() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store_of_two(scratch.path());
    let path = store.to_str().unwrap();
    let (report, faults) = verify(path);
    assert_eq!(faults, [""; 0]);
    let blobs = fs::read_dir(store.join("blobs/sha256")).unwrap();
    let sizes: Vec<_> = blobs
        .map(|blob| blob.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(report["blobs"], sizes.len());
    assert_eq!(report["bytes"], sizes.iter().sum::<u64>());
    assert_eq!(report["images"], 2);
    for tag in ["raw", "zstd"] {
        let (report, faults) = verify(&reference(&store, tag));
        assert_eq!(faults, [""; 0]);
        assert_eq!(report["images"], 1);
        let (_, image) = open_v3(&store, tag);
        assert_eq!(report["blobs"], image.manifest.layers.len() + 2);
    }
    let said = says(&["verify", path]);
    assert!(said.contains(" 2 images, "), "{said}");
    assert_eq!(says(&["verify", "-q", path]), "");
}

#[test]
fn every_damaged_blob_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store_of_two(scratch.path());
    let blobs = |tag: &str| -> Vec<PathBuf> {
        let (store, image) = open_v3(&store, tag);
        let digests = image
            .data_blobs()
            .map(|blob| Digest::from_oci(&blob.digest).unwrap());
        digests.map(|digest| store.blob_path(&digest)).collect()
    };
    let raw = blobs("raw");
    let compressed: Vec<_> = blobs("zstd")
        .into_iter()
        .filter(|blob| !raw.contains(blob))
        .collect();
    let change = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    change(&raw[0], &|bytes| bytes[100] ^= 1);
    change(&raw[1], &|bytes| bytes.truncate(10));
    // So large that to read it would take an hour.
    let large = fs::File::options().write(true).open(&raw[3]).unwrap();
    large.set_len(4 << 40).unwrap();
    fs::remove_file(&raw[2]).unwrap();
    let packed = compressed.iter().find(|blob| {
        fs::read(blob)
            .unwrap()
            .ends_with(&0x8f92_eab1u32.to_le_bytes())
    });
    let packed = packed.unwrap();
    change(packed, &|bytes| *bytes.last_mut().unwrap() ^= 1);
    fs::write(store.join("blobs/sha256/notes"), "x").unwrap();
    // Nobody needs it, and still it is not what it is called.
    let stray = store
        .join("blobs/sha256")
        .join(Digest::of(b"stray").to_hex());
    fs::write(&stray, "other").unwrap();

    let (_, faults) = verify(store.to_str().unwrap());
    let told = |path: &Path, what: &str| {
        let path = path.display().to_string();
        let found = faults
            .iter()
            .any(|fault| fault.contains(&path) && fault.contains(what));
        assert!(found, "{path}: {what}: {faults:#?}");
    };
    told(&raw[0], "the blob is damaged: its contents have sha256");
    told(&raw[0], "its fs-verity digest is");
    told(&raw[1], "the blob is damaged: it has 10 bytes instead of");
    told(&raw[2], "the blob is missing");
    told(&raw[3], "the blob is damaged: it has 4398046511104 bytes");
    told(packed, "cannot be decompressed");
    told(&store.join("blobs/sha256/notes"), "not a blob's name");
    told(&stray, "the blob is damaged: its contents have sha256");
    // An image of other blobs is not concerned.
    let (_, image) = verify(&reference(&store, "zstd"));
    assert!(image
        .iter()
        .all(|fault| !fault.contains(stray.to_str().unwrap())));
    assert!(image
        .iter()
        .any(|fault| fault.contains("cannot be decompressed")));
}

/// A file of one extent.
fn file_of(ino: u64, blob: Digest, offset: u64, len: u64) -> Inode {
    let chunk = Chunk {
        digest: blob.0.to_vec(),
        offset,
        compressed: false,
        len,
    };
    inode(ino, Mode::File(vec![chunk]))
}

/// An image with a fault in nearly every inode.
fn faulty(blob: Digest, unlisted: Digest) -> model::Image {
    let entries = [
        ("beyond", 2),
        ("dangling", 100),
        ("link", 3),
        ("..", 4),
        ("order", 5),
        ("time", 6),
        ("unlisted", 7),
        ("unlisted", 7),
    ];
    let root = Inode {
        nlink: 9,
        ..dir(1, &entries)
    };
    let time = Inode {
        nlink: 1,
        mtime: (0, 2_000_000_000),
        ..inode(6, Mode::Fifo)
    };
    model::Image {
        layers: vec![vec![
            root,
            file_of(2, blob, 90, 20),
            inode(3, Mode::Lnk),
            inode(4, Mode::Fifo),
            inode(2, Mode::Sock),
            time,
            file_of(7, unlisted, 0, 1),
            inode(8, Mode::Unknown),
        ]],
        verity: vec![(blob.0.to_vec(), vec![7; 32])],
        ..model::Image::default()
    }
}

#[test]
fn every_fault_of_the_structure_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    build(&tree, &store, "sound", 1);
    let blob = put_blob(&store, &noise(100, 1));
    let unlisted = put_blob(&store, b"u");
    put_image(&store, "bad", &[blob], &faulty(blob, unlisted));
    let mut missing = Descriptor::new("application/x-unheard-of", blob, 100);
    put_in_index(&store, missing.clone().annotated(oci::REF_NAME, "odd"));
    missing.digest = "md5:0".to_owned();
    put_in_index(&store, missing);

    let (report, faults) = verify(store.to_str().unwrap());
    let right = verity::digest(&noise(100, 1));
    for wanted in [
        "inode 2: an extent ends at 110 of blob",
        "entry 'dangling' is for inode 100, which no layer has",
        "inode 3: the symbolic link's target is malformed",
        "inode 1: a name in the directory is malformed",
        "inode 2: stands after an inode of no smaller number",
        "inode 6: the nanoseconds",
        "the manifest does not list it",
        "the metadata has no fs-verity digest for it",
        "inode 8: it is of no known type",
        &format!("its fs-verity digest is {right}, and not 07070707"),
        "its type, 'application/x-unheard-of', is not known here",
        "'md5:0' is not a sha256 digest",
    ] {
        let found = faults.iter().any(|fault| fault.contains(wanted));
        assert!(found, "{wanted}: {faults:#?}");
    }
    assert_eq!(report["images"], 2);
    assert_eq!(verify(&reference(&store, "sound")).1, [""; 0]);
}

#[test]
fn a_tree_that_is_none_is_told() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    build(&tree, &store, "sound", 1);
    // A directory in itself, and one whose count of links is wrong.
    let round = image(vec![dir(1, &[("down", 2)]), dir(2, &[("down", 1)])]);
    put_image(&store, "round", &[], &round);
    let links = image(vec![
        Inode {
            nlink: 3,
            ..dir(1, &[("file", 2)])
        },
        Inode {
            nlink: 1,
            ..inode(2, Mode::File(vec![]))
        },
    ]);
    put_image(&store, "links", &[], &links);
    let (_, faults) = verify(&reference(&store, "round"));
    assert!(
        faults[0].contains("directory 1 is in two places"),
        "{faults:?}"
    );
    let (_, faults) = verify(&reference(&store, "links"));
    assert_eq!(
        faults,
        ["inode 1: it says that it has 3 links, and has 2 (/)"]
    );
    // What goes through the tree ends too.
    let said = fails(&["ls", "-R", &reference(&store, "round")]);
    assert!(said.contains("directory 1 is in two places"), "{said}");
}

/// Reads all of an image, and finds each of its names a second time, by its path. Returns whether the
/// two agree.
fn look_at_all(store: &Store, image: &Image) -> puzzlefs_lib::Result<bool> {
    let reader = ImageReader::new(store, image)?;
    let metadata = reader.metadata();
    let mut blobs = Blobs::default();
    let root = reader.checked(metadata.find(1))?;
    let mut names = Vec::new();
    let visited = reader.visit(root, |path, entry| {
        names.push((path.to_vec(), entry.ino, entry.file_type));
        Ok(())
    });
    let mut agree = true;
    for (path, ino, file_type) in names {
        let at = reader.resolve(&path, LastLink::Keep)?;
        let inode = reader.checked(metadata.inode_at(at))?;
        agree &= inode.ino() == ino;
        if file_type == puzzlefs_schema::FileType::File {
            let mut size = 0;
            reader.read_file(at, &mut blobs, |piece| {
                size += piece.len() as u64;
                Ok(())
            })?;
            let declared = reader.checked(inode.declared_size())?;
            agree &= declared.unwrap_or(size) == size;
        }
    }
    visited.map(|()| agree)
}

/// Whatever the bytes are, they are looked at to the end, and nothing panics or takes forever.
#[test]
fn any_metadata_is_looked_at() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, path) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir_all(tree.join("directory/below")).unwrap();
    fs::write(tree.join("directory/file"), noise(200_000, 1)).unwrap();
    fs::write(tree.join("directory/below/small"), "small").unwrap();
    std::os::unix::fs::symlink("directory", tree.join("link")).unwrap();
    build_v3(&tree, &path, "good", 1);
    let (store, image) = open_v3(&path, "good");
    let good = fs::read(store.blob_path(&image.rootfs)).unwrap();
    let blobs: Vec<_> = image
        .data_blobs()
        .map(|blob| Digest::from_oci(&blob.digest).unwrap())
        .collect();
    let empty = fs::read(path.join("index.json")).unwrap();
    let mut sound = 0;
    for seed in 1..600u64 {
        let mut bad = good.clone();
        let random = noise(64, seed);
        for change in random.chunks_exact(8).take(1 + seed as usize % 8) {
            let at = u32::from_le_bytes(change[..4].try_into().unwrap()) as usize % bad.len();
            bad[at] = if change[4] < 100 {
                change[5]
            } else {
                bad[at] ^ (1 << (change[5] % 8))
            };
        }
        fs::write(path.join("index.json"), &empty).unwrap();
        put_metadata(&path, "bad", &blobs, &bad);
        let selector = Selector::Tag("bad".to_owned());
        let verified = verify_image(&store, &selector, 1, &Progress::default()).unwrap();
        let is_sound = verified.faults.is_empty();
        sound += usize::from(is_sound);
        let image = store.image(&selector).unwrap();
        let looked_at = look_at_all(&store, &image);
        // Where the verifier finds nothing, nothing is in a reader's way.
        let agree = matches!(looked_at, Ok(true));
        assert!(agree || !is_sound, "{seed}: {looked_at:?}");
    }
    // Owners and times may be anything; most else is a fault.
    assert!(sound < 300, "{sound}");
}

/// What the files of the store's own directory say, which no digest covers.
#[test]
fn the_stores_own_files_are_looked_at() {
    let scratch = tempfile::tempdir().unwrap();
    let store = store_of_two(scratch.path());
    let (index, layout) = (store.join("index.json"), store.join("oci-layout"));
    let sound = [&index, &layout].map(|path| fs::read_to_string(path).unwrap());
    let told = |wanted: &str| {
        let (report, faults) = verify(store.to_str().unwrap());
        assert!(
            faults.iter().any(|fault| fault.contains(wanted)),
            "{wanted}: {faults:?}"
        );
        // Whatever they say, the blobs are read.
        assert!(report["blobs"].as_u64() > Some(5), "{report}");
        fs::write(&index, &sound[0]).unwrap();
        fs::write(&layout, &sound[1]).unwrap();
        assert_eq!(verify(store.to_str().unwrap()).1, [""; 0]);
    };
    let change = |from: &str, to: &str| {
        assert!(sound[0].contains(from));
        fs::write(&index, sound[0].replacen(from, to, 1)).unwrap();
    };
    fs::remove_file(&index).unwrap();
    told("index.json: missing: nothing says which images there are");
    fs::write(&index, "{").unwrap();
    told("index.json: not an OCI image index: ");
    fs::remove_file(&index).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(CWD, &index, FileType::Fifo, mode, 0).unwrap();
    let output = run(&["list", store.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let (_, faults) = verify(store.to_str().unwrap());
    assert!(faults[0].ends_with("index.json: not a regular file"));
    fs::remove_file(&index).unwrap();
    // Of two descriptors of one manifest, the second is followed, too.
    fs::write(&index, &sound[0]).unwrap();
    says(&["tag", &reference(&store, "raw"), "twin"]);
    let twins = fs::read_to_string(&index).unwrap();
    let at = twins.rfind("\"size\":").unwrap() + 7;
    fs::write(&index, [&twins[..at], "1", &twins[at..]].concat()).unwrap();
    told("the blob is damaged: it has ");
    change("\"schemaVersion\":2", "\"schemaVersion\":1");
    told("index.json: version 1 of an index is not known");
    change(oci::INDEX, "application/json");
    told("index.json: its type is 'application/json', not one of an index");
    change("\"raw\"", "\"zstd\"");
    told("index.json: several images are tagged 'zstd'; the last one counts");
    for (text, wanted) in [
        ("", "oci-layout: not the version of an OCI image layout: "),
        (
            "{\"imageLayoutVersion\":\"2.0.0\"}",
            "oci-layout: version '2.0.0' instead of 1.0.0",
        ),
    ] {
        fs::write(&layout, text).unwrap();
        told(wanted);
    }
}
