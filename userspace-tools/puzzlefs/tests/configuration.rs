// SPDX-License-Identifier: MIT OR Apache-2.0

//! What an image says beside its files: configuration, annotations, labels and history.

use crate::common::layout::Layout;
use crate::common::tar::{archive, file};
use crate::common::*;
use puzzlefs_lib::oci::Descriptor;
use puzzlefs_lib::Digest;
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn inspect(image: &str) -> Value {
    serde_json::from_str(&says(&["inspect", "--json", image])).unwrap()
}

/// A layout with an image that says all that an image can, in an index of platforms.
fn container_image(path: PathBuf) -> Layout {
    let layout = Layout::new(path);
    let tar = archive(&[file("file", b"contents")]);
    let config = json!({
        "created": "2026-01-02T03:04:05Z", "author": "somebody", "os": "linux",
        "architecture": "arm64", "variant": "v8",
        "config": {
            "User": "1000", "ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/bin", "A=1"],
            "Entrypoint": ["/bin/server", "--quiet mode"], "Cmd": ["\u{1b}[2J"],
            "Volumes": {"/data": {}}, "WorkingDir": "/srv", "StopSignal": "SIGINT",
            "Labels": {"maintainer": "somebody", "x": ""},
        },
        "history": [
            {"created": "2026-01-01T00:00:00Z", "created_by": "ADD rootfs", "comment": "buildkit"},
            {"created_by": "ENV A=1", "empty_layer": true},
        ],
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&tar).to_oci()]},
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": layout.blob(CONFIG, config.to_string().as_bytes()),
        "layers": [layout.blob("application/vnd.oci.image.layer.v1.tar", &tar)],
        "annotations": {"org.opencontainers.image.source": "https://example.test/x", "own": "1"},
    });
    let mut manifest = layout.blob(MANIFEST, manifest.to_string().as_bytes());
    manifest["platform"] = json!({"os": "linux", "architecture": "arm64"});
    manifest["annotations"] = json!({"inner": "descriptor"});
    let index = json!({
        "schemaVersion": 2, "manifests": [manifest], "annotations": {"inner": "index", "of-index": "2"},
    });
    let index = index.to_string();
    let mut index = layout.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    index["annotations"] = json!({
        "org.opencontainers.image.ref.name": "x",
        "io.containerd.image.name": "registry.test/x:x",
        "org.opencontainers.image.created": "2026-02-03T00:00:00Z",
    });
    layout.index(&[index]);
    layout
}

/// A configuration with everything that an image keeps, and a field of its own.
fn own_configuration() -> Value {
    json!({
        "author": "me", "os": "linux", "architecture": "riscv64", "own": [1],
        "config": {"Entrypoint": ["/old"], "Cmd": ["-x"], "Env": ["A=0"], "StopSignal": "SIGINT"},
        "history": [{"created_by": "sh"}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
    })
}

#[test]
fn what_an_imported_image_says_is_kept_and_shown() {
    for format in ["3", "4"] {
        import_and_inspect(format);
    }
}

fn import_and_inspect(format: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let layout = container_image(path("layout"));
    let image = reference(&path("store"), "t");
    let source = layout.0.to_str().unwrap();
    says(&["import", "-q", "--format", format, source, &image]);
    let seen = inspect(&image);
    let mut annotations =
        json!({"org.opencontainers.image.source": "https://example.test/x", "own": "1"});
    let mut first = json!({
        "created": "2026-01-01T00:00:00Z", "created_by": "ADD rootfs", "comment": "buildkit",
    });
    // Its layers are packs, which the history does not describe.
    if format == "4" {
        for own in ["io.puzzlefs.root", "io.puzzlefs.compression"] {
            annotations[own] = seen["annotations"][own].clone();
        }
        assert_eq!(annotations["io.puzzlefs.root"], seen["rootfs_digest"]);
        first["empty_layer"] = json!(true);
    }
    for (key, wanted) in [
        ("platform", json!("linux/arm64/v8")),
        ("created", json!("2026-01-02T03:04:05Z")),
        ("author", json!("somebody")),
        ("entrypoint", json!(["/bin/server", "--quiet mode"])),
        ("cmd", json!(["\u{1b}[2J"])),
        ("env", json!(["PATH=/bin", "A=1"])),
        ("working_dir", json!("/srv")),
        ("user", json!("1000")),
        ("exposed_ports", json!(["80/tcp"])),
        ("volumes", json!(["/data"])),
        ("stop_signal", json!("SIGINT")),
        ("labels", json!({"maintainer": "somebody", "x": ""})),
        (
            "history",
            json!([first, {"created_by": "ENV A=1", "empty_layer": true}]),
        ),
        ("annotations", annotations),
        (
            "index_annotations",
            json!({
                "inner": "descriptor", "of-index": "2",
                "org.opencontainers.image.created": "2026-02-03T00:00:00Z",
                "org.opencontainers.image.ref.name": "t",
            }),
        ),
    ] {
        assert_eq!(seen[key], wanted, "{key}");
    }
    let text = says(&["inspect", &image]);
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "platform   linux/arm64/v8",
        "created    2026-01-02T03:04:05Z",
        "author     somebody",
        r#"entrypoint ["/bin/server","--quiet mode"]"#,
        "workdir    /srv",
        "user       1000",
        "stop       SIGINT",
        "env        PATH=/bin",
        "env        A=1",
        "port       80/tcp",
        "volume     /data",
        "label      maintainer=somebody",
        "history    2026-01-01T00:00:00Z ADD rootfs (buildkit)",
        "history    - ENV A=1",
        "annotation own=1",
        "index      of-index=2",
    ] {
        assert!(lines.contains(&line), "{line}: {text}");
    }
    // What another tool wrote does not move a cursor.
    assert!(!text.contains('\u{1b}'));

    // It goes along with a copy and with a tag, and is no part of the tree.
    let copy = reference(&path("copy"), "c");
    says(&["copy", "-q", &image, &copy]);
    says(&["tag", &copy, "again"]);
    for name in ["c", "again"] {
        let copied = inspect(&reference(&path("copy"), name));
        let mut wanted = seen.clone();
        wanted["index_annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        assert_eq!(copied, wanted);
    }
    let listed = says(&["list", path("copy").to_str().unwrap()]);
    assert!(listed.contains("2026-02-03T00:00:00Z"), "{listed}");
    let digest = seen["manifest_digest"].as_str().unwrap();
    let by_digest = inspect(&format!("{}@{digest}", path("store").display()));
    assert_eq!(by_digest["index_annotations"], json!({}));
    says(&["verify", "-q", path("copy").to_str().unwrap()]);
    check_store(&path("copy"));
}

/// Annotations come from strangers: they must not make an index too large to be read.
#[test]
fn annotations_too_large_for_an_index_are_left_out() {
    let scratch = memory_scratch();
    let path = |name: &str| scratch.path().join(name);
    let layout = container_image(path("layout"));
    let index = fs::read(layout.0.join("index.json")).unwrap();
    let mut index: Value = serde_json::from_slice(&index).unwrap();
    let image = reference(&path("store"), "t");
    let store = path("store");
    for (size, kept) in [(60_000, true), (70_000, false)] {
        index["manifests"][0]["annotations"]["large"] = json!("x".repeat(size));
        fs::write(layout.0.join("index.json"), index.to_string()).unwrap();
        let output = run(&["import", "-q", layout.0.to_str().unwrap(), &image]);
        assert!(output.status.success(), "{}", stderr(&output));
        let said = stderr(&output);
        let wanted = "layout: its annotations in the index have 70";
        assert_eq!(said.contains(wanted), !kept, "{said}");
        let seen = inspect(&image);
        assert_eq!(seen["index_annotations"].get("large").is_some(), kept);
        assert_eq!(seen["annotations"]["own"], "1");
    }
    // Nor does a copy bring them along.
    let entry = Descriptor::new(
        MANIFEST,
        Digest::from_oci(inspect(&image)["manifest_digest"].as_str().unwrap()).unwrap(),
        open(&store, "t").1.manifest.to_json().len() as u64,
    );
    let entry = entry.annotated("large", "x".repeat(70_000));
    put_in_index(
        &store,
        entry.annotated("org.opencontainers.image.ref.name", "large"),
    );
    let copy = reference(&path("copy"), "c");
    let said = fails(&["copy", &reference(&store, "large"), &copy]);
    assert!(
        said.contains("its annotations in the index have 70"),
        "{said}"
    );
}

fn tree(scratch: &Path) -> PathBuf {
    let tree = scratch.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(300_000, 1)).unwrap();
    set_mtime(&tree.join("file"), 1, 0);
    set_mtime(&tree, 1, 0);
    tree
}

/// The configuration of an image, as it is in the store.
fn configuration(store: &Path, tag: &str) -> (String, Value) {
    let (store, image) = open(store, tag);
    let descriptor = &image.manifest.config;
    let digest = Digest::from_oci(&descriptor.digest).unwrap();
    let bytes = store.read_blob(&digest, 1 << 20).unwrap();
    (
        descriptor.media_type.clone(),
        serde_json::from_slice(&bytes).unwrap(),
    )
}

fn diff_ids(store: &Path, tag: &str) -> Value {
    let (_, image) = open(store, tag);
    let layers = image.manifest.layers.iter();
    json!(layers.map(|layer| layer.digest.clone()).collect::<Vec<_>>())
}

#[test]
fn a_configuration_for_what_is_built() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, store) = (tree(scratch.path()), path("store"));
    let built = |tag: &str, options: &[&str]| -> Value {
        let output = build_with(&[&["--format=3"], options].concat(), &tree, &store, tag);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // Without an option there is none, and the image is what it always was.
    let plain = built("plain", &[]);
    let (media_type, empty) = configuration(&store, "plain");
    assert_eq!(
        (&*media_type, empty),
        ("application/vnd.oci.empty.v1+json", json!({}))
    );
    assert_eq!(
        inspect(&reference(&store, "plain"))["platform"],
        Value::Null
    );

    let options = [
        "--platform",
        "linux/arm/v7",
        "--entrypoint",
        "/bin/server",
        "--entrypoint",
        "--port",
        "--cmd",
        r#"["80", "--loud now"]"#,
        "--env",
        "A=1",
        "--env",
        "B=x=y",
        "--env",
        "A=2",
        "--label",
        "version=1",
        "--user",
        "1000:1000",
        "--workdir",
        "/srv",
    ];
    let first = built("run", &options);
    let (media_type, config) = configuration(&store, "run");
    assert_eq!(media_type, CONFIG);
    let wanted = json!({
        "architecture": "arm", "os": "linux", "variant": "v7",
        "config": {
            "Entrypoint": ["/bin/server", "--port"], "Cmd": ["80", "--loud now"],
            "Env": ["A=2", "B=x=y"], "Labels": {"version": "1"}, "User": "1000:1000",
            "WorkingDir": "/srv",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids(&store, "run")},
    });
    assert_eq!(config, wanted);
    // The tree is the same, and so is the image of the same options.
    assert_eq!(first["rootfs_digest"], plain["rootfs_digest"]);
    assert_eq!(
        built("again", &options)["manifest_digest"],
        first["manifest_digest"]
    );
    assert_eq!(
        built("plain", &[])["manifest_digest"],
        plain["manifest_digest"]
    );
    let seen = inspect(&reference(&store, "run"));
    assert_eq!(seen["entrypoint"], json!(["/bin/server", "--port"]));
    assert_eq!(seen["platform"], "linux/arm/v7");

    // From a file, all of which is kept.
    let original = own_configuration();
    fs::write(path("config.json"), original.to_string()).unwrap();
    let config_option = path("config.json");
    let config_option = ["--config", config_option.to_str().unwrap()];
    built("file", &config_option);
    let mut wanted = original.clone();
    wanted["rootfs"]["diff_ids"] = diff_ids(&store, "file");
    wanted["history"] = json!([{"created_by": "sh", "empty_layer": true}]);
    assert_eq!(configuration(&store, "file").1, wanted);
    built(
        "changed",
        &[&config_option[..], &["--entrypoint=/new", "--env=A=1"]].concat(),
    );
    wanted["config"] = json!({"Entrypoint": ["/new"], "Env": ["A=1"], "StopSignal": "SIGINT"});
    assert_eq!(configuration(&store, "changed").1, wanted);

    // On a base, from the configuration that it has.
    built("same", &["--base", "changed"]);
    assert_eq!(
        open(&store, "same").1.manifest.config,
        open(&store, "changed").1.manifest.config
    );
    built("on-it", &["--base", "changed", "--cmd=-v"]);
    wanted["config"]["Cmd"] = json!(["-v"]);
    wanted["rootfs"]["diff_ids"] = diff_ids(&store, "on-it");
    assert_eq!(configuration(&store, "on-it").1, wanted);
    built(
        "on-plain",
        &["--base", "plain", "--cmd=-v", "--platform=linux/amd64"],
    );
    assert_eq!(
        configuration(&store, "on-plain").1["config"],
        json!({"Cmd": ["-v"]})
    );
    says(&["verify", "-q", store.to_str().unwrap()]);
    check_store(&store);
}

/// An image of format 4 always has one, because other tools expect it.
#[test]
fn a_configuration_of_an_image_of_format_4() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (tree, store) = (tree(scratch.path()), path("store"));
    let built = |tag: &str, options: &[&str]| -> Value {
        let output = build_with(options, &tree, &store, tag);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let plain = built("plain", &["--platform=linux/riscv64"]);
    let (media_type, config) = configuration(&store, "plain");
    assert_eq!(media_type, CONFIG);
    let wanted = json!({
        "architecture": "riscv64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids(&store, "plain")},
    });
    assert_eq!(config, wanted);

    let original = own_configuration();
    fs::write(path("config.json"), original.to_string()).unwrap();
    let file = path("config.json");
    let options = [
        "--config",
        file.to_str().unwrap(),
        "--entrypoint=/new",
        "--env=A=1",
    ];
    let changed = built("changed", &options);
    let mut wanted = original;
    wanted["config"] = json!({"Entrypoint": ["/new"], "Env": ["A=1"], "StopSignal": "SIGINT"});
    wanted["history"] = json!([{"created_by": "sh", "empty_layer": true}]);
    wanted["rootfs"]["diff_ids"] = diff_ids(&store, "changed");
    assert_eq!(configuration(&store, "changed").1, wanted);
    // The tree is the same, and so is the image of the same options.
    assert_eq!(changed["rootfs_digest"], plain["rootfs_digest"]);
    assert_eq!(
        built("again", &options)["manifest_digest"],
        changed["manifest_digest"]
    );
    says(&["verify", "-q", store.to_str().unwrap()]);
    check_store(&store);
}

#[test]
fn configurations_that_cannot_be_used() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let tree = tree(scratch.path());
    let file = path("config.json");
    let file = file.to_str().unwrap();
    for (text, wanted) in [
        (
            "",
            "config.json: not the configuration of a container image: it is empty",
        ),
        ("x", "it is not JSON, at line 1"),
        (
            r#"{"config": {"Env": {}}}"#,
            "a field is missing or of another type",
        ),
        (r#"{"config": 1}"#, "a field is missing or of another type"),
        ("[]", "a field is missing or of another type"),
    ] {
        fs::write(file, text).unwrap();
        let output = build_with(&["--config", file], &tree, &path("store"), "t");
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            stderr(&output).contains(wanted),
            "{wanted}: {}",
            stderr(&output)
        );
    }
    for (options, code) in [
        (&["--config", "/nonexistent"][..], 1),
        (&["--env", "A"], 2),
        (&["--env", "=1"], 2),
        (&["--label", "A"], 2),
        (&["--workdir", "srv"], 2),
        (&["--platform", "linux"], 2),
        (&["--cmd", "[1]"], 2),
        (&["--entrypoint", "[\"a\""], 2),
    ] {
        let output = build_with(options, &tree, &path("store"), "t");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{options:?} {}",
            stderr(&output)
        );
    }
    assert!(!path("store").exists());
}
