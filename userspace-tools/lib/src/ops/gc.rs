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

use crate::error::{CommandError, Error, Result, StoreError};
use crate::image::reader::ImageReader;
use crate::model::count::Count;
use crate::model::digest::Digest;
use crate::model::oci;
use crate::model::reference::Selector;
use crate::mount;
use crate::store::graph;
use crate::store::locks::{UseLock, PRIVATE};
use crate::store::oci_layout::Store;
use crate::store::staging;
use crate::sys::mounts::Mount;
use crate::sys::pause::{self, Point};
use puzzlefs_schema::{FileType, Locator};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

/// The result of a collection.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// The blobs that are needed.
    pub kept: Count,
    /// The blobs that are not needed. They were removed unless it was a dry run.
    pub swept: Count,
    /// The same blobs with their sizes.
    pub blobs: Vec<(Digest, u64)>,
    /// The number of directories of dead builders that were removed, with the blobs in them.
    pub stale: u64,
}

/// Finds the blobs that no image needs, and changes nothing. The result includes blobs that a running
/// builder has put.
pub fn dry_run(store: &Store) -> Result<Collected> {
    find(store)
}

/// Removes the blobs that no image needs. If builders are running, calls `wait`, which returns true to
/// wait for them. Otherwise the result is `None`.
///
/// Only builders of this library take the lock, so no other tool may write into the store.
pub fn collect(store: &Store, wait: impl FnOnce() -> bool) -> Result<Option<Collected>> {
    let Some(_lock) = UseLock::alone(store.locked(), wait)? else {
        return Ok(None);
    };
    let before = store.index_text()?;
    let mut collected = find(store)?;
    pause::at(Point::Marked);
    sync_index(store)?;
    if store.index_text()? != before {
        let path = store.path.join("index.json");
        return Err(CommandError::IndexChanged { path }.into());
    }
    for (digest, _) in &collected.blobs {
        store.remove_blob(digest)?;
        pause::at(Point::Removed);
    }
    collected.stale = staging::remove_stale(&store.path.join(PRIVATE));
    Ok(Some(collected))
}

/// Finds the blobs that are needed, and those that are not.
fn find(store: &Store) -> Result<Collected> {
    let needed = mark(store)?;
    let mut collected = Collected::default();
    for digest in store.list_blobs()?.0 {
        let size = store.blob_size(&digest)?.unwrap_or_default();
        if needed.contains(&digest) {
            collected.kept.add(size);
        } else {
            collected.swept.add(size);
            collected.blobs.push((digest, size));
        }
    }
    Ok(collected)
}

/// Returns the blobs that are needed. Fails if they cannot be known for certain.
fn mark(store: &Store) -> Result<HashSet<Digest>> {
    // A store without an index looks as if it had no images.
    let index = store.path.join("index.json");
    if !index.exists() && !store.list_blobs()?.0.is_empty() {
        return Err(CommandError::NoIndex { path: index }.into());
    }
    let (roots, mut causes) = graph::roots(store, store.known_index()?);
    let mut needed = HashSet::new();
    for root in roots {
        needed.extend(root.blobs.into_keys());
        causes.extend(root.errors);
        causes.extend(root.packed.iter().map(|image| unknown_chunks(store, image)));
        for manifest in root.images {
            let marked = store
                .image(&Selector::Manifest(manifest))
                .and_then(|image| ImageReader::new(store, &image))
                .and_then(|reader| mark_chunks(&reader, &mut needed));
            causes.extend(marked.err());
        }
    }
    for mount in Mount::all() {
        causes.extend(mark_mounted(store, &mount, &mut needed).err());
    }
    if causes.is_empty() {
        return Ok(needed);
    }
    let store = store.path.clone();
    Err(CommandError::NeedsUnknown { store, causes }.into())
}

/// Returns the error for an image of format 4, whose loose chunks its manifest does not list.
fn unknown_chunks(store: &Store, image: &Digest) -> Error {
    StoreError::UnknownType {
        path: store.blob_path(image),
        media_type: oci::PACK.to_owned(),
    }
    .into()
}

/// Marks the blobs with the contents of an image's files. Its manifest should list the same.
fn mark_chunks(reader: &ImageReader<'_>, needed: &mut HashSet<Digest>) -> Result<()> {
    let mut mark = || {
        let metadata = reader.metadata();
        for layer in 0..metadata.layers()? {
            for index in 0..metadata.layer_len(layer)? {
                let inode = metadata.inode_at(Locator { layer, index })?;
                if inode.file_type() == FileType::File {
                    for extent in inode.extents()?.iter_from(0, 0) {
                        needed.insert(Digest(*extent?.1.blob.as_bytes()));
                    }
                }
            }
        }
        Ok(())
    };
    reader.checked(mark())
}

/// Marks the blobs of a mounted image of this store. Options of the kernel module's mounts name the
/// metadata blob; the sources of mounts over FUSE and of writable mounts name the manifest.
///
/// Without `/proc` there are no mounts to mark. This protects mounts as far as they are known.
fn mark_mounted(store: &Store, mount: &Mount, needed: &mut HashSet<Digest>) -> Result<()> {
    let rootfs = match &*mount.fs_type {
        mount::TYPE => mount
            .option("rootfs")
            .and_then(|hex| Digest::from_hex(hex.as_bytes())),
        // Any user can give a mount over FUSE such a name, so a name without an image here is ignored.
        mount::FUSE_TYPE | "overlay" => mount::manifest_of(&mount.source).and_then(|manifest| {
            let image = store.image(&Selector::Manifest(manifest)).ok()?;
            needed.insert(manifest);
            Some(image.rootfs)
        }),
        _ => None,
    };
    let Some(rootfs) = rootfs else {
        return Ok(());
    };
    match store.blob_size(&rootfs)? {
        Some(size) => {
            needed.insert(rootfs);
            mark_chunks(&ImageReader::of_rootfs(store, &rootfs, size)?, needed)
        }
        None if store.path.join(PRIVATE).join("chunks").exists() => {
            Err(unknown_chunks(store, &rootfs))
        }
        None => Ok(()),
    }
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
    use super::*;
    use crate::build::build_options::BuildOptions;
    use crate::ops::build::build;
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
        build(&tree, store, &BuildOptions::new(tag), &Progress::default()).unwrap();
    }

    fn tag(name: &str) -> Selector {
        Selector::Tag(name.to_owned())
    }

    fn put_stray(store: &Store) -> Digest {
        let digest = Digest::of(b"stray");
        fs::write(store.blob_path(&digest), b"stray").unwrap();
        digest
    }

    /// Writes the manifest of an image of format 4.
    fn write_packed(store: &Store) -> oci::Descriptor {
        let config = oci::Descriptor::new(oci::EMPTY, Digest::of(b"{}"), 2);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "config": config,
            "layers": [],
            "annotations": { oci::ROOT: Digest::of(b"root").to_hex() },
        });
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = Digest::of(&bytes);
        fs::write(store.blob_path(&digest), &bytes).unwrap();
        oci::Descriptor::new(oci::MANIFEST, digest, bytes.len() as u64)
    }

    #[test]
    fn blobs_of_tags_are_marked_and_others_swept() {
        let scratch = tempfile::tempdir().unwrap();
        let store = store_of(scratch.path(), b"first");
        let all = store.list_blobs().unwrap().0.len() as u64;
        let stray = put_stray(&store);
        let found = find(&store).unwrap();
        assert_eq!(found.blobs, [(stray, 5)]);
        assert_eq!((found.kept.blobs, found.swept.blobs), (all, 1));
        // Data that a second image shares stays when the first loses its tag.
        add(scratch.path(), &store, "u", b"first");
        let image = store.image(&tag("t")).unwrap();
        let data = Digest::from_oci(&image.data_blobs().next().unwrap().digest).unwrap();
        store.untag(&tag("t")).unwrap();
        assert!(mark(&store).unwrap().contains(&data));
        store.untag(&tag("u")).unwrap();
        assert!(mark(&store).unwrap().is_empty());
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
            let mut needed = HashSet::new();
            mark_mounted(&store, mount, &mut needed).unwrap();
            needed
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
        let error = command_error(find(&store));
        assert!(matches!(error, CommandError::NoIndex { .. }), "{error}");
        fs::write(store.path.join("index.json"), index).unwrap();
        let image = store.image(&tag("t")).unwrap();
        store
            .change_index(|index| {
                let packed = write_packed(&store);
                index.set_tag("packed", packed);
                Ok(())
            })
            .unwrap();
        let error = command_error(find(&store));
        assert!(error.to_string().contains(oci::PACK), "{error}");
        store.untag(&tag("packed")).unwrap();
        find(&store).unwrap();
        fs::write(store.blob_path(&image.rootfs), b"damaged").unwrap();
        let error = command_error(find(&store));
        assert!(
            matches!(error, CommandError::NeedsUnknown { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("the blob is damaged"), "{error}");
    }
}
