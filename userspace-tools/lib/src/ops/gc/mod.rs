// SPDX-License-Identifier: MIT OR Apache-2.0

//! Removing the blobs that no image needs: mark and sweep.
//!
//! A collection marks every blob that `index.json` leads to, in images of any format. It also marks the
//! blobs of images that are mounted here, because a tag may have moved since the mount. If any of these
//! images cannot be read, nothing is removed.
//!
//! A builder holds the store's `UseLock` shared, from before its first look for a blob until its tag is
//! set. A collection holds it exclusively, from reading the index to removing the last blob. So a blob
//! that a builder relies on is either named by a tag or not yet looked for.
//!
//! # Packs
//!
//! Images of format 4 need chunks, wherever these lie. A pack whose chunks nothing needs is removed. A pack
//! with too many of them is rewritten: the chunks that are needed are copied to a new pack. An image whose
//! manifest lists the old pack is no longer complete then, and still whole. The order is: new pack, chunk
//! index, recipe of the old pack, old pack. So each chunk is found at any time.
//!
//! | module | content |
//! | --- | --- |
//! | `rewrite` | rewrites packs |
//! | `plan` | decides which packs stay |
//! | `mark` | finds the blobs and chunks that are needed |

mod mark;
mod plan;
mod rewrite;

use crate::error::{CommandError, Error, Result};
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::store::chunks::index::ChunkIndex;
use crate::store::chunks::rebuild::find_packs;
use crate::store::chunks::recipes::remove_recipes;
use crate::store::chunks::update::{adopt_packs, replace_packs};
use crate::store::fetches::remove_fetches;
use crate::store::imports::remove_imports;
use crate::store::locks::{UseLock, PRIVATE};
use crate::store::oci_layout::Store;
use crate::store::staging;
use crate::sys::pause::{self, Point};
use mark::{mark, Needed};
use plan::Plan;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;

/// Options of a collection.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// The largest part of a pack that no image needs, in per cent. A pack with more of it is rewritten.
    /// With 100, no pack is rewritten.
    pub max_dead: u8,
}

impl Default for GcOptions {
    fn default() -> Self {
        GcOptions { max_dead: 25 }
    }
}

/// The result of a collection.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// The blobs that are needed.
    pub kept: Count,
    /// The blobs that are not needed. They were removed unless it was a dry run.
    pub swept: Count,
    /// The same blobs with their sizes.
    pub blobs: Vec<(Digest, u64)>,
    /// The packs of which a part is not needed, and that are rewritten. They are removed, too.
    pub rewritten: Count,
    /// The new packs with the rest. In a dry run, the bytes of the chunks.
    pub repacked: Count,
    /// The images that lack a pack of their manifest because it is rewritten, by tags or digest.
    pub incomplete: Vec<String>,
    /// The number of directories of dead builders that were removed, with the blobs in them.
    pub stale: u64,
}

/// Finds the blobs that no image needs, and changes nothing. The result includes blobs that a running
/// builder has put.
pub fn dry_run(store: &Store, options: GcOptions) -> Result<Collected> {
    let needed = mark(store)?;
    let plan = Plan::new(store, &needed, options.max_dead)?;
    find(store, &needed, &plan)
}

/// Removes the blobs that no image needs. If builders are running, calls `wait`, which returns true to
/// wait for them. Otherwise the result is `None`.
///
/// Only builders of this library take the lock, so no other tool may write into the store.
pub fn collect(
    store: &Store,
    options: GcOptions,
    wait: impl FnOnce() -> bool,
) -> Result<Option<Collected>> {
    let Some(lock) = UseLock::alone(store.locked(), wait)? else {
        return Ok(None);
    };
    repair_chunk_index(store)?;
    let before = store.index_text()?;
    let needed = mark(store)?;
    let listed: Vec<Digest> = needed.listed.keys().copied().collect();
    adopt_packs(store, &listed)?;
    let plan = Plan::new(store, &needed, options.max_dead)?;
    let mut collected = find(store, &needed, &plan)?;
    pause::at(Point::Marked);
    sync_index(store)?;
    if store.index_text()? != before {
        let path = store.path.join("index.json");
        return Err(CommandError::IndexChanged { path }.into());
    }
    // The disk may be full. A new chunk index and new packs need the room that this makes.
    collected.stale = staging::remove_stale(&store.path.join(PRIVATE));
    let dropped: HashSet<Digest> = plan.dropped.iter().copied().collect();
    let (packs, others): (Vec<Digest>, Vec<Digest>) = collected
        .blobs
        .iter()
        .map(|(digest, _)| *digest)
        .partition(|digest| dropped.contains(digest));
    remove(store, &others)?;
    if !dropped.is_empty() {
        replace_packs(store, |pack| !dropped.contains(pack), &[])?;
    }
    remove(store, &packs)?;
    (collected.rewritten, collected.repacked) = rewrite::run(store, &lock, &needed, &plan)?;
    remove_recipes(store, |pack| needed.listed.contains_key(pack))?;
    remove_imports(store, |manifest| needed.is_needed(manifest))?;
    remove_fetches(store)?;
    Ok(Some(collected))
}

fn remove(store: &Store, blobs: &[Digest]) -> Result<()> {
    for digest in blobs {
        store.remove_blob(digest)?;
        pause::at(Point::Removed);
    }
    Ok(())
}

/// Rebuilds a chunk index that is lost or damaged, because it leads to the chunks of mounted images.
fn repair_chunk_index(store: &Store) -> Result<()> {
    let index = ChunkIndex::open(store)?;
    let is_lost = index.packs().next().is_none() && !find_packs(store)?.is_empty();
    if is_lost || index.damage().is_some() {
        replace_packs(store, |_| true, &[])?;
    }
    Ok(())
}

/// Finds the blobs that are needed, and those that are not.
fn find(store: &Store, needed: &Needed, plan: &Plan) -> Result<Collected> {
    let kept: HashSet<Digest> = plan.kept.iter().copied().collect();
    let mut collected = Collected::default();
    let mut incomplete = HashSet::new();
    for pack in &plan.rewritten {
        collected.rewritten.add(pack.size);
        collected.repacked.add(pack.live_bytes());
        incomplete.extend(needed.listed.get(&pack.digest).into_iter().flatten());
    }
    let rewritten: HashSet<Digest> = plan.rewritten.iter().map(|pack| pack.digest).collect();
    for digest in store.list_blobs()?.0 {
        let size = store.blob_size(&digest)?.unwrap_or_default();
        if needed.is_needed(&digest) || kept.contains(&digest) {
            collected.kept.add(size);
        } else if !rewritten.contains(&digest) {
            collected.swept.add(size);
            collected.blobs.push((digest, size));
        }
    }
    collected.incomplete = incomplete.into_iter().cloned().collect();
    collected.incomplete.sort_unstable();
    Ok(collected)
}

/// Makes the index durable by which the blobs were found. Another tool may have just written it. After
/// a power failure, the index before it must not reappear without its blobs.
fn sync_index(store: &Store) -> Result<()> {
    let path = store.path.join("index.json");
    match rustix::fs::openat(
        &store.root,
        "index.json",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(index) => rustix::fs::fsync(index).map_err(Error::io(path, "sync"))?,
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(Error::io(path, "open")(errno)),
    }
    rustix::fs::fsync(&store.root).map_err(Error::io(&store.path, "sync"))
}

#[cfg(test)]
mod tests {
    use super::mark::Marker;
    use super::*;
    use crate::build::build_options::BuildOptions;
    use crate::model::reference::Selector;
    use crate::model::version::Format;
    use crate::mount;
    use crate::ops::build::build;
    use crate::ops::test_images::{names, write_image, write_manifest, TestImage};
    use crate::store::chunks::reader::ChunkReader;
    use crate::store::chunks::recipes::Recipe;
    use crate::store::chunks::tests::{pack_bytes, write_pack};
    use crate::store::chunks::update::reindex;
    use crate::sys::mounts::Mount;
    use crate::sys::progress::Progress;
    use std::fs;
    use std::path::Path;

    /// Makes a store with the image `t` of one file with these contents.
    fn store_of(scratch: &Path, contents: &[u8]) -> Store {
        let store = Store::create(&scratch.join("store")).unwrap();
        add(scratch, &store, "t", contents);
        store
    }

    fn add(scratch: &Path, store: &Store, tag: &str, contents: &[u8]) {
        let tree = scratch.join(tag);
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), contents).unwrap();
        let options = BuildOptions {
            format: Format::V3,
            ..BuildOptions::new(tag)
        };
        build(&tree, store, &options, &Progress::default()).unwrap();
    }

    fn tag(name: &str) -> Selector {
        Selector::Tag(name.to_owned())
    }

    fn put_stray(store: &Store) -> Digest {
        let digest = Digest::of(b"stray");
        fs::write(store.blob_path(&digest), b"stray").unwrap();
        digest
    }

    /// What a collection without rewriting finds.
    fn found(store: &Store) -> Result<Collected> {
        dry_run(store, GcOptions { max_dead: 100 })
    }

    fn collect_with(store: &Store, max_dead: u8) -> Collected {
        collect(store, GcOptions { max_dead }, || false)
            .unwrap()
            .unwrap()
    }

    /// Asserts that all chunks of an image are found and valid.
    fn assert_whole(store: &Store, image: &TestImage) {
        let reader = ChunkReader::new(store).unwrap();
        let mut stored = Vec::new();
        for (digest, bytes) in &image.chunks {
            reader.read_stored(digest, &mut stored).unwrap();
            assert_eq!(stored, *bytes);
        }
    }

    #[test]
    fn blobs_of_tags_are_marked_and_others_swept() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let all = store.list_blobs().unwrap().0.len() as u64;
        let stray = put_stray(&store);
        let found = found(&store).unwrap();
        assert_eq!(found.blobs, [(stray, 5)]);
        assert_eq!((found.kept.blobs, found.swept.blobs), (all, 1));
        // Data that a second image shares stays when the first loses its tag.
        add(scratch.path(), &store, "u", b"first");
        let image = store.image(&tag("t")).unwrap();
        let data = Digest::from_oci(&image.data_blobs().next().unwrap().digest).unwrap();
        store.untag(&tag("t")).unwrap();
        assert!(mark(&store).unwrap().blobs.contains(&data));
        store.untag(&tag("u")).unwrap();
        assert!(mark(&store).unwrap().blobs.is_empty());
    }

    #[test]
    fn blobs_of_mounted_images_are_marked() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let image = store.image(&tag("t")).unwrap();
        let data = Digest::from_oci(&image.data_blobs().next().unwrap().digest).unwrap();
        let mounted = |fs_type: &str, source: &str, options: &str| {
            let line = format!("36 35 0:30 / /mnt ro - {fs_type} {source} {options}\n");
            let [mount] = &Mount::parse_table(line.as_bytes())[..] else {
                panic!("{line}");
            };
            let reader = ChunkReader::new(&store).unwrap();
            let mut marker = Marker::new(&store, &reader);
            marker.mounted(mount).unwrap();
            marker.needed.blobs
        };
        let rootfs = format!("ro,rootfs={}", image.rootfs);
        let by_module = HashSet::from([image.rootfs, data]);
        assert_eq!(mounted("puzzlefs", "/s", &rootfs), by_module);
        let source = mount::source_name(Path::new("/s"), &image.manifest_digest);
        let source = source.to_str().unwrap();
        let by_name = HashSet::from([image.rootfs, data, image.manifest_digest]);
        assert_eq!(mounted("fuse.puzzlefs", source, "ro"), by_name);
        assert_eq!(mounted("overlay", source, "rw"), by_name);
        // Another filesystem, and an image of another store.
        assert!(mounted("ext4", source, &rootfs).is_empty());
        let elsewhere = format!("ro,rootfs={}", Digest::of(b"elsewhere"));
        assert!(mounted("puzzlefs", "/s", &elsewhere).is_empty());
    }

    #[test]
    fn nothing_is_swept_if_the_needed_blobs_are_not_known() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        put_stray(&store);
        let command_error = |result: Result<Collected>| match result {
            Err(Error::Command(error)) => error,
            other => panic!("{other:?}"),
        };
        let index = fs::read(store.path.join("index.json")).unwrap();
        fs::remove_file(store.path.join("index.json")).unwrap();
        let error = command_error(found(&store));
        assert!(matches!(error, CommandError::NoIndex { .. }), "{error}");
        fs::write(store.path.join("index.json"), index).unwrap();
        let image = store.image(&tag("t")).unwrap();
        fs::write(store.blob_path(&image.rootfs), b"damaged").unwrap();
        let error = command_error(found(&store));
        assert!(
            matches!(error, CommandError::NeedsUnknown { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("the blob is damaged"), "{error}");
    }

    #[test]
    fn packs_without_needed_chunks_are_swept() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let one = write_image(&store, "one", &names("a", 5));
        let two = write_image(&store, "two", &names("b", 5));
        let stray = put_stray(&store);
        assert_eq!(found(&store).unwrap().blobs, [(stray, 5)]);
        store.untag(&tag("two")).unwrap();
        let collected = collect_with(&store, 25);
        let swept: HashSet<Digest> = collected.blobs.iter().map(|(blob, _)| *blob).collect();
        assert_eq!(
            swept,
            HashSet::from([stray, two.pack, two.manifest, two.config])
        );
        assert_eq!(collected.rewritten.blobs, 0);
        assert_whole(&store, &one);
        store.image(&tag("t")).unwrap();
        let packs: Vec<Digest> = ChunkIndex::open(&store).unwrap().packs().collect();
        assert_eq!(packs, [one.pack]);
        assert!(collect_with(&store, 0).blobs.is_empty());
    }

    /// A second version, whose manifest lists the pack of the first one for what it shares.
    fn two_versions(store: &Store) -> (TestImage, TestImage) {
        let one = write_image(store, "one", &names("a", 20));
        let shared = [names("a", 4), names("b", 4)].concat();
        let two = write_image(store, "two", &shared);
        let own: Vec<Vec<u8>> = two
            .chunks
            .iter()
            .filter(|(digest, _)| !one.chunks.contains_key(*digest))
            .map(|(_, stored)| stored.clone())
            .collect();
        let pack = write_pack(store, &own);
        let packs = [pack.digest, one.pack];
        replace_packs(store, |pack| *pack != two.pack, &[pack]).unwrap();
        fs::remove_file(store.blob_path(&two.pack)).unwrap();
        write_manifest(store, "two", &two.root, &packs);
        assert_whole(store, &two);
        (one, two)
    }

    #[test]
    fn packs_with_too_much_dead_data_are_rewritten() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let (one, two) = two_versions(&store);
        assert_eq!(collect_with(&store, 25).rewritten.blobs, 0);
        store.untag(&tag("one")).unwrap();
        // Sixteen of twenty files are dead. At most 90 per cent are allowed first.
        let reader = ChunkReader::new(&store).unwrap();
        assert_eq!(collect_with(&store, 90).rewritten.blobs, 0);
        let dry = dry_run(&store, GcOptions::default()).unwrap();
        assert_eq!((dry.rewritten.blobs, dry.swept.blobs), (1, 0));
        let collected = collect_with(&store, 25);
        assert_eq!(
            (collected.rewritten.blobs, collected.repacked.blobs),
            (1, 1)
        );
        assert!(collected.repacked.bytes * 2 < collected.rewritten.bytes);
        assert_eq!(collected.incomplete, ["two"]);
        assert_eq!(store.blob_size(&one.pack).unwrap(), None);
        assert_whole(&store, &two);
        let mut stored = Vec::new();
        for digest in two.chunks.keys() {
            reader.read_stored(digest, &mut stored).unwrap();
        }
        // The recipe stays as long as a manifest lists the pack.
        let recipe = Recipe::read(&store, &one.pack).unwrap().unwrap();
        assert_eq!(recipe.chunks().count(), one.chunks.len());
        // Nothing is left to do.
        let again = collect_with(&store, 25);
        assert_eq!((again.rewritten.blobs, again.swept.blobs), (0, 0));
        store.untag(&tag("two")).unwrap();
        store.untag(&tag("t")).unwrap();
        let last = collect_with(&store, 25);
        assert_eq!((last.kept.blobs, last.rewritten.blobs), (0, 0));
        assert!(Recipe::read(&store, &one.pack).unwrap().is_none());
    }

    #[test]
    fn chunks_of_mounted_images_are_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let image = write_image(&store, "one", &names("a", 3));
        let line = format!(
            "36 35 0:30 / /mnt ro - puzzlefs /s ro,rootfs={}",
            image.root
        );
        let [mount] = &Mount::parse_table(line.as_bytes())[..] else {
            panic!("{line}");
        };
        let reader = ChunkReader::new(&store).unwrap();
        let mut marker = Marker::new(&store, &reader);
        marker.mounted(mount).unwrap();
        let all: HashSet<Digest> = image.chunks.keys().copied().collect();
        assert_eq!(marker.needed.chunks, all);
        // A root that is loose.
        let bytes = &image.chunks[&image.root];
        fs::write(store.blob_path(&image.root), bytes).unwrap();
        let mut marker = Marker::new(&store, &reader);
        marker.mounted(mount).unwrap();
        assert_eq!(marker.needed.chunks, all);
    }

    #[test]
    fn loose_chunks_are_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let image = write_image(&store, "one", &names("a", 3));
        for (digest, bytes) in &image.chunks {
            fs::write(store.blob_path(digest), bytes).unwrap();
        }
        replace_packs(&store, |_| false, &[]).unwrap();
        fs::remove_file(store.blob_path(&image.pack)).unwrap();
        let collected = collect_with(&store, 0);
        assert!(collected.blobs.is_empty());
        assert_whole(&store, &image);
        store.untag(&tag("one")).unwrap();
        assert_eq!(
            collect_with(&store, 0).swept.blobs,
            image.chunks.len() as u64 + 2
        );
    }

    #[test]
    fn nothing_is_swept_if_metadata_is_missing() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let image = write_image(&store, "one", &names("a", 3));
        fs::remove_file(store.blob_path(&image.pack)).unwrap();
        put_stray(&store);
        let error = found(&store).unwrap_err().to_string();
        assert!(error.contains("cannot find the chunk"), "{error}");
        assert!(collect(&store, GcOptions::default(), || false).is_err());
    }

    #[test]
    fn a_lost_index_is_rebuilt_first() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let image = write_image(&store, "one", &names("a", 3));
        fs::remove_dir_all(store.path().join(".puzzlefs/chunks")).unwrap();
        assert!(found(&store).unwrap().blobs.is_empty());
        assert!(collect_with(&store, 25).blobs.is_empty());
        assert_whole(&store, &image);
    }

    /// A pack that claims a chunk of another one does not make that one superfluous.
    #[test]
    fn a_lying_pack_replaces_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let image = write_image(&store, "one", &names("a", 3));
        // The honest pack is one that no manifest lists.
        write_manifest(&store, "one", &image.root, &[]);
        let all: Vec<Vec<u8>> = image.chunks.values().cloned().collect();
        let (mut bytes, _) = pack_bytes(0, &all);
        for byte in bytes.iter_mut().take(1000) {
            *byte ^= 1;
        }
        let lie = Digest::of(&bytes);
        fs::write(store.blob_path(&lie), &bytes).unwrap();
        write_manifest(&store, "liar", &image.root, &[lie]);
        collect_with(&store, 25);
        assert_whole(&store, &image);
        reindex(&store, 1, &Progress::default()).unwrap();
        assert_eq!(ChunkIndex::open(&store).unwrap().packs().count(), 2);
        collect_with(&store, 25);
        assert_whole(&store, &image);
    }
}
