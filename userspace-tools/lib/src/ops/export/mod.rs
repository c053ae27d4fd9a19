// SPDX-License-Identifier: MIT OR Apache-2.0

//! From an image to a tar stream, and to an ordinary OCI image.
//!
//! The stream is in PAX format and depends on nothing but the image: members are in the order of a
//! walk by byte order of the names, and neither this machine nor this user shows in them.

mod layout;
mod pax;

pub use layout::{export_layout, Compressor, LayerCompression, LayoutOptions, LayoutSummary};

use crate::error::{CommandError, Error, Result};
use crate::image::file_data::FileData;
use crate::image::image_tree::{ImageTree, TreeInode};
use crate::model::acl;
use crate::model::path_walk::LastLink;
use crate::store::oci_layout::{AnyRoot, Store};
use crate::sys::progress::Progress;
use pax::Records;
use puzzlefs_schema::image::Stat;
use puzzlefs_schema::Kind;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// The size of a block of an archive.
const BLOCK: usize = 512;
/// The largest numbers that the fields of a header have room for.
const ID_MAX: u32 = 0o7_777_777;
const SIZE_MAX: u64 = 0o77_777_777_777;
/// The number of sockets whose paths are kept.
const SHOWN: usize = 10;

/// The result of an export.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// The number of members, without the root directory.
    pub entries: u64,
    /// The bytes of regular files, each inode once.
    pub bytes: u64,
    /// The number of sockets, which an archive cannot hold.
    pub sockets: u64,
    /// The paths of the first of them.
    pub first_sockets: Vec<PathBuf>,
}

/// Writes an image, or the part of it at `path`, as a tar archive.
///
/// Members of a part have their paths from there. If `path` does not name a directory, the archive has
/// one member.
///
/// # Errors
///
/// If the image cannot be read or the output cannot be written. The archive then has no end.
pub fn export_tar(
    store: &Store,
    image: &AnyRoot,
    path: Option<&[u8]>,
    output: &mut dyn Write,
    progress: &Progress,
) -> Result<Exported> {
    let image = ImageTree::new(store, image)?;
    let path = path.unwrap_or_default();
    let from = image.resolve(path, LastLink::Keep)?;
    let mut archive = Archive::new(&image, output, progress);
    if image.stat(&from)?.kind == Kind::Dir {
        archive.tree(&from)?;
    } else {
        let mut names = path.split(|&byte| byte == b'/').rev();
        let name = names.find(|name| !name.is_empty()).unwrap_or(path);
        archive.entry(name, &from)?;
    }
    archive.finish()
}

/// An archive in the making.
struct Archive<'a> {
    image: &'a ImageTree<'a>,
    output: &'a mut dyn Write,
    progress: &'a Progress,
    data: FileData,
    /// The first path of each inode with several names.
    links: HashMap<u64, Vec<u8>>,
    exported: Exported,
    /// The archive is a layer of a container image.
    is_layer: bool,
}

impl<'a> Archive<'a> {
    fn new(image: &'a ImageTree<'a>, output: &'a mut dyn Write, progress: &'a Progress) -> Self {
        Archive {
            image,
            output,
            progress,
            data: FileData::checked(),
            links: HashMap::new(),
            exported: Exported::default(),
            is_layer: false,
        }
    }

    /// Writes a directory, with everything beneath it.
    fn tree(&mut self, from: &TreeInode) -> Result<()> {
        let image = self.image;
        let root = image.stat(from)?;
        self.member(b"./", EntryType::Directory, None, (from, &root))?;
        image.visit(from, |path, entry| {
            self.entry(path, &image.open(&entry.link)?)
        })
    }

    /// Writes a name of an inode.
    fn entry(&mut self, path: &[u8], inode: &TreeInode) -> Result<()> {
        self.progress.check()?;
        self.progress.found_entry();
        let stat = self.image.stat(inode)?;
        let source = (inode, &stat);
        if self.is_layer {
            refuse_whiteout(path)?;
        }
        if stat.kind == Kind::Sock {
            self.exported.sockets += 1;
            if self.exported.first_sockets.len() < SHOWN {
                let path = PathBuf::from(OsStr::from_bytes(path));
                self.exported.first_sockets.push(path);
            }
            return Ok(());
        }
        self.exported.entries += 1;
        if stat.kind == Kind::Dir {
            let path = [path, b"/"].concat();
            return self.member(&path, EntryType::Directory, None, source);
        }
        let ino = self.image.ino(inode);
        if stat.links != Some(1) {
            if let Some(first) = self.links.get(&ino) {
                let first = first.clone();
                return self.member(path, EntryType::Link, Some(&first), source);
            }
            self.links.insert(ino, path.to_vec());
        }
        match stat.kind {
            Kind::File => {
                self.member(path, EntryType::Regular, None, source)?;
                self.contents(source)
            }
            Kind::Symlink => {
                let target = self.image.symlink_target(inode)?;
                self.member(path, EntryType::Symlink, Some(target), source)
            }
            Kind::Fifo => self.member(path, EntryType::Fifo, None, source),
            Kind::Chr { .. } => self.member(path, EntryType::Char, None, source),
            Kind::Blk { .. } => self.member(path, EntryType::Block, None, source),
            Kind::Dir | Kind::Sock | Kind::Whiteout | Kind::Unknown => {
                let path = PathBuf::from(OsStr::from_bytes(path));
                Err(CommandError::UnknownFileType { path }.into())
            }
        }
    }

    /// Writes the header of a member.
    fn member(
        &mut self,
        path: &[u8],
        kind: EntryType,
        link: Option<&[u8]>,
        (inode, stat): (&TreeInode, &Stat),
    ) -> Result<()> {
        let mut records = Records::default();
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stat.permissions.into());
        let fields = header.as_old_mut();
        records.text(b"path", path, &mut fields.name);
        if let Some(link) = link {
            records.text(b"linkpath", link, &mut fields.linkname);
        }
        let size = match kind {
            EntryType::Regular => stat.size,
            _ => 0,
        };
        header.set_size(records.number(b"size", size, SIZE_MAX));
        let id = |records: &mut Records, key: &'static [u8], id: u32| {
            records.number(key, id.into(), ID_MAX.into())
        };
        header.set_uid(id(&mut records, b"uid", stat.uid));
        header.set_gid(id(&mut records, b"gid", stat.gid));
        header.set_mtime(records.time(stat.mtime.seconds, stat.mtime.nanoseconds));
        if let Kind::Chr { major, minor } | Kind::Blk { major, minor } = stat.kind {
            // A device number of Linux has 12 and 20 bits, and each field has 21.
            let set = header.set_device_major(major);
            set.and_then(|()| header.set_device_minor(minor))
                .map_err(Error::io(Path::new(OsStr::from_bytes(path)), "export"))?;
        }
        // The name before has the attributes of a further name.
        if kind != EntryType::Link {
            self.xattrs(&mut records, inode)?;
        }
        if let Some(bytes) = records.into_bytes() {
            let mut extension = Header::new_ustar();
            extension.set_entry_type(EntryType::XHeader);
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(bytes.len() as u64);
            pax::copy(b"PaxHeader", &mut extension.as_old_mut().name);
            extension.set_cksum();
            self.write(extension.as_bytes())?;
            self.write(&bytes)?;
            self.pad(bytes.len() as u64)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn xattrs(&self, records: &mut Records, inode: &TreeInode) -> Result<()> {
        for (name, value) in self.image.xattrs(inode)? {
            // tar(1) reads a list from the text, container tools from the attribute.
            let key: Option<&[u8]> = match &*name {
                acl::ACCESS => Some(b"SCHILY.acl.access"),
                acl::DEFAULT => Some(b"SCHILY.acl.default"),
                _ => None,
            };
            if let Some((key, text)) = key.zip(acl::to_text(&value)) {
                records.add(key, text.as_bytes());
            }
            records.add(&[b"SCHILY.xattr.", &*name].concat(), &value);
        }
        Ok(())
    }

    /// Writes the contents of a regular file.
    fn contents(&mut self, (inode, stat): (&TreeInode, &Stat)) -> Result<()> {
        let size = stat.size;
        let Archive {
            image,
            output,
            progress,
            data,
            ..
        } = self;
        let mut written = 0;
        image.read_file(inode, data, |bytes| {
            progress.check()?;
            output.write_all(bytes).map_err(output_error)?;
            written += bytes.len() as u64;
            Ok(())
        })?;
        if written != size {
            let ino = image.ino(inode);
            let what = format!("inode {ino}: it has {written} bytes instead of {size}");
            return Err(image.malformed_by(what));
        }
        self.exported.bytes += size;
        self.pad(size)
    }

    /// Writes zeros up to the end of a block.
    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = (size % BLOCK as u64) as usize;
        if rest == 0 {
            return Ok(());
        }
        self.write(&[0; BLOCK][rest..])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.write_all(bytes).map_err(output_error)
    }

    /// Writes the end of the archive.
    fn finish(mut self) -> Result<Exported> {
        self.write(&[0; 2 * BLOCK])?;
        self.output.flush().map_err(output_error)?;
        Ok(self.exported)
    }
}

fn output_error(error: std::io::Error) -> Error {
    Error::io("the archive", "write")(error)
}

/// Fails if container tools would take a name in a layer for a whiteout.
fn refuse_whiteout(path: &[u8]) -> Result<()> {
    let name = path.rsplit(|&byte| byte == b'/').next();
    if name.is_some_and(|name| name.starts_with(b".wh.")) {
        let path = PathBuf::from(OsStr::from_bytes(path));
        return Err(CommandError::WhiteoutName { path }.into());
    }
    Ok(())
}
