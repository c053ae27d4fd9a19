// SPDX-License-Identifier: MIT OR Apache-2.0

//! Container images, of OCI and of `docker save`.

mod common;

use common::*;
use puzzlefs_lib::Digest;
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs a shell script in a directory.
fn shell(directory: &Path, script: &str) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// An OCI image layout in the making.
struct Layout(PathBuf);

impl Layout {
    fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout(path)
    }

    fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.0.join("blobs").join(digest.replace(':', "/"))
    }

    /// Adds a blob and gives its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_oci();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        fs::write(self.blob_path(&descriptor), bytes).unwrap();
        descriptor
    }

    /// Adds an image of these layers: the archive and how it is compressed.
    fn image(&self, architecture: &str, layers: &[(Vec<u8>, &str)]) -> Value {
        let diff_ids = layers.iter().map(|(tar, _)| Digest::of(tar).to_oci());
        let config = json!({
            "os": "linux", "architecture": architecture,
            "config": {"Entrypoint": ["/bin/sh"], "Env": ["A=B"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
        });
        let config = config.to_string();
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes(),
        );
        let layers = layers.iter().map(|(tar, compression)| {
            let (suffix, bytes) = match *compression {
                "" => ("".to_owned(), tar.clone()),
                name => (format!("+{name}"), compressed(name, tar)),
            };
            let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
            self.blob(&media_type, &bytes)
        });
        let manifest = json!({
            "schemaVersion": 2, "config": config, "layers": layers.collect::<Vec<_>>(),
        });
        let bytes = manifest.to_string();
        let mut descriptor = self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            bytes.as_bytes(),
        );
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }
}

fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    descriptor
}

fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("layer");
    fs::write(&path, bytes).unwrap();
    let output = Command::new(program).arg("-c").arg(path).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// An archive of what a script makes in an empty directory.
fn layer(script: &str) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    shell(scratch.path(), &format!("chmod 755 .; {script}"));
    let output = Command::new("tar")
        .args(["-c", "--format=posix", "-C"])
        .arg(scratch.path())
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output.stdout
}

/// Three layers, and the script that makes the tree that they are.
fn layers() -> (Vec<(Vec<u8>, &'static str)>, &'static str) {
    let first = layer(
        "umask 022; mkdir -p etc/sub usr/lib opaque/deep was-dir/x old
         echo one >etc/keep; echo gone >etc/gone; echo big >etc/sub/file
         echo lib >usr/lib/lib.so; ln -s usr/lib lib; echo hidden >opaque/deep/hidden
         echo x >was-dir/x/y; echo f >was-file; echo linked >original; echo old >old/file",
    );
    let second = layer(
        "umask 022; mkdir -p etc opaque/deep was-file
         touch etc/.wh.gone etc/.wh.sub opaque/.wh..wh..opq .wh.never-there .wh.old
         echo shown >opaque/deep/shown; echo file >was-dir; echo in >was-file/in
         mkdir old; echo new >old/other; touch .wh..wh.aufs; chmod 700 etc",
    );
    let third = layer(
        "umask 022; mkdir etc; chmod 700 etc; echo two >etc/keep; echo linked >original
         ln original another",
    );
    let expected = "umask 022; mkdir -p etc usr/lib opaque/deep was-file old; chmod 700 etc
         echo two >etc/keep; echo lib >usr/lib/lib.so; ln -s usr/lib lib
         echo shown >opaque/deep/shown; echo file >was-dir; echo in >was-file/in
         echo new >old/other; echo linked >original; ln original another";
    (
        vec![(first, ""), (second, "gzip"), (third, "zstd")],
        expected,
    )
}

/// Times are not what is compared here.
const OPTIONS: [&str; 2] = ["--source-date-epoch", "100"];

fn try_import(options: &[&str], source: &str, store: &Path) -> Output {
    puzzlefs()
        .args(["import", "--json"])
        .args(OPTIONS)
        .args(options)
        .arg(source)
        .arg(reference(store, "t"))
        .output()
        .unwrap()
}

fn import(source: &Path, store: &Path) -> Value {
    let output = try_import(&[], source.to_str().unwrap(), store);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is said of a source that cannot be imported.
fn refusal(options: &[&str], source: &str, store: &Path) -> String {
    let output = try_import(options, source, store);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    stderr(&output)
}

/// What old Docker's filesystem kept in the root is not of the image, but for what is linked to it.
#[test]
fn what_aufs_kept_for_itself_is_left_out() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let first = layer(
        "umask 022; mkdir -p .wh..wh.orph/deep .wh..wh.plnk; echo gone >.wh..wh.orph/deep/file
         echo linked >.wh..wh.plnk/12.34; ln .wh..wh.plnk/12.34 name; ln name other
         mkdir gone; echo kept >kept",
    );
    let second = layer("mkdir .wh.gone");
    let layout = Layout::new(path("layout"));
    let image = layout.image("amd64", &[(first, ""), (second, "")]);
    layout.index(&[tagged(image, "x")]);
    import(&layout.0, &path("store"));
    let inventory = image_inventory(&path("store"), "t");
    let names: Vec<_> = inventory
        .keys()
        .map(|name| name.to_str().unwrap())
        .collect();
    assert_eq!(names, ["", "kept", "name", "other"]);
    let linked = &inventory[Path::new("other")];
    assert_eq!((linked.size, linked.nlink), (7, 2));
}

#[test]
fn layers_become_one_tree() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (layers, expected) = layers();
    fs::create_dir(path("tree")).unwrap();
    shell(&path("tree"), &format!("chmod 755 .; {expected}"));
    let output = build_with(&OPTIONS, &path("tree"), &path("built"), "t");
    assert!(output.status.success(), "{}", stderr(&output));
    let wanted = image_inventory(&path("built"), "t");

    let layout = Layout::new(path("layout"));
    let image = layout.image("amd64", &layers);
    layout.index(&[tagged(image.clone(), "x")]);
    let report = import(&layout.0, &path("store"));
    assert_same(&image_inventory(&path("store"), "t"), &wanted);
    check_store(&path("store"));

    // The configuration is the same blob.
    let bytes = fs::read(layout.blob_path(&image)).unwrap();
    let original: Value = serde_json::from_slice(&bytes).unwrap();
    let (_, made) = open(&path("store"), "t");
    assert_eq!(made.manifest.config.digest, original["config"]["digest"]);
    assert_eq!(
        made.manifest.config.media_type,
        original["config"]["mediaType"]
    );
    let config = Layout(path("store")).blob_path(&original["config"]);
    assert_eq!(
        fs::read(config).unwrap(),
        fs::read(layout.blob_path(&original["config"])).unwrap()
    );

    // It goes along.
    let run = |arguments: &[&str]| {
        let output = puzzlefs().args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    let copy = reference(&path("copy"), "t");
    run(&["copy", &reference(&path("store"), "t"), &copy]);
    run(&["verify", &copy]);
    assert!(Layout(path("copy")).blob_path(&original["config"]).exists());

    // And stays with what is built on it.
    fs::write(path("tree/new"), "new").unwrap();
    let output = build_with(&["--base", "t"], &path("tree"), &path("store"), "on-it");
    assert!(output.status.success(), "{}", stderr(&output));
    let (_, on_it) = open(&path("store"), "on-it");
    assert_eq!(on_it.manifest.config, made.manifest.config);

    // As an archive, by its name, and on the standard input.
    shell(scratch.path(), "tar -cf a.tar -C layout .; gzip -k a.tar");
    for source in ["a.tar", "a.tar.gz", "a.tar:x"] {
        let again = import(&path(source), &path("store"));
        assert_eq!(again["manifest_digest"], report["manifest_digest"]);
    }
    let output = puzzlefs()
        .args(["import", "--json", OPTIONS[0], OPTIONS[1], "-"])
        .arg(reference(&path("store"), "stdin"))
        .stdin(Stdio::from(fs::File::open(path("a.tar")).unwrap()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let again: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(again["manifest_digest"], report["manifest_digest"]);

    let output = try_import(
        &["--exclude", "opaque", "--compress", "--owner", "1:2"],
        layout.0.to_str().unwrap(),
        &path("store"),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let inventory = image_inventory(&path("store"), "t");
    assert!(!inventory.contains_key(Path::new("opaque")));
    assert!(inventory.values().all(|seen| seen.owner == (1, 2)));
}

#[test]
fn what_docker_saves() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (layers, _) = layers();
    let layout = Layout::new(path("layout"));
    layout.index(&[layout.image("amd64", &layers)]);
    let wanted = import(&layout.0, &path("store"));
    let inventory = image_inventory(&path("store"), "t");

    fs::create_dir(path("saved")).unwrap();
    let mut names = Vec::new();
    for (number, (tar, _)) in layers.iter().enumerate() {
        let directory = path("saved").join(number.to_string());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("layer.tar"), tar).unwrap();
        names.push(format!("{number}/layer.tar"));
    }
    // A layer that is that of another image too.
    shell(
        &path("saved"),
        "mkdir real; mv 2/layer.tar real; ln -s ../real/layer.tar 2/layer.tar",
    );
    let image: Value =
        serde_json::from_slice(&fs::read(layout.0.join("index.json")).unwrap()).unwrap();
    let manifest = fs::read(layout.blob_path(&image["manifests"][0])).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config = fs::read(layout.blob_path(&manifest["config"])).unwrap();
    let name = format!("{}.json", Digest::of(&config));
    let digest = Digest::of(&config);
    // As Docker, crane and Jib name it, and under names that say of another that it is this one.
    let (bare, prefixed, plain) = (name.clone(), digest.to_oci(), "config.json");
    let other = Digest::of(b"another");
    let lies = [format!("{other}.json"), other.to_oci()];
    for name in [&bare, &prefixed, plain]
        .into_iter()
        .chain(lies.iter().map(String::as_str))
    {
        fs::write(path("saved").join(name), &config).unwrap();
    }
    let save = |config: &str, layers: &[String]| {
        let one = json!({"Config": config, "RepoTags": ["debian:12"], "Layers": layers});
        let other = json!({"Config": "x", "RepoTags": ["other:1"], "Layers": []});
        let manifest = json!([one, other]).to_string();
        fs::write(path("saved/manifest.json"), manifest).unwrap();
        shell(scratch.path(), "tar -cf saved.tar -C saved .");
    };
    for (config, tag) in [(&*bare, "12"), (&prefixed, "12"), (plain, "debian:12")] {
        save(config, &names);
        let report = import(&path(&format!("saved.tar:{tag}")), &path("store"));
        assert_same(&image_inventory(&path("store"), "t"), &inventory);
        assert_eq!(report["rootfs_digest"], wanted["rootfs_digest"]);
    }
    let source = path("saved.tar");
    let source = source.to_str().unwrap();
    let message = refusal(&[], source, &path("store"));
    assert!(
        message.contains("there is: debian:12, other:1"),
        "{message}"
    );

    let wrong = |source: &str, wanted: &str| {
        let message = refusal(&[], source, &path("store"));
        assert!(message.contains(wanted), "{wanted}: {message}");
    };
    names.swap(0, 1);
    save(&name, &names);
    wrong(&format!("{source}:12"), "1/layer.tar is damaged");
    names[0] = "../../../../etc/passwd".to_owned();
    save(&name, &names);
    wrong(&format!("{source}:12"), "etc/passwd is missing");
    let directory = path("saved").to_str().unwrap().to_owned();
    wrong(&format!("{directory}:12"), "cannot read it");
    save(&name, &names[1..]);
    wrong(&format!("{source}:12"), "of 3 layers, the manifest of 2");
    for lie in &lies {
        save(lie, &names);
        wrong(&format!("{source}:12"), &format!("{lie} is damaged"));
    }
    save("manifest.json", &names);
    wrong(&format!("{source}:12"), "the configuration: ");
}

#[test]
fn platforms_and_names() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let layout = Layout::new(path("layout"));
    let source = layout.0.to_str().unwrap();
    let image = |architecture: &str| {
        let script = format!("echo {architecture} >arch");
        layout.image(architecture, &[(layer(&script), "gzip")])
    };
    let several = [image("amd64"), image("arm64"), image("riscv64")];
    let index = json!({"schemaVersion": 2, "manifests": several}).to_string();
    let index = layout.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    let other = tagged(image("s390x"), "other");
    let mut unsaid = tagged(image("ppc64le"), "unsaid");
    unsaid.as_object_mut().unwrap().remove("platform");
    layout.index(&[tagged(index, "many"), other, unsaid]);
    let arch = |options: &[&str], source: &str| {
        let output = try_import(options, source, &path("store"));
        assert!(output.status.success(), "{}", stderr(&output));
        image_inventory(&path("store"), "t")[Path::new("arch")]
            .contents
            .clone()
    };
    let many = format!("{source}:many");
    for architecture in ["amd64", "arm64"] {
        let found = arch(&["--platform", &format!("linux/{architecture}")], &many);
        assert_eq!(
            found,
            Digest::of(format!("{architecture}\n").as_bytes()).to_hex()
        );
    }
    // This machine is one of the three.
    arch(&[], &many);
    // The only one there is, whatever the machine.
    arch(&[], &format!("{source}:other"));
    for (options, source, wanted) in [
        (
            &["--platform", "linux/mips"][..],
            &*many,
            "no image for linux/mips; there is: linux/amd64, linux/arm64, linux/riscv64",
        ),
        (
            &["--platform", "linux/mips"],
            &format!("{source}:other"),
            "no image for linux/mips; there is: linux/s390x",
        ),
        (
            &["--platform", "linux/mips"],
            &format!("{source}:unsaid"),
            "the image is for linux/ppc64le, not for linux/mips",
        ),
        (&[], source, "there is: many, other, unsaid"),
        (
            &[],
            &format!("{source}:none"),
            "no image 'none'; there is: many, other, unsaid",
        ),
    ] {
        let message = refusal(options, source, &path("store"));
        assert!(message.contains(wanted), "{wanted}: {message}");
    }

    // Of a variant the index speaks alone, and arm64 is of the one that it has.
    arch(&["--platform", "linux/arm64/v8"], &many);
    let variants = [("arm64", "v8"), ("arm", "v6"), ("arm", "v7")];
    let images = variants.map(|(architecture, variant)| {
        let script = format!("echo {variant} >arch");
        let mut image = layout.image(architecture, &[(layer(&script), "gzip")]);
        image["platform"]["variant"] = json!(variant);
        image
    });
    layout.index(&images);
    for (platform, wanted) in [
        ("linux/arm64", "v8"),
        ("linux/arm64/v8", "v8"),
        ("linux/arm/v7", "v7"),
        ("linux/arm/v6", "v6"),
        ("linux/arm", "v7"),
        ("linux/arm/v8", "v7"),
    ] {
        let found = arch(&["--platform", platform], source);
        let wanted = Digest::of(format!("{wanted}\n").as_bytes()).to_hex();
        assert_eq!(found, wanted, "{platform}");
    }
    let message = refusal(&["--platform", "linux/arm/v5"], source, &path("store"));
    assert!(message.contains("no image for linux/arm/v5"), "{message}");
    let message = refusal(&["--platform", "linux/arm64/v9"], source, &path("store"));
    let wanted = "no image for linux/arm64/v9; there is: linux/arm64/v8, linux/arm/v6";
    assert!(message.contains(wanted), "{message}");

    // Of what the index does not say, the configuration does.
    let mut images = ["amd64", "s390x"].map(image);
    for image in &mut images {
        image.as_object_mut().unwrap().remove("platform");
    }
    layout.index(&images);
    let found = arch(&["--platform", "linux/s390x"], source);
    assert_eq!(found, Digest::of(b"s390x\n").to_hex());
}

/// What Docker saves of two images that are both 'latest': an index with their full names.
#[test]
fn names_in_full() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let layout = Layout::new(path("layout"));
    let images = ["one", "two"].map(|name| {
        let mut image = layout.image("amd64", &[(layer(&format!("echo {name} >name")), "")]);
        image.as_object_mut().unwrap().remove("platform");
        image["annotations"] = json!({
            "io.containerd.image.name": format!("registry.test/library/{name}:latest"),
            "org.opencontainers.image.ref.name": "latest",
        });
        image
    });
    layout.index(&images);
    let source = layout.0.to_str().unwrap();
    for (name, asked) in [("", "image; "), (":latest", "image 'latest'; ")] {
        let said = refusal(&[], &format!("{source}{name}"), &path("store"));
        let names = "there is: registry.test/library/one:latest, registry.test/library/two:latest";
        let wanted = format!("there is not one {asked}{names}; give one as");
        assert!(said.contains(&wanted), "{said}");
    }
    for name in [
        "registry.test/library/two:latest",
        "library/two:latest",
        "two:latest",
    ] {
        let output = try_import(&[], &format!("{source}:{name}"), &path("store"));
        assert!(output.status.success(), "{}", stderr(&output));
        let inventory = image_inventory(&path("store"), "t");
        let wanted = Digest::of(b"two\n").to_hex();
        assert_eq!(inventory[Path::new("name")].contents, wanted);
    }
}

/// Not all programs mark the end of an archive, and an empty layer may have no bytes at all. Their
/// digests say whether they are whole.
#[test]
fn layers_without_an_end() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let mut unmarked = layer("echo x >file");
    let end = unmarked.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    unmarked.truncate(end.next_multiple_of(512));
    let layout = Layout::new(path("layout"));
    layout.index(&[layout.image("amd64", &[(unmarked, "gzip"), (Vec::new(), "")])]);
    import(&layout.0, &path("store"));
    let inventory = image_inventory(&path("store"), "t");
    assert_eq!(inventory[Path::new("file")].size, 2);
}

#[test]
fn what_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let layout = Layout::new(path("layout"));
    let source = layout.0.to_str().unwrap();
    let refused = |wanted: &str| {
        let message = refusal(&[], source, &path("store"));
        assert!(message.contains(wanted), "{wanted}: {message}");
    };
    for (script, wanted) in [
        ("touch .wh..", "a whiteout of nothing"),
        ("touch .wh.", "a whiteout of nothing"),
    ] {
        layout.index(&[layout.image("amd64", &[(layer(script), "")])]);
        refused(wanted);
    }
    // Everything that is named by its digest, with one byte changed, cut short, and gone.
    let image = layout.image("amd64", &[(layer("echo x >file"), "gzip")]);
    layout.index(&[image.clone()]);
    let manifest = fs::read(layout.blob_path(&image)).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for descriptor in [&image, &manifest["config"], &manifest["layers"][0]] {
        let blob = layout.blob_path(descriptor);
        let bytes = fs::read(&blob).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&blob, damaged).unwrap();
            refusal(&[], source, &path("store"));
        }
        fs::write(&blob, &bytes[..bytes.len() - 1]).unwrap();
        refused("is damaged");
        fs::remove_file(&blob).unwrap();
        refused("is missing");
        std::os::unix::fs::symlink("/etc/passwd", &blob).unwrap();
        refused("cannot read it");
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, &bytes).unwrap();
    }
    import(&layout.0, &path("store"));

    // What the configuration says of the contents, and the compressed blob does not hold.
    let other = layout.image("amd64", &[(layer("echo y >file"), "gzip")]);
    let other = fs::read(layout.blob_path(&other)).unwrap();
    let mut mixed: Value = serde_json::from_slice(&other).unwrap();
    mixed["layers"] = manifest["layers"].clone();
    let mixed = layout.blob(
        "application/vnd.oci.image.manifest.v1+json",
        mixed.to_string().as_bytes(),
    );
    layout.index(&[mixed]);
    refused("is damaged");

    let mut index = image.clone();
    for _ in 0..6 {
        let text = json!({"schemaVersion": 2, "manifests": [index]}).to_string();
        index = layout.blob("application/vnd.oci.image.index.v1+json", text.as_bytes());
    }
    layout.index(&[index]);
    refused("too deep");
    for text in [
        "",
        "{",
        "[]",
        "{\"schemaVersion\":2,\"manifests\":7}",
        &"[".repeat(100_000),
    ] {
        fs::write(layout.0.join("index.json"), text).unwrap();
        refused("index.json");
    }
    fs::remove_file(layout.0.join("index.json")).unwrap();
    refused("not a container image");
    fs::write(path("file"), noise(5_000, 1)).unwrap();
    let file = path("file");
    let message = refusal(&[], file.to_str().unwrap(), &path("store"));
    assert!(message.contains("nor a tar archive"), "{message}");
}

#[test]
fn layers_can_be_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let (mut layers, _) = layers();
    // A fourth that gives a file of the first another name and another mode, contents and all, as
    // copying up does; and a fifth that changes nothing.
    let copied = "mkdir -p usr/lib big; echo lib >usr/lib/lib.so; ln usr/lib/lib.so big/link";
    layers.push((
        layer(&format!("umask 022; {copied}; chmod 600 usr/lib/lib.so")),
        "",
    ));
    layers.push((layer("touch .wh.never"), ""));
    let layout = Layout::new(scratch.path().join("layout"));
    layout.index(&[tagged(layout.image("amd64", &layers), "x")]);
    let (flat, kept) = (scratch.path().join("flat"), scratch.path().join("kept"));
    for options in [&[][..], &["--compress"]] {
        let options = |more| [options, more].concat();
        let source = layout.0.to_str().unwrap();
        for (store, more) in [(&flat, &[][..]), (&kept, &["--layers"])] {
            let output = try_import(&options(more), source, store);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        let inspected = says(&["inspect", "--json", &reference(&kept, "t")]);
        let inspected: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["layers"], layers.len());
        let wanted = image_inventory(&flat, "t");
        assert_same(&image_inventory(&kept, "t"), &wanted);
        let extracted = tempfile::tempdir().unwrap();
        extract(&kept, "t", extracted.path());
        // An ordinary user's files get no other owner.
        if is_root() {
            assert_same(&directory_inventory(extracted.path()), &wanted);
        }
        says(&["verify", kept.to_str().unwrap()]);
        assert_eq!(
            open(&kept, "t").1.manifest.config.digest,
            open(&flat, "t").1.manifest.config.digest
        );
    }
    assert_eq!(leftovers(&kept), [""; 0]);

    // Only what a layer brings is stored for it, and the same on any number of threads.
    let again = scratch.path().join("again");
    let big = layer("mkdir big; head -c 300000 /dev/urandom >big/file; echo a >big/small");
    let layout = Layout::new(scratch.path().join("large"));
    let changed = layer("mkdir big; echo b >big/other");
    layout.index(&[layout.image("amd64", &[(big, ""), (changed, "")])]);
    let source = layout.0.to_str().unwrap();
    let output = try_import(&["--layers", "--jobs=1"], source, &again);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["new_bytes"].as_u64().unwrap() < 301_000, "{report}");
    let output = try_import(&["--layers", "--jobs=3"], source, &again);
    let same: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(same["manifest_digest"], report["manifest_digest"]);
    assert_eq!(same["new_blobs"], 0);
}
