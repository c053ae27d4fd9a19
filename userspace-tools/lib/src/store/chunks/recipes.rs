// SPDX-License-Identifier: MIT OR Apache-2.0

//! The recipes of packs that the store had: `.puzzlefs/recipes/<digest>`.
//!
//! A recipe is the index and the footer of a pack. With chunks that lie elsewhere, the pack can be built
//! again byte for byte.

use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::store::chunks::directory::{PrivateDirectory, RECIPES};
use crate::store::oci_layout::Store;
use puzzlefs_schema::v4::{PackFooter, PackedChunk, FOOTER_LEN, INDEX_RECORD_LEN, MAX_PACK_CHUNKS};
use std::io::Read;

/// The length of the longest recipe, in bytes.
const RECIPE_MAX: u64 = MAX_PACK_CHUNKS as u64 * INDEX_RECORD_LEN as u64 + FOOTER_LEN as u64;
const NEW: &str = "recipe.new";

/// The recipe of a pack.
#[derive(Debug)]
pub(crate) struct Recipe {
    bytes: Vec<u8>,
    footer: PackFooter,
}

impl Recipe {
    /// Reads the recipe of a pack, if the store has it.
    pub fn read(store: &Store, pack: &Digest) -> Result<Option<Self>> {
        let Some(directory) = PrivateDirectory::open(store, RECIPES)? else {
            return Ok(None);
        };
        let name = pack.to_hex();
        let Some(file) = directory.open_file(&name)? else {
            return Ok(None);
        };
        let path = directory.file_path(&name);
        let mut bytes = Vec::new();
        file.take(RECIPE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io(&path, "read"))?;
        let fail = |cause| StoreError::Recipe {
            path: path.clone(),
            cause,
        };
        let footer = PackFooter::parse(&bytes).map_err(fail)?;
        let index = bytes.len().saturating_sub(FOOTER_LEN);
        for chunk in footer.index(&bytes[..index]).map_err(fail)? {
            chunk.map_err(fail)?;
        }
        Ok(Some(Recipe { bytes, footer }))
    }

    /// The index and the footer.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The chunks, in order of position.
    pub fn chunks(&self) -> impl Iterator<Item = PackedChunk> + '_ {
        let index = self
            .footer
            .index(&self.bytes[..self.bytes.len() - FOOTER_LEN]);
        // The index was checked: it has no errors.
        index.ok().into_iter().flatten().map_while(Result::ok)
    }

    /// The length of the pack.
    pub fn pack_len(&self) -> u64 {
        let last = self.chunks().last();
        let end = last.map_or(0, |chunk| chunk.offset + u64::from(chunk.stored_len));
        end + self.bytes.len() as u64
    }
}

/// Keeps the recipe of a pack, durably.
pub(crate) fn keep_recipe(store: &Store, pack: &Digest, recipe: &[u8]) -> Result<()> {
    let directory = PrivateDirectory::create(store, RECIPES)?;
    directory.replace_file(NEW, &pack.to_hex(), recipe)?;
    directory.sync()
}

/// Removes the recipes of packs that `is_needed` returns false for.
pub(crate) fn remove_recipes(store: &Store, is_needed: impl Fn(&Digest) -> bool) -> Result<()> {
    let Some(directory) = PrivateDirectory::open(store, RECIPES)? else {
        return Ok(());
    };
    for name in directory.names()? {
        let pack = Digest::from_hex(name.as_bytes());
        let is_new = name.as_bytes().starts_with(NEW.as_bytes());
        if is_new || pack.is_some_and(|pack| !is_needed(&pack)) {
            directory.remove_file(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::parallel::for_each;
    use std::fs;

    #[test]
    fn threads_keep_recipes_at_once() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let packs: Vec<_> = (0..100u8).map(|number| Digest::of(&[number])).collect();
        let keep = |(): &mut (), pack: &Digest| keep_recipe(&store, pack, pack.to_hex().as_bytes());
        for_each(8, &packs, || (), keep).unwrap();
        let directory = PrivateDirectory::open(&store, RECIPES).unwrap().unwrap();
        for pack in packs {
            let name = pack.to_hex();
            let kept = fs::read(directory.file_path(&name)).unwrap();
            assert_eq!(kept, name.as_bytes());
        }
    }
}
