// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writing packs of chunks that exist already.

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
const BUFFER: usize = 1 << 20;

/// A pack that is being written into a staging directory.
pub(crate) struct PackWriter<'a> {
    staging: &'a Staging<'a>,
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    sha256: Sha256,
    alignment: u8,
    layout: PackLayout,
    records: Vec<PackedChunk>,
}

impl<'a> PackWriter<'a> {
    /// Starts a pack. `alignment` is the exponent of a power of two.
    pub fn new(staging: &'a Staging<'a>, alignment: u8) -> Result<Self> {
        let path = staging.path.clone();
        let file = NamedTempFile::new_in(&path).map_err(Error::io(&path, "create a file in"))?;
        Ok(PackWriter {
            staging,
            path,
            file: BufWriter::with_capacity(BUFFER, file),
            sha256: Sha256::new(),
            alignment,
            layout: PackLayout::new(1 << alignment),
            records: Vec::new(),
        })
    }

    /// Returns true if the pack should get no more chunks.
    pub fn is_full(&self) -> bool {
        self.layout.end() >= PACK_SIZE || self.records.len() >= MAX_PACK_CHUNKS as usize
    }

    /// Adds a chunk with these stored bytes, whose SHA-256 is `digest`.
    pub fn add(&mut self, digest: &Digest, stored: &[u8]) -> Result<()> {
        let end = self.layout.end();
        let len = u32::try_from(stored.len()).map_err(|_| PackError::StoredLength);
        let placed = len.and_then(|len| Ok((self.layout.place(len)?, len)));
        let (offset, stored_len) = placed.map_err(|cause| self.refused(cause))?;
        // A gap is shorter than the alignment, 4096 bytes at most.
        let gap = vec![0; (offset - end) as usize];
        self.write(&gap)?;
        self.write(stored)?;
        self.records.push(PackedChunk {
            digest: (*digest).into(),
            offset,
            stored_len,
        });
        Ok(())
    }

    /// Completes the pack, and stages it. Returns the pack and its size.
    pub fn finish(mut self) -> Result<(NewPack, u64)> {
        let footer = PackFooter::new(self.alignment, self.records.len() as u32);
        let footer = footer.map_err(|cause| self.refused(cause))?;
        let records: Vec<u8> = self
            .records
            .iter()
            .flat_map(PackedChunk::to_record)
            .collect();
        self.write(&records)?;
        self.write(&footer.to_bytes())?;
        let size = self.layout.end() + footer.recipe_len();
        let file = self.file.into_inner();
        let file =
            file.map_err(|error| Error::io(&self.path, "write a pack in")(error.into_error()))?;
        let digest = Digest(self.sha256.finalize().into());
        self.staging.put_file(file, &digest, size)?;
        let pack = NewPack {
            digest,
            records: self.records,
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
