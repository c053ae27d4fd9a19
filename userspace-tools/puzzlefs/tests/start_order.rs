// SPDX-License-Identifier: MIT OR Apache-2.0

//! Start-up orders: recorded from a command, kept with an image, used for its packs and read ahead.

use crate::common::*;
use puzzlefs_lib::chunk_map::{placed_extents, ChunkPlace};
use puzzlefs_lib::oci::Descriptor;
use puzzlefs_lib::path::LastLink;
use puzzlefs_lib::start_order::StartOrder;
use puzzlefs_lib::tree::ImageTree;
use puzzlefs_lib::{Digest, Store};
use serde_json::{json, Value};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const ORDER: &str = "application/vnd.oci.image.layer.puzzlefs.order.v1";

/// A tree with files that are larger than a chunk, and small ones.
struct Case {
    scratch: TempDir,
}

impl Case {
    fn new() -> Self {
        let case = Case {
            scratch: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(case.path("tree/small")).unwrap();
        for number in 0..40 {
            let name = format!("tree/small/{number:02}");
            fs::write(case.path(&name), noise(9_000, number)).unwrap();
        }
        for (name, seed) in [("a", 100), ("b", 101), ("c", 102)] {
            fs::write(case.path("tree").join(name), noise(2 << 20, seed)).unwrap();
        }
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Writes an order, and returns the option that names it.
    fn order(&self, text: &str) -> String {
        fs::write(self.path("order"), text).unwrap();
        format!("--order={}", self.path("order").display())
    }

    fn build(&self, options: &[&str], store: &str, tag: &str) -> Value {
        let output = build_with(options, &self.path("tree"), &self.path(store), tag);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn reference(&self, store: &str, tag: &str) -> String {
        reference(&self.path(store), tag)
    }

    /// The order that is stored with an image, if there is one.
    fn stored(&self, store: &str, tag: &str) -> Option<String> {
        let (store, image) = open(&self.path(store), tag);
        let order = store.start_order(image.root.manifest_digest(), &image.manifest);
        let order = order.unwrap();
        order.map(|order| String::from_utf8(order.to_text()).unwrap())
    }

    /// The packs of an image and the places in them of the chunks of a range.
    fn places(&self, store: &str, tag: &str, path: &str, range: Range<u64>) -> Vec<(Digest, u64)> {
        let (store, image) = open(&self.path(store), tag);
        let tree = ImageTree::new(&store, &image.root).unwrap();
        let file = tree.resolve(path.as_bytes(), LastLink::Keep).unwrap();
        let extents = placed_extents(&tree, &file).unwrap().into_iter();
        let extents = extents.filter(|extent| {
            extent.offset < range.end && extent.offset + extent.bytes > range.start
        });
        let places = extents.map(|extent| match extent.chunk.unwrap().place {
            ChunkPlace::Pack { pack, offset } => (pack, offset),
            place => panic!("{path}: {place:?}"),
        });
        places.collect()
    }

    /// Asserts that the chunks of ranges lie in one pack, in order, and before the first chunk of a file.
    fn assert_first(&self, store: &str, tag: &str, ranges: &[(&str, Range<u64>)], later: &str) {
        let places = ranges.iter();
        let places: Vec<_> = places
            .flat_map(|(path, range)| self.places(store, tag, path, range.clone()))
            .collect();
        assert!(places.len() > ranges.len(), "{places:?}");
        assert!(
            places.iter().all(|(pack, _)| *pack == places[0].0),
            "{places:?}"
        );
        assert!(places.is_sorted_by_key(|(_, offset)| offset), "{places:?}");
        let last = places[places.len() - 1];
        let other = self.places(store, tag, later, 0..1)[0];
        assert!(other.0 != last.0 || other.1 > last.1, "{other:?} {last:?}");
    }
}

/// The ranges of [`TEXT`], before which no other data lies.
const RANGES: [(&str, Range<u64>); 3] = [
    ("/c", 1_000_000..1_500_000),
    ("/small/07", 0..9_000),
    ("/b", 0..u64::MAX),
];
const TEXT: &str = "1000000 500000 /c\n/small/07\n/b\n";

#[test]
fn ranges_of_an_order_come_first() {
    let case = Case::new();
    let plain = case.build(&["--fresh"], "plain", "t");
    assert_eq!(case.stored("plain", "t"), None);
    let order = case.order(&format!("# by hand\n{TEXT}"));
    let ordered = case.build(&["--fresh", &order], "ordered", "t");
    case.assert_first("ordered", "t", &RANGES, "/a");
    assert_eq!(case.stored("ordered", "t").as_deref(), Some(TEXT));
    // The root and the chunks do not depend on the order.
    assert_eq!(ordered["rootfs_digest"], plain["rootfs_digest"]);
    for field in ["new_chunks", "new_chunk_bytes", "chunks"] {
        assert_eq!(ordered[field], plain[field]);
    }
    assert_ne!(ordered["manifest_digest"], plain["manifest_digest"]);
    // The packs depend on tree, options and order alone.
    for store in ["plain", "third"] {
        for jobs in ["--jobs=1", "--jobs=7"] {
            let again = case.build(&["--fresh", &order, jobs], store, "again");
            assert_eq!(again["manifest_digest"], ordered["manifest_digest"]);
        }
    }
    let (from, to) = (case.path("tree"), case.path("ordered"));
    assert_same(&directory_inventory(&from), &image_inventory(&to, "t"));
    says(&["verify", &case.reference("ordered", "t")]);
}

#[test]
fn a_rebuild_uses_the_order_of_the_parent() {
    let case = Case::new();
    let order = case.order(TEXT);
    case.build(&[&order], "store", "t");
    // The new file comes before the others in the walk.
    let mut changed = noise(2 << 20, 101);
    changed[1_500_000] ^= 1;
    fs::write(case.path("tree/b"), changed).unwrap();
    fs::write(case.path("tree/aa"), noise(1 << 20, 501)).unwrap();
    let rebuilt = case.build(&["--order=parent"], "store", "t");
    assert_eq!(case.stored("store", "t").as_deref(), Some(TEXT));
    // The store has the other ranges in order, and they stay there.
    let new = rebuilt["new_bytes"].as_u64().unwrap();
    assert!(new < 2 << 20, "{rebuilt}");
    let new = case.places("store", "t", "/b", 1_500_000..1_500_001)[0];
    let other = case.places("store", "t", "/aa", 0..1)[0];
    assert!(new.0 == other.0 && new.1 < other.1);
    // Without the option, the image has no order.
    case.build(&[], "store", "t");
    assert_eq!(case.stored("store", "t"), None);
    let output = build_with(
        &["--order=parent"],
        &case.path("tree"),
        &case.path("store"),
        "t",
    );
    let said = stderr(&output);
    assert!(
        output.status.success() && said.contains("t has no start-up order"),
        "{said}"
    );
    let output = build_with(
        &["--order=parent"],
        &case.path("tree"),
        &case.path("store"),
        "new",
    );
    let said = stderr(&output);
    assert!(
        output.status.success() && said.contains("there is no parent"),
        "{said}"
    );
}

#[test]
fn a_build_into_the_same_store_puts_scattered_ranges_together() {
    let case = Case::new();
    case.build(&[], "store", "t");
    let scattered = format!(
        "/small/39\n{}",
        "0 1 /c\n1000000 1 /b\n1999999 1 /a\n/c\n/small/02\n/b\n"
    );
    let order = case.order(&scattered);
    let ordered = case.build(&[&order], "store", "t");
    assert_eq!(ordered["new_chunks"], 0);
    let ranges = [("/c", 1..u64::MAX), ("/small/02", 0..9_000)];
    case.assert_first("store", "t", &ranges, "/a");
    // Once is enough.
    let again = case.build(&[&order], "store", "t");
    assert_eq!(
        (&again["new_bytes"], &again["new_chunks"]),
        (&json!(0), &json!(0))
    );
}

#[test]
fn repack_puts_ranges_first_and_keeps_the_order() {
    let case = Case::new();
    let built = case.build(&[], "store", "t");
    let image = case.reference("store", "t");
    let order = case.order(TEXT);
    let report: Value = serde_json::from_str(&says(&["repack", "--json", &order, &image])).unwrap();
    assert_eq!(report["new_packs"], 1);
    case.assert_first("store", "t", &RANGES, "/a");
    assert_eq!(case.stored("store", "t").as_deref(), Some(TEXT));
    let (store, found) = open(&case.path("store"), "t");
    assert_eq!(found.root.digest().to_hex(), built["rootfs_digest"]);
    // The configuration lists the layers, the order among them.
    let config = Digest::from_oci(&found.manifest.config.digest).unwrap();
    let config: Value =
        serde_json::from_slice(&store.read_blob(&config, 1 << 20).unwrap()).unwrap();
    let layers = found
        .manifest
        .layers
        .iter()
        .map(|layer| json!(layer.digest));
    assert_eq!(config["rootfs"]["diff_ids"], layers.collect::<Value>());
    // The order is the image's own now, and nothing is left to do.
    let again: Value = serde_json::from_str(&says(&["repack", "--json", &image])).unwrap();
    assert_eq!(
        (&again["new_packs"], &again["manifest_digest"]),
        (&json!(0), &Value::Null)
    );
    // Another order, by the same command.
    let other = case.order("/a\n/none\n");
    let output = run(&["repack", &other, &image]);
    let said = stderr(&output);
    assert!(
        said.contains("1 range is of paths that do not exist"),
        "{said}"
    );
    case.assert_first("store", "t", &[("/a", 0..u64::MAX)], "/c");
    assert_eq!(case.stored("store", "t").as_deref(), Some("/a\n/none\n"));
}

#[test]
fn gc_copy_and_verify_keep_the_order() {
    let case = Case::new();
    case.build(&[], "store", "old");
    let order = case.order(TEXT);
    case.build(&["--fresh", &order], "store", "t");
    let (image, store) = (case.reference("store", "t"), case.path("store"));
    says(&["untag", &case.reference("store", "old")]);
    says(&["gc", store.to_str().unwrap()]);
    assert_eq!(case.stored("store", "t").as_deref(), Some(TEXT));
    case.assert_first("store", "t", &RANGES, "/a");
    says(&["copy", &image, &case.reference("copy", "t")]);
    assert_eq!(case.stored("copy", "t").as_deref(), Some(TEXT));
    case.assert_first("copy", "t", &RANGES, "/a");
    says(&["verify", case.path("copy").to_str().unwrap()]);
    says(&["complete", &case.reference("copy", "t")]);
    assert_eq!(case.stored("copy", "t").as_deref(), Some(TEXT));
    // `verify` reports an order that is lost or damaged.
    let (found, manifest) = open(&case.path("copy"), "t");
    let layers = manifest.manifest.layers.iter();
    let layer = layers.filter(|layer| layer.media_type == ORDER).next_back();
    let path = found.blob_path(&Digest::from_oci(&layer.unwrap().digest).unwrap());
    fs::write(&path, "/other\n").unwrap();
    let said = says_fault(&case.path("copy"));
    assert!(
        said.contains(path.file_name().unwrap().to_str().unwrap()),
        "{said}"
    );
}

#[test]
fn convert_keeps_the_order() {
    let case = Case::new();
    let order = case.order(TEXT);
    case.build(&[&order], "store", "t");
    let image = case.reference("store", "t");
    let convert = |options: &[&str], from: &str, to: &str| {
        says(&[&["convert", "-q"], options, &[from, to]].concat());
    };
    convert(&["--compress=0"], &image, &case.reference("raw", "t"));
    assert_eq!(case.stored("raw", "t").as_deref(), Some(TEXT));
    case.assert_first("raw", "t", &RANGES, "/a");
    // An order that is given counts, and format 3 has none.
    let other = case.order("/a\n");
    convert(&[&other], &image, &case.reference("other", "t"));
    assert_eq!(case.stored("other", "t").as_deref(), Some("/a\n"));
    convert(&["--format=3"], &image, &case.reference("v3", "t"));
    let (_, manifest) = open(&case.path("v3"), "t");
    let mut layers = manifest.manifest.layers.iter();
    assert!(layers.all(|layer| layer.media_type != ORDER));
    let v3 = case.reference("v3", "t");
    convert(&[], &v3, &case.reference("back", "t"));
    assert_eq!(case.stored("back", "t"), None);
}

/// Runs `verify`, which must find a fault, and returns the report.
fn says_fault(store: &Path) -> String {
    let output = run(&["verify", "--json", store.to_str().unwrap()]);
    assert!(!output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn hostile_orders_are_refused() {
    let case = Case::new();
    case.build(&[], "store", "t");
    let image = case.reference("store", "t");
    for (text, line, cause) in [
        (
            "/a\n0 1 /../etc/shadow\n",
            2,
            "a name is empty, '.' or '..'",
        ),
        ("a\n", 1, "neither a path nor 'OFFSET LENGTH PATH'"),
        ("0 1 a\n", 1, "does not begin with '/'"),
        ("0 1 /a\\q\n", 1, "a backslash without"),
        ("9999999999999999999 1 /a\n", 1, "too large for a file"),
    ] {
        let order = case.order(text);
        let wanted = format!("line {line}: ");
        let said = fails(&["repack", &order, &image]);
        assert!(said.contains(&wanted) && said.contains(cause), "{said}");
        let output = build_with(&[&order], &case.path("tree"), &case.path("store"), "t");
        let said = stderr(&output);
        assert!(!output.status.success() && said.contains(&wanted), "{said}");
    }
    let order = case.order(&"/a\n".repeat(70_000));
    assert!(fails(&["repack", &order, &image]).contains("more than 65536 ranges"));
    let order = case.order(&"#\n".repeat(3 << 20));
    assert!(fails(&["repack", &order, &image]).contains("more than 4 MiB"));
    let output = build_with(
        &["--format=3", &order],
        &case.path("tree"),
        &case.path("store"),
        "t",
    );
    assert!(stderr(&output).contains("--order is for --format 4"));
    // With the image, too.
    put_order(&case.path("store"), "t", "/a\n/b/./c\n");
    assert!(fails(&["repack", &image]).contains("line 2: "));
    let output = build_with(
        &["--order=parent"],
        &case.path("tree"),
        &case.path("store"),
        "t",
    );
    assert!(stderr(&output).contains("line 2: "), "{}", stderr(&output));
}

/// Puts the text of an order into the manifest of an image, whatever it is.
fn put_order(store: &Path, tag: &str, text: &str) {
    let opened = Store::open(store).unwrap();
    let mut index = opened.index().unwrap();
    let (_, image) = open(store, tag);
    let mut manifest = image.manifest;
    let order = put_blob(store, text.as_bytes());
    manifest
        .layers
        .push(Descriptor::new(ORDER, order, text.len() as u64));
    let bytes = manifest.to_json();
    let digest = put_blob(store, &bytes);
    let mut descriptor = index.find(tag).unwrap().clone();
    descriptor.digest = digest.to_oci();
    descriptor.size = bytes.len() as u64;
    index.set_tag(tag, descriptor);
    fs::write(
        store.join("index.json"),
        serde_json::to_vec(&index).unwrap(),
    )
    .unwrap();
}

/// Copies a program of this host and its libraries into a tree.
fn add_program(tree: &Path, program: &str) {
    let listed = output(Command::new("ldd").arg(program));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let target = tree.join(&file[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

impl Case {
    /// Adds a shell, `cat`, `dd` and some data.
    fn with_programs() -> Self {
        let case = Case::new();
        let tree = case.path("tree");
        for program in ["/usr/bin/dash", "/usr/bin/cat", "/usr/bin/dd"] {
            add_program(&tree, program);
        }
        fs::create_dir(tree.join("usr/link")).unwrap();
        symlink("../../a", tree.join("usr/link/to-a")).unwrap();
        // `make run` and other tests mount what they like there.
        fs::write(tree.join("proc"), "").unwrap_or_default();
        fs::remove_file(tree.join("proc")).unwrap();
        case
    }

    /// Records a script with the shell of the image.
    fn record(&self, options: &[&str], script: &str) -> std::process::Output {
        needs_root();
        let mut command = puzzlefs();
        command
            .arg("record")
            .args(options)
            .arg(self.reference("store", "t"));
        command.args(["--", "/usr/bin/dash", "-c", script]);
        output(&mut command)
    }
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn the_reads_of_a_command_are_recorded() {
    let case = Case::with_programs();
    case.build(&[], "store", "t");
    let script = "\
        dd if=/b of=/dev/null bs=4096 skip=300 count=5 2>/dev/null\n\
        cat /small/03\n\
        cat /usr/link/to-a >/written\n\
        dd if=/b of=/dev/null bs=4096 skip=290 count=20 2>/dev/null\n\
        cat /small/03 >/dev/null\n\
        echo $$ $PATH; cat /proc/1/comm; test -c /dev/null -a -e /sys/kernel; echo $?";
    let recorded = case.record(&[], script);
    assert!(recorded.status.success(), "{}", stderr(&recorded));
    let text = String::from_utf8(recorded.stdout.clone()).unwrap();
    let order = StartOrder::parse(text.as_bytes()).unwrap();
    assert_eq!(order.to_text(), text.as_bytes());
    let at = |wanted: &str| {
        let found = text.lines().position(|line| line == wanted);
        found.unwrap_or_else(|| panic!("{wanted} is not in:\n{text}"))
    };
    // Each page once, where it was first read, and no more than that.
    let script_reads = [
        at("1228800 20480 /b"),
        at("0 12288 /small/03"),
        at("0 2097152 /a"),
        at("1187840 40960 /b"),
        at("1249280 20480 /b"),
    ];
    assert!(script_reads.is_sorted(), "{text}");
    assert!(at("0 0 /usr/link/to-a") < script_reads[2]);
    assert!(
        !text.contains("/small/04") && !text.contains(" /c"),
        "{text}"
    );
    assert!(
        !text.contains("/written") && !text.contains("/proc"),
        "{text}"
    );
    // The program and its libraries come before the data.
    let first = |path: &str| text.lines().position(|line| line.contains(path)).unwrap();
    assert!(first("/usr/bin/dash") < first("libc.so.6") && first("libc.so.6") < script_reads[0]);
    // Standard output was free for the order.
    let said = stderr(&recorded);
    assert!(
        said.contains("/usr/local/sbin:") && said.contains("\n0\n"),
        "{said}"
    );
    assert!(said.contains("recorded "), "{said}");
    // Nothing is left behind.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(case.scratch.path().to_str().unwrap()),
        "{mounts}"
    );

    // The record is an order for a build.
    let file = case.path("recorded");
    fs::write(&file, &text).unwrap();
    let order = format!("--order={}", file.display());
    case.build(&["--fresh", &order], "ordered", "t");
    case.assert_first("ordered", "t", &[("/a", 0..u64::MAX)], "/c");
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn record_repacks_and_reports_the_end_of_the_command() {
    let case = Case::with_programs();
    case.build(&[], "store", "t");
    let file = case.path("recorded");
    let output = format!("--output={}", file.display());
    let recorded = case.record(
        &[&output, "--repack", "-q"],
        "cat /c >/dev/null; echo out; exec 3</b",
    );
    assert!(recorded.status.success(), "{}", stderr(&recorded));
    assert_eq!(recorded.stdout, b"out\n");
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("0 2097152 /c\n") && text.contains("0 0 /b\n"),
        "{text}"
    );
    assert_eq!(case.stored("store", "t"), Some(text));
    case.assert_first("store", "t", &[("/c", 0..u64::MAX)], "/a");

    // A failure is reported, and the order is written for a look at it.
    fs::remove_file(&file).unwrap();
    let recorded = case.record(&[&output, "--repack"], "cat /a >/dev/null; exit 3");
    let said = stderr(&recorded);
    assert!(
        recorded.status.code() == Some(1) && said.contains("exit status: 3"),
        "{said}"
    );
    assert!(said.contains("was not repacked"), "{said}");
    assert!(fs::read_to_string(&file)
        .unwrap()
        .contains("0 2097152 /a\n"));
    let missing = fails(&["record", &case.reference("store", "t"), "--", "/no/such"]);
    assert!(missing.contains("cannot run /no/such"), "{missing}");
    let without = run(&["record", &case.reference("store", "t")]);
    let said = stderr(&without);
    assert!(
        without.status.code() == Some(2) && said.contains("give a command after '--'"),
        "{said}"
    );
}

/// A server does not end by itself.
#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_command_that_goes_on_is_ended() {
    let case = Case::with_programs();
    let options = [
        "--entrypoint=/usr/bin/dash",
        "--cmd=-c",
        "--cmd=cat /c >/dev/null; echo $V; cat",
    ];
    case.build(&[&options[..], &["--env=V=ready"]].concat(), "store", "t");
    needs_root();
    let image = case.reference("store", "t");
    let mut command = puzzlefs();
    // Its standard input stays open.
    command
        .args(["record", "--quiet", &image])
        .stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut ready).unwrap();
    assert_eq!(ready, *b"ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = finish(child);
    assert!(ended.status.success(), "{}", stderr(&ended));
    assert!(String::from_utf8(ended.stdout)
        .unwrap()
        .contains("0 2097152 /c\n"));
    let mut command = puzzlefs();
    command
        .args(["record", "--timeout=1", &image])
        .stdin(Stdio::piped());
    let ended = output(&mut command);
    assert!(ended.status.success(), "{}", stderr(&ended));
}

/// The processes that read ahead for mounts, by their command lines.
fn readers() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines
        .filter(|line| line.contains("--prefetch-mount"))
        .collect()
}

/// Mounts with options, over FUSE, and returns the messages.
fn mount(image: &str, directory: &Path, options: &[&str]) -> String {
    fs::create_dir_all(directory).unwrap();
    let mut command = puzzlefs();
    command
        .args(["mount", "--fuse", "-o", "prefetch"])
        .args(options);
    let mounted = output(command.arg(image).arg(directory));
    assert!(mounted.status.success(), "{}", stderr(&mounted));
    stderr(&mounted)
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_mount_reads_ahead_and_is_not_busy() {
    needs_root();
    let case = Case::new();
    let order = case.order("/a\n/b\n/none\n/small\n/small/01\n/c\n");
    case.build(&[&order], "store", "t");
    let (image, mnt) = (case.reference("store", "t"), case.path("mnt"));
    for options in [&[][..], &["--writable"]] {
        for number in 0..5 {
            // The server of an earlier mount can look at its own mount point when it ends.
            let mnt = case.path(&format!("mnt-{}-{number}", options.len()));
            assert_eq!(mount(&image, &mnt, options), "");
            // At once, while the files are read ahead.
            rustix::mount::unmount(&mnt, rustix::mount::UnmountFlags::NOFOLLOW).unwrap();
        }
        wait_until("the readers end with their mounts", || readers().is_empty());
        // And they end by themselves.
        assert_eq!(mount(&image, &mnt, options), "");
        wait_until("the reader ends", || readers().is_empty());
        assert!(fs::read(mnt.join("a")).unwrap() == noise(2 << 20, 100));
        // A process that another test is starting can have the file open.
        says(&["umount", "--lazy", mnt.to_str().unwrap()]);
    }
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_mount_succeeds_without_a_usable_order() {
    needs_root();
    let case = Case::new();
    case.build(&[], "store", "t");
    let (image, mnt) = (case.reference("store", "t"), case.path("mnt"));
    let said = mount(&image, &mnt, &[]);
    assert!(
        said.contains("prefetch: the image has no start-up order"),
        "{said}"
    );
    says(&["umount", mnt.to_str().unwrap()]);
    for (text, cause) in [
        (
            "/a\n0 1 /../../etc/shadow\n",
            "line 2: a name is empty, '.' or '..'",
        ),
        ("0 0 0\n", "line 1: the path does not begin with '/'"),
    ] {
        put_order(&case.path("store"), "t", text);
        let said = mount(&image, &mnt, &[]);
        assert!(
            said.contains("prefetch: cannot use the start-up order"),
            "{said}"
        );
        assert!(said.contains(cause), "{said}");
        assert!(fs::read(mnt.join("a")).unwrap() == noise(2 << 20, 100));
        // A process that another test is starting can have the file open.
        says(&["umount", "--lazy", mnt.to_str().unwrap()]);
        case.build(&[], "store", "t");
    }
}
