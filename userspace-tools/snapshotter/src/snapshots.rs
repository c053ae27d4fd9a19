// SPDX-License-Identifier: MIT OR Apache-2.0

//! The snapshots: what containerd makes, stands on one another, and removes.
//!
//! A snapshot is a directory with what was written, or an image. Where one stands on others, containerd
//! is told to mount an overlay of them; at the bottom there may be an image, which is mounted here, once
//! for all that stand on it, and unmounted when nothing does.
//!
//! A change is first made to a copy of the state, and counts when that is written. What is on the disk
//! beyond the state is nobody's, and is removed when the snapshotter starts, or by
//! [`clean_up`](Snapshots::clean_up).

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

/// By this label, containerd asks whether a layer is there already. Its value is the layer's chain id:
/// of a layer that stands on none, the digest of its contents, which is what the configuration of the
/// image has for it. Ours has the digest of the manifest of an image in a store.
pub const REFERENCE: &str = "containerd.io/snapshot.ref";

/// Mounts images and unmounts them.
pub trait Mounter: Send + Sync + 'static {
    /// Mounts the image of a manifest on a directory as a layer of overlays, unless it is mounted there
    /// in just this way. Returns true if only an overlay shows the image's attributes as they are.
    fn mount(&self, manifest: &Digest, image: &Image, directory: &Path) -> anyhow::Result<bool>;
    /// Unmounts whatever image is mounted on a directory.
    fn unmount(&self, directory: &Path) -> anyhow::Result<()>;
}

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no such snapshot.
    NotFound,
    /// There is one already.
    AlreadyExists,
    /// Not with that kind of snapshot, or not as long as others stand on it.
    Precondition,
    /// What was asked for makes no sense.
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

/// All snapshots of a machine.
pub struct Snapshots<M> {
    root: PathBuf,
    mounts: PathBuf,
    mounter: M,
    state: Mutex<State>,
    /// Who has it is the only one to work in the root.
    _lock: File,
}

impl<M: Mounter> Snapshots<M> {
    /// Takes what is in `root`, where the state and what is written are kept, and mounts images in
    /// `mounts`. Removes what was left there by one that was killed.
    pub fn open(root: &Path, mounts: &Path, mounter: M) -> anyhow::Result<Self> {
        for path in [root, mounts] {
            // They stand in options of overlayfs.
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
            .context("another snapshotter is at work there")
            .with_context(shown)?;
        let mut state = State::load(root)?;
        // An import that was killed had told of it.
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

    /// Makes it known where an image is. Others may then ask for a layer of that name.
    pub fn add_image(&self, manifest: &Digest, image: Image) -> Result<()> {
        let mut state = self.lock();
        let hex = manifest.to_hex();
        let mut new = state.clone();
        let directory = self.mount_point(&hex);
        let used = state.is_used(&hex);
        // It is known now whether it can be mounted, and said to whoever imports it.
        let mounted = self.mounter.mount(manifest, &image, &directory);
        if mounted.is_err() || !used {
            self.unmount(&hex);
        }
        mounted?;
        new.images.insert(hex, image);
        self.change(&mut state, new)
    }

    /// Makes a snapshot to write to, or to read only, and says how it is mounted.
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
            let message = format!("snapshot '{parent}' is not committed: nothing can stand on it");
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
        };
        new.snapshots.insert(key.to_owned(), snapshot);
        let directory = self.directory(number);
        let made = self.mounts_of(&new, key).and_then(|mounts| {
            self.make(&directory, below.as_ref())?;
            self.change(&mut state, new)?;
            Ok(mounts)
        });
        if made.is_err() {
            // The next start would do it, too.
            let _ = fs::remove_dir_all(&directory);
            self.unmount_unused(&state);
        }
        made
    }

    /// Answers that a layer is there, if it is an image that is known.
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
            };
            new.snapshots.insert(name.to_owned(), snapshot);
            self.change(state, new)?;
        }
        Err(exists(name))
    }

    /// How a snapshot is mounted.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let state = self.lock();
        let (_, snapshot) = find(&state, key)?;
        if snapshot.kind == Kind::Committed {
            let message = format!("snapshot '{key}' is committed: nothing is mounted of it alone");
            return Err(refusal(Cause::Precondition, message));
        }
        self.mounts_of(&state, key)
    }

    /// Makes a layer of what was written.
    pub fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<()> {
        // It takes a while, and what is measured is not to be written to any more.
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
        if let Some(mut snapshot) = new.snapshots.remove(key) {
            snapshot.kind = Kind::Committed;
            snapshot.labels = labels;
            snapshot.created = Timestamp::now();
            snapshot.updated = snapshot.created;
            snapshot.usage = usage;
            new.snapshots.insert(name.to_owned(), snapshot);
        }
        self.change(&mut state, new)
    }

    /// Removes a snapshot that nothing stands on.
    pub fn remove(&self, key: &str) -> Result<()> {
        let mut state = self.lock();
        let content = find(&state, key)?.1.content.clone();
        let mut others = state.snapshots.iter();
        if let Some((other, _)) = others.find(|(_, other)| other.parent.as_deref() == Some(key)) {
            let message = format!("snapshot '{key}' cannot be removed: '{other}' stands on it");
            return Err(refusal(Cause::Precondition, message));
        }
        let mut new = state.clone();
        new.snapshots.remove(key);
        if let Content::Image(hex) = &content {
            new.images.remove(hex);
        }
        self.change(&mut state, new)?;
        self.unmount_unused(&state);
        drop(state);
        if let Content::Directory(number) = content {
            remove_directory(&self.directory(number));
        }
        Ok(())
    }

    /// What a snapshot is.
    pub fn stat(&self, key: &str) -> Result<Info> {
        let state = self.lock();
        find(&state, key).map(|(name, snapshot)| info(name, snapshot))
    }

    /// All snapshots.
    pub fn list(&self) -> Vec<Info> {
        let state = self.lock();
        let all = state.snapshots.iter();
        all.map(|(name, snapshot)| info(name, snapshot)).collect()
    }

    /// Changes labels: all of them, or those that `fields` names, as `labels.NAME`.
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
                    let message = format!("of a snapshot, '{field}' cannot be changed");
                    return Err(refusal(Cause::Invalid, message));
                }
            }
        }
        snapshot.updated = Timestamp::now();
        let changed = info(&wanted.name, snapshot);
        self.change(&mut state, new)?;
        Ok(changed)
    }

    /// What a snapshot takes on the disk: an image nothing, for it was there before.
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

    /// Removes directories and unmounts images that belong to no snapshot. What cannot be removed stays
    /// for the next time.
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
        // No number is given twice, so what nobody knows now stays unknown.
        drop(state);
        for name in unknown {
            remove_directory(&directory.join(name));
        }
    }

    /// The mounts that containerd is to make for a snapshot. The image below is mounted first.
    fn mounts_of(&self, state: &State, key: &str) -> Result<Vec<Mount>> {
        let (_, snapshot) = find(state, key)?;
        let writable = snapshot.kind == Kind::Active;
        let mut lower = Vec::new();
        // What containers see is a mount of its own: it has to have the attributes, too.
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
            // Overlayfs makes nothing of one layer alone.
            ([lower], false) => bind(lower, "ro"),
            (lower, writable) => {
                let mut options = Vec::new();
                // As containerd's own does: without it, a kernel whose default is another would refuse
                // to let layers be used by several overlays.
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

    /// Makes the directory of a snapshot. The root directory that containers see is this one: it is
    /// made as that of the parent.
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

    /// Unmounts images that nothing stands on any more.
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
            // It is tried again by the next to be removed.
            Err(error) => told(&directory, &error),
        }
    }

    /// The directory of a snapshot: `fs`, what was written, and `work`, overlayfs' own.
    fn directory(&self, number: u64) -> PathBuf {
        self.root.join("snapshots").join(number.to_string())
    }

    fn mount_point(&self, hex: &str) -> PathBuf {
        self.mounts.join(hex)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is never half changed.
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
        format_args!("there is no snapshot '{name}'"),
    )
}

fn exists(name: &str) -> Refusal {
    let message = format!("there is a snapshot '{name}' already");
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

/// A path that [`Snapshots::open`] has found to be UTF-8.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| path.display().to_string())
}

/// The names in a directory; none where there is none.
fn list(path: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(path).and_then(|entries| {
        let names = entries.map(|entry| Ok(PathBuf::from(entry?.file_name())));
        names.collect()
    });
    names.unwrap_or_else(|error| {
        if error.kind() != ErrorKind::NotFound {
            told(path, &error.into());
        }
        Vec::new()
    })
}

/// Removes a directory with all that is in it, if it is there.
fn remove_directory(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => told(path, &error.into()),
        _ => {}
    }
}

/// Tells of what is in nobody's way.
fn told(path: &Path, error: &anyhow::Error) {
    crate::say(format_args!("{}: {error:#}", path.display()));
}

/// Removes what an image was mounted on. If it is not empty, it is not ours.
fn remove_empty(path: &Path) {
    let _ = fs::remove_dir(path);
}

#[cfg(test)]
pub mod tests;
