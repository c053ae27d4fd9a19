// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes images of format 4 complete, and puts their chunks together in few packs.
//!
//! A missing pack is built again from its recipe, byte for byte, if all its chunks exist. They do not if a
//! collection has rewritten the pack, because it leaves out chunks that no image needs. Then the packs of
//! the manifest are lost, and only on request does the image get a new manifest with packs that have its
//! chunks. `repack` always makes one if it changes packs. The root stays the same, and so do mounts. The
//! order is that of a build: packs, chunk index, index.

use crate::build::packed;
use crate::error::{
    CommandError, Damage, Error, ImageError, LostPack, PackLoss, Result, StoreError,
};
use crate::image::chunk_walk::{ChunkKind, ChunkWalk};
use crate::image::config::{CONFIG_MAX, WHAT};
use crate::image::ordered::OrderedChunks;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::json;
use crate::model::oci::{self, Descriptor};
use crate::model::reference::Selector;
use crate::model::start_order::StartOrder;
use crate::store::chunks::index::Location;
use crate::store::chunks::pack::{NewPack, PackFile};
use crate::store::chunks::reader::ChunkReader;
use crate::store::chunks::recipes::Recipe;
use crate::store::chunks::update::{add_packs, adopt_packs_of};
use crate::store::chunks::writer::{PackSeries, PACK_ALIGNMENT, PACK_SIZE};
use crate::store::oci_layout::{AnyImage, AnyRoot, Store};
use crate::store::staging::{Content, Staging};
use crate::sys::progress::Progress;
use serde_json::{json, Map, Value};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::fs::FileExt;

/// The result of completing or repacking an image.
#[derive(Clone, Debug, Default)]
pub struct Completed {
    /// The packs that were built again from their recipes.
    pub rebuilt: Count,
    /// The packs that were written.
    pub new: Count,
    /// The digest of the new manifest, if the image has got one.
    pub manifest: Option<Digest>,
    /// The number of ranges of the start-up order whose path the image does not have.
    pub missing_ranges: usize,
}

/// The packs that an image is put into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Packs stay as they are. Only chunks outside of packs are written.
    Complete,
    /// Small packs, and those with much data of other images, are written again.
    Repack,
}

/// The manifest of an image that is completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManifestChoice {
    /// It stays: its packs are built again, byte for byte.
    #[default]
    Keep,
    /// If its packs cannot be built again, another manifest with the same root takes its place.
    Replace,
}

/// Creates the packs that an image of format 4 lacks.
///
/// # Errors
///
/// [`CommandError::PacksLost`] if packs cannot be built again and the manifest stays. The other packs are
/// built nevertheless.
pub fn complete(
    store: &Store,
    image: &Selector,
    manifest: ManifestChoice,
    progress: &Progress,
) -> Result<Completed> {
    let work = Work::new(store, image, progress)?;
    let (mut completed, mut new, mut lost) = (Completed::default(), Vec::new(), Vec::new());
    for pack in work.missing_packs()? {
        match work.rebuild(&pack)? {
            Ok(rebuilt) => {
                completed.rebuilt.add(pack.size);
                new.push(rebuilt);
            }
            Err(cause) => lost.push(LostPack {
                pack: work.digest(&pack)?,
                cause,
            }),
        }
    }
    work.staging.commit()?;
    add_packs(store, &new)?;
    match manifest {
        _ if lost.is_empty() => Ok(completed),
        ManifestChoice::Replace => {
            work.relist(Policy::Complete, &mut completed)?;
            Ok(completed)
        }
        ManifestChoice::Keep => Err(CommandError::PacksLost {
            image: image.clone(),
            packs: lost,
        }
        .into()),
    }
}

/// Puts the chunks of an image of format 4 into few packs, in the order in which they are read: those of
/// the start-up order first. Without `order`, it is that of the image, if there is one.
pub fn repack(
    store: &Store,
    image: &Selector,
    order: Option<&StartOrder>,
    progress: &Progress,
) -> Result<Completed> {
    let mut work = Work::new(store, image, progress)?;
    work.order = match order {
        Some(order) => Some(order.clone()),
        None => store.start_order(work.image.root.manifest_digest(), &work.image.manifest)?,
    };
    let mut completed = Completed::default();
    work.relist(Policy::Repack, &mut completed)?;
    Ok(completed)
}

/// The work on one image. It keeps `gc` off.
struct Work<'s> {
    store: &'s Store,
    image: AnyImage,
    root: Digest,
    staging: Staging<'s>,
    reader: ChunkReader<'s>,
    progress: &'s Progress,
    /// The start-up order for the new packs.
    order: Option<StartOrder>,
}

/// The chunks of an image in the order of new packs.
#[derive(Default)]
struct Chunks {
    /// All chunks, each once.
    all: Vec<Digest>,
    /// Those that are written even if a pack that stays has them, so that they lie together.
    moved: HashSet<Digest>,
}

impl<'s> Work<'s> {
    fn new(store: &'s Store, selector: &Selector, progress: &'s Progress) -> Result<Self> {
        let staging = Staging::new(store)?;
        let image = store.any_image(selector)?;
        let AnyRoot::V4(root) = &image.root else {
            return Err(Error::Usage(format!(
                "{selector} has format 3, which has no packs; give an image of format 4"
            )));
        };
        let root = root.root;
        adopt_packs_of(store, &image.manifest)?;
        Ok(Work {
            store,
            image,
            root,
            staging,
            reader: ChunkReader::new(store)?,
            progress,
            order: None,
        })
    }

    fn packs(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.image.manifest.layers.iter();
        layers.filter(|layer| layer.is_pack())
    }

    fn digest(&self, pack: &Descriptor) -> Result<Digest> {
        let path = self.store.blob_path(self.image.root.manifest_digest());
        self.store.digest(pack, &path)
    }

    fn missing_packs(&self) -> Result<Vec<Descriptor>> {
        let mut missing = Vec::new();
        for pack in self.packs() {
            if self.store.blob_size(&self.digest(pack)?)?.is_none() {
                missing.push(pack.clone());
            }
        }
        Ok(missing)
    }

    /// Builds a pack again from its recipe. The inner error is the reason that this is not possible.
    fn rebuild(&self, pack: &Descriptor) -> Result<Result<NewPack, PackLoss>> {
        let digest = self.digest(pack)?;
        let Some(recipe) = Recipe::read(self.store, &digest)? else {
            return Ok(Err(PackLoss::Recipe));
        };
        let (found, wanted) = (recipe.pack_len(), pack.size);
        if found != wanted {
            return Ok(Err(PackLoss::Size { found, wanted }));
        }
        let (mut first, mut count) = (None, 0);
        for chunk in recipe.chunks() {
            let chunk = chunk.digest.into();
            if self.reader.find(&chunk)?.is_none() {
                first.get_or_insert(chunk);
                count += 1;
            }
        }
        if let Some(first) = first {
            return Ok(Err(PackLoss::Chunks { first, count }));
        }
        let mut stored = Vec::new();
        let put = self.staging.put_with(&digest, pack.size, |target, path| {
            let mut sha256 = Sha256::new();
            let mut end = 0;
            for chunk in recipe.chunks() {
                self.progress.check()?;
                self.reader.read_stored(&chunk.digest.into(), &mut stored)?;
                // A gap is shorter than the alignment, 4096 bytes at most.
                sha256.update(vec![0; (chunk.offset - end) as usize]);
                sha256.update(&stored);
                target
                    .write_all_at(&stored, chunk.offset)
                    .map_err(Error::io(path, "write"))?;
                end = chunk.offset + u64::from(chunk.stored_len);
            }
            sha256.update(recipe.bytes());
            target
                .write_all_at(recipe.bytes(), end)
                .map_err(Error::io(path, "write"))?;
            let found = Digest(sha256.finalize().into());
            if found != digest {
                return Err(self.store.damaged(&digest, Damage::Contents(found)));
            }
            Ok(())
        });
        match put {
            Ok(_) => {}
            // The recipe came from a registry that lied.
            Err(Error::Store(StoreError::Damaged {
                damage: Damage::Contents(found),
                ..
            })) => return Ok(Err(PackLoss::OtherPack { found })),
            Err(error) => return Err(error),
        }
        Ok(Ok(NewPack {
            digest,
            records: recipe.chunks().collect(),
        }))
    }

    /// Writes the chunks that lie in no pack that stays, and a manifest with the packs of the image.
    fn relist(&self, policy: Policy, completed: &mut Completed) -> Result<()> {
        let chunks = self.chunks(completed)?;
        let (kept, rest) = self.kept_packs(policy, &chunks)?;
        let (new, sizes) = self.write_packs(&rest)?;
        let written = new.iter().zip(&sizes);
        let written = written.map(|(pack, size)| Descriptor::new(oci::PACK, pack.digest, *size));
        let mut layers: Vec<Descriptor> = written.chain(kept).collect();
        layers.extend(self.other_layers()?);
        let old = self.image.manifest.layers.iter().map(|layer| &layer.digest);
        if old.eq(layers.iter().map(|layer| &layer.digest)) {
            return Ok(());
        }
        let (manifest, size) = self.put_manifest(layers)?;
        self.staging.commit()?;
        add_packs(self.store, &new)?;
        sizes.iter().for_each(|size| completed.new.add(*size));
        completed.manifest = Some(manifest);
        let (old, new) = (
            self.image.root.manifest_digest().to_oci(),
            manifest.to_oci(),
        );
        self.store.change_index(|index| {
            for entry in index
                .manifests
                .iter_mut()
                .filter(|entry| entry.digest == old)
            {
                entry.digest.clone_from(&new);
                entry.size = size;
            }
            Ok(())
        })
    }

    /// Returns the layers that are not packs. The start-up order is written.
    fn other_layers(&self) -> Result<Vec<Descriptor>> {
        let layers = self.image.manifest.layers.iter();
        let others = layers.filter(|layer| !layer.is_pack());
        let Some(order) = &self.order else {
            return Ok(others.cloned().collect());
        };
        let others = others.filter(|layer| !layer.is_order());
        let order = packed::put_order(&self.staging, order)?;
        Ok(others.cloned().chain([order]).collect())
    }

    /// The chunks of the image: the metadata, then the data, in the order of reading. Those of the start-up
    /// order are the first of both.
    fn chunks(&self, completed: &mut Completed) -> Result<Chunks> {
        let first = match &self.order {
            Some(order) => OrderedChunks::find(self.store, &self.root, order)?,
            None => OrderedChunks::default(),
        };
        completed.missing_ranges = first.missing;
        let (mut metadata, mut data) = (first.metadata, first.data);
        let ordered = data.len();
        let mut seen: HashSet<Digest> = metadata.iter().chain(&data).copied().collect();
        ChunkWalk::new(&self.reader).image(&self.root, |chunk, kind| {
            let digest = Digest::from(*chunk.digest());
            if seen.insert(digest) {
                match kind {
                    ChunkKind::Metadata => metadata.push(digest),
                    ChunkKind::Data => data.push(digest),
                }
            }
        })?;
        let ordered = &data[..ordered];
        let moved = if self.are_first(ordered, &metadata)? {
            HashSet::new()
        } else {
            ordered.iter().copied().collect()
        };
        metadata.append(&mut data);
        let all = metadata;
        Ok(Chunks { all, moved })
    }

    /// Returns true if chunks follow one another in packs, and nothing but metadata lies before them.
    fn are_first(&self, chunks: &[Digest], metadata: &[Digest]) -> Result<bool> {
        let mut expected = None;
        for chunk in chunks {
            let Some(Location::Pack {
                pack,
                offset,
                stored_len,
            }) = self.reader.find(chunk)?
            else {
                return Ok(false);
            };
            let is_next = match expected {
                // The next pack of a series.
                Some((before, _)) if before != pack => offset == 0,
                Some((_, end)) => offset == end,
                None => {
                    let metadata: HashSet<&Digest> = metadata.iter().collect();
                    let file = PackFile::open(self.store, &pack)?;
                    let mut before = file.chunks().take_while(|chunk| chunk.offset < offset);
                    before.all(|chunk| metadata.contains(&Digest::from(chunk.digest)))
                }
            };
            if !is_next {
                return Ok(false);
            }
            expected = Some((pack, offset + u64::from(stored_len)));
        }
        Ok(true)
    }

    /// Returns the packs of the new manifest that exist, and the chunks that are in none of them.
    fn kept_packs(
        &self,
        policy: Policy,
        chunks: &Chunks,
    ) -> Result<(Vec<Descriptor>, Vec<Digest>)> {
        let Chunks { all, moved } = chunks;
        let (mut order, mut files) = (Vec::new(), HashMap::new());
        let mut place: HashMap<Digest, Digest> = HashMap::new();
        for pack in self.packs() {
            let digest = self.digest(pack)?;
            if self.store.blob_size(&digest)?.is_some() {
                let file = PackFile::open(self.store, &digest)?;
                for chunk in file.chunks() {
                    place.entry(chunk.digest.into()).or_insert(digest);
                }
                order.push(digest);
                files.insert(digest, file.len());
            }
        }
        let mut live: HashMap<Digest, u64> = HashMap::new();
        for chunk in all {
            let found = self.reader.find(chunk)?;
            let stored_len = match found {
                Some(Location::Pack {
                    pack, stored_len, ..
                }) => {
                    place.entry(*chunk).or_insert(pack);
                    if !files.contains_key(&pack) && place.get(chunk) == Some(&pack) {
                        order.push(pack);
                        files.insert(pack, PackFile::open(self.store, &pack)?.len());
                    }
                    stored_len
                }
                Some(Location::Loose { stored_len }) => stored_len,
                None => return Err(self.missing(chunk)),
            };
            if let Some(pack) = place.get(chunk).filter(|_| !moved.contains(chunk)) {
                *live.entry(*pack).or_default() += u64::from(stored_len);
            }
        }
        let live_of = |pack: &Digest| live.get(pack).copied().unwrap_or_default();
        let is_mostly_live = |pack: &Digest| live_of(pack) * 4 >= files[pack] * 3;
        let stays = |pack: &Digest| match policy {
            Policy::Complete => live_of(pack) > 0,
            Policy::Repack => files[pack] >= PACK_SIZE / 2 && is_mostly_live(pack),
        };
        let mut kept: Vec<Digest> = order.iter().filter(|pack| stays(pack)).copied().collect();
        let others: Vec<&Digest> = order
            .iter()
            .filter(|pack| !stays(pack) && live_of(pack) > 0)
            .collect();
        // There is nothing to put together.
        let is_packed = |chunk: &Digest| place.contains_key(chunk) && !moved.contains(chunk);
        if let ([only], true) = (&others[..], all.iter().all(is_packed)) {
            if is_mostly_live(only) {
                kept = order
                    .iter()
                    .filter(|pack| live_of(pack) > 0)
                    .copied()
                    .collect();
            }
        }
        let set: BTreeSet<&Digest> = kept.iter().collect();
        let is_kept = |chunk: &&Digest| {
            let pack = place.get(*chunk).filter(|_| !moved.contains(*chunk));
            pack.is_some_and(|pack| set.contains(pack))
        };
        let rest = all.iter().filter(|chunk| !is_kept(chunk)).copied();
        let rest = rest.collect();
        let kept = kept.iter();
        let kept = kept.map(|pack| Descriptor::new(oci::PACK, *pack, files[pack]));
        Ok((kept.collect(), rest))
    }

    /// Writes chunks to new packs. Returns the packs, and their sizes.
    fn write_packs(&self, chunks: &[Digest]) -> Result<(Vec<NewPack>, Vec<u64>)> {
        let mut series = PackSeries::new(&self.staging);
        let mut stored = Vec::new();
        for chunk in chunks {
            self.progress.check()?;
            self.reader.read_stored(chunk, &mut stored)?;
            series.add(chunk, &stored, PACK_ALIGNMENT)?;
        }
        Ok(series.finish()?.into_iter().unzip())
    }

    /// Stages the manifest with these layers, and its configuration. Returns its digest and size.
    fn put_manifest(&self, layers: Vec<Descriptor>) -> Result<(Digest, u64)> {
        let mut manifest = self.image.manifest.clone();
        manifest.layers = layers;
        if manifest.config.media_type == oci::CONFIG {
            let config = self.configuration(&manifest.config, &manifest.layers)?;
            let digest = Digest::of(&config);
            self.staging.put(&digest, Content::Bytes(&[&config]))?;
            manifest.config.digest = digest.to_oci();
            manifest.config.size = config.len() as u64;
            manifest.config.data = None;
        }
        let text = manifest.to_json();
        let digest = Digest::of(&text);
        self.staging.put(&digest, Content::Bytes(&[&text]))?;
        Ok((digest, text.len() as u64))
    }

    /// Returns the configuration of the image with the digests of these layers.
    fn configuration(&self, config: &Descriptor, layers: &[Descriptor]) -> Result<Vec<u8>> {
        let digest = self.digest(config)?;
        let path = self.store.blob_path(&digest);
        let bytes = self.store.read_blob(&digest, CONFIG_MAX)?;
        let parsed: Result<Map<String, Value>, _> = json::parse(&bytes, WHAT);
        let mut config = parsed.map_err(|cause| ImageError::Configuration {
            path: path.clone(),
            cause,
        })?;
        let diff_ids: Vec<&str> = layers.iter().map(|layer| &*layer.digest).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        config.insert("rootfs".to_owned(), rootfs);
        let text = serde_json::to_vec(&config);
        text.map_err(|cause| CommandError::Configuration { path, cause }.into())
    }

    fn missing(&self, digest: &Digest) -> Error {
        StoreError::ChunkMissing {
            store: self.store.path().to_path_buf(),
            digest: *digest,
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gc::{collect, GcOptions};
    use crate::ops::test_images::{names, write_image, write_manifest, TestImage};
    use crate::ops::verify::verify_store;
    use crate::store::chunks::recipes::keep_recipe;
    use crate::store::chunks::tests::write_pack;
    use crate::store::chunks::update::replace_packs;
    use std::fs;

    fn tag() -> Selector {
        Selector::Tag("t".to_owned())
    }

    /// Moves the chunks of an image from its pack to files of their own.
    fn make_loose(store: &Store, image: &TestImage) {
        for (digest, bytes) in &image.chunks {
            fs::write(store.blob_path(digest), bytes).unwrap();
        }
        replace_packs(store, |pack| *pack != image.pack, &[]).unwrap();
        fs::remove_file(store.blob_path(&image.pack)).unwrap();
    }

    fn try_complete(store: &Store) -> Result<Completed> {
        complete(store, &tag(), ManifestChoice::Keep, &Progress::default())
    }

    /// The packs that `complete` cannot build again.
    fn lost(store: &Store) -> Vec<(Digest, PackLoss)> {
        match try_complete(store) {
            Err(Error::Command(CommandError::PacksLost { packs, .. })) => {
                let packs = packs.into_iter();
                packs.map(|lost| (lost.pack, lost.cause)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn assert_complete(store: &Store) {
        let verified = verify_store(store, 1, &Progress::default()).unwrap();
        assert_eq!(verified.faults, []);
        assert!(verified
            .packed
            .iter()
            .all(|image| image.is_complete() && image.is_whole));
    }

    #[test]
    fn packs_are_built_again_from_recipes() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = write_image(&store, "t", &names("a", 9));
        let bytes = fs::read(store.blob_path(&image.pack)).unwrap();
        let file = PackFile::open(&store, &image.pack).unwrap();
        keep_recipe(&store, &image.pack, file.recipe()).unwrap();
        make_loose(&store, &image);
        let completed = try_complete(&store).unwrap();
        assert_eq!((completed.rebuilt.blobs, completed.manifest), (1, None));
        assert_eq!(fs::read(store.blob_path(&image.pack)).unwrap(), bytes);
        assert_complete(&store);
        // Nothing is left to do.
        let again = try_complete(&store).unwrap();
        assert_eq!(
            (again.rebuilt.blobs, again.new.blobs, again.manifest),
            (0, 0, None)
        );
    }

    #[test]
    fn a_wrong_recipe_is_not_used() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = write_image(&store, "t", &names("a", 9));
        let file = PackFile::open(&store, &image.pack).unwrap();
        let mut recipe = file.recipe().to_vec();
        // The first two chunks change places.
        recipe[..72].rotate_left(36);
        keep_recipe(&store, &image.pack, &recipe).unwrap();
        make_loose(&store, &image);
        assert!(matches!(
            lost(&store)[..],
            [(_, PackLoss::OtherPack { .. })]
        ));
        let replace = ManifestChoice::Replace;
        let completed = complete(&store, &tag(), replace, &Progress::default()).unwrap();
        assert_eq!((completed.rebuilt.blobs, completed.new.blobs), (0, 1));
        assert!(completed.manifest.is_some());
        assert_complete(&store);
    }

    #[test]
    fn without_a_recipe_the_image_gets_a_new_manifest_on_request() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = write_image(&store, "t", &names("a", 9));
        make_loose(&store, &image);
        assert_eq!(lost(&store), [(image.pack, PackLoss::Recipe)]);
        let replace = ManifestChoice::Replace;
        let completed = complete(&store, &tag(), replace, &Progress::default()).unwrap();
        assert_eq!((completed.rebuilt.blobs, completed.new.blobs), (0, 1));
        let found = store.any_image(&tag()).unwrap();
        assert_eq!(
            completed.manifest.as_ref(),
            Some(found.root.manifest_digest())
        );
        assert_eq!(*found.root.digest(), image.root);
        let config = Digest::from_oci(&found.manifest.config.digest).unwrap();
        let config: Value =
            serde_json::from_slice(&store.read_blob(&config, CONFIG_MAX).unwrap()).unwrap();
        let diff_ids = &config["rootfs"]["diff_ids"];
        assert_eq!(
            diff_ids[0].as_str().unwrap(),
            found.manifest.layers[0].digest
        );
        assert_complete(&store);
        collect(&store, GcOptions::default(), || false)
            .unwrap()
            .unwrap();
        assert_complete(&store);
    }

    /// A collection removes chunks that no image needs, so the pack cannot be built again. The manifest of
    /// the tag stays.
    #[test]
    fn a_pack_without_a_chunk_is_reported() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = write_image(&store, "t", &names("a", 9));
        let file = PackFile::open(&store, &image.pack).unwrap();
        keep_recipe(&store, &image.pack, file.recipe()).unwrap();
        make_loose(&store, &image);
        let manifest = *store.any_image(&tag()).unwrap().root.manifest_digest();
        for gone in &image.data[..2] {
            fs::remove_file(store.blob_path(gone)).unwrap();
        }
        let position =
            |chunk: &Digest| file.chunks().position(|c| Digest::from(c.digest) == *chunk);
        let first = image.data[..2].iter().min_by_key(|chunk| position(chunk));
        let cause = PackLoss::Chunks {
            first: *first.unwrap(),
            count: 2,
        };
        assert_eq!(lost(&store), [(image.pack, cause)]);
        let error = try_complete(&store).unwrap_err().to_string();
        assert!(error.contains(&first.unwrap().to_hex()), "{error}");
        let found = store.any_image(&tag()).unwrap();
        assert_eq!(*found.root.manifest_digest(), manifest);
        assert_eq!(store.blob_size(&image.pack).unwrap(), None);
    }

    #[test]
    fn small_packs_become_one() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let image = write_image(&store, "t", &names("a", 9));
        let all: Vec<Vec<u8>> = image.chunks.values().cloned().collect();
        let packs: Vec<NewPack> = all.chunks(3).map(|few| write_pack(&store, few)).collect();
        let digests: Vec<Digest> = packs.iter().map(|pack| pack.digest).collect();
        replace_packs(&store, |_| false, &packs).unwrap();
        fs::remove_file(store.blob_path(&image.pack)).unwrap();
        write_manifest(&store, "t", &image.root, &digests);
        assert_complete(&store);
        let repacked = repack(&store, &tag(), None, &Progress::default()).unwrap();
        assert_eq!(repacked.new.blobs, 1);
        let found = store.any_image(&tag()).unwrap();
        assert_eq!(found.manifest.layers.len(), 1);
        // The root comes first.
        let pack = Digest::from_oci(&found.manifest.layers[0].digest).unwrap();
        let first = PackFile::open(&store, &pack)
            .unwrap()
            .chunks()
            .next()
            .unwrap();
        assert_eq!(Digest::from(first.digest), image.root);
        let again = repack(&store, &tag(), None, &Progress::default()).unwrap();
        assert_eq!((again.new.blobs, again.manifest), (0, None));
        let collected = collect(&store, GcOptions::default(), || false)
            .unwrap()
            .unwrap();
        assert!(collected.swept.blobs >= digests.len() as u64);
        assert_complete(&store);
    }

    #[test]
    fn images_of_format_3_have_no_packs() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let error = try_complete(&store).unwrap_err();
        assert!(error.to_string().contains("no image is tagged"), "{error}");
    }
}
