// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads images of format 3 with the parser of the kernel module, `puzzlefs-schema`.

use crate::error::{Damage, Error, ImageError, Result};
use crate::image::seekable::Decoder;
use crate::model::digest::Digest;
use crate::model::extent::Extent;
use crate::model::limits::READ_SIZE;
use crate::store::oci_layout::{ImageRoot, Store};
use crate::sys::verity;
use puzzlefs_schema::{DirEntry, FileType, Framing, Inode, Locator, Metadata, Order, Part};
use std::collections::hash_map::{Entry, HashMap};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// The largest metadata blob read, in bytes.
const METADATA_MAX: u64 = 16 << 30;
/// The largest number of blobs that are kept open.
const OPEN_MAX: usize = 64;

/// The metadata of an image, in memory and checked against its digest.
pub struct ImageReader<'s> {
    store: &'s Store,
    path: PathBuf,
    words: Vec<capnp::Word>,
    framing: Framing,
}

/// The parts that the layers have of a directory, prepared to be merged by [`Metadata::dir`].
pub type Parts = Vec<Part<Vec<u32>>>;

/// The numbers of the parts of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of layers.
    pub layers: u64,
    /// The number of inodes of all layers.
    pub inodes: u64,
    /// The number of directory entries of all layers.
    pub entries: u64,
    /// The number of regular files.
    pub files: u64,
    /// The number of directories.
    pub directories: u64,
    /// The number of symbolic links.
    pub symlinks: u64,
    /// The number of devices, named pipes and sockets.
    pub special: u64,
    /// The size of the regular files in bytes.
    pub bytes: u64,
    /// The number of extents of the regular files.
    pub chunks: u64,
}

impl<'s> ImageReader<'s> {
    /// Reads the metadata of an image of a store.
    pub fn new(store: &'s Store, image: &ImageRoot) -> Result<Self> {
        Self::of_rootfs(store, &image.rootfs, image.rootfs_size)
    }

    /// Reads a metadata blob of a size.
    pub(crate) fn of_rootfs(store: &'s Store, rootfs: &Digest, rootfs_size: u64) -> Result<Self> {
        let path = store.blob_path(rootfs);
        let mut file = store.open_blob(rootfs)?;
        let metadata = file.metadata().map_err(Error::io(&path, "examine"))?;
        let size = metadata.len();
        if size != rootfs_size || size > METADATA_MAX || size % 8 != 0 {
            let (found, wanted) = (size, rootfs_size);
            return Err(store.damaged(rootfs, Damage::Size { found, wanted }));
        }
        let mut words = capnp::Word::allocate_zeroed_vec(size as usize / 8);
        let bytes = capnp::Word::words_to_bytes_mut(&mut words);
        file.read_exact(bytes).map_err(Error::io(&path, "read"))?;
        let found = Digest::of(bytes);
        if found != *rootfs {
            return Err(store.damaged(rootfs, Damage::Contents(found)));
        }
        Self::of_words(store, path, words)
    }

    /// Reads a metadata blob that is not in the store yet. The data blobs must be there.
    pub(crate) fn of_bytes(store: &'s Store, bytes: &[u8]) -> Result<Self> {
        let mut words = capnp::Word::allocate_zeroed_vec(bytes.len().div_ceil(8));
        capnp::Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self::of_words(store, store.path().join("new metadata"), words)
    }

    fn of_words(store: &'s Store, path: PathBuf, words: Vec<capnp::Word>) -> Result<Self> {
        let bytes = capnp::Word::words_to_bytes(&words);
        let framing = Framing::parse(bytes).map_err(|error| Self::malformed(&path, error))?;
        let reader = ImageReader {
            store,
            path,
            words,
            framing,
        };
        reader.checked(reader.metadata().check())?;
        Ok(reader)
    }

    /// Returns the metadata.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.framing, capnp::Word::words_to_bytes(&self.words))
    }

    /// Returns the entries of the directory at a place, in byte order of their names.
    pub fn entries(&self, at: Locator) -> Result<Vec<DirEntry<'_>>> {
        let read = || {
            let parts = self.parts_of(at)?;
            let mut entries = Vec::new();
            let _: ControlFlow<()> = self.metadata().dir(&parts)?.for_each(0, |entry| {
                entries.push(entry);
                ControlFlow::Continue(())
            })?;
            entries.sort_unstable_by_key(|entry| entry.name);
            Ok(entries)
        };
        self.checked(read())
    }

    /// Returns the entry of a name in the directory at a place; `None` if there is none.
    pub fn lookup(&self, at: Locator, name: &[u8]) -> Result<Option<DirEntry<'_>>> {
        let find = || self.metadata().dir(&self.parts_of(at)?)?.lookup(name);
        self.checked(find())
    }

    /// Returns the parts that the layers have of the directory at a place, for repeated lookups.
    pub fn parts(&self, at: Locator) -> Result<Parts> {
        self.checked(self.parts_of(at))
    }

    fn parts_of(&self, at: Locator) -> puzzlefs_schema::Result<Parts> {
        let mut parts = Vec::new();
        let mut layer = Some(self.metadata().dir_at(at)?);
        while let Some(part) = layer {
            let index = match part.order()? {
                Order::Sorted => None,
                Order::Unsorted => {
                    let mut index = vec![0; part.len()];
                    part.sort_index(&mut index)?;
                    Some(index)
                }
            };
            parts.push(Part::new(&part, index));
            layer = part.below()?;
        }
        Ok(parts)
    }

    /// Counts the parts of the image.
    pub fn counts(&self) -> Result<Counts> {
        let count = || {
            let metadata = self.metadata();
            let mut counts = Counts::default();
            for layer in 0..metadata.layers()? {
                counts.layers += 1;
                for index in 0..metadata.layer_len(layer)? {
                    let inode = metadata.inode_at(Locator { layer, index })?;
                    counts.inodes += 1;
                    match inode.file_type() {
                        FileType::File => {
                            let extents = inode.extents()?;
                            counts.files += 1;
                            counts.chunks += extents.len() as u64;
                            counts.bytes += extents.index(&mut [])?;
                        }
                        FileType::Dir => {
                            counts.directories += 1;
                            counts.entries += inode.dir()?.len() as u64;
                        }
                        FileType::Symlink => counts.symlinks += 1,
                        FileType::Whiteout | FileType::Unknown => {}
                        _ => counts.special += 1,
                    }
                }
            }
            Ok(counts)
        };
        self.checked(count())
    }

    /// Passes the contents of the file at a place, in order and in pieces, to a function.
    pub fn read_file(
        &self,
        at: Locator,
        blobs: &mut Blobs,
        give: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.read_range(at, &[], 0..u64::MAX, blobs, give)
    }

    /// Passes the contents of a range of the file at a place, in order and in pieces, to a
    /// function. The table is one that [`Extents::index`](puzzlefs_schema::Extents::index) has
    /// filled for the file, or empty.
    pub fn read_range(
        &self,
        at: Locator,
        table: &[u64],
        range: Range<u64>,
        blobs: &mut Blobs,
        mut give: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.for_each_extent(at, table, range, |extent| {
            self.read_extent(&extent, blobs, &mut give)
        })
    }

    /// Passes the extents of a range of the file at a place, each cut to the range, to a function. The
    /// table is as for [`ImageReader::read_range`].
    pub(crate) fn for_each_extent(
        &self,
        at: Locator,
        table: &[u64],
        range: Range<u64>,
        mut give: impl FnMut(Extent) -> Result<()>,
    ) -> Result<()> {
        let inode = self.checked(self.metadata().inode_at(at))?;
        let extents = self.checked(inode.extents())?;
        let (index, start) = self.checked(extents.seek(range.start, table))?;
        for extent in extents.iter_from(index, start) {
            let (start, chunk) = self.checked(extent)?;
            if start >= range.end {
                break;
            }
            let skipped = range.start.saturating_sub(start);
            let end = chunk.len.min(range.end - start);
            give(Extent {
                offset: chunk.blob_offset + skipped,
                length: end - skipped,
                ..Extent::from(chunk)
            })?;
        }
        Ok(())
    }

    /// Passes the contents of an extent, in pieces, to a function.
    pub(crate) fn read_extent(
        &self,
        extent: &Extent,
        blobs: &mut Blobs,
        mut give: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let range = extent.offset..extent.offset + extent.length;
        let Extent {
            blob, compressed, ..
        } = extent;
        blobs.read(self, blob, *compressed, range, &mut give)
    }

    /// Returns the bytes of the metadata blob.
    pub(crate) fn bytes(&self) -> &[u8] {
        capnp::Word::words_to_bytes(&self.words)
    }

    /// Returns the size of a regular file: the declared one, or the sum of its chunks.
    pub fn file_size(&self, inode: &Inode<'_>) -> Result<u64> {
        let size = || match inode.declared_size()? {
            Some(size) => Ok(size),
            None => inode.extents()?.index(&mut []),
        };
        self.checked(size())
    }

    /// Returns the largest number of entries of all directories together. More do not fit into the
    /// metadata, unless directories share their lists.
    pub fn entries_max(&self) -> usize {
        self.words.len()
    }

    /// Returns an error about the metadata as a whole.
    pub fn malformed_by(&self, what: impl Into<String>) -> Error {
        ImageError::Inconsistent {
            path: self.path.clone(),
            what: what.into(),
        }
        .into()
    }

    /// Opens a blob. If `verified` is set, fs-verity must check it against the image's digest of
    /// it.
    fn open_blob(&self, digest: &Digest, verified: bool) -> Result<File> {
        let file = self.store.open_blob(digest)?;
        if verified {
            let wanted = self.checked(
                self.metadata()
                    .verity(&puzzlefs_schema::Digest::new(*digest.as_bytes())),
            )?;
            let wanted = wanted.map(|wanted| Digest(*wanted.as_bytes()));
            self.check_verity(&file, digest, wanted)?;
        }
        Ok(file)
    }

    /// Fails if fs-verity does not check a blob against a digest.
    fn check_verity(&self, file: &File, blob: &Digest, wanted: Option<Digest>) -> Result<()> {
        let path = self.store.blob_path(blob);
        match verity::measure(file, &path)? {
            None => Err(ImageError::NoVerity { path }.into()),
            Some(found) if wanted == Some(found) => Ok(()),
            Some(_) => Err(ImageError::OtherVerity { path }.into()),
        }
    }

    /// Turns the schema's error into this crate's.
    pub fn checked<T>(&self, result: puzzlefs_schema::Result<T>) -> Result<T> {
        result.map_err(|error| Self::malformed(&self.path, error))
    }

    fn malformed(path: &std::path::Path, cause: puzzlefs_schema::Error) -> Error {
        let path = path.to_path_buf();
        ImageError::Malformed { path, cause }.into()
    }
}

struct OpenBlob {
    file: File,
    /// The decoder of a compressed blob, once it was needed.
    decoder: Option<Decoder>,
}

/// Open blobs, a bounded number of them.
#[derive(Default)]
pub struct Blobs {
    open: HashMap<Digest, OpenBlob>,
    buffer: Vec<u8>,
    verified: bool,
    /// The blobs that match their digests; `None` if this is not checked.
    sound: Option<HashSet<Digest>>,
}

impl Blobs {
    /// Blobs that are compared with their digests before anything of them is read.
    pub fn checked() -> Self {
        Blobs {
            sound: Some(HashSet::new()),
            ..Self::default()
        }
    }

    /// Blobs that must have fs-verity enabled, with the digests that the image has for them.
    pub fn verified() -> Self {
        Blobs {
            verified: true,
            ..Self::default()
        }
    }

    /// Fails if fs-verity must check the blobs of an image and does not check its metadata blob.
    pub fn check_root(&self, reader: &ImageReader<'_>, image: &ImageRoot) -> Result<()> {
        if !self.verified {
            return Ok(());
        }
        let file = reader.store.open_blob(&image.rootfs)?;
        reader.check_verity(&file, &image.rootfs, image.rootfs_verity)
    }

    /// Passes a range of a blob's content to a function, in pieces.
    fn read(
        &mut self,
        reader: &ImageReader<'_>,
        digest: &Digest,
        compressed: bool,
        mut range: Range<u64>,
        give: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let fail = |what| move |error| Error::io(reader.store.blob_path(digest), what)(error);
        if let Some(sound) = &mut self.sound {
            if !sound.contains(digest) {
                self.buffer.resize(READ_SIZE, 0);
                let found = reader.store.digest_of_blob(digest, &mut self.buffer)?;
                if found != *digest {
                    let damage = Damage::Contents(found);
                    return Err(reader.store.damaged(digest, damage));
                }
                sound.insert(*digest);
            }
        }
        let blob = open(&mut self.open, reader, digest, self.verified)?;
        while !range.is_empty() {
            let wanted = range.end - range.start;
            let piece = if compressed {
                let content = blob
                    .content_from(range.start)
                    .map_err(fail("decompress the blob"))?;
                &content[..wanted.min(content.len() as u64) as usize]
            } else {
                self.buffer.resize(wanted.min(READ_SIZE as u64) as usize, 0);
                blob.file
                    .read_exact_at(&mut self.buffer, range.start)
                    .map_err(fail("read the blob"))?;
                &self.buffer
            };
            give(piece)?;
            range.start += piece.len() as u64;
        }
        Ok(())
    }
}

impl OpenBlob {
    /// Returns some of a compressed blob's content, from an offset on.
    fn content_from(&mut self, offset: u64) -> io::Result<&[u8]> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new(&self.file)?),
        };
        decoder.read(&self.file, offset)
    }
}

/// Returns an open blob, and opens it if necessary.
fn open<'o>(
    blobs: &'o mut HashMap<Digest, OpenBlob>,
    reader: &ImageReader<'_>,
    digest: &Digest,
    verified: bool,
) -> Result<&'o mut OpenBlob> {
    if blobs.len() >= OPEN_MAX && !blobs.contains_key(digest) {
        blobs.clear();
    }
    Ok(match blobs.entry(*digest) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(OpenBlob {
            file: reader.open_blob(digest, verified)?,
            decoder: None,
        }),
    })
}
