// SPDX-License-Identifier: MIT OR Apache-2.0

//! The images and the snapshots, in one file that is replaced as a whole. The snapshotter can thus be
//! killed at any time.

use crate::api::{Kind, Labels, Timestamp, UsageResponse, REFERENCE};
use anyhow::{bail, ensure, Context, Result};
use puzzlefs_lib::{json, Digest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The file's format.
const VERSION: u32 = 1;
const FILE: &str = "state.json";
/// The beginning of the tags of images in the snapshotter's own store.
pub const TAG: &str = "containerd-";

/// Registries with repositories that have an image.
pub type Sources = Vec<(String, String)>;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The number of the next directory. Numbers are never reused.
    pub next: u64,
    /// The name of this state in tags of stores, because several hosts can share a store.
    #[serde(default)]
    pub id: String,
    /// The images by the digests of their manifests, in hexadecimal digits.
    pub images: BTreeMap<String, Image>,
    /// The snapshots by their names.
    pub snapshots: BTreeMap<String, Snapshot>,
    /// Images that have, or had, a tag in a store, and may not need it: pairs of digest and store.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<(String, PathBuf)>,
    /// The numbers of directories that are being made for snapshots.
    #[serde(skip)]
    pub making: BTreeSet<u64>,
}

/// An image of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The absolute path of the store.
    pub store: PathBuf,
    /// Mount options, `digest=` among them.
    pub options: String,
    /// The sources of the chunks that the store may lack; none if it has all chunks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Sources,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The kind.
    pub kind: Kind,
    /// The name of its parent, a committed snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The content.
    pub content: Content,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// The time since which a snapshot has this name.
    pub created: Timestamp,
    /// The time of its last change.
    pub updated: Timestamp,
    /// Its size when it was committed.
    #[serde(default)]
    pub usage: UsageResponse,
    /// The image that an active snapshot becomes when it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// The chain ID of layers of a PuzzleFS image that are not known to be an image themselves. The
    /// directory of the snapshot is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
}

impl Snapshot {
    /// Makes a snapshot that was created now.
    pub fn new(kind: Kind, parent: Option<String>, content: Content, labels: Labels) -> Self {
        let now = Timestamp::now();
        Snapshot {
            kind,
            parent,
            content,
            labels,
            created: now,
            updated: now,
            usage: UsageResponse::default(),
            applied: None,
            part: None,
        }
    }
}

/// The content of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// A directory with changes, by its number.
    Directory(u64),
    /// An image, mounted from its store. It hides the snapshots below it.
    Image(String),
}

/// The layers below a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The layers, the top one first.
    pub lower: Vec<Content>,
    /// The last layer, if it is an image, with its digest.
    pub image: Option<(String, Image)>,
}

fn image_of(snapshot: &Snapshot) -> Option<&str> {
    match &snapshot.content {
        Content::Image(hex) => Some(hex),
        Content::Directory(_) => None,
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            version: VERSION,
            next: 1,
            id: String::new(),
            images: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            leaving: BTreeSet::new(),
            making: BTreeSet::new(),
        }
    }
}

impl State {
    /// Reads the state of a directory. A missing file is the empty state.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let state = match fs::read(&path) {
            Ok(bytes) => {
                let what = "the state of a snapshotter";
                json::parse(&bytes, what).map_err(anyhow::Error::msg)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => Err(error.into()),
        };
        state
            .and_then(|state: State| state.check().map(|()| state))
            .with_context(|| path.display().to_string())
    }

    /// Replaces the file: after a crash it is the old one or the new one.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let new = directory.join("state.json.new");
        let write = || -> Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            Ok(File::open(directory)?.sync_all()?)
        };
        write().with_context(|| format!("{}: cannot write it", path.display()))
    }

    /// Checks that the state is consistent, because the file may have been edited.
    fn check(&self) -> Result<()> {
        ensure!(
            self.version == VERSION,
            "written by another version of this program: format {}, not {VERSION}",
            self.version
        );
        for hex in self.images.keys() {
            ensure!(
                Digest::from_hex(hex.as_bytes()).is_some(),
                "'{hex}' is not a digest"
            );
        }
        for (name, snapshot) in &self.snapshots {
            match &snapshot.content {
                Content::Directory(number) if *number >= self.next => {
                    bail!("snapshot '{name}' has a directory with a number that is not in use yet")
                }
                Content::Image(hex) if !self.images.contains_key(hex) => {
                    bail!("snapshot '{name}' has an unknown image")
                }
                _ => {}
            }
            if let Some(hex) = snapshot.applied.as_ref() {
                ensure!(
                    self.images.contains_key(hex),
                    "snapshot '{name}' becomes an unknown image"
                );
            }
            let parent = snapshot.parent.as_ref();
            if let Some(parent) = parent.filter(|parent| !self.is_committed(parent)) {
                bail!("snapshot '{name}' has the parent '{parent}', which is not committed");
            }
            // `chain` is longer than the number of snapshots if it has a cycle.
            ensure!(
                self.chain(name).count() <= self.snapshots.len(),
                "snapshot '{name}' is its own ancestor"
            );
        }
        Ok(())
    }

    fn is_committed(&self, name: &str) -> bool {
        let snapshot = self.snapshots.get(name);
        snapshot.is_some_and(|snapshot| snapshot.kind == Kind::Committed)
    }

    /// Returns a snapshot, its parent, and so on, to the first image.
    pub fn ancestry<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Snapshot> {
        let mut is_hidden = false;
        self.chain(name).take_while(move |snapshot| {
            let is_image = matches!(snapshot.content, Content::Image(_));
            !std::mem::replace(&mut is_hidden, is_image)
        })
    }

    /// Returns a snapshot, its parent, and so on. A cycle yields one more than the number of snapshots.
    fn chain<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Snapshot> {
        let mut next = self.snapshots.get(name);
        let chain = std::iter::from_fn(move || {
            let this = next?;
            next = this
                .parent
                .as_ref()
                .and_then(|parent| self.snapshots.get(parent));
            Some(this)
        });
        chain.take(self.snapshots.len() + 1)
    }

    /// Returns the image that is the last ancestor of a snapshot; none for an image itself.
    pub fn image_below(&self, name: &str) -> Option<&str> {
        image_of(self.ancestry(name).skip(1).last()?)
    }

    /// Returns the stack of layers that a child of a snapshot has below it, the top one first.
    pub fn stack_on(&self, parent: Option<&str>) -> Stack {
        let lower: Vec<&Snapshot> = parent
            .map(|parent| self.ancestry(parent).collect())
            .unwrap_or_default();
        let image = lower.last().and_then(|lowest| {
            let hex = image_of(lowest)?;
            Some((hex.to_owned(), self.images.get(hex)?.clone()))
        });
        let lower = lower.iter().map(|layer| layer.content.clone());
        Stack {
            lower: lower.collect(),
            image,
        }
    }

    /// Finds the snapshot of a layer of a PuzzleFS image. An image of an import has none by this name.
    pub fn layer(&self, chain: &str, parent: &str) -> Option<&str> {
        let mut all = self.snapshots.iter();
        let found = all.find(|(_, snapshot)| {
            let is_ours = snapshot.part.is_some() || image_of(snapshot).is_some();
            let label = snapshot.labels.get(REFERENCE).map(String::as_str);
            snapshot.kind == Kind::Committed
                && is_ours
                && label == Some(chain)
                && snapshot.parent.as_deref().unwrap_or_default() == parent
        });
        found.map(|(name, _)| &**name)
    }

    /// Returns true if an image has descendants, and so must be mounted.
    pub fn is_used(&self, image: &str) -> bool {
        let mut names = self.snapshots.keys();
        names.any(|name| self.image_below(name) == Some(image))
    }

    /// Returns true if a snapshot is an image, or becomes it.
    pub fn has_snapshot_of(&self, image: &str) -> bool {
        self.snapshots
            .values()
            .any(|snapshot| match &snapshot.content {
                Content::Image(hex) => hex == image,
                Content::Directory(_) => snapshot.applied.as_deref() == Some(image),
            })
    }

    /// Adds an image. An image that was registered by an import keeps its store and its options.
    pub fn add_image(&mut self, hex: &str, image: &Image) {
        let known = self.images.entry(hex.to_owned());
        let known = known.or_insert_with(|| image.clone());
        if known.store == image.store {
            known.sources.clone_from(&image.sources);
        }
    }

    /// Removes images without a snapshot.
    pub fn forget_images(&mut self) {
        let unused = self.images.keys().filter(|hex| !self.has_snapshot_of(hex));
        let unused: Vec<String> = unused.cloned().collect();
        for hex in unused {
            self.forget_image(&hex);
        }
    }

    /// Removes an image, which may have a tag in its store.
    pub fn forget_image(&mut self, hex: &str) {
        if let Some((hex, image)) = self.images.remove_entry(hex) {
            self.leaving.insert((hex, image.store));
        }
    }

    /// Returns the stores with a tag of an image that nothing needs.
    pub fn left_stores(&self, image: &str) -> Vec<PathBuf> {
        let store = self.images.get(image).map(|image| &image.store);
        let left = self.leaving.iter();
        left.filter(|(hex, left)| hex == image && Some(left) != store)
            .map(|(_, left)| left.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(kind: Kind, parent: Option<&str>, content: Content) -> Snapshot {
        Snapshot::new(kind, parent.map(str::to_owned), content, Labels::new())
    }

    fn sample() -> State {
        let hex = Digest::of(b"manifest").to_hex();
        let mut state = State {
            next: 9,
            ..State::default()
        };
        let image = Image {
            store: "/srv/images".into(),
            options: "verify=digest".to_owned(),
            sources: Vec::new(),
        };
        state.images.insert(hex.clone(), image);
        for (name, kind, parent, content) in [
            ("image", Kind::Committed, None, Content::Image(hex)),
            (
                "layer",
                Kind::Committed,
                Some("image"),
                Content::Directory(1),
            ),
            ("active", Kind::Active, Some("layer"), Content::Directory(2)),
            ("other", Kind::View, None, Content::Directory(3)),
        ] {
            let snapshot = snapshot(kind, parent, content);
            state.snapshots.insert(name.to_owned(), snapshot);
        }
        state
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(State::load(directory.path()).unwrap(), State::default());
        let state = sample();
        state.save(directory.path()).unwrap();
        assert_eq!(State::load(directory.path()).unwrap(), state);
        // What a killed writer left is nothing to a reader, and in nobody's way.
        fs::write(directory.path().join("state.json.new"), "{").unwrap();
        assert_eq!(State::load(directory.path()).unwrap(), state);
        State::default().save(directory.path()).unwrap();
        assert_eq!(State::load(directory.path()).unwrap(), State::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |change: &dyn Fn(&mut State)| {
            let mut state = sample();
            change(&mut state);
            state.save(directory.path()).unwrap();
            format!("{:#}", State::load(directory.path()).unwrap_err())
        };
        type Change = (&'static str, &'static dyn Fn(&mut State));
        let table: [Change; 7] = [
            ("another version", &|state| state.version = 2),
            ("not a digest", &|state| {
                let image = state.images.first_entry().unwrap().remove();
                state.images.insert("../..".to_owned(), image);
            }),
            ("not in use yet", &|state| state.next = 3),
            ("an unknown image", &|state| state.images.clear()),
            ("not committed", &|state| {
                state.snapshots.remove("image");
            }),
            ("not committed", &|state| {
                state.snapshots.get_mut("layer").unwrap().kind = Kind::Active;
            }),
            ("its own ancestor", &|state| {
                state.snapshots.get_mut("image").unwrap().parent = Some("layer".to_owned());
            }),
        ];
        for (wanted, change) in table {
            let message = refused(change);
            assert!(message.contains(wanted), "{wanted}: {message}");
            assert!(message.contains("state.json"), "{message}");
        }
        fs::write(directory.path().join(FILE), "{}").unwrap();
        State::load(directory.path()).unwrap_err();
    }

    #[test]
    fn an_import_keeps_its_store_and_completion_is_noted() {
        let mut state = State::default();
        let image = |store: &str, sources: &[&str]| Image {
            store: store.into(),
            options: String::new(),
            sources: sources
                .iter()
                .map(|host| ((*host).to_owned(), "app".to_owned()))
                .collect(),
        };
        for (store, sources, left) in [
            ("/own", &["a.example"][..], &["a.example"][..]),
            ("/own", &["b.example"], &["b.example"]),
            ("/other", &["c.example"], &["b.example"]),
            ("/own", &[], &[]),
        ] {
            state.add_image("1", &image(store, sources));
            assert_eq!(state.images["1"], image("/own", left));
        }
    }

    #[test]
    fn images_below() {
        let mut state = sample();
        let hex = state.images.keys().next().unwrap().clone();
        assert_eq!(state.image_below("active"), Some(&*hex));
        assert_eq!(state.image_below("layer"), Some(&*hex));
        for other in ["image", "other", "none"] {
            assert_eq!(state.image_below(other), None, "{other}");
        }
        assert!(state.is_used(&hex));
        state.forget_images();
        assert_eq!(state.images.len(), 1);
        for name in ["active", "layer"] {
            state.snapshots.remove(name);
        }
        assert!(!state.is_used(&hex));
        state.snapshots.remove("image");
        state.forget_images();
        assert_eq!(state.images.len(), 0);
    }

    #[test]
    fn an_image_hides_the_snapshots_below_it() {
        let mut state = sample();
        let image = state.snapshots["image"].content.clone();
        let parts = [
            ("part", None, Content::Directory(4)),
            ("whole", Some("part"), image),
            ("container", Some("whole"), Content::Directory(5)),
        ];
        for (name, parent, content) in parts {
            let snapshot = snapshot(Kind::Committed, parent, content);
            state.snapshots.insert(name.to_owned(), snapshot);
        }
        state.check().unwrap();
        assert_eq!(state.ancestry("container").count(), 2);
        assert!(state.image_below("container").is_some());
        assert_eq!(state.image_below("whole"), None);
    }
}
