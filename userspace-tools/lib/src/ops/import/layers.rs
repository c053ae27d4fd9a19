// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads the layers of a container image, and puts them over each other.
//!
//! Several layers are read at once. Each is decompressed in one thread, and its members are read in
//! another. A third one fetches the bytes of a layer of a registry.

use super::files::{Files, Layer};
use crate::error::{ContainerFault, Error, Result, TreeFault};
use crate::ingest::archive::{self, archive_error, Spool, Stream};
use crate::ingest::assembly::{self, Assembly};
use crate::ingest::compression::Garbage;
use crate::ingest::container::Witness;
use crate::ingest::tar::{Input, Member, MemberKind, Reader};
use crate::model::limits::READ_SIZE;
use crate::sys::parallel;
use crate::sys::pipe::{piped, PipeReader};
use crate::sys::progress::Progress;
use std::io::{self, Read};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The layers of an image.
pub(super) struct Layers<'a> {
    pub files: Files<'a>,
    /// The place for the contents of their files.
    pub spool: &'a Spool,
    pub progress: &'a Progress,
}

/// A layer that was put over those before it.
pub(super) struct Applied {
    /// Remarks on its archive.
    pub remarks: Vec<String>,
    /// True for the last one.
    pub is_last: bool,
}

/// The members of a layer.
struct Members {
    members: Vec<Member>,
    /// The memory of their metadata, in bytes.
    memory: u64,
    remarks: Vec<String>,
}

impl Layers<'_> {
    /// Reads all layers, and returns the tree. `applied` is called after each of them with the tree so far.
    pub fn read(
        &self,
        layers: &[Layer],
        jobs: usize,
        mut applied: impl FnMut(&Assembly, Applied) -> Result<()>,
    ) -> Result<Assembly> {
        let mut assembly = Assembly::new();
        // Of all layers that are read and not yet applied.
        let memory = AtomicU64::new(0);
        parallel::in_order(
            jobs,
            layers,
            |layer, check| self.members(layer, &memory, check),
            |layer, read| {
                self.apply(layer, read.members, &mut assembly)?;
                memory.fetch_sub(read.memory, Relaxed);
                let is_last = layers.last().is_some_and(|last| ptr::eq(last, layer));
                let remarks = read.remarks;
                applied(&assembly, Applied { remarks, is_last })
            },
        )?;
        Ok(assembly)
    }

    /// Reads the members of a layer. `check` fails if another layer has failed.
    fn members(
        &self,
        layer: &Layer,
        memory: &AtomicU64,
        check: &(dyn Fn() -> Result<()> + Sync),
    ) -> Result<Members> {
        let path = &self.files.path().join(&layer.file);
        let (stored, content) = (Witness::default(), Witness::default());
        let garbage = Garbage::default();
        let members = piped(
            |give| {
                self.files.with_layer(layer, &stored, check, |input| {
                    let stream = Stream::counting(input, garbage.clone(), path)?;
                    decompress(stream, path, |bytes| {
                        check()?;
                        give(bytes)
                    })
                })
            },
            |reader| {
                let contents = Contents(reader, garbage.clone());
                // Its digest says whether it is whole.
                let mut reader = Reader::of_any_end(content.watch(contents));
                let mut writer = self.spool.writer();
                let mut found = Members {
                    members: Vec::new(),
                    memory: 0,
                    remarks: Vec::new(),
                };
                while let Some(mut member) = archive::next(&mut reader, path, self.progress)? {
                    if let MemberKind::File(data) = &mut member.kind {
                        writer.take(&mut reader, data, path, self.progress)?;
                    }
                    let size = member.memory();
                    found.memory += size;
                    if memory.fetch_add(size, Relaxed) + size > assembly::METADATA_MAX {
                        return Err(archive_error(path, TreeFault::TooMuchMetadata));
                    }
                    found.members.push(member);
                }
                found.remarks = archive::finish(&mut reader, path, self.progress)?;
                Ok(found)
            },
        )?;
        let is_stored = layer.blob.is_none_or(|blob| stored.seen() == blob);
        if content.seen().0 != layer.content || !is_stored {
            let fault = ContainerFault::Damaged(layer.file.clone());
            return Err(archive_error(self.files.path(), fault));
        }
        Ok(members)
    }

    /// Puts a layer over those before it.
    fn apply(&self, layer: &Layer, members: Vec<Member>, assembly: &mut Assembly) -> Result<()> {
        let path = &self.files.path().join(&layer.file);
        // What a layer takes away is of the layers below, wherever it is said.
        for member in &members {
            whiteout(assembly, member)
                .map_err(|fault| archive::member_error(path, member.path.clone(), fault))?;
        }
        let stay = members.into_iter().filter(|member| {
            let (_, name) = parent_and_name(&member.path);
            match first_name(&member.path) {
                AUFS_LINKS => true,
                first => !first.starts_with(AUFS) && !name.starts_with(WHITEOUT),
            }
        });
        for member in stay {
            archive::insert(assembly, member, path)?;
        }
        assembly
            .remove(AUFS_LINKS)
            .map_err(|fault| archive_error(path, fault))
    }
}

/// Reads a stream to its end, piece by piece.
fn decompress(
    mut stream: Stream,
    path: &Path,
    mut give: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => give(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path, "read the archive")(error)),
        }
    }
}

/// The contents of a layer, decompressed by another thread.
struct Contents(PipeReader, Garbage);

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Contents {
    fn garbage(&self) -> u64 {
        self.1.bytes()
    }
}

/// The prefix of the names of whiteouts.
const WHITEOUT: &[u8] = b".wh.";

/// The prefix of names in the root that the AUFS driver of old Docker versions kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// The directory of it that has the first names of files, which members may be links to.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// Takes away what a member says: `.wh.NAME` the name, `.wh..wh..opq` all that is in the directory.
fn whiteout(assembly: &mut Assembly, member: &Member) -> Result<(), TreeFault> {
    let (parent, name) = parent_and_name(&member.path);
    let Some(name) = name.strip_prefix(WHITEOUT) else {
        return Ok(());
    };
    match name {
        b".wh..opq" => assembly.clear(parent),
        // AUFS's.
        name if name.starts_with(WHITEOUT) => Ok(()),
        b"" | b"." | b".." => Err(TreeFault::Whiteout),
        name => assembly.remove(&[parent, name].join(&b'/')),
    }
}

/// Splits a path into the parent and the name. A directory may have a slash behind it.
fn parent_and_name(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|&byte| byte != b'/');
    let path = &path[..end.map_or(0, |end| end + 1)];
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The name in the root that a path begins with.
fn first_name(path: &[u8]) -> &[u8] {
    let mut names = path.split(|&byte| byte == b'/');
    let name = names.find(|name| !name.is_empty() && *name != b".");
    name.unwrap_or_default()
}
