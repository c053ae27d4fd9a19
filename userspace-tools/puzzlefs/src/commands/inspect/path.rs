// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs inspect IMAGE PATH`: one file of an image.

use super::InspectArgs;
use crate::format;
use crate::inode_report::{type_of, InodeReport};
use crate::output::{hex, hex_unless_text, JsonPath, Output};
use anyhow::bail;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::reader::ImageReader;
use puzzlefs_lib::tree::ImageTree;
use puzzlefs_lib::Digest;
use puzzlefs_schema::image::Versions;
use puzzlefs_schema::{Chunk, Inode, Kind};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

/// The object that `--json` prints. Fields are added, never renamed.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    path: JsonPath,
    #[serde(flatten)]
    inode: InodeReport,
    /// The layer that it is in, counted from the topmost.
    layer: u32,
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
struct ExtentReport {
    offset: u64,
    bytes: u64,
    blob: String,
    blob_offset: u64,
    compressed: bool,
}

/// Prints the properties of a file.
pub fn run(arguments: &InspectArgs, path: &OsStr) -> anyhow::Result<()> {
    let (store, root) = arguments.image.find_root()?;
    let tree = ImageTree::new(&store, &root)?;
    let path = path.as_bytes();
    let opened = tree.resolve(path, LastLink::Keep)?;
    let (Some(reader), Versions::V3(found)) = (tree.v3(), &opened) else {
        bail!("cannot inspect a file of an image of format 4: use 'puzzlefs ls --json'");
    };
    let inode = reader.checked(reader.metadata().inode_at(found.place()))?;
    let mut out = Output::new();
    if arguments.json.json {
        let inode_report = InodeReport::new(&tree, &opened)?;
        out.json(&report(reader, &inode, inode_report, path)?)?;
    } else {
        print(reader, &inode, path, &mut out)?;
    }
    Ok(out.flush()?)
}

/// Returns the extents of a regular file, and none for other types.
fn extents(reader: &ImageReader<'_>, inode: &Inode<'_>) -> anyhow::Result<Vec<(u64, Chunk)>> {
    if inode.kind() != Kind::File {
        return Ok(Vec::new());
    }
    let extents = reader.checked(inode.extents())?;
    let extents = extents.iter_from(0, 0).collect::<Result<_, _>>();
    Ok(reader.checked(extents)?)
}

fn report(
    reader: &ImageReader<'_>,
    inode: &Inode<'_>,
    inode_report: InodeReport,
    path: &[u8],
) -> anyhow::Result<Report> {
    let xattrs = reader.checked(inode.xattrs())?;
    let xattrs = xattrs.iter().map(|xattr| {
        xattr.map(|xattr| XattrReport {
            name: String::from_utf8_lossy(xattr.name).into_owned(),
            name_hex: hex_unless_text(xattr.name),
            value_hex: hex(xattr.value),
        })
    });
    let extents = extents(reader, inode)?.into_iter();
    let extents = extents.map(|(offset, chunk)| ExtentReport {
        offset,
        bytes: chunk.len,
        blob: Digest(*chunk.blob.as_bytes()).to_hex(),
        blob_offset: chunk.blob_offset,
        compressed: chunk.compressed,
    });
    Ok(Report {
        path: JsonPath::new(path),
        inode: inode_report,
        layer: inode.locator().layer,
        xattrs: reader.checked(xattrs.collect())?,
        extents: (inode.kind() == Kind::File).then(|| extents.collect()),
    })
}

fn print(
    reader: &ImageReader<'_>,
    inode: &Inode<'_>,
    path: &[u8],
    out: &mut Output,
) -> anyhow::Result<()> {
    let (letter, word) = type_of(inode.kind());
    let mtime = reader.checked(inode.mtime())?;
    writeln!(out, "path    {}", printable(path))?;
    writeln!(
        out,
        "inode   {} in layer {}, {word}",
        inode.ino(),
        inode.locator().layer
    )?;
    writeln!(
        out,
        "mode    {} {:04o}, owner {}, group {}",
        format::mode(letter, inode.permissions()),
        inode.permissions(),
        inode.uid(),
        inode.gid()
    )?;
    if let Some(nlink) = inode.nlink() {
        writeln!(out, "links   {nlink}")?;
    }
    let time = format::time(mtime.seconds);
    writeln!(out, "mtime   {time}.{:09} UTC", mtime.nanoseconds)?;
    match inode.kind() {
        Kind::Symlink => {
            let target = reader.checked(inode.symlink_target())?;
            writeln!(out, "target  {}", printable(target))?;
        }
        Kind::Chr { major, minor } | Kind::Blk { major, minor } => {
            writeln!(out, "device  {major}, {minor}")?;
        }
        _ => {}
    }
    for xattr in reader.checked(inode.xattrs())?.iter() {
        let xattr = reader.checked(xattr)?;
        let (name, value) = (printable(xattr.name), printable(xattr.value));
        writeln!(out, "xattr   {name}={value}")?;
    }
    if inode.kind() != Kind::File {
        return Ok(());
    }
    let extents = extents(reader, inode)?;
    let size = extents
        .last()
        .map_or(0, |(offset, chunk)| offset + chunk.len);
    let count = format::count(extents.len() as u64, "extent", "extents");
    writeln!(out, "size    {size} in {count}")?;
    for (offset, chunk) in extents {
        let blob = Digest(*chunk.blob.as_bytes());
        let compressed = if chunk.compressed { ", compressed" } else { "" };
        let (len, start) = (chunk.len, chunk.blob_offset);
        writeln!(
            out,
            "{offset:>12} {len:>10} at {start} of {blob}{compressed}"
        )?;
    }
    Ok(())
}
