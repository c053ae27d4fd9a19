// SPDX-License-Identifier: MIT OR Apache-2.0

//! Removing the blobs that no image needs: mark and sweep.
//!
//! Whoever relies on a blob that no image names yet holds the store's `UseLock`: a builder from
//! before it looks for the first blob until its tag is set, so that what it found in the store
//! stays there, and what it brought is named when the lock is let go. A sweep, from reading the
//! index to removing the last blob, has the lock alone.
//!
//! What is kept is everything that `index.json` leads to, whatever it is an image of, and what the
//! images are made of that are mounted here: a tag may have moved on meanwhile. If anything of this
//! cannot be read, nothing is removed.

use crate::error::{CommandError, Error, Result};
use crate::image::reader::ImageReader;
use crate::model::count::Count;
use crate::model::digest::Digest;
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

/// What a collection found, and removed.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// The blobs that are needed.
    pub kept: Count,
    /// Those that are not: removed, unless it was a dry run.
    pub swept: Count,
    /// The same, one by one, with their sizes.
    pub blobs: Vec<(Digest, u64)>,
    /// The directories of dead builders that were removed, with what they had staged.
    pub stale: u64,
}

/// Finds the blobs that no image needs, and changes nothing. What a builder at work has brought so
/// far is among them.
pub fn dry_run(store: &Store) -> Result<Collected> {
    find(store)
}

/// Removes the blobs that no image needs. If builders are at work, `wait` is called, and decides
/// by its result whether to wait until they are done; `None` where it does not.
///
/// Only builders of this library are known here: no other tool must write into the store.
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

/// Finds what is needed and what is not.
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

/// Everything that is needed. It fails where that cannot be said for certain.
fn mark(store: &Store) -> Result<HashSet<Digest>> {
    // Without it, a store looks as if it had no images.
    let index = store.path.join("index.json");
    if !index.exists() && !store.list_blobs()?.0.is_empty() {
        return Err(CommandError::NoIndex { path: index }.into());
    }
    let (roots, mut causes) = graph::roots(store, store.known_index()?);
    let mut needed = HashSet::new();
    for root in roots {
        needed.extend(root.blobs.into_keys());
        causes.extend(root.errors);
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

/// Marks the blobs that an image's files are in. Its manifest lists the same, or should.
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

/// Marks the blobs of the image that a mount is of, if it is of one of this store: by the module,
/// which tells its metadata blob, or over FUSE or writable, which have its manifest in their names.
///
/// Without `/proc` nobody can say. It is what protects those who mount, and no condition.
fn mark_mounted(store: &Store, mount: &Mount, needed: &mut HashSet<Digest>) -> Result<()> {
    let rootfs = match &*mount.fs_type {
        mount::TYPE => mount
            .option("rootfs")
            .and_then(|hex| Digest::from_hex(hex.as_bytes())),
        // Anybody may give a mount over FUSE such a name: what leads to no image here is none of it.
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
        None => Ok(()),
    }
}

/// Makes the index durable that the blobs were found by. Another tool may have written it just now:
/// after a power failure, the one before it must not be back without its blobs.
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
