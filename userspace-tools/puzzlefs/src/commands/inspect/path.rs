// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs inspect IMAGE PATH`: one file of an image.

use super::InspectArgs;
use crate::format;
use crate::inode_report::{type_of, InodeReport};
use crate::output::{hex, hex_unless_text, JsonPath, Output};
use puzzlefs_lib::chunk_map::{placed_extents, ChunkPlace, PlacedChunk, PlacedExtent};
use puzzlefs_lib::message::printable;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::tree::{ImageTree, TreeInode};
use puzzlefs_lib::Digest;
use puzzlefs_schema::image::Versions;
use puzzlefs_schema::{Chunk, Kind};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    path: JsonPath,
    #[serde(flatten)]
    inode: InodeReport,
    /// The layer that it is in, counted from the topmost, in format 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<u32>,
    xattrs: Vec<XattrReport>,
    /// For regular files.
    #[serde(skip_serializing_if = "Option::is_none")]
    extents: Option<Vec<ExtentReport>>,
}

#[derive(Serialize)]
struct XattrReport {
    name: String,
    /// The name's bytes, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    value_hex: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ExtentReport {
    Blob {
        offset: u64,
        bytes: u64,
        blob: String,
        blob_offset: u64,
        compressed: bool,
    },
    Chunk {
        offset: u64,
        bytes: u64,
        chunk: String,
        chunk_offset: u32,
        content_bytes: u32,
        stored_bytes: u32,
        /// `pack`, `loose` or `missing`.
        place: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        pack: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pack_offset: Option<u64>,
    },
    Hole {
        offset: u64,
        bytes: u64,
        hole: bool,
    },
}

/// Prints the properties of a file.
pub fn run(arguments: &InspectArgs, path: &OsStr) -> anyhow::Result<()> {
    let (store, root) = arguments.image.find_root()?;
    let tree = ImageTree::new(&store, &root)?;
    let path = path.as_bytes();
    let inode = tree.resolve(path, LastLink::Keep)?;
    let mut out = Output::new();
    if arguments.json.json {
        out.json(&report(&tree, &inode, path)?)?;
    } else {
        print(&tree, &inode, path, &mut out)?;
    }
    Ok(out.flush()?)
}

/// Returns the layer of an inode of format 3.
fn layer(inode: &TreeInode) -> Option<u32> {
    match inode {
        Versions::V3(inode) => Some(inode.place().layer),
        Versions::V4(_) => None,
    }
}

/// Returns the extents of a regular file of format 3, and none for others.
fn blob_extents(tree: &ImageTree<'_>, inode: &TreeInode) -> anyhow::Result<Vec<(u64, Chunk)>> {
    let (Some(reader), Versions::V3(inode)) = (tree.v3(), inode) else {
        return Ok(Vec::new());
    };
    let inode = reader.checked(reader.metadata().inode_at(inode.place()))?;
    if inode.kind() != Kind::File {
        return Ok(Vec::new());
    }
    let extents = reader.checked(inode.extents())?;
    let extents = extents.iter_from(0, 0).collect::<Result<_, _>>();
    Ok(reader.checked(extents)?)
}

fn report(tree: &ImageTree<'_>, inode: &TreeInode, path: &[u8]) -> anyhow::Result<Report> {
    let xattrs = tree
        .xattrs(inode)?
        .into_iter()
        .map(|(name, value)| XattrReport {
            name: String::from_utf8_lossy(&name).into_owned(),
            name_hex: hex_unless_text(&name),
            value_hex: hex(&value),
        });
    let blobs = blob_extents(tree, inode)?.into_iter();
    let blobs = blobs.map(|(offset, chunk)| ExtentReport::Blob {
        offset,
        bytes: chunk.len,
        blob: Digest(*chunk.blob.as_bytes()).to_hex(),
        blob_offset: chunk.blob_offset,
        compressed: chunk.compressed,
    });
    let chunks = placed_extents(tree, inode)?.into_iter().map(extent_report);
    Ok(Report {
        path: JsonPath::new(path),
        inode: InodeReport::new(tree, inode)?,
        layer: layer(inode),
        xattrs: xattrs.collect(),
        extents: (tree.stat(inode)?.kind == Kind::File).then(|| blobs.chain(chunks).collect()),
    })
}

fn extent_report(extent: PlacedExtent) -> ExtentReport {
    let PlacedExtent {
        offset,
        bytes,
        chunk,
    } = extent;
    let Some(chunk) = chunk else {
        return ExtentReport::Hole {
            offset,
            bytes,
            hole: true,
        };
    };
    let (place, pack) = match chunk.place {
        ChunkPlace::Pack { pack, offset } => ("pack", Some((pack, offset))),
        ChunkPlace::Loose => ("loose", None),
        ChunkPlace::Missing => ("missing", None),
    };
    ExtentReport::Chunk {
        offset,
        bytes,
        chunk: chunk.digest.to_hex(),
        chunk_offset: chunk.offset,
        content_bytes: chunk.content_bytes,
        stored_bytes: chunk.stored_bytes,
        place,
        pack: pack.map(|(pack, _)| pack.to_hex()),
        pack_offset: pack.map(|(_, offset)| offset),
    }
}

fn print(
    tree: &ImageTree<'_>,
    inode: &TreeInode,
    path: &[u8],
    out: &mut Output,
) -> anyhow::Result<()> {
    let stat = tree.stat(inode)?;
    let (letter, word) = type_of(stat.kind);
    writeln!(out, "path    {}", printable(path))?;
    match layer(inode) {
        Some(layer) => writeln!(out, "inode   {} in layer {layer}, {word}", tree.ino(inode))?,
        None => writeln!(out, "inode   {}, {word}", tree.ino(inode))?,
    }
    writeln!(
        out,
        "mode    {} {:04o}, owner {}, group {}",
        format::mode(letter, stat.permissions),
        stat.permissions,
        stat.uid,
        stat.gid
    )?;
    if let Some(nlink) = stat.links {
        writeln!(out, "links   {nlink}")?;
    }
    let time = format::time(stat.mtime.seconds);
    writeln!(out, "mtime   {time}.{:09} UTC", stat.mtime.nanoseconds)?;
    match stat.kind {
        Kind::Symlink => {
            writeln!(out, "target  {}", printable(tree.symlink_target(inode)?))?;
        }
        Kind::Chr { major, minor } | Kind::Blk { major, minor } => {
            writeln!(out, "device  {major}, {minor}")?;
        }
        _ => {}
    }
    for (name, value) in tree.xattrs(inode)? {
        writeln!(out, "xattr   {}={}", printable(&name), printable(&value))?;
    }
    if stat.kind != Kind::File {
        return Ok(());
    }
    let (blobs, chunks) = (blob_extents(tree, inode)?, placed_extents(tree, inode)?);
    let count = (blobs.len() + chunks.len()) as u64;
    let count = format::count(count, "extent", "extents");
    writeln!(out, "size    {} in {count}", stat.size)?;
    for (offset, chunk) in blobs {
        let blob = Digest(*chunk.blob.as_bytes());
        let compressed = if chunk.compressed { ", compressed" } else { "" };
        let (len, start) = (chunk.len, chunk.blob_offset);
        writeln!(
            out,
            "{offset:>12} {len:>10} at {start} of {blob}{compressed}"
        )?;
    }
    for extent in chunks {
        print_placed(&extent, out)?;
    }
    Ok(())
}

fn print_placed(extent: &PlacedExtent, out: &mut Output) -> io::Result<()> {
    write!(out, "{:>12} {:>10} ", extent.offset, extent.bytes)?;
    let Some(chunk) = &extent.chunk else {
        return writeln!(out, "hole");
    };
    let PlacedChunk { offset, digest, .. } = chunk;
    write!(out, "at {offset} of chunk {digest}")?;
    if chunk.stored_bytes < chunk.content_bytes {
        write!(out, ", compressed")?;
    }
    match chunk.place {
        ChunkPlace::Pack { pack, offset } => writeln!(out, ", at {offset} of pack {pack}"),
        ChunkPlace::Loose => writeln!(out, ", loose"),
        ChunkPlace::Missing => writeln!(out, ", missing"),
    }
}
