// SPDX-License-Identifier: MIT OR Apache-2.0

//! Opening packs.

use crate::error::{Error, Result, StoreError};
use crate::model::chunk::ChunkFault;
use crate::model::digest::Digest;
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::{PackError, PackFooter, PackedChunk, FOOTER_LEN};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// A pack that is durable in the store, and whose chunks the index shall find.
pub(crate) struct NewPack {
    /// The digest.
    pub digest: Digest,
    /// The chunks, in order of position. The caller has compared each with its digest.
    pub records: Vec<PackedChunk>,
}

/// An open pack, whose index keeps the rules.
///
/// Its contents are not compared with its digest. Each chunk is, when it is read.
#[derive(Debug)]
pub(crate) struct PackFile {
    path: PathBuf,
    file: File,
    len: u64,
    footer: PackFooter,
    /// The index and the footer.
    recipe: Vec<u8>,
}

impl PackFile {
    /// Opens a pack of a store.
    ///
    /// The index is read as a whole. The length of the file bounds the allocation.
    pub fn open(store: &Store, digest: &Digest) -> Result<Self> {
        let path = store.blob_path(digest);
        let file = store.open_blob(digest)?;
        Self::of_file(path, file)
    }

    /// Opens a pack in a file of its own, as [`PackFile::open`] does.
    pub fn of_file(path: PathBuf, file: File) -> Result<Self> {
        let fail = |cause| StoreError::Pack {
            path: path.clone(),
            cause,
        };
        let (len, footer) = read_footer(&file)
            .map_err(Error::io(&path, "read"))?
            .map_err(fail)?;
        let range = footer.index_range(len).map_err(fail)?;
        let mut recipe = vec![0; footer.recipe_len() as usize];
        file.read_exact_at(&mut recipe, range.start)
            .map_err(Error::io(&path, "read"))?;
        let index = recipe.len() - FOOTER_LEN;
        footer
            .index(&recipe[..index])
            .and_then(|index| index.check(len))
            .map_err(fail)?;
        Ok(PackFile {
            path,
            file,
            len,
            footer,
            recipe,
        })
    }

    /// Returns true if a blob ends as a pack does. A blob of another kind can do so, too.
    pub fn is_pack(store: &Store, digest: &Digest) -> Result<bool> {
        let file = match store.open_blob(digest) {
            Ok(file) => file,
            // A concurrent `gc` has removed it.
            Err(error) if error.is_not_found() => return Ok(false),
            Err(Error::Store(StoreError::NotARegularFile { .. })) => return Ok(false),
            Err(error) => return Err(error),
        };
        let footer = read_footer(&file).map_err(Error::io(store.blob_path(digest), "read"))?;
        Ok(footer.is_ok_and(|(len, footer)| footer.index_range(len).is_ok()))
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The footer.
    pub fn footer(&self) -> &PackFooter {
        &self.footer
    }

    /// The index and the footer, from which the pack can be rebuilt.
    pub fn recipe(&self) -> &[u8] {
        &self.recipe
    }

    /// The chunks, in order of position.
    pub fn chunks(&self) -> impl Iterator<Item = PackedChunk> + '_ {
        let index = self.recipe.len() - FOOTER_LEN;
        let index = self.footer.index(&self.recipe[..index]).ok();
        // The index was checked: it has no errors.
        index.into_iter().flatten().map_while(Result::ok)
    }

    /// Returns the chunks whose stored bytes have their digests.
    pub fn intact_chunks(&self) -> Vec<PackedChunk> {
        let mut stored = Vec::new();
        self.chunks()
            .filter(|chunk| self.read_chunk(chunk, &mut stored).is_ok())
            .collect()
    }

    /// Reads the stored bytes of a chunk of this pack, and compares them with the digest.
    pub fn read_chunk(&self, chunk: &PackedChunk, stored: &mut Vec<u8>) -> Result<()> {
        stored.resize(chunk.stored_len as usize, 0);
        self.file
            .read_exact_at(stored, chunk.offset)
            .map_err(Error::io(&self.path, "read"))?;
        let found = Digest::of(stored);
        let digest = Digest::from(chunk.digest);
        if found != digest {
            return Err(StoreError::Chunk {
                path: self.path.clone(),
                digest,
                cause: ChunkFault::Digest { found },
            }
            .into());
        }
        Ok(())
    }
}

/// Reads the length and the footer of a file.
fn read_footer(file: &File) -> std::io::Result<Result<(u64, PackFooter), PackError>> {
    let len = file.metadata()?.len();
    let Some(start) = len.checked_sub(FOOTER_LEN as u64) else {
        return Ok(Err(PackError::NotAPack));
    };
    let mut footer = [0; FOOTER_LEN];
    file.read_exact_at(&mut footer, start)?;
    Ok(PackFooter::parse(&footer).map(|footer| (len, footer)))
}
