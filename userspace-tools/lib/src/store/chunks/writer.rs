// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writing packs.

use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::store::chunks::pack::NewPack;
use crate::store::staging::Staging;
use puzzlefs_schema::v4::{PackError, PackFooter, PackLayout, PackedChunk, MAX_PACK_CHUNKS};
use sha2::{Digest as _, Sha256};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use tempfile::NamedTempFile;

/// The size of a pack, in bytes: one that has reached it gets no more chunks.
pub(crate) const PACK_SIZE: u64 = 64 << 20;
/// The alignment of chunks in new packs, as the exponent of a power of two.
pub(crate) const PACK_ALIGNMENT: u8 = 0;
const BUFFER: usize = 1 << 20;

/// The places of the chunks in a pack that is being written.
pub(crate) struct PackContents {
    alignment: u8,
    layout: PackLayout,
    records: Vec<PackedChunk>,
}

impl PackContents {
    /// The contents of an empty pack. `alignment` is the exponent of a power of two.
    pub fn new(alignment: u8) -> Self {
        PackContents {
            alignment,
            layout: PackLayout::new(1 << alignment),
            records: Vec::new(),
        }
    }

    /// Returns true if a pack of `size` bytes should get no more chunks.
    pub fn is_full(&self, size: u64) -> bool {
        self.layout.end() >= size || self.records.len() >= MAX_PACK_CHUNKS as usize
    }

    /// Places a chunk with these stored bytes, whose SHA-256 is `digest`, behind the others. Returns the
    /// number of zero bytes before it, which is less than the alignment.
    pub fn place(&mut self, digest: &Digest, stored: &[u8]) -> Result<usize, PackError> {
        let end = self.layout.end();
        let stored_len = u32::try_from(stored.len()).map_err(|_| PackError::StoredLength)?;
        let offset = self.layout.place(stored_len)?;
        self.records.push(PackedChunk {
            digest: (*digest).into(),
            offset,
            stored_len,
        });
        Ok((offset - end) as usize)
    }

    /// Returns the bytes that follow the last chunk, index and footer, and the size of the pack.
    pub fn tail(&self) -> Result<(Vec<u8>, u64), PackError> {
        let footer = PackFooter::new(self.alignment, self.records.len() as u32)?;
        let records = self.records.iter();
        let mut tail: Vec<u8> = records.flat_map(PackedChunk::to_record).collect();
        tail.extend(footer.to_bytes());
        Ok((tail, self.layout.end() + footer.recipe_len()))
    }

    /// The chunks, in order of position.
    pub fn records(&self) -> &[PackedChunk] {
        &self.records
    }

    /// Returns the chunks, in order of position.
    pub fn into_records(self) -> Vec<PackedChunk> {
        self.records
    }
}

/// Writes chunks that exist already into packs, one after the other.
pub(crate) struct PackSeries<'a> {
    staging: &'a Staging<'a>,
    open: Option<PackWriter<'a>>,
    written: Vec<(NewPack, u64)>,
}

impl<'a> PackSeries<'a> {
    /// A series of packs in a staging directory, without a pack.
    pub fn new(staging: &'a Staging<'a>) -> Self {
        PackSeries {
            staging,
            open: None,
            written: Vec::new(),
        }
    }

    /// Adds a chunk with these stored bytes, whose SHA-256 is `digest`. If it begins a pack, that has
    /// this alignment, the exponent of a power of two.
    pub fn add(&mut self, digest: &Digest, stored: &[u8], alignment: u8) -> Result<()> {
        if let Some(full) = self.open.take_if(|open| open.contents.is_full(PACK_SIZE)) {
            self.written.push(full.finish()?);
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(PackWriter::new(self.staging, alignment)?),
        };
        open.add(digest, stored)
    }

    /// Takes the packs that are complete and staged, with their sizes.
    pub fn take_written(&mut self) -> Vec<(NewPack, u64)> {
        std::mem::take(&mut self.written)
    }

    /// Completes the packs, and stages them. Returns them with their sizes.
    pub fn finish(mut self) -> Result<Vec<(NewPack, u64)>> {
        if let Some(open) = self.open {
            self.written.push(open.finish()?);
        }
        Ok(self.written)
    }
}

/// A pack that is being written into a staging directory.
pub(crate) struct PackWriter<'a> {
    staging: &'a Staging<'a>,
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    sha256: Sha256,
    contents: PackContents,
}

impl<'a> PackWriter<'a> {
    /// Starts a pack. `alignment` is the exponent of a power of two.
    pub fn new(staging: &'a Staging<'a>, alignment: u8) -> Result<Self> {
        Ok(PackWriter {
            staging,
            path: staging.path.clone(),
            file: BufWriter::with_capacity(BUFFER, staging.create_file()?),
            sha256: Sha256::new(),
            contents: PackContents::new(alignment),
        })
    }

    /// Adds a chunk with these stored bytes, whose SHA-256 is `digest`.
    pub fn add(&mut self, digest: &Digest, stored: &[u8]) -> Result<()> {
        let placed = self.contents.place(digest, stored);
        let gap = placed.map_err(|cause| self.refused(cause))?;
        // The alignment is 4096 bytes at most.
        self.write(&vec![0; gap])?;
        self.write(stored)
    }

    /// Returns true if the pack has no chunk.
    pub fn is_empty(&self) -> bool {
        self.contents.records().is_empty()
    }

    /// Completes the pack, and stages it. Returns the pack and its size.
    pub fn finish(self) -> Result<(NewPack, u64)> {
        let (completed, digest, size) = self.complete()?;
        completed.stage(digest, size)
    }

    /// Completes the pack, and stages it if it has this digest. Returns the pack and its size, or the
    /// digest that it has instead.
    pub fn finish_as(self, wanted: &Digest) -> Result<Result<(NewPack, u64), Digest>> {
        let (completed, digest, size) = self.complete()?;
        if digest != *wanted {
            return Ok(Err(digest));
        }
        completed.stage(digest, size).map(Ok)
    }

    /// Writes the index and the footer. Returns the digest and the size of the pack, too.
    fn complete(mut self) -> Result<(Self, Digest, u64)> {
        let tail = self.contents.tail();
        let (tail, size) = tail.map_err(|cause| self.refused(cause))?;
        self.write(&tail)?;
        let digest = Digest(self.sha256.finalize_reset().into());
        Ok((self, digest, size))
    }

    /// Stages the completed pack.
    fn stage(self, digest: Digest, size: u64) -> Result<(NewPack, u64)> {
        let file = self.file.into_inner();
        let file =
            file.map_err(|error| Error::io(&self.path, "write a pack in")(error.into_error()))?;
        self.staging.put_file(file, &digest, size)?;
        let pack = NewPack {
            digest,
            records: self.contents.into_records(),
        };
        Ok((pack, size))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(Error::io(&self.path, "write a pack in"))
    }

    fn refused(&self, cause: PackError) -> Error {
        let path = self.path.clone();
        StoreError::NewPack { path, cause }.into()
    }
}
