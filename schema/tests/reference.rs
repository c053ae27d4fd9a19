// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images of the reference implementation read as the trees that they were made of.

use puzzlefs_schema::{Inode, Kind, Locator, Metadata, Timestamp};
use puzzlefs_test_support::*;
use std::fmt::Write;

/// The bytes in a file of hexadecimal digits.
fn blob(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::bytes)
        .collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    Bytes::new(&bytes)
}

/// A line of each file below a directory.
fn tree(metadata: &Metadata<'_>, ino: u64, path: &str, out: &mut String) {
    let parts = dir_parts(metadata, ino).unwrap();
    let mut entries = list(&metadata.dir(&parts).unwrap()).unwrap();
    entries.sort_by_key(|entry| entry.name);
    for entry in entries {
        let path = format!("{path}/{}", entry.name.escape_ascii());
        let inode = metadata.inode_at(entry.at).unwrap();
        assert_eq!(inode.ino(), entry.ino);
        writeln!(out, "{path} {}", describe(&inode)).unwrap();
        if inode.kind() == Kind::Dir {
            tree(metadata, entry.ino, &path, out);
        }
    }
}

fn describe(inode: &Inode<'_>) -> String {
    assert_eq!(inode.mtime(), Ok(Timestamp::default()));
    assert_eq!(inode.nlink(), None);
    assert_eq!(inode.declared_size(), Ok(None));
    let mut line = format!(
        "{} {:o} {}:{}",
        inode.ino(),
        inode.permissions(),
        inode.uid(),
        inode.gid()
    );
    match inode.kind() {
        Kind::File => {
            let extents = inode.extents().unwrap();
            write!(line, " file {}", extents.index(&mut []).unwrap()).unwrap();
            for item in extents.iter_from(0, 0) {
                let (_, chunk) = item.unwrap();
                let blob = &chunk.blob.to_string()[..4];
                write!(line, " {blob}+{}:{}", chunk.blob_offset, chunk.len).unwrap();
                if chunk.compressed {
                    line.push('z');
                }
            }
        }
        Kind::Symlink => {
            let target = inode.symlink_target().unwrap();
            write!(line, " -> {}", target.escape_ascii()).unwrap();
        }
        kind => write!(line, " {kind:?}").unwrap(),
    }
    for xattr in inode.xattrs().unwrap() {
        let xattr = xattr.unwrap();
        write!(
            line,
            " {}={}",
            xattr.name.escape_ascii(),
            xattr.value.escape_ascii()
        )
        .unwrap();
    }
    line
}

fn image(text: &str) -> String {
    open(&blob(text), |metadata| {
        metadata.check().unwrap();
        assert_eq!(metadata.data_size(), Ok(0));
        let mut out = String::new();
        tree(&metadata, 1, "", &mut out);
        // Each chunk's blob has an fs-verity digest.
        for layer in 0..metadata.layers().unwrap() {
            for index in 0..metadata.layer_len(layer).unwrap() {
                let inode = metadata.inode_at(Locator { layer, index }).unwrap();
                if inode.kind() == Kind::File {
                    for item in inode.extents().unwrap().iter_from(0, 0) {
                        let blob = item.unwrap().1.blob;
                        assert!(metadata.verity(&blob).unwrap().is_some());
                    }
                }
            }
        }
        out
    })
}

#[test]
fn base() {
    assert_eq!(
        image(include_str!("reference/base.hex")),
        "\
/big 2 4755 0:0 file 348894 168a+0:81090 d7da+0:84747 2177+0:30797 fb52+0:79355 cde4+0:72905
/dir 3 755 1000:1001 Dir
/dir/empty 7 644 0:0 file 0
/dir/small 8 644 0:0 file 3 cde4+72905:3 user.x=yes
/dir/sub 9 755 0:0 Dir
/hard 2 4755 0:0 file 348894 168a+0:81090 d7da+0:84747 2177+0:30797 fb52+0:79355 cde4+0:72905
/link 5 777 0:0 -> dir/small
/null 6 644 0:0 Chr { major: 1, minor: 3 }
"
    );
}

#[test]
fn compressed() {
    assert_eq!(
        image(include_str!("reference/base-zstd.hex"))
            .lines()
            .next(),
        Some(
            "/big 2 4755 0:0 file 348894 cfd1+0:81090z 7f5a+0:84747z 6f3a+0:30797z \
             2194+0:79355z c8cc+0:72905z"
        )
    );
}

#[test]
fn delta() {
    // `hard` was removed. But the reference builder takes away an inode, not a name, and so it
    // cannot take away one of two links: see `Metadata::find`.
    assert_eq!(
        image(include_str!("reference/delta.hex")),
        "\
/aaa 10 644 0:0 file 2 f145+0:2
/big 2 4755 0:0 file 348894 f145+2:81090 d7da+0:84747 2177+0:30797 fb52+0:79355 846a+0:72905
/dir 3 755 1000:1001 Dir
/dir/empty 7 644 0:0 file 0
/dir/new 11 644 0:0 file 4 846a+72905:4
/dir/sub 9 755 0:0 Dir
/hard 2 4755 0:0 file 348894 f145+2:81090 d7da+0:84747 2177+0:30797 fb52+0:79355 846a+0:72905
/link 5 777 0:0 -> dir/small
/null 6 644 0:0 Chr { major: 1, minor: 3 }
"
    );
}
