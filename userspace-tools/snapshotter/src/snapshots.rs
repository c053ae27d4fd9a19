// SPDX-License-Identifier: MIT OR Apache-2.0

//! The snapshots that containerd makes, stacks and removes.
//!
//! A snapshot is a directory with changes, or an image. For a snapshot with parents, containerd mounts an
//! overlay of them. The lowest parent may be an image. This module mounts an image once for all its
//! descendants, and unmounts it when it has none.
//!
//! # Consistency
//!
//! A change is made to a copy of the state, and takes effect when the copy is written to disk. Directories
//! and mounts that are not in the state are removed at the next start, or by
//! [`clean_up`](Snapshots::clean_up). An image is noted in [`State::leaving`] before its store gets a tag, so
//! the tag of a killed call is removed in the same way.
//!
//! # Locking
//!
//! | lock | protects | while held |
//! | --- | --- | --- |
//! | `Snapshots::images` | the mount of an image, its tag and its data in its store | waits for stores and registries |
//! | `Snapshots::state` | the state | writes the state's file |
//! | `Snapshots::_lock`, a file | the directory, against a second snapshotter | |
//!
//! An image's lock is taken before that of the state. A thread holds the lock of one image at most.

use crate::api::{Info, Kind, Labels, Mount, Timestamp, UsageResponse, REFERENCE};
use crate::images;
use crate::locks::{ImageLock, ImageLocks};
use crate::state::{Content, Image, Snapshot, Sources, Stack, State};
use crate::usage;
use anyhow::{ensure, Context};
use puzzlefs_lib::mount::copy_root;
use puzzlefs_lib::Digest;
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Mounts images, and keeps them in their stores.
pub trait Mounter: Send + Sync + 'static {
    /// Mounts the image of a manifest on a directory as a layer of overlays, unless it is mounted there
    /// in just this way. Returns true if only an overlay shows the image's attributes as they are.
    fn mount(&self, manifest: &Digest, image: &Image, directory: &Path) -> anyhow::Result<bool>;
    /// Unmounts whatever image is mounted on a directory.
    fn unmount(&self, directory: &Path) -> anyhow::Result<()>;
    /// Sets a tag of an image, so that `puzzlefs gc` keeps it.
    fn keep(&self, manifest: &Digest, store: &Path, tag: &str) -> anyhow::Result<()>;
    /// Removes a tag, which need not exist.
    fn release(&self, store: &Path, tag: &str) -> anyhow::Result<()>;
}

/// The kind of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The snapshot does not exist.
    NotFound,
    /// A snapshot of this name exists.
    AlreadyExists,
    /// The kind of the snapshot, or another snapshot that depends on it, prevents the call.
    Precondition,
    /// The request is invalid.
    Invalid,
    /// The system has failed.
    Failed,
}

/// A refusal.
#[derive(Debug)]
pub struct Refusal {
    /// The kind.
    pub cause: Cause,
    /// The reason for people to read.
    pub message: String,
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        refusal(Cause::Failed, format_args!("{error:#}"))
    }
}

/// Makes a refusal.
pub fn refusal(cause: Cause, message: impl fmt::Display) -> Refusal {
    Refusal {
        cause,
        message: message.to_string(),
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// The layer that a snapshot is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerName {
    /// The namespace of containerd.
    pub namespace: String,
    /// The chain ID: a digest of the layer and those below it, and the name of the complete snapshot.
    pub chain: String,
    /// The labels of the snapshot.
    pub labels: Labels,
}

/// An image that can be mounted.
#[derive(Clone, Debug)]
pub struct AvailableImage {
    /// The digest of the manifest in hexadecimal digits.
    pub hex: String,
    /// The image.
    pub image: Image,
    /// The space that it has added to its store.
    pub usage: UsageResponse,
}

/// A layer that is not downloaded.
#[derive(Clone, Debug)]
pub enum NewLayer {
    /// The last layer of an image.
    Image(AvailableImage),
    /// Another layer.
    Part,
}

/// All snapshots of a machine.
pub struct Snapshots<M> {
    root: PathBuf,
    mounts: PathBuf,
    mounter: M,
    images: ImageLocks,
    state: Mutex<State>,
    /// Locked by the only snapshotter that works in `root`.
    _lock: File,
}

impl<M: Mounter> Snapshots<M> {
    /// Reads the state in `root`, where changes are kept too. Images are mounted in `mounts`. Removes the
    /// remains of a killed snapshotter.
    pub fn open(root: &Path, mounts: &Path, mounter: M) -> anyhow::Result<Self> {
        for path in [root, mounts] {
            // They occur in options of overlayfs, which separates by these characters.
            let fits = path
                .to_str()
                .is_some_and(|path| path.starts_with('/') && !path.contains([',', ':', '\\', '"']));
            ensure!(
                fits,
                "{}: give an absolute path without , : \" and backslashes",
                path.display()
            );
        }
        make_directory(root)?;
        make_directory(mounts)?;
        let lock = root.join("lock");
        let shown = || lock.display().to_string();
        let lock_file = File::create(&lock).with_context(shown)?;
        rustix::fs::flock(&lock_file, FlockOperation::NonBlockingLockExclusive)
            .context("another snapshotter uses the directory")
            .with_context(shown)?;
        let mut state = State::load(root)?;
        // Images without a snapshot are the remains of killed imports.
        state.forget_images();
        if state.id.is_empty() {
            let seed = format!("{} {:?}", root.display(), SystemTime::now());
            state.id = Digest::of(seed.as_bytes()).to_hex().split_off(56);
        }
        make_directory(&root.join("snapshots"))?;
        let snapshots = Snapshots {
            root: root.to_owned(),
            mounts: mounts.to_owned(),
            mounter,
            images: ImageLocks::default(),
            state: Mutex::new(state),
            _lock: lock_file,
        };
        snapshots.clean_up();
        Ok(snapshots)
    }

    /// Registers an image of a store. Containerd can then prepare the layer of its name.
    pub fn add_image(&self, manifest: &Digest, image: Image) -> Result<()> {
        let hex = manifest.to_hex();
        let lock = self.images.lock(&hex)?;
        let added = self.add_locked(manifest, &hex, image);
        self.release(lock);
        added
    }

    fn add_locked(&self, manifest: &Digest, hex: &str, image: Image) -> Result<()> {
        // A trial mount reports an unusable image to the import instead of to a container.
        let mounted = self.mounter.mount(manifest, &image, &self.mount_point(hex));
        if mounted.is_err() {
            self.unmount(hex);
        }
        mounted?;
        let store = image.store.clone();
        let tag = {
            let mut state = self.lock();
            let mut new = state.clone();
            new.leaving.insert((hex.to_owned(), store.clone()));
            self.change(&mut state, new)?;
            tag_of(&state, hex)
        };
        if let Err(error) = self.mounter.keep(manifest, &store, &tag) {
            // A store that cannot be written has no `gc` either.
            let error = error.context("the image has no tag that keeps it from 'puzzlefs gc'");
            report(&store, &error);
        }
        let mut state = self.lock();
        let mut new = state.clone();
        new.forget_image(hex);
        new.leaving.remove(&(hex.to_owned(), store));
        new.images.insert(hex.to_owned(), image);
        self.change(&mut state, new)
    }

    /// Makes an active snapshot or a view, and returns its mounts.
    pub fn prepare(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        if key.is_empty() {
            return Err(refusal(Cause::Invalid, "a snapshot needs a key"));
        }
        if let Some(name) = labels.get(REFERENCE) {
            self.prepare_layer(&mut self.lock(), name, parent, &labels)?;
        }
        let parent = Some(parent).filter(|parent| !parent.is_empty());
        let (stack, lock) = self.lock_stack(|state| {
            check_new(state, key, parent)?;
            Ok(state.stack_on(parent))
        })?;
        let made = self.with_directory(|number| {
            let content = Content::Directory(number);
            let snapshot = Snapshot::new(kind, parent.map(str::to_owned), content, labels);
            self.make_snapshot(key, number, snapshot, &stack)
        });
        if let Some(lock) = lock {
            self.release(lock);
        }
        made
    }

    /// Gives `work` the number of a new directory, and removes the directory if it fails.
    fn with_directory<T>(&self, work: impl FnOnce(u64) -> Result<T>) -> Result<T> {
        let number = {
            let mut state = self.lock();
            let number = state.next;
            state.next += 1;
            state.making.insert(number);
            number
        };
        let made = work(number);
        if made.is_err() {
            // If this fails, the next start removes it.
            let _ = fs::remove_dir_all(self.directory(number));
        }
        self.lock().making.remove(&number);
        made
    }

    /// Makes the directory of a snapshot, and adds the snapshot to the state. The lock of the image of
    /// `stack` is held.
    fn make_snapshot(
        &self,
        key: &str,
        number: u64,
        snapshot: Snapshot,
        stack: &Stack,
    ) -> Result<Vec<Mount>> {
        let mounts = self.mounts_of(snapshot.kind == Kind::Active, number, stack)?;
        self.make(&self.directory(number), stack.lower.first())?;
        let mut state = self.lock();
        // Another call may have removed the parent.
        check_new(&state, key, snapshot.parent.as_deref())?;
        let mut new = state.clone();
        new.snapshots.insert(key.to_owned(), snapshot);
        self.change(&mut state, new)?;
        Ok(mounts)
    }

    /// Finds a stack in the state, and takes the lock of its image. The image thus stays mounted as it is.
    fn lock_stack(
        &self,
        find: impl Fn(&State) -> Result<Stack>,
    ) -> Result<(Stack, Option<ImageLock<'_>>)> {
        let mut lock: Option<ImageLock<'_>> = None;
        loop {
            let stack = find(&self.lock())?;
            let image = stack.image.as_ref().map(|(hex, _)| hex);
            if lock.as_ref().map(ImageLock::image) == image.map(String::as_str) {
                return Ok((stack, lock));
            }
            drop(lock.take());
            lock = image.map(|hex| self.images.lock(hex)).transpose()?;
        }
    }

    /// Answers that a layer exists if it is a registered image.
    fn prepare_layer(
        &self,
        state: &mut State,
        name: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<()> {
        let Some(hex) = name.strip_prefix("sha256:") else {
            return Ok(());
        };
        if !parent.is_empty() || !state.images.contains_key(hex) {
            return Ok(());
        }
        if !state.snapshots.contains_key(name) {
            let mut new = state.clone();
            let content = Content::Image(hex.to_owned());
            let snapshot = Snapshot::new(Kind::Committed, None, content, labels.clone());
            new.snapshots.insert(name.to_owned(), snapshot);
            self.change(state, new)?;
        }
        Err(exists(name))
    }

    /// Returns the mounts of a snapshot.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let place = |state: &State| -> Result<(bool, u64, Stack)> {
            let (_, snapshot) = find(state, key)?;
            match snapshot.content {
                Content::Directory(number) if snapshot.kind != Kind::Committed => {
                    let stack = state.stack_on(snapshot.parent.as_deref());
                    Ok((snapshot.kind == Kind::Active, number, stack))
                }
                _ => {
                    let message = format!("snapshot '{key}' is committed; mount a view of it");
                    Err(refusal(Cause::Precondition, message))
                }
            }
        };
        let (stack, lock) = self.lock_stack(|state| Ok(place(state)?.2))?;
        let placed = place(&self.lock());
        let mounts =
            placed.and_then(|(writable, number, _)| self.mounts_of(writable, number, &stack));
        if let Some(lock) = lock {
            self.release(lock);
        }
        mounts
    }

    /// Commits an active snapshot under a new name.
    pub fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<()> {
        // Measured before the lock is taken, because it takes time. Containerd commits only snapshots that
        // are no longer written.
        let usage = self.usage(key)?;
        let mut state = self.lock();
        if name.is_empty() {
            return Err(refusal(Cause::Invalid, "a snapshot needs a name"));
        }
        let (_, snapshot) = find(&state, key)?;
        if snapshot.kind != Kind::Active {
            let message = format!("snapshot '{key}' is not an active one");
            return Err(refusal(Cause::Precondition, message));
        }
        if state.snapshots.contains_key(name) {
            return Err(exists(name));
        }
        let mut new = state.clone();
        let mut unused = None;
        if let Some(mut snapshot) = new.snapshots.remove(key) {
            if let Some(hex) = snapshot.applied.take() {
                unused = Some(std::mem::replace(
                    &mut snapshot.content,
                    Content::Image(hex),
                ));
            } else {
                snapshot.usage = usage;
            }
            snapshot.kind = Kind::Committed;
            snapshot.labels = labels;
            snapshot.created = Timestamp::now();
            snapshot.updated = snapshot.created;
            new.snapshots.insert(name.to_owned(), snapshot);
        }
        self.change(&mut state, new)?;
        drop(state);
        if let Some(Content::Directory(number)) = unused {
            remove_directory(&self.directory(number));
        }
        Ok(())
    }

    /// Returns the layer that an active snapshot is for. `mounts` are those of the snapshot.
    ///
    /// containerd makes keys of the form `NAMESPACE/NUMBER/extract-RANDOM CHAIN-ID`, and some versions state
    /// the chain ID by a label, too.
    pub fn layer_of(&self, mounts: &[Mount]) -> Result<LayerName> {
        let state = self.lock();
        let (key, snapshot) = self.mounted_by(&state, mounts)?;
        let in_key = key.rsplit_once(' ').map(|(_, chain)| chain);
        let chain = snapshot
            .labels
            .get(REFERENCE)
            .map(String::as_str)
            .or(in_key);
        match (key.split_once('/'), chain) {
            (Some((namespace, _)), Some(chain)) => Ok(LayerName {
                namespace: namespace.to_owned(),
                chain: chain.to_owned(),
                labels: snapshot.labels.clone(),
            }),
            _ => {
                let message =
                    format!("the key '{key}' of a snapshot has no namespace or no chain ID");
                Err(refusal(Cause::Invalid, message))
            }
        }
    }

    /// Makes an active snapshot become an image when it is committed.
    pub fn apply(&self, mounts: &[Mount], applied: AvailableImage) -> Result<()> {
        let AvailableImage { hex, image, usage } = applied;
        self.change_mounted(mounts, |new, key| {
            if let Some(snapshot) = new.snapshots.get_mut(key) {
                snapshot.applied = Some(hex.clone());
                snapshot.usage = usage;
            }
            new.add_image(&hex, &image);
        })
    }

    /// Marks an active snapshot as that of a layer which is not the last one of its image.
    pub fn apply_part(&self, mounts: &[Mount], chain: &str) -> Result<()> {
        self.change_mounted(mounts, |new, key| {
            if let Some(snapshot) = new.snapshots.get_mut(key) {
                snapshot.part = Some(chain.to_owned());
            }
        })
    }

    fn change_mounted(
        &self,
        mounts: &[Mount],
        change: impl FnOnce(&mut State, &str),
    ) -> Result<()> {
        let mut state = self.lock();
        let key = self.mounted_by(&state, mounts)?.0.to_owned();
        let mut new = state.clone();
        change(&mut new, &key);
        self.change(&mut state, new)
    }

    /// Returns true if a layer is an image that an import has registered.
    pub fn is_registered(&self, chain: &str, parent: &str) -> bool {
        let hex = chain.strip_prefix("sha256:").unwrap_or_default();
        parent.is_empty() && self.lock().images.contains_key(hex)
    }

    /// Commits a snapshot of a layer that containerd has not downloaded. The image's lock is held.
    pub fn add_layer(
        &self,
        chain: &str,
        parent: &str,
        labels: &Labels,
        layer: &NewLayer,
    ) -> Result<()> {
        let known = self.lock().layer(chain, parent).map(str::to_owned);
        if let Some(name) = known {
            return match layer {
                NewLayer::Image(image) => self.complete_part(&name, image),
                NewLayer::Part => Ok(()),
            };
        }
        let parent = Some(parent).filter(|parent| !parent.is_empty());
        let parent = parent.map(str::to_owned);
        let new = |content| Snapshot::new(Kind::Committed, parent.clone(), content, labels.clone());
        let added = match layer {
            NewLayer::Image(image) => {
                let mut snapshot = new(Content::Image(image.hex.clone()));
                snapshot.usage = image.usage;
                self.add_committed(chain, snapshot, Some(image))
            }
            NewLayer::Part => self.with_directory(|number| {
                self.make(&self.directory(number), None)?;
                let mut snapshot = new(Content::Directory(number));
                snapshot.part = Some(chain.to_owned());
                self.add_committed(chain, snapshot, None)
            }),
        };
        match added {
            // Another call was faster.
            Err(refusal) if refusal.cause == Cause::AlreadyExists => Ok(()),
            added => added,
        }
    }

    fn add_committed(
        &self,
        chain: &str,
        snapshot: Snapshot,
        image: Option<&AvailableImage>,
    ) -> Result<()> {
        let mut state = self.lock();
        let parent = snapshot.parent.as_deref();
        if state.layer(chain, parent.unwrap_or_default()).is_some() {
            return Err(exists(chain));
        }
        // Namespaces can have different snapshots below the layer.
        let mut name = chain.to_owned();
        while state.snapshots.contains_key(&name) {
            name.push('+');
        }
        check_new(&state, &name, parent)?;
        let mut new = state.clone();
        if let Some(AvailableImage { hex, image, .. }) = image {
            new.add_image(hex, image);
        }
        new.snapshots.insert(name, snapshot);
        self.change(&mut state, new)
    }

    /// Returns the chain ID of layers, if a snapshot is empty and these layers can be an image.
    pub fn part(&self, name: &str) -> Option<String> {
        let state = self.lock();
        state.snapshots.get(name)?.part.clone()
    }

    /// Makes an empty snapshot the image that its layers are. The image's lock is held.
    pub fn complete_part(&self, name: &str, image: &AvailableImage) -> Result<()> {
        let mut state = self.lock();
        let mut new = state.clone();
        let snapshot = new.snapshots.get_mut(name);
        let snapshot = snapshot.ok_or_else(|| missing(name))?;
        if snapshot.part.take().is_none() {
            return Ok(());
        }
        let content = Content::Image(image.hex.clone());
        let unused = std::mem::replace(&mut snapshot.content, content);
        snapshot.usage = image.usage;
        new.add_image(&image.hex, &image.image);
        self.change(&mut state, new)?;
        drop(state);
        if let Content::Directory(number) = unused {
            remove_directory(&self.directory(number));
        }
        Ok(())
    }

    /// Returns the images of snapshots that are not complete, and their sources.
    pub fn incomplete(&self) -> Vec<(Digest, Sources)> {
        let state = self.lock();
        let images = state.images.iter();
        let incomplete = images.filter(|(_, image)| !image.sources.is_empty());
        incomplete
            .filter_map(|(hex, image)| {
                let manifest = Digest::from_hex(hex.as_bytes())?;
                Some((manifest, image.sources.clone()))
            })
            .collect()
    }

    /// Notes that the store has all chunks of an image. Its next mount does not wait for chunks.
    pub fn complete_image(&self, manifest: &Digest) -> Result<()> {
        let mut state = self.lock();
        let mut new = state.clone();
        match new.images.get_mut(&manifest.to_hex()) {
            Some(image) if !image.sources.is_empty() => image.sources.clear(),
            _ => return Ok(()),
        }
        self.change(&mut state, new)
    }

    /// Waits for the lock of an image.
    pub fn lock_image(&self, hex: &str) -> Result<ImageLock<'_>> {
        self.images.lock(hex)
    }

    /// Takes the lock of an image if it is free.
    pub fn try_lock_image(&self, hex: &str) -> Option<ImageLock<'_>> {
        self.images.try_lock(hex)
    }

    /// Returns the numbers of snapshots and of images with descendants.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        let names = state.snapshots.keys();
        let used: BTreeSet<&str> = names.filter_map(|name| state.image_below(name)).collect();
        (state.snapshots.len(), used.len())
    }

    /// Returns true if an image is used from a store.
    pub fn has_image(&self, hex: &str, store: &Path) -> bool {
        let state = self.lock();
        state
            .images
            .get(hex)
            .is_some_and(|image| image.store == store)
    }

    /// Finds the active snapshot that has these mounts.
    fn mounted_by<'s>(
        &self,
        state: &'s State,
        mounts: &[Mount],
    ) -> Result<(&'s str, &'s Snapshot)> {
        let mut active = state
            .snapshots
            .iter()
            .filter(|(_, one)| one.kind == Kind::Active);
        let found = active.find(|(_, snapshot)| match snapshot.content {
            Content::Directory(number) => {
                let own = shown(&self.directory(number).join("fs"));
                let upper = format!("upperdir={own}");
                let is_own = |mount: &Mount| mount.source == own || mount.options.contains(&upper);
                mounts.iter().any(is_own)
            }
            Content::Image(_) => false,
        });
        let found = found.map(|(key, snapshot)| (&**key, snapshot));
        found.ok_or_else(|| {
            refusal(
                Cause::NotFound,
                "the mounts are those of no active snapshot",
            )
        })
    }

    /// Removes a snapshot that is not a parent.
    pub fn remove(&self, key: &str) -> Result<()> {
        let mut state = self.lock();
        let content = find(&state, key)?.1.content.clone();
        let mut others = state.snapshots.iter();
        if let Some((other, _)) = others.find(|(_, other)| other.parent.as_deref() == Some(key)) {
            let message = format!("cannot remove snapshot '{key}': it is the parent of '{other}'");
            return Err(refusal(Cause::Precondition, message));
        }
        let below = state.image_below(key).map(str::to_owned);
        let mut new = state.clone();
        let removed = new.snapshots.remove(key);
        let own = match &content {
            Content::Image(hex) => Some(hex.clone()),
            Content::Directory(_) => removed.and_then(|removed| removed.applied),
        };
        if let Some(hex) = own.as_ref().filter(|hex| !new.has_snapshot_of(hex)) {
            new.forget_image(hex);
        }
        self.change(&mut state, new)?;
        drop(state);
        if let Content::Directory(number) = content {
            remove_directory(&self.directory(number));
        }
        for hex in [below, own].into_iter().flatten() {
            self.look_at(&hex);
        }
        Ok(())
    }

    /// Returns the properties of a snapshot.
    pub fn stat(&self, key: &str) -> Result<Info> {
        let state = self.lock();
        find(&state, key).map(|(name, snapshot)| info(name, snapshot))
    }

    /// Returns all snapshots.
    pub fn list(&self) -> Vec<Info> {
        let state = self.lock();
        let all = state.snapshots.iter();
        all.map(|(name, snapshot)| info(name, snapshot)).collect()
    }

    /// Changes all labels, or those that `fields` names as `labels.NAME`.
    pub fn update(&self, wanted: Info, fields: &[String]) -> Result<Info> {
        let mut state = self.lock();
        find(&state, &wanted.name)?;
        let mut new = state.clone();
        let Some(snapshot) = new.snapshots.get_mut(&wanted.name) else {
            return Err(missing(&wanted.name));
        };
        if fields.is_empty() {
            snapshot.labels.clone_from(&wanted.labels);
        }
        for field in fields {
            match field.strip_prefix("labels") {
                Some("") => snapshot.labels.clone_from(&wanted.labels),
                Some(label) if label.len() > 1 && label.starts_with('.') => {
                    match wanted.labels.get(&label[1..]) {
                        Some(value) => snapshot.labels.insert(label[1..].to_owned(), value.clone()),
                        None => snapshot.labels.remove(&label[1..]),
                    };
                }
                _ => {
                    let message =
                        format!("cannot change '{field}' of a snapshot; only labels can change");
                    return Err(refusal(Cause::Invalid, message));
                }
            }
        }
        snapshot.updated = Timestamp::now();
        let changed = info(&wanted.name, snapshot);
        self.change(&mut state, new)?;
        Ok(changed)
    }

    /// Returns the size of a snapshot on disk. An image counts as empty, because it is part of the store.
    pub fn usage(&self, key: &str) -> Result<UsageResponse> {
        let (kind, content, committed) = {
            let state = self.lock();
            let (_, snapshot) = find(&state, key)?;
            (snapshot.kind, snapshot.content.clone(), snapshot.usage)
        };
        match content {
            Content::Directory(number) if kind != Kind::Committed => {
                let path = self.directory(number).join("fs");
                let measured = usage::of(&path).with_context(|| path.display().to_string())?;
                Ok(measured)
            }
            _ => Ok(committed),
        }
    }

    /// Removes directories and unmounts images that belong to no snapshot. A failure is reported, and the
    /// next call tries again.
    pub fn clean_up(&self) {
        let mut images: BTreeSet<String> = list(&self.mounts)
            .into_iter()
            .filter_map(|name| Some(name.to_str()?.to_owned()))
            .collect();
        let directory = self.root.join("snapshots");
        // A directory that is made after this line is not in the list.
        let mut unknown = list(&directory);
        let state = self.lock();
        images.retain(|hex| !state.is_used(hex));
        images.extend(state.leaving.iter().map(|(hex, _)| hex.clone()));
        let contents: Vec<&Content> = state.snapshots.values().map(|s| &s.content).collect();
        let is_known = |name: &PathBuf| {
            let number = name.to_str().and_then(|name| name.parse().ok());
            number.is_some_and(|number| {
                state.making.contains(&number) || contents.contains(&&Content::Directory(number))
            })
        };
        unknown.retain(|name| !is_known(name));
        // Numbers are never reused, so these directories stay unknown without the lock.
        drop(state);
        for name in unknown {
            remove_directory(&directory.join(name));
        }
        for hex in images {
            self.look_at(&hex);
        }
    }

    /// Returns the mounts that containerd must make for a snapshot, and mounts the image below it, whose lock
    /// is held. `number` is that of the snapshot's directory.
    fn mounts_of(&self, writable: bool, number: u64, stack: &Stack) -> Result<Vec<Mount>> {
        let mut lower = Vec::new();
        // A container's overlay is a mount of its own, so it needs the image mount's attributes.
        let mut attributes: Vec<String> = Vec::new();
        let mut escaped = false;
        for below in &stack.lower {
            lower.push(match below {
                Content::Directory(number) => self.directory(*number).join("fs"),
                Content::Image(hex) => {
                    let directory = self.mount_point(hex);
                    let manifest = Digest::from_hex(hex.as_bytes());
                    let Some(((_, image), manifest)) = stack.image.as_ref().zip(manifest) else {
                        return Err(missing(hex));
                    };
                    escaped = self.mounter.mount(&manifest, image, &directory)?;
                    let options = images::parse(&image.options)?;
                    attributes.extend(options.restrictions().map(str::to_owned));
                    directory
                }
            });
        }
        let own = self.directory(number);
        if escaped && !writable && lower.len() == 1 {
            // The image alone would show the escaped names.
            lower.insert(0, own.join("fs"));
        }
        let bind = |source: &Path, access: &str| Mount {
            fs_type: "bind".to_owned(),
            source: shown(source),
            options: vec![access.to_owned(), "rbind".to_owned()],
        };
        let mut mount = match (&lower[..], writable) {
            ([], true) => bind(&own.join("fs"), "rw"),
            ([], false) => bind(&own.join("fs"), "ro"),
            // Overlayfs needs two layers, or a writable one.
            ([lower], false) => bind(lower, "ro"),
            (lower, writable) => {
                let mut options = Vec::new();
                // As containerd's own snapshotter does. A kernel with another default would refuse to use
                // a layer in several overlays.
                if Path::new("/sys/module/overlay/parameters/index").exists() {
                    options.push("index=off".to_owned());
                }
                if writable {
                    options.push(format!("workdir={}", shown(&own.join("work"))));
                    options.push(format!("upperdir={}", shown(&own.join("fs"))));
                } else {
                    options.push("ro".to_owned());
                }
                let lower: Vec<String> = lower.iter().map(|path| shown(path)).collect();
                options.push(format!("lowerdir={}", lower.join(":")));
                Mount {
                    fs_type: "overlay".to_owned(),
                    source: "overlay".to_owned(),
                    options,
                }
            }
        };
        mount.options.splice(0..0, attributes);
        Ok(vec![mount])
    }

    /// Makes the directory of a snapshot. Containers see its attributes at their root, so they are copied
    /// from the parent.
    fn make(&self, directory: &Path, parent: Option<&Content>) -> anyhow::Result<()> {
        let upper = directory.join("fs");
        for path in [directory, &directory.join("work")] {
            let made = DirBuilder::new().mode(0o700).create(path);
            made.with_context(|| path.display().to_string())?;
        }
        let made = DirBuilder::new().mode(0o755).create(&upper);
        made.with_context(|| upper.display().to_string())?;
        let parent = match parent {
            None => return Ok(()),
            Some(Content::Directory(number)) => self.directory(*number).join("fs"),
            Some(Content::Image(hex)) => self.mount_point(hex),
        };
        copy_root(&parent, &upper).with_context(|| upper.display().to_string())
    }

    fn change(&self, state: &mut State, new: State) -> Result<()> {
        new.save(&self.root)?;
        *state = new;
        Ok(())
    }

    /// Looks whether an image is still needed. If a call holds its lock, that call does it.
    fn look_at(&self, hex: &str) {
        if let Some(lock) = self.images.try_lock(hex) {
            self.release(lock);
        }
    }

    /// Unmounts an image without descendants, removes the tag of an image without a snapshot, and unlocks.
    pub fn release(&self, lock: ImageLock<'_>) {
        let hex = lock.image().to_owned();
        let mut held = Some(lock);
        while let Some(lock) = held.take() {
            let is_used = self.lock().is_used(&hex);
            if !is_used {
                self.unmount(&hex);
            }
            self.remove_tags(&hex);
            if lock.unlock() {
                held = self.images.try_lock(&hex);
            }
        }
    }

    /// Removes the tags of an image in stores that it is no longer used from. The image's lock is held.
    fn remove_tags(&self, hex: &str) {
        let (stores, tag) = {
            let state = self.lock();
            (state.left_stores(hex), tag_of(&state, hex))
        };
        for store in stores {
            if let Err(error) = self.mounter.release(&store, &tag) {
                // The next call of `clean_up` tries again.
                report(&store, &error);
                continue;
            }
            let mut state = self.lock();
            let mut new = state.clone();
            new.leaving.remove(&(hex.to_owned(), store.clone()));
            if let Err(refusal) = self.change(&mut state, new) {
                crate::say(&refusal.message);
            }
        }
    }

    fn unmount(&self, hex: &str) {
        let directory = self.mount_point(hex);
        match self.mounter.unmount(&directory) {
            Ok(()) => remove_empty(&directory),
            // The next removal tries again.
            Err(error) => report(&directory, &error),
        }
    }

    /// Returns the directory of a snapshot, which has `fs` for changes and `work` for overlayfs.
    fn directory(&self, number: u64) -> PathBuf {
        self.root.join("snapshots").join(number.to_string())
    }

    fn mount_point(&self, hex: &str) -> PathBuf {
        self.mounts.join(hex)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves the state consistent, because it is replaced as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the tag that keeps an image in its store.
fn tag_of(state: &State, hex: &str) -> String {
    format!("containerd-{}-{hex}", state.id)
}

/// Fails if a snapshot of this key exists, or its parent cannot be one.
fn check_new(state: &State, key: &str, parent: Option<&str>) -> Result<()> {
    if state.snapshots.contains_key(key) {
        return Err(exists(key));
    }
    let Some(parent) = parent else {
        return Ok(());
    };
    if find(state, parent)?.1.kind != Kind::Committed {
        let message = format!("snapshot '{parent}' is not committed and cannot be a parent");
        return Err(refusal(Cause::Precondition, message));
    }
    Ok(())
}

fn find<'a>(state: &'a State, name: &str) -> Result<(&'a str, &'a Snapshot)> {
    let found = state.snapshots.get_key_value(name);
    found
        .map(|(name, snapshot)| (&**name, snapshot))
        .ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Refusal {
    refusal(
        Cause::NotFound,
        format_args!("snapshot '{name}' does not exist"),
    )
}

/// Makes the refusal of a name that is in use.
pub fn exists(name: &str) -> Refusal {
    let message = format!("snapshot '{name}' already exists");
    refusal(Cause::AlreadyExists, message)
}

fn info(name: &str, snapshot: &Snapshot) -> Info {
    Info {
        name: name.to_owned(),
        parent: snapshot.parent.clone().unwrap_or_default(),
        kind: snapshot.kind.into(),
        created: Some(snapshot.created),
        updated: Some(snapshot.updated),
        labels: snapshot.labels.clone(),
    }
}

/// Returns a path as text. [`Snapshots::open`] has checked that it is UTF-8.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| path.display().to_string())
}

/// Returns the names in a directory; none if it does not exist.
fn list(path: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(path).and_then(|entries| {
        let names = entries.map(|entry| Ok(PathBuf::from(entry?.file_name())));
        names.collect()
    });
    names.unwrap_or_else(|error| {
        if error.kind() != ErrorKind::NotFound {
            report(path, &error.into());
        }
        Vec::new()
    })
}

/// Removes a directory and its content, if it exists.
fn remove_directory(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => report(path, &error.into()),
        _ => {}
    }
}

/// Reports a failure that does not affect the call.
fn report(path: &Path, error: &anyhow::Error) {
    crate::say(format_args!("{}: {error:#}", path.display()));
}

/// Removes what an image was mounted on. If it is not empty, it is not ours.
fn remove_empty(path: &Path) {
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
pub mod tests;
