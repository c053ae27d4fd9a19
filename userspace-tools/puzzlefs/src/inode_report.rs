// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports of inodes, which `ls` and `inspect` share.

use crate::output::hex_unless_text;
use puzzlefs_lib::tree::{ImageTree, TreeInode};
use puzzlefs_schema::image::Stat;
use puzzlefs_schema::Kind;
use serde::Serialize;

/// An inode, as `--json` prints it. Fields are added, never renamed.
#[derive(Serialize)]
pub struct InodeReport {
    ino: u64,
    #[serde(rename = "type")]
    file_type: &'static str,
    /// The permissions, in octal.
    mode: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    nlink: Option<u32>,
    /// For regular files.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mtime_seconds: i64,
    mtime_nanoseconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    /// For symbolic links.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The target's bytes, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
}

impl InodeReport {
    /// Reads the properties of an inode.
    pub fn new(tree: &ImageTree<'_>, inode: &TreeInode) -> anyhow::Result<Self> {
        let stat = tree.stat(inode)?;
        let target = match stat.kind {
            Kind::Symlink => Some(tree.symlink_target(inode)?),
            _ => None,
        };
        Ok(InodeReport {
            ino: tree.ino(inode),
            file_type: type_of(stat.kind).1,
            mode: format!("{:04o}", stat.permissions),
            uid: stat.uid,
            gid: stat.gid,
            nlink: stat.links,
            size: size(&stat),
            mtime_seconds: stat.mtime.seconds,
            mtime_nanoseconds: stat.mtime.nanoseconds,
            device: device(stat.kind),
            target: target.map(|target| String::from_utf8_lossy(target).into_owned()),
            target_hex: target.and_then(hex_unless_text),
        })
    }
}

/// Returns the letter and the word for a type of file.
pub fn type_of(kind: Kind) -> (char, &'static str) {
    match kind {
        Kind::File => ('-', "file"),
        Kind::Dir => ('d', "directory"),
        Kind::Symlink => ('l', "symlink"),
        Kind::Chr { .. } => ('c', "character device"),
        Kind::Blk { .. } => ('b', "block device"),
        Kind::Fifo => ('p', "fifo"),
        Kind::Sock => ('s', "socket"),
        Kind::Whiteout => ('?', "whiteout"),
        Kind::Unknown => ('?', "unknown"),
    }
}

/// Returns a device's major and minor number.
pub fn device(kind: Kind) -> Option<(u32, u32)> {
    match kind {
        Kind::Chr { major, minor } | Kind::Blk { major, minor } => Some((major, minor)),
        _ => None,
    }
}

/// Returns the size of a regular file.
pub fn size(stat: &Stat) -> Option<u64> {
    (stat.kind == Kind::File).then_some(stat.size)
}
