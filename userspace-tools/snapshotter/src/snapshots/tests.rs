// SPDX-License-Identifier: MIT OR Apache-2.0

//! The snapshots on a directory of the host, with images that are not mounted but noted down.

use super::*;
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{mpsc, Arc, Condvar};
use std::time::Duration;

/// The longest wait for something that happens at once unless the code is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// The mounts, with their options.
#[derive(Clone, Default)]
pub struct Notes {
    mounted: Arc<Mutex<BTreeSet<(PathBuf, String)>>>,
    /// Mounts with these options fail.
    broken: Arc<Mutex<Option<String>>>,
    /// Images with these options need an overlay to show their attributes.
    escaped: Arc<Mutex<Option<String>>>,
    /// The tags in stores.
    tags: Arc<Mutex<BTreeSet<(PathBuf, String)>>>,
    gate: Arc<Gate>,
}

/// Holds up the mounts with some options, as a store that hangs.
#[derive(Default)]
struct Gate {
    /// The options, and the number of mounts that wait.
    closed: Mutex<(Option<String>, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self, options: &str) {
        let mut closed = self.closed.lock().unwrap();
        closed.1 += 1;
        self.changed.notify_all();
        let is_closed = |closed: &mut (Option<String>, usize)| closed.0.as_deref() == Some(options);
        let waited = self
            .changed
            .wait_timeout_while(closed, PATIENCE, is_closed)
            .unwrap();
        assert!(!waited.1.timed_out(), "the gate stays closed");
        closed = waited.0;
        closed.1 -= 1;
    }

    fn set(&self, options: Option<&str>) {
        self.closed.lock().unwrap().0 = options.map(str::to_owned);
        self.changed.notify_all();
    }

    fn wait_for(&self, waiting: usize) {
        let closed = self.closed.lock().unwrap();
        let mut few = |closed: &mut (Option<String>, usize)| closed.1 < waiting;
        let waited = self
            .changed
            .wait_timeout_while(closed, PATIENCE, &mut few)
            .unwrap();
        assert!(!waited.1.timed_out(), "nobody waits at the gate");
    }
}

impl Mounter for Notes {
    fn mount(&self, _: &Digest, image: &Image, directory: &Path) -> anyhow::Result<bool> {
        self.gate.pass(&image.options);
        let broken = self.broken.lock().unwrap().clone();
        ensure!(broken.as_ref() != Some(&image.options), "broken");
        self.unmount(directory)?;
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o1711))?;
        let mount = (directory.to_owned(), options_of(image));
        self.mounted.lock().unwrap().insert(mount);
        Ok(self.escaped.lock().unwrap().as_ref() == Some(&image.options))
    }

    fn unmount(&self, directory: &Path) -> anyhow::Result<()> {
        let mut mounted = self.mounted.lock().unwrap();
        mounted.retain(|(mounted, _)| mounted != directory);
        Ok(())
    }

    fn keep(&self, _: &Digest, store: &Path, tag: &str) -> anyhow::Result<()> {
        let tag = (store.to_owned(), tag.to_owned());
        self.tags.lock().unwrap().insert(tag);
        Ok(())
    }

    fn release(&self, store: &Path, tag: &str) -> anyhow::Result<()> {
        let mut tags = self.tags.lock().unwrap();
        tags.remove(&(store.to_owned(), tag.to_owned()));
        Ok(())
    }
}

/// The options, and a word if chunks may be missing.
fn options_of(image: &Image) -> String {
    if image.sources.is_empty() {
        image.options.clone()
    } else {
        format!("{} waiting", image.options)
    }
}

struct Host {
    directory: tempfile::TempDir,
    notes: Notes,
}

impl Host {
    fn new() -> Self {
        Host {
            directory: tempfile::tempdir().unwrap(),
            notes: Notes::default(),
        }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn mounts(&self) -> PathBuf {
        self.directory.path().join("mounts")
    }

    fn open(&self) -> Snapshots<Notes> {
        Snapshots::open(&self.root(), &self.mounts(), self.notes.clone()).unwrap()
    }

    fn directories(&self) -> BTreeSet<String> {
        let names = list(&self.root().join("snapshots"));
        names.iter().map(|name| shown(name)).collect()
    }

    /// The stores with a tag of the image of these tests.
    fn tagged(&self) -> Vec<PathBuf> {
        let tags = self.notes.tags.lock().unwrap();
        let own = tags
            .iter()
            .filter(|(_, tag)| tag.ends_with(&manifest().to_hex()));
        own.map(|(store, _)| store.clone()).collect()
    }

    fn mounted(&self) -> Vec<(PathBuf, String)> {
        let mounted = self.notes.mounted.lock().unwrap();
        mounted.iter().cloned().collect()
    }
}

fn manifest() -> Digest {
    Digest::of(b"manifest")
}

fn image(options: &str) -> Image {
    Image {
        store: "/srv/images".into(),
        options: options.to_owned(),
        sources: Sources::new(),
    }
}

fn available(options: &str) -> AvailableImage {
    AvailableImage {
        hex: manifest().to_hex(),
        image: image(options),
        usage: UsageResponse {
            size: 1234,
            inodes: 5,
        },
    }
}

fn reference() -> Labels {
    Labels::from([(REFERENCE.to_owned(), manifest().to_oci())])
}

/// Has an image imported, as `puzzlefs-snapshotter import` and containerd do.
fn import(snapshots: &Snapshots<Notes>) -> String {
    snapshots.add_image(&manifest(), image("")).unwrap();
    let asked = snapshots.prepare(Kind::Active, "asked", "", reference());
    assert_eq!(asked.unwrap_err().cause, Cause::AlreadyExists);
    manifest().to_oci()
}

fn prepare(snapshots: &Snapshots<Notes>, kind: Kind, key: &str, parent: &str) -> Mount {
    let mounts = snapshots.prepare(kind, key, parent, Labels::new()).unwrap();
    let [mount] = <[Mount; 1]>::try_from(mounts).unwrap();
    mount
}

fn option<'a>(mount: &'a Mount, name: &str) -> Option<&'a str> {
    let mut options = mount.options.iter();
    options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
}

fn cause<T>(result: Result<T>) -> Cause {
    result.map(drop).unwrap_err().cause
}

#[test]
fn containers_of_an_image_share_its_mount() {
    let host = Host::new();
    let snapshots = host.open();
    let name = import(&snapshots);
    assert_eq!(
        host.mounted(),
        [],
        "an image that nobody uses is not mounted"
    );
    let mount_point = host.mounts().join(manifest().to_hex());
    let mut uppers = BTreeSet::new();
    for key in ["one", "two", "three"] {
        let mount = prepare(&snapshots, Kind::Active, key, &name);
        assert_eq!(mount.fs_type, "overlay");
        assert_eq!(option(&mount, "lowerdir"), mount_point.to_str());
        let upper = option(&mount, "upperdir").unwrap().to_owned();
        let mode = fs::metadata(&upper).unwrap().mode();
        assert_eq!(
            mode & 0o7777,
            0o1711,
            "the image's root directory has this mode"
        );
        assert!(Path::new(option(&mount, "workdir").unwrap()).is_dir());
        uppers.insert(upper);
        assert_eq!(snapshots.mounts(key).unwrap(), [mount]);
        assert_eq!(host.mounted(), [(mount_point.clone(), String::new())]);
    }
    assert_eq!(uppers.len(), 3);
    for key in ["two", "one"] {
        snapshots.remove(key).unwrap();
        assert_eq!(host.mounted().len(), 1);
    }
    assert_eq!(cause(snapshots.remove(&name)), Cause::Precondition);
    snapshots.remove("three").unwrap();
    assert_eq!(host.mounted(), []);
    assert!(!mount_point.exists());
    assert_eq!(host.directories(), BTreeSet::new());
    assert!(snapshots.stat(&name).is_ok());
    snapshots.remove(&name).unwrap();
    // Nothing is known of it any more.
    let asked = snapshots.prepare(Kind::Active, "asked", "", reference());
    assert_eq!(asked.unwrap()[0].fs_type, "bind");
}

#[test]
fn a_layer_is_there_only_if_the_image_is_known() {
    let host = Host::new();
    let snapshots = host.open();
    let other = |value: &str| Labels::from([(REFERENCE.to_owned(), value.to_owned())]);
    let name = import(&snapshots);
    // Whoever asks again is told so again, and there is one snapshot.
    assert_eq!(import(&snapshots), name);
    let found = snapshots.stat(&name).unwrap();
    assert_eq!((found.kind(), &*found.parent), (Kind::Committed, ""));
    assert_eq!(found.labels, reference());
    assert_eq!(snapshots.list(), [found]);
    for (number, value) in [
        Digest::of(b"other").to_oci(),
        manifest().to_hex(),
        "sha256:../../etc".to_owned(),
        String::new(),
    ]
    .iter()
    .enumerate()
    {
        let key = format!("key {number}");
        snapshots
            .prepare(Kind::Active, &key, "", other(value))
            .unwrap();
    }
    // On top of something it is another layer.
    snapshots
        .prepare(Kind::Active, "above", &name, reference())
        .unwrap();
}

/// The layers of an image that containerd unpacks: the last one becomes the image, which hides the others.
#[test]
fn the_last_layer_becomes_the_image() {
    let host = Host::new();
    let snapshots = host.open();
    let label = |chain: &str| Labels::from([(REFERENCE.to_owned(), chain.to_owned())]);
    let mut parent = "";
    let layers = [
        ("default/1/extract", "sha256:one", label("sha256:one")),
        (
            "default/1/extract-2-ab sha256:two",
            "sha256:two",
            Labels::new(),
        ),
    ];
    for (key, chain, labels) in layers {
        let mounts = snapshots.prepare(Kind::Active, key, parent, labels);
        let mounts = mounts.unwrap();
        let layer = snapshots.layer_of(&mounts).unwrap();
        assert_eq!((&*layer.namespace, &*layer.chain), ("default", chain));
        if chain == "sha256:two" {
            snapshots.apply(&mounts, available("")).unwrap();
        }
        snapshots.commit(chain, key, label(chain)).unwrap();
        assert_eq!(cause(snapshots.layer_of(&mounts)), Cause::NotFound);
        parent = chain;
    }
    let has_image =
        |snapshots: &Snapshots<Notes>| snapshots.has_image(&manifest().to_hex(), &image("").store);
    assert!(has_image(&snapshots));
    let usage = snapshots.usage("sha256:two").unwrap();
    assert_eq!(usage, available("").usage, "what the image has added");
    assert_eq!(host.directories().len(), 1);
    drop(snapshots);
    let snapshots = host.open();
    let container = prepare(&snapshots, Kind::Active, "container", "sha256:two");
    let mount_point = shown(&host.mounts().join(manifest().to_hex()));
    assert_eq!(option(&container, "lowerdir"), Some(&*mount_point));
    // An import of the same image has a snapshot of its own.
    let name = import(&snapshots);
    snapshots.remove(&name).unwrap();
    snapshots.remove("container").unwrap();
    prepare(&snapshots, Kind::View, "view", "sha256:two");
    snapshots.remove("view").unwrap();
    assert_eq!(host.mounted().len(), 0);
    snapshots.remove("sha256:two").unwrap();
    snapshots.remove("sha256:one").unwrap();
    assert!(!has_image(&snapshots));
    assert_eq!(host.directories(), BTreeSet::new());
}

#[test]
fn what_was_written_can_be_committed_and_built_on() {
    let host = Host::new();
    let snapshots = host.open();
    let name = import(&snapshots);
    let first = prepare(&snapshots, Kind::Active, "first", &name);
    let first_upper = option(&first, "upperdir").unwrap();
    fs::write(Path::new(first_upper).join("file"), vec![1; 10_000]).unwrap();
    let usage = snapshots.usage("first").unwrap();
    assert!(usage.size >= 10_000 && usage.inodes == 2, "{usage:?}");
    let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
    snapshots.commit("layer", "first", labels.clone()).unwrap();
    assert_eq!(cause(snapshots.stat("first")), Cause::NotFound);
    let layer = snapshots.stat("layer").unwrap();
    assert_eq!(layer.kind(), Kind::Committed);
    assert_eq!((&layer.parent, &layer.labels), (&name, &labels));
    assert_eq!(snapshots.usage("layer").unwrap(), usage);
    assert_eq!(snapshots.usage(&name).unwrap(), UsageResponse::default());
    assert_eq!(cause(snapshots.mounts("layer")), Cause::Precondition);

    let mount_point = shown(&host.mounts().join(manifest().to_hex()));
    let lower = format!("{first_upper}:{mount_point}");
    let second = prepare(&snapshots, Kind::Active, "second", "layer");
    assert_eq!(option(&second, "lowerdir"), Some(&*lower));
    assert_ne!(option(&second, "upperdir"), Some(first_upper));
    let view = prepare(&snapshots, Kind::View, "view", "layer");
    assert_eq!(view.fs_type, "overlay");
    assert_eq!(option(&view, "lowerdir"), Some(&*lower));
    assert_eq!(option(&view, "upperdir"), None);
    let view = prepare(&snapshots, Kind::View, "view of the image", &name);
    assert_eq!(view.fs_type, "bind");
    assert_eq!(
        (view.source, view.options),
        (mount_point, vec!["ro".to_owned(), "rbind".to_owned()])
    );

    for (result, wanted) in [
        (
            snapshots.commit("x", "view", Labels::new()),
            Cause::Precondition,
        ),
        (
            snapshots.commit("x", "layer", Labels::new()),
            Cause::Precondition,
        ),
        (
            snapshots.commit("x", "none", Labels::new()),
            Cause::NotFound,
        ),
        (
            snapshots.commit("layer", "second", Labels::new()),
            Cause::AlreadyExists,
        ),
        (
            snapshots.commit("", "second", Labels::new()),
            Cause::Invalid,
        ),
        (snapshots.remove("layer"), Cause::Precondition),
        (snapshots.remove("none"), Cause::NotFound),
    ] {
        assert_eq!(result.unwrap_err().cause, wanted);
    }
    // The layer alone needs the image, too.
    for key in ["second", "view", "view of the image"] {
        snapshots.remove(key).unwrap();
    }
    assert_eq!(host.mounted().len(), 1);
    snapshots.remove("layer").unwrap();
    assert_eq!(host.mounted(), []);
}

#[test]
fn without_an_image_it_is_as_any_other_snapshotter() {
    let host = Host::new();
    let snapshots = host.open();
    let first = prepare(&snapshots, Kind::Active, "first", "");
    assert_eq!((&*first.fs_type, &first.options[0][..]), ("bind", "rw"));
    assert_eq!(fs::metadata(&first.source).unwrap().mode() & 0o7777, 0o755);
    let empty = prepare(&snapshots, Kind::View, "empty", "");
    assert_eq!((&*empty.fs_type, &empty.options[0][..]), ("bind", "ro"));
    snapshots.commit("layer", "first", Labels::new()).unwrap();
    let second = prepare(&snapshots, Kind::Active, "second", "layer");
    assert_eq!(option(&second, "lowerdir"), Some(&*first.source));
    assert_eq!(host.mounted(), []);
    for (key, parent, wanted) in [
        ("second", "layer", Cause::AlreadyExists),
        ("layer", "", Cause::AlreadyExists),
        ("third", "second", Cause::Precondition),
        ("third", "none", Cause::NotFound),
        ("", "", Cause::Invalid),
    ] {
        for kind in [Kind::Active, Kind::View] {
            let made = snapshots.prepare(kind, key, parent, Labels::new());
            assert_eq!(cause(made), wanted, "{key} {parent}");
        }
    }
    assert_eq!(host.directories().len(), 3);
}

#[test]
fn labels() {
    let host = Host::new();
    let snapshots = host.open();
    let map = |labels: &[(&str, &str)]| -> Labels {
        let labels = labels.iter();
        labels
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    };
    let given = map(&[("a", "1"), ("b.c", "2")]);
    snapshots.prepare(Kind::Active, "key", "", given).unwrap();
    let update = |labels, fields: &[&str]| {
        let wanted = Info {
            name: "key".to_owned(),
            parent: "ignored".to_owned(),
            labels: map(labels),
            ..Info::default()
        };
        let fields: Vec<String> = fields.iter().map(|field| field.to_string()).collect();
        let updated = snapshots.update(wanted, &fields)?;
        assert_eq!(snapshots.stat("key")?, updated);
        assert_eq!((&*updated.parent, updated.kind()), ("", Kind::Active));
        Ok(updated.labels)
    };
    let changed = [("b.c", "3"), ("d", "4"), ("e", "5")];
    let updated = update(&changed, &["labels.b.c", "labels.d", "labels.a"]).unwrap();
    assert_eq!(updated, map(&changed[..2]));
    assert_eq!(update(&changed, &["labels"]).unwrap(), map(&changed));
    assert_eq!(update(&[("x", "y")], &[]).unwrap(), map(&[("x", "y")]));
    for field in ["parent", "labels.", "labelsx", ""] {
        assert_eq!(cause(update(&[], &[field])), Cause::Invalid, "{field}");
    }
    let nobody = Info::default();
    assert_eq!(cause(snapshots.update(nobody, &[])), Cause::NotFound);
}

#[test]
fn another_that_starts_finds_all_of_it() {
    let host = Host::new();
    let snapshots = host.open();
    let name = import(&snapshots);
    let active = prepare(&snapshots, Kind::Active, "active", &name);
    prepare(&snapshots, Kind::Active, "gone", &name);
    snapshots.remove("gone").unwrap();
    let known = snapshots.list();
    let error = Snapshots::open(&host.root(), &host.mounts(), host.notes.clone()).err();
    let error = format!("{:#}", error.unwrap());
    assert!(
        error.contains("another snapshotter uses the directory"),
        "{error}"
    );
    drop(snapshots);

    // A machine that starts anew has no mounts, and a snapshotter that was killed leaves what is in no
    // state: an image of which it was told, a directory that was just made, or just not removed.
    host.notes.mounted.lock().unwrap().clear();
    fs::remove_dir_all(host.mounts()).unwrap();
    let stray = host.root().join("snapshots/77/fs/file");
    fs::create_dir_all(&stray).unwrap();
    let snapshots = host.open();
    assert!(!stray.exists());
    assert_eq!(snapshots.list(), known);
    assert_eq!(snapshots.mounts("active").unwrap(), [active]);
    assert_eq!(host.mounted().len(), 1);
    let other = Digest::of(b"other");
    snapshots.add_image(&other, image("")).unwrap();
    drop(snapshots);
    host.notes
        .mount(&other, &image(""), &host.mounts().join(other.to_hex()))
        .unwrap();
    let snapshots = host.open();
    assert_eq!(
        host.mounted().len(),
        1,
        "what nothing stands on is unmounted"
    );
    let labels = Labels::from([(REFERENCE.to_owned(), other.to_oci())]);
    snapshots
        .prepare(Kind::Active, "other", "", labels)
        .unwrap();

    // A number is not given to another, for what has it may be mounted.
    let numbers = host.directories();
    snapshots.remove("other").unwrap();
    prepare(&snapshots, Kind::Active, "next", "");
    assert_eq!(host.directories().intersection(&numbers).count(), 1);
    snapshots.clean_up();
    assert_eq!(host.directories().len(), 2);
}

#[test]
fn an_image_that_cannot_be_mounted() {
    let host = Host::new();
    let snapshots = host.open();
    let broken = |options: Option<&str>| {
        *host.notes.broken.lock().unwrap() = options.map(str::to_owned);
    };
    broken(Some("a"));
    assert_eq!(
        cause(snapshots.add_image(&manifest(), image("a"))),
        Cause::Failed
    );
    let asked = snapshots.prepare(Kind::Active, "asked", "", reference());
    asked.expect("the image is not known");
    snapshots.remove("asked").unwrap();

    // It was there when it was imported, but is not any more.
    broken(None);
    let name = import(&snapshots);
    broken(Some(""));
    let refused = snapshots.prepare(Kind::Active, "active", &name, Labels::new());
    assert_eq!(cause(refused), Cause::Failed);
    assert_eq!(host.directories(), BTreeSet::new());
    assert_eq!(cause(snapshots.stat("active")), Cause::NotFound);
    broken(None);
    prepare(&snapshots, Kind::Active, "active", &name);

    // Imported once more, it is mounted in another way, also for containers that start again.
    snapshots.add_image(&manifest(), image("b")).unwrap();
    assert_eq!(host.mounted()[0].1, "b");
    broken(Some("c"));
    assert_eq!(
        cause(snapshots.add_image(&manifest(), image("c"))),
        Cause::Failed
    );
    snapshots.mounts("active").unwrap();
    assert_eq!(host.mounted()[0].1, "b");
}

#[test]
fn a_disk_without_room() {
    let host = Host::new();
    let snapshots = host.open();
    prepare(&snapshots, Kind::Active, "there", "");
    let known = snapshots.list();
    // In the place of the file that the state is written to.
    let obstacle = host.root().join("state.json.new");
    fs::create_dir(&obstacle).unwrap();
    let refused = snapshots.prepare(Kind::Active, "key", "", Labels::new());
    assert_eq!(cause(refused), Cause::Failed);
    assert_eq!(cause(snapshots.remove("there")), Cause::Failed);
    assert_eq!(
        cause(snapshots.commit("layer", "there", Labels::new())),
        Cause::Failed
    );
    assert_eq!(snapshots.list(), known);
    assert_eq!(host.directories().len(), 1);
    fs::remove_dir(&obstacle).unwrap();
    drop(snapshots);
    let snapshots = host.open();
    assert_eq!(snapshots.list(), known);
    snapshots.remove("there").unwrap();
}

#[test]
fn paths_that_overlayfs_would_take_apart() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a,b", "a:b", "a\\b", "a\"b"] {
        let bad = directory.path().join(name);
        let good = directory.path().join("good");
        for (root, mounts) in [(&bad, &good), (&good, &bad)] {
            let error = Snapshots::open(root, mounts, Notes::default()).err();
            assert!(
                error.unwrap().to_string().contains("absolute path"),
                "{name}"
            );
        }
    }
    let relative = Path::new("relative");
    assert!(Snapshots::open(relative, relative, Notes::default()).is_err());
}

/// An overlay unescapes the attributes that overlayfs claims. So an image with such attributes is never
/// shown without one.
#[test]
fn an_image_with_escaped_attributes_is_viewed_through_an_overlay() {
    let host = Host::new();
    *host.notes.escaped.lock().unwrap() = Some(String::new());
    let snapshots = host.open();
    let name = import(&snapshots);
    let mount_point = host.mounts().join(manifest().to_hex());
    let view = prepare(&snapshots, Kind::View, "view", &name);
    assert_eq!(view.fs_type, "overlay");
    assert_eq!(option(&view, "upperdir"), None);
    let lower = option(&view, "lowerdir").unwrap();
    let (own, image) = lower.split_once(':').unwrap();
    assert_eq!(image, mount_point.to_str().unwrap());
    let mode = fs::metadata(own).unwrap().mode();
    assert_eq!(
        mode & 0o7777,
        0o1711,
        "the mode of the image's root directory"
    );
    let active = prepare(&snapshots, Kind::Active, "active", &name);
    assert_eq!(option(&active, "lowerdir"), mount_point.to_str());
}

/// A store that hangs holds up the calls for its own images alone.
#[test]
fn a_store_that_hangs() {
    let host = Host::new();
    let snapshots = host.open();
    let name = import(&snapshots);
    let hanging = Digest::of(b"hanging");
    snapshots.add_image(&hanging, image("hangs")).unwrap();
    let label = Labels::from([(REFERENCE.to_owned(), hanging.to_oci())]);
    let asked = snapshots.prepare(Kind::Active, "asked", "", label);
    assert_eq!(cause(asked), Cause::AlreadyExists);
    host.notes.gate.set(Some("hangs"));
    std::thread::scope(|scope| {
        let (done, others_done) = mpsc::channel();
        let snapshots = &snapshots;
        let hangs = || snapshots.prepare(Kind::Active, "hung", &hanging.to_oci(), Labels::new());
        let hung = scope.spawn(hangs);
        host.notes.gate.wait_for(1);
        let calls = scope.spawn(move || {
            prepare(snapshots, Kind::Active, "one", &name);
            snapshots.mounts("one").unwrap();
            assert_eq!(cause(snapshots.stat("hung")), Cause::NotFound);
            assert_eq!(snapshots.list().len(), 3);
            let wanted = Info {
                name: name.clone(),
                ..Info::default()
            };
            snapshots.update(wanted, &["labels".to_owned()]).unwrap();
            snapshots.usage("one").unwrap();
            snapshots.clean_up();
            snapshots.commit("layer", "one", Labels::new()).unwrap();
            snapshots.remove("layer").unwrap();
            snapshots.remove(&name).unwrap();
            done.send(()).unwrap();
        });
        let others = others_done.recv_timeout(PATIENCE);
        host.notes.gate.set(None);
        others.expect("other calls wait for the store that hangs");
        calls.join().unwrap();
        hung.join().unwrap().unwrap();
    });
    snapshots.mounts("hung").unwrap();
    assert_eq!(host.mounted().len(), 1);
    assert_eq!(host.directories().len(), 1);
}

/// The image of a call that hangs is removed meanwhile: the call fails, and leaves nothing.
#[test]
fn an_image_that_is_removed_while_it_is_mounted() {
    let host = Host::new();
    let snapshots = host.open();
    let name = import(&snapshots);
    host.notes.gate.set(Some(""));
    std::thread::scope(|scope| {
        let prepare = || snapshots.prepare(Kind::Active, "key", &name, Labels::new());
        let hung = scope.spawn(prepare);
        host.notes.gate.wait_for(1);
        snapshots.remove(&name).unwrap();
        host.notes.gate.set(None);
        assert_eq!(cause(hung.join().unwrap()), Cause::NotFound);
    });
    assert_eq!(host.mounted(), []);
    assert_eq!(host.tagged(), [""; 0].map(PathBuf::from));
    assert_eq!(host.directories(), BTreeSet::new());
}

/// A tag keeps an image in its store as long as containerd has it.
#[test]
fn an_image_has_a_tag_in_its_store() {
    let host = Host::new();
    let snapshots = host.open();
    let name = import(&snapshots);
    let store = image("").store;
    assert_eq!(host.tagged(), [store.clone()]);
    let moved = Image {
        store: "/srv/moved".into(),
        options: String::new(),
        sources: Sources::new(),
    };
    snapshots.add_image(&manifest(), moved.clone()).unwrap();
    assert_eq!(host.tagged(), [moved.store.clone()]);
    drop(snapshots);
    let snapshots = host.open();
    assert_eq!(host.tagged(), [moved.store]);
    snapshots.remove(&name).unwrap();
    assert_eq!(host.tagged(), [""; 0].map(PathBuf::from));

    // An import that was killed before containerd knew of the image.
    snapshots.add_image(&manifest(), image("")).unwrap();
    assert_eq!(host.tagged(), [store]);
    drop(snapshots);
    let snapshots = host.open();
    assert_eq!(host.tagged(), [""; 0].map(PathBuf::from));
    drop(snapshots);
    assert!(State::load(&host.root()).unwrap().leaving.is_empty());
}

/// Layers that are not downloaded: the last one is the image, and containerd finds both by their labels.
#[test]
fn layers_that_are_not_downloaded() {
    let host = Host::new();
    let snapshots = host.open();
    let label = |chain: &str| Labels::from([(REFERENCE.to_owned(), chain.to_owned())]);
    let add = |chain: &str, parent: &str, layer: &NewLayer| {
        snapshots
            .add_layer(chain, parent, &label(chain), layer)
            .unwrap();
        let all = snapshots.list();
        let found = all.iter().find(|info| {
            let is_labelled = info.labels == label(chain) && info.parent == parent;
            info.kind() == Kind::Committed && is_labelled && info.name != "other"
        });
        found.unwrap().name.clone()
    };
    let whole = NewLayer::Image(available(""));
    let one = add("sha256:one", "", &NewLayer::Part);
    assert_eq!(add("sha256:one", "", &NewLayer::Part), one);
    let two = add("sha256:two", &one, &whole);
    assert_eq!(snapshots.usage(&two).unwrap(), available("").usage);
    let container = prepare(&snapshots, Kind::Active, "container", &two);
    let mount_point = shown(&host.mounts().join(manifest().to_hex()));
    assert_eq!(option(&container, "lowerdir"), Some(&*mount_point));

    // Another namespace has another snapshot below.
    snapshots
        .prepare(Kind::Active, "key", "", Labels::new())
        .unwrap();
    snapshots
        .commit("other", "key", label("sha256:one"))
        .unwrap();
    let other = add("sha256:two", "other", &whole);
    assert_ne!(other, two);
    assert_eq!(add("sha256:two", "other", &whole), other);
    // One that is not ours is not taken for the layer.
    assert_eq!(add("sha256:one", "", &NewLayer::Part), one);
    let missing = snapshots.add_layer("sha256:x", "none", &Labels::new(), &whole);
    assert_eq!(cause(missing), Cause::NotFound);
    assert_eq!(snapshots.counts(), (5, 1));

    for name in ["container", &two, &one, &other, "other"] {
        snapshots.remove(name).unwrap();
    }
    assert_eq!(host.mounted(), []);
    assert_eq!(host.directories(), BTreeSet::new());
    assert_eq!(snapshots.counts(), (0, 0));
}

#[test]
fn mounts_wait_for_chunks_until_the_image_is_complete() {
    let host = Host::new();
    let snapshots = host.open();
    let label = Labels::from([(REFERENCE.to_owned(), "sha256:one".to_owned())]);
    let mut lazy = available("");
    lazy.image.sources = vec![("registry.example".to_owned(), "team/app".to_owned())];
    let wanted = [(manifest(), lazy.image.sources.clone())];
    let whole = NewLayer::Image(lazy);
    let added = snapshots.add_layer("sha256:one", "", &label, &whole);
    added.unwrap();
    assert_eq!(snapshots.incomplete(), wanted);
    prepare(&snapshots, Kind::Active, "container", "sha256:one");
    assert_eq!(host.mounted()[0].1, " waiting");
    drop(snapshots);
    let snapshots = host.open();
    assert_eq!(snapshots.incomplete(), wanted);
    snapshots.mounts("container").unwrap();
    assert_eq!(host.mounted()[0].1, " waiting");
    snapshots.complete_image(&manifest()).unwrap();
    assert_eq!(snapshots.incomplete(), []);
    prepare(&snapshots, Kind::Active, "other", "sha256:one");
    assert_eq!(host.mounted()[0].1, "");
    for name in ["container", "other", "sha256:one"] {
        snapshots.remove(name).unwrap();
    }
    snapshots.complete_image(&manifest()).unwrap();
    assert_eq!(snapshots.incomplete(), []);
}

/// The first layers of an image are an image themselves, which is known later.
#[test]
fn a_part_that_becomes_an_image() {
    let host = Host::new();
    let snapshots = host.open();
    let label = Labels::from([(REFERENCE.to_owned(), "sha256:one".to_owned())]);
    let part = NewLayer::Part;
    snapshots
        .add_layer("sha256:one", "", &label, &part)
        .unwrap();
    assert_eq!(snapshots.part("sha256:one").as_deref(), Some("sha256:one"));
    assert_eq!(snapshots.part("none"), None);
    snapshots
        .complete_part("sha256:one", &available(""))
        .unwrap();
    assert_eq!(snapshots.part("sha256:one"), None);
    assert_eq!(host.directories(), BTreeSet::new());
    let container = prepare(&snapshots, Kind::Active, "container", "sha256:one");
    let mount_point = shown(&host.mounts().join(manifest().to_hex()));
    assert_eq!(option(&container, "lowerdir"), Some(&*mount_point));
    // Again, by a call that has waited.
    let again = snapshots.complete_part("sha256:one", &available("x"));
    again.unwrap();
    assert_eq!(host.mounted()[0].1, "");

    // The same by the answer for another image.
    snapshots.remove("container").unwrap();
    snapshots.remove("sha256:one").unwrap();
    snapshots
        .add_layer("sha256:one", "", &label, &part)
        .unwrap();
    let whole = NewLayer::Image(available(""));
    snapshots
        .add_layer("sha256:one", "", &label, &whole)
        .unwrap();
    assert_eq!(snapshots.part("sha256:one"), None);
}
