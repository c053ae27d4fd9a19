// SPDX-License-Identifier: MIT OR Apache-2.0

//! Container images, of OCI and of `docker save`.

use crate::common::layout::{compressed, layer, layers, shell, tagged, Layout};
use crate::common::tar::{archive, file, hard_link, header, pax, symlink};
use crate::common::*;
use puzzlefs_lib::Digest;
use serde_json::{json, Value};
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

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

    // In format 3, the configuration is the same blob.
    let old = try_import(&["--format=3"], layout.0.to_str().unwrap(), &path("old"));
    assert!(old.status.success(), "{}", stderr(&old));
    assert_same(&image_inventory(&path("old"), "t"), &wanted);
    let bytes = fs::read(layout.blob_path(&image)).unwrap();
    let original: Value = serde_json::from_slice(&bytes).unwrap();
    let (_, made) = open(&path("old"), "t");
    assert_eq!(made.manifest.config.digest, original["config"]["digest"]);
    assert_eq!(
        made.manifest.config.media_type,
        original["config"]["mediaType"]
    );
    let config = Layout(path("old")).blob_path(&original["config"]);
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
    run(&["copy", &reference(&path("old"), "t"), &copy]);
    run(&["verify", &copy]);
    assert!(Layout(path("copy")).blob_path(&original["config"]).exists());

    // And stays with what is built on it.
    fs::write(path("tree/new"), "new").unwrap();
    let options = ["--format=3", "--base", "t"];
    let output = build_with(&options, &path("tree"), &path("old"), "on-it");
    assert!(output.status.success(), "{}", stderr(&output));
    let (_, on_it) = open(&path("old"), "on-it");
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
        // Other tools take no configuration of Docker's type in a manifest of OCI.
        let config = open(&path("store"), "t").1.manifest.config;
        let media_type = "application/vnd.oci.image.config.v1+json";
        assert_eq!(config.media_type, media_type);
        // In format 3, the configuration is the same blob.
        let source = path(&format!("saved.tar:{tag}"));
        let output = try_import(&["--format=3"], source.to_str().unwrap(), &path("old"));
        assert!(output.status.success(), "{}", stderr(&output));
        let config = open(&path("old"), "t").1.manifest.config;
        assert_eq!(config.media_type, media_type);
        assert_eq!(config.digest, digest.to_oci());
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
    wrong(&format!("{directory}:12"), "cannot read /");
    save(&name, &names[1..]);
    wrong(&format!("{source}:12"), "of 3 layers, the manifest of 2");
    for lie in &lies {
        save(lie, &names);
        wrong(&format!("{source}:12"), &format!("{lie} is damaged"));
    }
    save("manifest.json", &names);
    wrong(&format!("{source}:12"), "the configuration: ");
}

/// The names of layers in an archive, and their contents.
type Layers<'a> = Vec<(&'a str, &'a [u8])>;

/// An archive of `docker save`: these members, and a manifest that gives these layers, each with its
/// contents.
fn saved(members: &[Vec<u8>], layers: &[(&str, &[u8])]) -> Vec<u8> {
    let diff_ids = layers.iter().map(|(_, tar)| Digest::of(tar).to_oci());
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
    });
    let names: Vec<_> = layers.iter().map(|(name, _)| name).collect();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": names}]);
    let mut members = members.to_vec();
    members.push(file("c.json", config.to_string().as_bytes()));
    members.push(file("manifest.json", manifest.to_string().as_bytes()));
    archive(&members)
}

/// Paths lead where they would lead in the directory that the archive is extracted into.
#[test]
fn paths_inside_an_archive() {
    let a: &[u8] = &archive(&[file("a", b"1")]);
    let b: &[u8] = &archive(&[file("b", b"2")]);
    let sparse = |name: &str| {
        let size = (a.len() + 4096).to_string();
        let map = format!("0,{},{size},0", a.len());
        let records = [("GNU.sparse.size", &*size), ("GNU.sparse.map", &map)];
        [pax(&records), file(name, a)].concat()
    };
    let with_zeros = [a, &[0; 4096]].concat();
    let chain = (0..30).map(|number| symlink(&format!("l{}", number + 1), &format!("l{number}")));
    let chain = [vec![file("l0", a)], chain.collect()].concat();
    let directory = |name: &str| header(name, b'5', 0, "");
    let cases: [(&str, Vec<Vec<u8>>, Layers<'_>); 17] = [
        (
            "a hard link",
            vec![
                file("a/layer.tar", a),
                hard_link("b/layer.tar", "a/layer.tar"),
                file("c", b),
            ],
            vec![("a/layer.tar", a), ("b/layer.tar", a), ("c", b)],
        ),
        (
            "prefixes",
            vec![
                directory("./"),
                file("./a/layer.tar", a),
                hard_link("./b", "./a/layer.tar"),
            ],
            vec![("a/layer.tar", a), ("./b", a), (".//a/./layer.tar", a)],
        ),
        (
            "absolute paths",
            vec![file("/a/layer.tar", a), hard_link("/b", "/a/layer.tar")],
            vec![("/a/layer.tar", a), ("b", a)],
        ),
        (
            "a hard link to a hard link, and to a symbolic one",
            vec![
                file("a", a),
                hard_link("b", "a"),
                hard_link("c", "b"),
                symlink("d", "a"),
                hard_link("sub/e", "d"),
                file("sub/a", b),
            ],
            vec![("c", a), ("d", a), ("sub/e", b)],
        ),
        ("many symbolic links", chain, vec![("l30", a)]),
        (
            "a directory's symbolic link",
            vec![
                file("real/layer.tar", a),
                symlink("to", "real"),
                symlink("sub/to", "../to"),
            ],
            vec![
                ("to/layer.tar", a),
                ("sub/to/layer.tar", a),
                ("sub/to/../to/layer.tar", a),
            ],
        ),
        (
            "an absolute symbolic link",
            vec![file("real/layer.tar", a), symlink("x/y", "/real/layer.tar")],
            vec![("x/y", a)],
        ),
        (
            "a symbolic link that climbs above the root",
            vec![file("real", a), symlink("x/y", "../../../../real")],
            vec![("x/y", a), ("../../real", a)],
        ),
        (
            "members behind a symbolic link",
            vec![
                directory("real"),
                symlink("to", "real"),
                file("to/layer.tar", a),
            ],
            vec![("real/layer.tar", a)],
        ),
        (
            "the last of two members",
            vec![
                file("x", b),
                file("x", a),
                symlink("y", "none"),
                file("./y", b),
            ],
            vec![("x", a), ("y", b)],
        ),
        (
            "a link to a file that is replaced later",
            vec![
                file("x", a),
                hard_link("y", "x"),
                symlink("z", "x"),
                file("x", b),
            ],
            vec![("x", b), ("y", a), ("z", b)],
        ),
        (
            "a link before its target",
            vec![hard_link("y", "x"), file("x", a)],
            vec![("y", a)],
        ),
        (
            "dots in members",
            vec![
                file("a/../x", a),
                file("../../y", b),
                hard_link("z", "q/../x"),
            ],
            vec![("x", a), ("y", b), ("z", a)],
        ),
        (
            "a sparse file",
            vec![sparse("x"), hard_link("y", "x")],
            vec![("x", &with_zeros), ("y", &with_zeros)],
        ),
        (
            "the layers of Docker before 25",
            vec![
                directory("one/"),
                file("one/VERSION", b"1.0"),
                file("one/json", b"{}"),
                file("one/layer.tar", a),
                directory("two/"),
                symlink("two/layer.tar", "../one/layer.tar"),
                file("repositories", b"{}"),
            ],
            vec![("one/layer.tar", a), ("two/layer.tar", a)],
        ),
        (
            "the layers of Podman",
            vec![
                file("1234.tar", a),
                symlink("5678/layer.tar", "../1234.tar"),
                file("5678/json", b"{}"),
            ],
            vec![("1234.tar", a), ("5678/layer.tar", a)],
        ),
        (
            "a compressed layer that is named once, as kaniko's",
            vec![file("sha256:1.tar.gz", &compressed("gzip", a))],
            vec![("sha256:1.tar.gz", a), ("sha256:1.tar.gz", a)],
        ),
    ];
    let scratch = memory_scratch();
    let path = |name: &str| scratch.path().join(name);
    for (what, members, layers) in &cases {
        let bytes = saved(members, layers);
        fs::write(path("saved.tar"), &bytes).unwrap();
        fs::write(path("saved.tar.gz"), compressed("gzip", &bytes)).unwrap();
        for source in ["saved.tar", "saved.tar.gz"] {
            let source = path(source);
            let output = try_import(&[], source.to_str().unwrap(), &path("store"));
            assert!(output.status.success(), "{what}: {}", stderr(&output));
            assert_eq!(stderr(&output), "", "{what}");
            let inventory = image_inventory(&path("store"), "t");
            for (name, tar) in [("a", a), ("b", b)] {
                let wanted = layers.iter().any(|(_, layer)| layer.starts_with(tar));
                assert_eq!(inventory.contains_key(Path::new(name)), wanted, "{what}");
            }
        }
    }
    for (members, layers, wanted) in [
        (
            vec![symlink("x", "y"), symlink("y", "x")],
            "x",
            "x: too many symbolic links",
        ),
        (vec![symlink("x", "/etc/passwd")], "x", "x is missing"),
        (
            vec![symlink("x", "../../../../../etc/passwd")],
            "x",
            "x is missing",
        ),
        (vec![directory("x")], "x", "x is missing"),
        (vec![file("x", a)], "x/y", "x/y is missing"),
        (vec![file("x", a)], "", " is missing"),
        (vec![hard_link("x", "y")], "x", "x: a hard link to 'y'"),
        (vec![hard_link("x", "x")], "x", "x: a hard link to 'x'"),
        (vec![header("x", b'3', 0, "")], "x", "x is missing"),
    ] {
        fs::write(path("saved.tar"), saved(&members, &[(layers, a)])).unwrap();
        let source = path("saved.tar");
        let said = refusal(&[], source.to_str().unwrap(), &path("store"));
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

/// The blobs of a layout in an archive, as links and behind links.
#[test]
fn paths_inside_an_archive_of_a_layout() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let layout = Layout::new(path("layout"));
    layout.index(&[tagged(layout.image("amd64", &layers().0), "x")]);
    let wanted = import(&layout.0, &path("store"))["manifest_digest"].clone();
    for change in [
        "mv blobs/sha256 hidden; ln -s ../hidden blobs/sha256",
        "mkdir shared; mv blobs shared; ln -s /shared/blobs blobs",
        "mkdir pool; cd blobs/sha256; for b in *; do ln \"$b\" \"../../pool/$b\"; done",
        "mkdir pool; cd blobs/sha256; for b in *; do mv \"$b\" \"../../pool/$b\";
         ln -s \"../../pool/$b\" \"$b\"; done; cd ../..; mv index.json i; ln -s i index.json",
    ] {
        shell(scratch.path(), "rm -rf changed; cp -a layout changed");
        shell(&path("changed"), change);
        for options in ["", "--sort=name", "--format=posix --sparse"] {
            shell(
                scratch.path(),
                &format!("tar {options} -cf a.tar -C changed ."),
            );
            let made = import(&path("a.tar"), &path("store"));
            assert_eq!(made["manifest_digest"], wanted, "{change}");
        }
        shell(
            scratch.path(),
            "tar -cPf c.tar --transform=s,^changed,, changed/*",
        );
        let made = import(&path("c.tar"), &path("store"));
        assert_eq!(made["manifest_digest"], wanted, "{change}");
    }
}

/// Data behind an image archive, and behind a layer of it, is not dropped in silence.
#[test]
fn data_behind_an_archive_and_its_layers() {
    let scratch = memory_scratch();
    let path = |name: &str| scratch.path().join(name);
    let said = |members: &[Vec<u8>], layers: &[(&str, &[u8])], behind: &[u8]| {
        fs::write(
            path("saved.tar"),
            [&saved(members, layers), behind].concat(),
        )
        .unwrap();
        let source = path("saved.tar");
        let output = try_import(&[], source.to_str().unwrap(), &path("store"));
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let a = archive(&[file("a", b"1")]);
    assert_eq!(said(&[file("x", &a)], &[("x", &a)], &[0; 1000]), "");
    let garbage = said(&[file("x", &a)], &[("x", &a)], b"garbage");
    assert!(
        garbage.contains("saved.tar: ignored 7 bytes behind the end"),
        "{garbage}"
    );
    let two = [&a[..], &a].concat();
    let more = said(&[file("x", &two)], &[("x", &two)], b"");
    assert!(
        more.contains("saved.tar/x: ignored 2048 bytes behind the end"),
        "{more}"
    );
    assert!(!more.contains("--ignore-zeros"), "{more}");
    let padded = [compressed("gzip", &a), vec![0; 700]].concat();
    assert_eq!(said(&[file("x", &padded)], &[("x", &a)], b""), "");
    let odd = archive(&[header("a", b'Z', 0, "")]);
    let odd = said(&[file("x", &odd)], &[("x", &odd)], b"");
    assert!(
        odd.contains("saved.tar/x: a: unknown type flag 'Z'"),
        "{odd}"
    );
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
    // As umoci writes it: what fills the last block is missing, too.
    let unfilled = file("unfilled", b"123")[..515].to_vec();
    let layout = Layout::new(path("layout"));
    layout.index(&[layout.image(
        "amd64",
        &[(unmarked, "gzip"), (Vec::new(), ""), (unfilled, "gzip")],
    )]);
    import(&layout.0, &path("store"));
    let inventory = image_inventory(&path("store"), "t");
    assert_eq!(inventory[Path::new("file")].size, 2);
    assert_eq!(inventory[Path::new("unfilled")].size, 3);
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
        refused("cannot read /");
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
    for options in [&["--format=3"][..], &["--format=3", "--compress"]] {
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
    let output = try_import(&["--format=3", "--layers", "--jobs=1"], source, &again);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["new_bytes"].as_u64().unwrap() < 301_000, "{report}");
    let output = try_import(&["--format=3", "--layers", "--jobs=3"], source, &again);
    let same: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(same["manifest_digest"], report["manifest_digest"]);
    assert_eq!(same["new_blobs"], 0);
}

/// Adds to a tree, and to the layers of its image, content that archives and filesystems hold in different
/// ways: holes, attributes, a long name, a device, and hard links over layers.
fn with_more(tree: &Path, layers: &mut Vec<(Vec<u8>, &'static str)>) {
    let more = "umask 022; mkdir more; truncate -s 3M more/sparse
         printf data | dd of=more/sparse bs=64K seek=20 conv=notrunc status=none
         head -c 200000 /dev/zero >more/zeros; seq 60000 >more/text; ln more/text more/second
         mkfifo more/fifo; ln -s nowhere more/dangling; touch more/empty
         touch more/$(printf 'n%.0s' $(seq 250)); chmod 4755 more/text";
    shell(tree, more);
    let scratch = tempfile::tempdir().unwrap();
    shell(scratch.path(), &format!("chmod 755 .; {more}"));
    shell(
        scratch.path(),
        "tar -c --format=posix --sparse -f ../more.tar . && mv ../more.tar .",
    );
    layers.push((fs::read(scratch.path().join("more.tar")).unwrap(), "gzip"));
    let attributes = [
        pax(&[("SCHILY.xattr.user.one", "1"), ("mtime", "50")]),
        file("attributes", b"of a file"),
    ];
    layers.push((archive(&attributes), "zstd"));
    let path = tree.join("attributes");
    fs::write(&path, "of a file").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&path, "user.one", b"1", flags).unwrap();
    set_mtime(&path, 50, 0);
    std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
}

/// An imported image of format 4 is that of the unpacked tree, from each kind of source.
#[test]
#[ignore = "needs root and extended attributes"]
fn format_4_is_that_of_the_unpacked_tree() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (mut layers, expected) = layers();
    fs::create_dir(path("tree")).unwrap();
    shell(&path("tree"), &format!("chmod 755 .; {expected}"));
    with_more(&path("tree"), &mut layers);
    let layout = Layout::new(path("layout"));
    layout.index(&[tagged(layout.image("amd64", &layers), "x")]);
    shell(
        scratch.path(),
        "tar -cf layout.tar -C layout .; gzip -k layout.tar",
    );
    let names = save_for_docker(scratch.path(), &layers);
    assert_eq!(names.len(), layers.len());

    for compress in ["--compress=0", "--compress=3"] {
        let options = ["--format=4", compress, OPTIONS[0], OPTIONS[1]];
        let (built, store) = (path("built"), path("store"));
        let output = build_with(&options, &path("tree"), &built, "t");
        assert!(output.status.success(), "{}", stderr(&output));
        let built: Value = serde_json::from_slice(&output.stdout).unwrap();
        for source in [
            "layout",
            "layout:x",
            "layout.tar",
            "layout.tar.gz:x",
            "saved.tar",
        ] {
            for jobs in ["--jobs=1", "--jobs=3"] {
                let source = path(source);
                let output = try_import(
                    &["--format=4", compress, jobs],
                    source.to_str().unwrap(),
                    &store,
                );
                assert!(output.status.success(), "{}", stderr(&output));
                let imported: Value = serde_json::from_slice(&output.stdout).unwrap();
                assert_eq!(imported["format"], 4);
                let what = format!("{} {compress} {jobs}", source.display());
                assert_eq!(imported["rootfs_digest"], built["rootfs_digest"], "{what}");
            }
        }
        let output = puzzlefs()
            .args(["import", "--json", "--format=4", compress])
            .args([OPTIONS[0], OPTIONS[1], "-"])
            .arg(reference(&store, "stdin"))
            .stdin(fs::File::open(path("layout.tar.gz")).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let imported: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(imported["rootfs_digest"], built["rootfs_digest"], "stdin");
        says(&["verify", store.to_str().unwrap()]);
        assert_eq!(leftovers(&store), [""; 0]);
    }
    // Other trees have other roots.
    fs::write(path("tree/attributes"), "of a File").unwrap();
    let output = build_with(
        &["--format=4", OPTIONS[0], OPTIONS[1]],
        &path("tree"),
        &path("built"),
        "u",
    );
    let other: Value = serde_json::from_slice(&output.stdout).unwrap();
    let imported = says(&["resolve", &reference(&path("store"), "t")]);
    assert_ne!(other["rootfs_digest"], imported.trim_end());
}

/// Writes `saved.tar`, an archive of `docker save` with one image. Returns the names of its layers.
fn save_for_docker(scratch: &Path, layers: &[(Vec<u8>, &str)]) -> Vec<String> {
    let saved = scratch.join("saved");
    fs::create_dir(&saved).unwrap();
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|(tar, _)| Digest::of(tar).to_oci())
        .collect();
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    fs::write(saved.join("config.json"), config.to_string()).unwrap();
    let mut names = Vec::new();
    for (number, (tar, _)) in layers.iter().enumerate() {
        let name = format!("{number}/layer.tar");
        fs::create_dir(saved.join(number.to_string())).unwrap();
        fs::write(saved.join(&name), tar).unwrap();
        names.push(name);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]);
    fs::write(saved.join("manifest.json"), manifest.to_string()).unwrap();
    shell(scratch, "tar -cf saved.tar -C saved .");
    names
}
