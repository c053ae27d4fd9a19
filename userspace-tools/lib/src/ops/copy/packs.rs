// SPDX-License-Identifier: MIT OR Apache-2.0

//! Copies the chunks of images of format 4: only those that are missing.
//!
//! A pack is copied as a whole if the store has next to nothing of it. Otherwise its missing chunks go to a
//! new pack, and the recipe of the pack is kept. Each chunk is compared with its digest.

use super::context::{remove_damaged, Copied, Copy};
use crate::error::{Damage, Error, Result};
use crate::image::chunk_walk::{ChunkKind, ChunkWalk};
use crate::model::digest::Digest;
use crate::model::limits::READ_SIZE;
use crate::store::chunks::index::ChunkIndex;
use crate::store::chunks::pack::{NewPack, PackFile};
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::recipes::Recipe;
use crate::store::chunks::update::make_missing_index;
use crate::store::chunks::writer::{PackSeries, PACK_ALIGNMENT};
use crate::store::oci_layout::{AnyImage, AnyRoot};
use crate::store::staging::Placed;
use puzzlefs_schema::v4::PackedChunk;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::FileExt;

/// A pack is copied as a whole if the store has less than this part of it, in per cent.
const SHARED_PERCENT: u64 = 10;

/// The packs of a copy.
#[derive(Default)]
pub(super) struct CopiedPacks {
    /// The packs for the chunk index.
    pub new: Vec<NewPack>,
    /// The recipes of packs that the store does not have.
    pub recipes: Vec<(Digest, Vec<u8>)>,
}

/// Copies the chunks of the images of format 4 among these.
pub(super) fn copy(
    copy: &Copy<'_>,
    images: &[(String, &AnyImage)],
    copied: &mut Copied,
) -> Result<CopiedPacks> {
    let packed: Vec<_> = images
        .iter()
        .filter_map(|(_, image)| match &image.root {
            AnyRoot::V4(root) => Some((*image, root.root)),
            AnyRoot::V3(_) => None,
        })
        .collect();
    if packed.is_empty() {
        return Ok(CopiedPacks::default());
    }
    make_missing_index(copy.to)?;
    let reader = ChunkReader::new(copy.from)?;
    let mut needed = Vec::new();
    let mut walk = ChunkWalk::new(&reader);
    let mut packs = Vec::new();
    for (image, root) in packed {
        walk.image(&root, |chunk, kind| {
            needed.push((Digest::from(*chunk.digest()), kind));
        })?;
        let path = copy.from.blob_path(image.root.manifest_digest());
        let layers = image.manifest.layers.iter();
        for layer in layers.filter(|layer| layer.is_pack()) {
            packs.push((copy.from.digest(layer, &path)?, layer.size));
        }
    }
    let mut seen = HashSet::new();
    packs.retain(|(pack, _)| seen.insert(*pack));
    let mut transfer = Transfer {
        copy,
        missing: missing_chunks(copy, &needed)?,
        reader: &reader,
        copied,
        packs: CopiedPacks::default(),
    };
    let indexed: BTreeSet<Digest> = ChunkIndex::open(copy.to)?.packs().collect();
    for (pack, size) in &packs {
        transfer.pack(pack, *size, &indexed, &needed)?;
    }
    transfer.chunks(&needed)?;
    Ok(transfer.packs)
}

/// Returns the chunks that the target does not have, or has damaged ones of if that shall be checked.
fn missing_chunks(copy: &Copy<'_>, needed: &[(Digest, ChunkKind)]) -> Result<HashSet<Digest>> {
    let target = ChunkReader::of_index(copy.to)?;
    let mut missing = HashSet::new();
    let mut stored = Vec::new();
    for (digest, _) in needed {
        let is_there = if copy.options.check {
            target.read_stored(digest, &mut stored).is_ok()
        } else {
            target.find(digest)?.is_some()
        };
        if !is_there {
            missing.insert(*digest);
        }
    }
    Ok(missing)
}

/// A copy of chunks.
struct Transfer<'t, 'a> {
    copy: &'t Copy<'a>,
    reader: &'t ChunkReader<'a>,
    /// The chunks that the target does not have yet.
    missing: HashSet<Digest>,
    copied: &'t mut Copied,
    packs: CopiedPacks,
}

impl Transfer<'_, '_> {
    /// Copies a pack, or decides that its missing chunks are copied alone.
    fn pack(
        &mut self,
        pack: &Digest,
        size: u64,
        indexed: &BTreeSet<Digest>,
        needed: &[(Digest, ChunkKind)],
    ) -> Result<()> {
        self.copy.progress.check()?;
        let (from, to) = (self.copy.from, self.copy.to);
        if self.copy.options.check && from.blob_size(pack)? == Some(size) {
            let had = to.blob_size(pack)?;
            remove_damaged(from, to, pack, size, &mut vec![0; READ_SIZE])?;
            if had.is_some() && to.blob_size(pack)?.is_none() {
                return self.whole_pack(pack, size, &PackFile::open(from, pack)?);
            }
        }
        if to.blob_size(pack)? == Some(size) {
            self.copied.shared.add(size);
            if !indexed.contains(pack) {
                self.index_existing(pack)?;
            }
            return Ok(());
        }
        if from.blob_size(pack)?.is_none() {
            self.copied.partial_packs += 1;
            if let Some(recipe) = Recipe::read(from, pack)? {
                let recipe = recipe.bytes().to_vec();
                self.packs.recipes.push((*pack, recipe));
            }
            return Ok(());
        }
        let file = PackFile::open(from, pack)?;
        if self.copy.options.whole_packs || self.is_new(&file, needed) {
            return self.whole_pack(pack, size, &file);
        }
        self.copied.partial_packs += 1;
        let recipe = file.recipe().to_vec();
        self.packs.recipes.push((*pack, recipe));
        Ok(())
    }

    /// Returns true if the target has next to nothing of a pack.
    fn is_new(&self, file: &PackFile, needed: &[(Digest, ChunkKind)]) -> bool {
        let needed: HashSet<Digest> = needed.iter().map(|(digest, _)| *digest).collect();
        let shared: u64 = file
            .chunks()
            .filter(|chunk| {
                let digest = Digest::from(chunk.digest);
                needed.contains(&digest) && !self.missing.contains(&digest)
            })
            .map(|chunk| u64::from(chunk.stored_len))
            .sum();
        shared * 100 < file.len() * SHARED_PERCENT
    }

    /// Copies a pack. Compares each chunk and the pack with their digests.
    fn whole_pack(&mut self, pack: &Digest, size: u64, file: &PackFile) -> Result<()> {
        let (from, progress) = (self.copy.from, self.copy.progress);
        if file.len() != size {
            let damage = Damage::Size {
                found: file.len(),
                wanted: size,
            };
            return Err(from.damaged(pack, damage));
        }
        let mut stored = Vec::new();
        let placed = self.copy.staging.put_with(pack, size, |target, path| {
            let mut sha256 = Sha256::new();
            let mut end = 0;
            for chunk in file.chunks() {
                progress.check()?;
                file.read_chunk(&chunk, &mut stored)?;
                // A gap is shorter than the alignment, 4096 bytes at most.
                sha256.update(vec![0; (chunk.offset - end) as usize]);
                sha256.update(&stored);
                target
                    .write_all_at(&stored, chunk.offset)
                    .map_err(Error::io(path, "write"))?;
                end = chunk.offset + u64::from(chunk.stored_len);
                progress.done_bytes(chunk.stored_len.into());
            }
            sha256.update(file.recipe());
            target
                .write_all_at(file.recipe(), end)
                .map_err(Error::io(path, "write"))?;
            let found = Digest(sha256.finalize().into());
            if found != *pack {
                return Err(from.damaged(pack, Damage::Contents(found)));
            }
            Ok(())
        })?;
        self.copied.add(placed, size);
        let records: Vec<PackedChunk> = file.chunks().collect();
        for chunk in &records {
            self.missing.remove(&Digest::from(chunk.digest));
        }
        self.packs.new.push(NewPack {
            digest: *pack,
            records,
        });
        Ok(())
    }

    /// Adds a pack that the target has to its index: as many of its chunks as are valid.
    fn index_existing(&mut self, pack: &Digest) -> Result<()> {
        let records = PackFile::open(self.copy.to, pack)?.intact_chunks();
        for chunk in &records {
            self.missing.remove(&Digest::from(chunk.digest));
        }
        self.packs.new.push(NewPack {
            digest: *pack,
            records,
        });
        Ok(())
    }

    /// Copies the chunks that are still missing to new packs: metadata first.
    fn chunks(&mut self, needed: &[(Digest, ChunkKind)]) -> Result<()> {
        let mut series = PackSeries::new(self.copy.staging);
        let mut stored = Vec::new();
        for wanted in [ChunkKind::Metadata, ChunkKind::Data] {
            for (digest, kind) in needed {
                if *kind != wanted || !self.missing.remove(digest) {
                    continue;
                }
                self.copy.progress.check()?;
                self.reader.read_stored(digest, &mut stored)?;
                series.add(digest, &stored, PACK_ALIGNMENT)?;
                self.copy.progress.done_bytes(stored.len() as u64);
            }
        }
        for (pack, size) in series.finish()? {
            self.copied.add(Placed::New, size);
            self.packs.new.push(pack);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::reference::Selector;
    use crate::ops::copy::{copy, CopyOptions};
    use crate::ops::test_images::{names, write_image, TestImage};
    use crate::store::chunks::update::replace_packs;
    use crate::store::oci_layout::Store;
    use crate::sys::progress::Progress;
    use std::fs;
    use std::path::Path;

    fn stores(scratch: &Path) -> (Store, Store) {
        let store = |name| Store::create(&scratch.join(name)).unwrap();
        (store("from"), store("to"))
    }

    fn copy_tag(from: &Store, to: &Store, tag: &str, whole_packs: bool, check: bool) -> Copied {
        let image = from.any_image(&Selector::Tag(tag.to_owned())).unwrap();
        let options = CopyOptions {
            jobs: 1,
            check,
            whole_packs,
        };
        copy(from, &image, to, tag, options, &Progress::default()).unwrap()
    }

    fn assert_whole(store: &Store, image: &TestImage) {
        let reader = ChunkReader::new(store).unwrap();
        let mut stored = Vec::new();
        for (digest, bytes) in &image.chunks {
            reader.read_stored(digest, &mut stored).unwrap();
            assert_eq!(stored, *bytes);
        }
    }

    #[test]
    fn a_new_image_is_copied_with_its_packs() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = stores(scratch.path());
        let image = write_image(&from, "t", &names("a", 20));
        let copied = copy_tag(&from, &to, "t", false, false);
        // Pack, configuration, manifest.
        assert_eq!((copied.new.blobs, copied.partial_packs), (3, 0));
        assert_whole(&to, &image);
        let same = fs::read(to.blob_path(&image.pack)).unwrap();
        assert_eq!(same, fs::read(from.blob_path(&image.pack)).unwrap());
        let again = copy_tag(&from, &to, "t", false, false);
        assert_eq!((again.new.blobs, again.shared.blobs), (0, 3));
    }

    #[test]
    fn only_missing_chunks_are_copied() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = stores(scratch.path());
        write_image(&from, "one", &names("a", 50));
        copy_tag(&from, &to, "one", false, false);
        let two = write_image(&from, "two", &[names("a", 50), names("b", 2)].concat());
        let copied = copy_tag(&from, &to, "two", false, false);
        assert_eq!(copied.partial_packs, 1);
        assert!(copied.new.bytes < 30_000, "{copied:?}");
        assert_eq!(to.blob_size(&two.pack).unwrap(), None);
        assert_whole(&to, &two);
        let recipe = Recipe::read(&to, &two.pack).unwrap().unwrap();
        assert_eq!(recipe.chunks().count(), two.chunks.len());
        // On request the pack is complete.
        let copied = copy_tag(&from, &to, "two", true, false);
        assert_eq!(copied.partial_packs, 0);
        assert!(to.blob_size(&two.pack).unwrap().is_some());
        assert_whole(&to, &two);
    }

    #[test]
    fn an_image_without_its_packs_is_copied() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = stores(scratch.path());
        let image = write_image(&from, "t", &names("a", 5));
        for (digest, bytes) in &image.chunks {
            fs::write(from.blob_path(digest), bytes).unwrap();
        }
        replace_packs(&from, |_| false, &[]).unwrap();
        fs::remove_file(from.blob_path(&image.pack)).unwrap();
        let copied = copy_tag(&from, &to, "t", false, false);
        assert_eq!(copied.partial_packs, 1);
        assert_whole(&to, &image);
    }

    #[test]
    fn damaged_chunks_are_replaced_if_asked_for() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = stores(scratch.path());
        let image = write_image(&from, "t", &names("a", 5));
        copy_tag(&from, &to, "t", false, false);
        let path = to.blob_path(&image.pack);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
        copy_tag(&from, &to, "t", false, true);
        assert_whole(&to, &image);
        assert_eq!(
            to.digest_of_blob(&image.pack, &mut [0; 4096]).unwrap(),
            image.pack
        );
    }

    #[test]
    fn a_damaged_source_is_not_copied() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = stores(scratch.path());
        let image = write_image(&from, "t", &names("a", 5));
        let path = from.blob_path(&image.pack);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 16 - 36 * image.chunks.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        let found = from.any_image(&Selector::Tag("t".to_owned())).unwrap();
        let options = CopyOptions {
            jobs: 1,
            check: false,
            whole_packs: false,
        };
        let error = copy(&from, &found, &to, "t", options, &Progress::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the SHA-256 of its stored bytes"),
            "{error}"
        );
        assert!(to.index().unwrap().find("t").is_none());
    }
}
