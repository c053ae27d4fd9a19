// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes packs.

use crate::build::flusher::Flusher;
use crate::error::{BuildError, Error, Result};
use crate::model::digest::Digest;
use crate::store::chunks::update::NewPack;
use crate::store::chunks::writer::{PackContents, PACK_ALIGNMENT, PACK_SIZE};
use crate::store::staging::{Placed, Staging};
use puzzlefs_schema::v4::PackError;
use sha2::{Digest as _, Sha256};
use std::io::Write;
use std::mem;
use tempfile::NamedTempFile;

/// The bytes that are hashed and written at once.
const WRITE_BYTES: usize = 1 << 20;

/// The sizes of packs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackPolicy {
    /// A pack ends at this number of bytes.
    pub size: u64,
    /// The alignment of chunks, as the exponent of a power of two.
    pub alignment: u8,
    /// The largest data, in bytes, that shares a pack with the metadata. It is kept in memory until
    /// the metadata is known.
    pub small_data: usize,
    /// The number of bytes in memory beyond which chunks that wait for their turns are in a file.
    pub held: usize,
}

impl Default for PackPolicy {
    fn default() -> Self {
        PackPolicy {
            size: PACK_SIZE,
            alignment: PACK_ALIGNMENT,
            small_data: 4 << 20,
            held: 64 << 20,
        }
    }
}

/// A pack that was written.
pub(super) struct WrittenPack {
    pub pack: NewPack,
    pub size: u64,
    /// True if the store did not have it.
    pub new: bool,
}

/// Writes chunks into packs, one after the other.
pub(super) struct PackWriter<'a> {
    staging: &'a Staging<'a>,
    flusher: &'a Flusher,
    policy: PackPolicy,
    open: OpenPack,
    written: Vec<WrittenPack>,
}

/// A pack that is being written.
struct OpenPack {
    contents: PackContents,
    /// The bytes that are not in the file.
    buffer: Vec<u8>,
    /// The file, and the hash of its bytes.
    file: Option<(NamedTempFile, Sha256)>,
}

impl OpenPack {
    fn new(alignment: u8) -> Self {
        OpenPack {
            contents: PackContents::new(alignment),
            buffer: Vec::new(),
            file: None,
        }
    }

    /// Adds a chunk to the buffer.
    fn add(&mut self, digest: &Digest, stored: &[u8]) -> Result<(), PackError> {
        let gap = self.contents.place(digest, stored)?;
        self.buffer.resize(self.buffer.len() + gap, 0);
        self.buffer.extend_from_slice(stored);
        Ok(())
    }
}

impl<'a> PackWriter<'a> {
    /// A writer into a staging directory. `flusher` hears of each write.
    pub fn new(staging: &'a Staging<'a>, flusher: &'a Flusher, policy: PackPolicy) -> Self {
        PackWriter {
            staging,
            flusher,
            policy,
            open: OpenPack::new(policy.alignment),
            written: Vec::new(),
        }
    }

    /// Adds a chunk with these stored bytes to the open pack. `digest` is their SHA-256.
    pub fn add(&mut self, digest: &Digest, stored: &[u8]) -> Result<()> {
        if self.open.contents.is_full(self.policy.size) {
            self.close()?;
        }
        self.open
            .add(digest, stored)
            .map_err(|cause| self.refused(cause))?;
        let most = match &self.open.file {
            None if self.written.is_empty() => self.policy.small_data,
            _ => WRITE_BYTES,
        };
        if self.open.buffer.len() >= most {
            self.flush()?;
        }
        Ok(())
    }

    /// Completes the packs with the metadata, which comes first. Returns the packs in the order of the
    /// manifest.
    pub fn finish<'c>(
        mut self,
        metadata: impl Iterator<Item = (Digest, &'c [u8])>,
    ) -> Result<Vec<WrittenPack>> {
        let open = OpenPack::new(self.policy.alignment);
        let mut data = mem::replace(&mut self.open, open);
        let is_small = self.written.is_empty() && data.file.is_none();
        if !is_small {
            mem::swap(&mut self.open, &mut data);
            self.close()?;
        }
        let data_packs = mem::take(&mut self.written);
        for (digest, stored) in metadata {
            self.add(&digest, stored)?;
        }
        if is_small {
            self.add_again(&data)?;
        }
        self.close()?;
        let mut packs = self.written;
        packs.extend(data_packs);
        Ok(packs)
    }

    /// Adds the chunks of another open pack, whose bytes are all in its buffer.
    fn add_again(&mut self, data: &OpenPack) -> Result<()> {
        for record in data.contents.records() {
            let start = record.offset as usize;
            let stored = &data.buffer[start..][..record.stored_len as usize];
            self.open
                .add(&record.digest.into(), stored)
                .map_err(|cause| self.refused(cause))?;
        }
        Ok(())
    }

    /// Completes the open pack, if it has chunks, and opens another.
    fn close(&mut self) -> Result<()> {
        if self.open.contents.records().is_empty() {
            return Ok(());
        }
        let tail = self.open.contents.tail();
        let (tail, size) = tail.map_err(|cause| self.refused(cause))?;
        self.open.buffer.extend(tail);
        self.flush()?;
        let alignment = self.policy.alignment;
        let open = mem::replace(&mut self.open, OpenPack::new(alignment));
        let Some((file, sha256)) = open.file else {
            return Ok(());
        };
        let digest = Digest(sha256.finalize().into());
        let placed = self.staging.put_file(file, &digest, size)?;
        self.written.push(WrittenPack {
            pack: NewPack {
                digest,
                records: open.contents.into_records(),
            },
            size,
            new: placed == Placed::New,
        });
        Ok(())
    }

    /// Hashes and writes the buffer.
    fn flush(&mut self) -> Result<()> {
        let path = &self.staging.path;
        let (file, sha256) = match &mut self.open.file {
            Some(file) => file,
            None => {
                let file = self.staging.create_file()?;
                self.open.file.insert((file, Sha256::new()))
            }
        };
        sha256.update(&self.open.buffer);
        file.as_file_mut()
            .write_all(&self.open.buffer)
            .map_err(Error::io(path, "write a pack in"))?;
        self.flusher.written(self.open.buffer.len() as u64);
        self.open.buffer.clear();
        Ok(())
    }

    fn refused(&self, cause: PackError) -> Error {
        BuildError::Pack {
            store: self.staging.path.clone(),
            cause,
        }
        .into()
    }
}
