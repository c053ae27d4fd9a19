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
//! [`clean_up`](Snapshots::clean_up).
//!
//! # Locking
//!
//! `Snapshots::state` protects the state and the mounts. It is not held while a directory is measured or
//! removed. `Snapshots::_lock`, a lock file, keeps a second snapshotter out of the directory.

use crate::api::{Info, Kind, Labels, Mount, Timestamp, UsageResponse};
use crate::images;
use crate::state::{Content, Image, Snapshot, State};
use crate::usage;
use anyhow::{ensure, Context};
use puzzlefs_lib::mount::copy_root;
use puzzlefs_lib::Digest;
use rustix::fs::FlockOperation;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The label by which containerd asks for an existing layer. Its value is the layer's chain ID: for a layer
/// without a parent, the digest of its content, as the image's configuration lists it. For our images, it
/// is the digest of the manifest in the store.
pub const REFERENCE: &str = "containerd.io/snapshot.ref";

/// Mounts images and unmounts them.
pub trait Mounter: Send + Sync + 'static {
    /// Mounts the image of a manifest on a directory as a layer of overlays, unless it is mounted there
    /// in just this way. Returns true if only an overlay shows the image's attributes as they are.
    fn mount(&self, manifest: &Digest, image: &Image, directory: &Path) -> anyhow::Result<bool>;
    /// Unmounts whatever image is mounted on a directory.
    fn unmount(&self, directory: &Path) -> anyhow::Result<()>;
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

fn refusal(cause: Cause, message: impl fmt::Display) -> Refusal {
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
}

/// All snapshots of a machine.
pub struct Snapshots<M> {
    root: PathBuf,
    mounts: PathBuf,
    mounter: M,
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
        make_directory(&root.join("snapshots"))?;
        let snapshots = Snapshots {
            root: root.to_owned(),
            mounts: mounts.to_owned(),
            mounter,
            state: Mutex::new(state),
            _lock: lock_file,
        };
        snapshots.clean_up();
        Ok(snapshots)
    }

    /// Registers an image. Containerd can then prepare the layer of its name.
    pub fn add_image(&self, manifest: &Digest, image: Image) -> Result<()> {
        let mut state = self.lock();
        let hex = manifest.to_hex();
        let mut new = state.clone();
        let directory = self.mount_point(&hex);
        let used = state.is_used(&hex);
        // A trial mount reports an unusable image to the import instead of to a container.
        let mounted = self.mounter.mount(manifest, &image, &directory);
        if mounted.is_err() || !used {
            self.unmount(&hex);
        }
        mounted?;
        new.images.insert(hex, image);
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
        let mut state = self.lock();
        if key.is_empty() {
            return Err(refusal(Cause::Invalid, "a snapshot needs a key"));
        }
        if let Some(name) = labels.get(REFERENCE) {
            self.prepare_layer(&mut state, name, parent, &labels)?;
        }
        if state.snapshots.contains_key(key) {
            return Err(exists(key));
        }
        let below = match parent {
            "" => None,
            parent => Some(find(&state, parent)?.1.clone()),
        };
        if below.as_ref().is_some_and(|b| b.kind != Kind::Committed) {
            let message = format!("snapshot '{parent}' is not committed and cannot be a parent");
            return Err(refusal(Cause::Precondition, message));
        }
        let now = Timestamp::now();
        let mut new = state.clone();
        let number = new.next;
        new.next += 1;
        let snapshot = Snapshot {
            kind,
            parent: below.as_ref().map(|_| parent.to_owned()),
            content: Content::Directory(number),
            labels,
            created: now,
            updated: now,
            usage: UsageResponse::default(),
            applied: None,
        };
        new.snapshots.insert(key.to_owned(), snapshot);
        let directory = self.directory(number);
        let made = self.mounts_of(&new, key).and_then(|mounts| {
            self.make(&directory, below.as_ref())?;
            self.change(&mut state, new)?;
            Ok(mounts)
        });
        if made.is_err() {
            // If this fails, the next start removes it.
            let _ = fs::remove_dir_all(&directory);
            self.unmount_unused(&state);
        }
        made
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
            let now = Timestamp::now();
            let mut new = state.clone();
            let snapshot = Snapshot {
                kind: Kind::Committed,
                parent: None,
                content: Content::Image(hex.to_owned()),
                labels: labels.clone(),
                created: now,
                updated: now,
                usage: UsageResponse::default(),
                applied: None,
            };
            new.snapshots.insert(name.to_owned(), snapshot);
            self.change(state, new)?;
        }
        Err(exists(name))
    }

    /// Returns the mounts of a snapshot.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let state = self.lock();
        let (_, snapshot) = find(&state, key)?;
        if snapshot.kind == Kind::Committed {
            let message = format!("snapshot '{key}' is committed; mount a view of it");
            return Err(refusal(Cause::Precondition, message));
        }
        self.mounts_of(&state, key)
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
            }
            snapshot.kind = Kind::Committed;
            snapshot.labels = labels;
            snapshot.created = Timestamp::now();
            snapshot.updated = snapshot.created;
            snapshot.usage = usage;
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
            }),
            _ => {
                let message =
                    format!("the key '{key}' of a snapshot has no namespace or no chain ID");
                Err(refusal(Cause::Invalid, message))
            }
        }
    }

    /// Makes an active snapshot become an image when it is committed.
    pub fn apply(&self, mounts: &[Mount], manifest: &Digest, image: Image) -> Result<()> {
        let mut state = self.lock();
        let key = self.mounted_by(&state, mounts)?.0.to_owned();
        let hex = manifest.to_hex();
        let mut new = state.clone();
        if let Some(snapshot) = new.snapshots.get_mut(&key) {
            snapshot.applied = Some(hex.clone());
        }
        // An image that was registered by an import keeps its store and its options.
        new.images.entry(hex).or_insert(image);
        self.change(&mut state, new)
    }

    /// Returns the images in a store.
    pub fn images_in(&self, store: &Path) -> Vec<String> {
        let state = self.lock();
        let images = state
            .images
            .iter()
            .filter(|(_, image)| image.store == store);
        images.map(|(hex, _)| hex.clone()).collect()
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
        let mut new = state.clone();
        new.snapshots.remove(key);
        if let Content::Image(hex) = &content {
            if !new.has_snapshot_of(hex) {
                new.images.remove(hex);
            }
        }
        self.change(&mut state, new)?;
        self.unmount_unused(&state);
        drop(state);
        if let Content::Directory(number) = content {
            remove_directory(&self.directory(number));
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
        let state = self.lock();
        self.unmount_unused(&state);
        let contents: Vec<&Content> = state.snapshots.values().map(|s| &s.content).collect();
        let is_known = |name: &PathBuf| {
            let number = name.to_str().and_then(|name| name.parse().ok());
            number.is_some_and(|number| contents.contains(&&Content::Directory(number)))
        };
        let directory = self.root.join("snapshots");
        let mut unknown = list(&directory);
        unknown.retain(|name| !is_known(name));
        // Numbers are never reused, so these directories stay unknown without the lock.
        drop(state);
        for name in unknown {
            remove_directory(&directory.join(name));
        }
    }

    /// Returns the mounts that containerd must make for a snapshot, and mounts the image below it.
    fn mounts_of(&self, state: &State, key: &str) -> Result<Vec<Mount>> {
        let (_, snapshot) = find(state, key)?;
        let writable = snapshot.kind == Kind::Active;
        let mut lower = Vec::new();
        // A container's overlay is a mount of its own, so it needs the image mount's attributes.
        let mut attributes: Vec<String> = Vec::new();
        let mut escaped = false;
        for below in state.ancestry(key).skip(1) {
            lower.push(match &below.content {
                Content::Directory(number) => self.directory(*number).join("fs"),
                Content::Image(hex) => {
                    let directory = self.mount_point(hex);
                    let image = state.images.get(hex).zip(Digest::from_hex(hex.as_bytes()));
                    let Some((image, manifest)) = image else {
                        return Err(missing(hex));
                    };
                    escaped = self.mounter.mount(&manifest, image, &directory)?;
                    let options = images::parse(&image.options)?;
                    attributes.extend(options.restrictions().map(str::to_owned));
                    directory
                }
            });
        }
        let Content::Directory(number) = snapshot.content else {
            return Err(missing(key));
        };
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
    fn make(&self, directory: &Path, parent: Option<&Snapshot>) -> anyhow::Result<()> {
        let upper = directory.join("fs");
        for path in [directory, &directory.join("work")] {
            let made = DirBuilder::new().mode(0o700).create(path);
            made.with_context(|| path.display().to_string())?;
        }
        let made = DirBuilder::new().mode(0o755).create(&upper);
        made.with_context(|| upper.display().to_string())?;
        let parent = match parent.map(|parent| &parent.content) {
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

    /// Unmounts images without descendants.
    fn unmount_unused(&self, state: &State) {
        for name in list(&self.mounts) {
            if let Some(hex) = name.to_str().filter(|hex| !state.is_used(hex)) {
                self.unmount(hex);
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

fn exists(name: &str) -> Refusal {
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
