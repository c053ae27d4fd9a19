// SPDX-License-Identifier: MIT OR Apache-2.0

//! What `ls`, `cat`, `inspect`, `list`, `tag` and `untag` say of an image.

use crate::common::*;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// A tree with links of every sort, in a store under the tag `t`.
fn linked_tree(scratch: &Path) -> (PathBuf, String) {
    let (tree, store) = (scratch.join("tree"), scratch.join("store"));
    fs::create_dir_all(tree.join("usr/bin")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("usr/bin/tool"), "tool").unwrap();
    fs::write(tree.join("etc/name"), "host").unwrap();
    for (target, link) in [
        ("usr/bin", "bin"),
        ("/etc/name", "absolute"),
        ("../../../../etc/name", "usr/up"),
        ("../absolute", "etc/twice"),
        ("loop2", "loop1"),
        ("loop1", "loop2"),
        ("/nowhere", "dangling"),
    ] {
        symlink(target, tree.join(link)).unwrap();
    }
    build(&tree, &store, "t", 1);
    (store.clone(), reference(&store, "t"))
}

#[test]
fn cat_follows_links_within_the_image() {
    let scratch = tempfile::tempdir().unwrap();
    let (_, image) = linked_tree(scratch.path());
    for path in [
        "etc/name",
        "/absolute",
        "usr/up",
        "etc/twice",
        "bin/../../etc/name",
    ] {
        assert_eq!(says(&["cat", &image, path]), "host", "{path}");
    }
    assert_eq!(
        says(&["cat", &image, "bin/tool", "//etc/./name"]),
        "toolhost"
    );
    for (path, wanted) in [
        ("loop1", "too many symbolic links on the way in the image"),
        (
            "dangling",
            "dangling: no such file or directory in the image",
        ),
        (
            "etc/none",
            "etc/none: no such file or directory in the image",
        ),
        ("etc/name/", "something in the path is not a directory"),
        ("etc", "etc: not a regular file in the image"),
        ("", "not a regular file"),
    ] {
        let said = fails(&["cat", &image, path]);
        assert!(said.contains(wanted), "{path}: {said}");
    }
}

#[test]
fn cat_writes_all_that_is_there() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), "one ").unwrap();
    fs::write(tree.join("b"), "two").unwrap();
    build(&tree, &store, "t", 1);
    let output = run(&["cat", &reference(&store, "t"), "first", "a", ".", "b"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"one two");
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("first: "), "{said}");
    assert!(
        said.ends_with("not a regular file in the image\n"),
        "{said}"
    );
}

#[test]
fn cat_gives_the_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    build_with(&["-z"], &tree, &store, "t");
    for file in ["large", "zeros/inside", "sizes/65537", "sizes/0"] {
        let output = run(&["cat", &reference(&store, "t"), file]);
        assert!(
            output.stdout == fs::read(tree.join(file)).unwrap(),
            "{file}"
        );
    }
    // A reader that has seen enough is no reason to complain; a build is done nevertheless.
    let image = reference(&store, "t");
    let tree = tree.to_str().unwrap();
    for (arguments, status) in [
        (&["cat", &image, "large"][..], 141),
        (&["inspect", &image], 141),
        (&["inspect", "--json", &image], 141),
        (&["resolve", &image], 141),
        (&["build", tree, &image], 0),
    ] {
        // Nobody reads it from the beginning on: a short output fits into a pipe.
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let output = puzzlefs()
            .args(arguments)
            .stdout(Stdio::from(OwnedFd::from(writer)))
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), stderr(&output)),
            (Some(status), String::new()),
            "{arguments:?}"
        );
    }
}

#[test]
fn ls_lists() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    build(&tree, &store, "t", 2);
    let image = reference(&store, "t");
    assert_eq!(
        says(&["ls", &image]),
        "deep\nlarge\nlinks\nnames\nsame\nsizes\nsmall\nspecial\nzeros\n"
    );
    assert_eq!(says(&["ls", &image, "sizes/../same"]), "large\n");
    assert_eq!(says(&["ls", &image, "same/large"]), "same/large\n");

    let all = run(&["ls", "-R", "--json", &image]);
    let all = lines(&String::from_utf8(all.stdout).unwrap());
    let inventory = directory_inventory(&tree);
    assert_eq!(all.len(), inventory.len() - 1);
    for entry in &all {
        let path = match entry["path_hex"].as_str() {
            Some(hex) => inventory
                .keys()
                .find(|path| self::hex(path.as_os_str().as_bytes()) == hex),
            None => entry["path"]
                .as_str()
                .map(Path::new)
                .and_then(|path| inventory.get_key_value(path).map(|(path, _)| path)),
        };
        let seen = &inventory[path.unwrap_or_else(|| panic!("{entry}"))];
        assert_eq!(
            entry["mode"],
            format!("{:04o}", seen.permissions),
            "{entry}"
        );
        assert_eq!(entry["nlink"], seen.nlink, "{entry}");
        assert_eq!(entry["mtime_seconds"], seen.mtime.0, "{entry}");
        assert_eq!(
            (&entry["uid"], &entry["gid"]),
            (&seen.owner.0.into(), &seen.owner.1.into())
        );
        if seen.kind == "file" {
            assert_eq!(entry["size"], seen.size, "{entry}");
        }
    }
    let names = run(&["ls", "-R", &image, "names"]).stdout;
    let wanted = inventory
        .keys()
        .filter_map(|path| path.strip_prefix("names").ok());
    let wanted: Vec<_> = wanted.filter(|path| *path != Path::new("")).collect();
    let wanted = wanted
        .iter()
        .flat_map(|path| [path.as_os_str().as_bytes(), b"\n"].concat());
    assert!(names == wanted.collect::<Vec<_>>());
}

#[test]
fn ls_long_shows_what_stat_does() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "12345").unwrap();
    fs::set_permissions(tree.join("file"), PermissionsExt::from_mode(0o4750)).unwrap();
    symlink("file", tree.join("link")).unwrap();
    set_mtime(&tree.join("file"), 951_782_400, 5);
    set_mtime(&tree.join("link"), 0, 0);
    let owner = directory_inventory(&tree)[Path::new("file")].owner;
    build(&tree, &store, "t", 1);
    let said = says(&["ls", "-l", &reference(&store, "t")]);
    let fields: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let (uid, gid) = (owner.0.to_string(), owner.1.to_string());
    assert_eq!(
        fields[0],
        [
            "-rwsr-x---",
            "1",
            &uid,
            &gid,
            "5",
            "2000-02-29",
            "00:00:00",
            "file"
        ]
    );
    assert_eq!(fields[1][0], "lrwxrwxrwx");
    assert_eq!(
        fields[1][4..],
        ["-", "1970-01-01", "00:00:00", "link", "->", "file"]
    );
    let link = says(&["ls", "-l", &reference(&store, "t"), "link"]);
    assert!(link.starts_with('l'), "{link}");
}

#[test]
fn inspect_shows_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store_path) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    build_v3(&tree, &store_path, "t", 2);
    let image = reference(&store_path, "t");
    let large = says(&["inspect", "--json", &image, "large"]);
    let large: Value = serde_json::from_str(&large).unwrap();
    let (store, _) = open_v3(&store_path, "t");
    // The extents, read from the raw blobs, are the file.
    let mut contents = Vec::new();
    for extent in large["extents"].as_array().unwrap() {
        assert_eq!(extent["offset"], contents.len());
        let digest = extent["blob"].as_str().unwrap().parse().unwrap();
        let blob = fs::read(store.blob_path(&digest)).unwrap();
        let start = extent["blob_offset"].as_u64().unwrap() as usize;
        contents.extend_from_slice(&blob[start..][..extent["bytes"].as_u64().unwrap() as usize]);
    }
    assert!(contents == fs::read(tree.join("large")).unwrap());
    let seen = &directory_inventory(&tree)[Path::new("large")];
    let xattrs = large["xattrs"].as_array().unwrap();
    assert_eq!(xattrs.len(), seen.xattrs.len());
    for xattr in xattrs {
        let value = &seen.xattrs[xattr["name"].as_str().unwrap().as_bytes()];
        assert_eq!(xattr["value_hex"], hex(value));
    }
    let link = says(&["inspect", &image, "special/link"]);
    assert!(
        link.contains("symlink\n") && link.contains("target  ../large\n"),
        "{link}"
    );
    let followed = says(&["inspect", &image, "special/../large"]);
    assert!(followed.contains("size    3145728 in "), "{followed}");
}

/// The parts of an image of format 4, and the places of its chunks.
#[test]
fn inspect_shows_chunks() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    make_tree(&tree, false);
    let options = ["--format=4", "--compress=0"];
    assert!(build_with(&options, &tree, &store, "t").status.success());
    let image = reference(&store, "t");
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&says(arguments)).unwrap() };
    let blob = |digest: &Value| store.join("blobs/sha256").join(digest.as_str().unwrap());

    let large = json(&["inspect", "--json", &image, "large"]);
    let mut contents = Vec::new();
    for extent in large["extents"].as_array().unwrap() {
        assert_eq!(extent["offset"], contents.len());
        assert_eq!(extent["place"], "pack");
        let pack = fs::read(blob(&extent["pack"])).unwrap();
        let at = |field: &str| extent[field].as_u64().unwrap() as usize;
        let start = at("pack_offset") + at("chunk_offset");
        contents.extend_from_slice(&pack[start..][..at("bytes")]);
    }
    assert!(contents == fs::read(tree.join("large")).unwrap());
    let text = says(&["inspect", &image, "large"]);
    assert!(
        text.contains(" of pack ") && text.contains("size    3145728 in "),
        "{text}"
    );

    let whole = json(&["inspect", "--json", &image]);
    let inventory = directory_inventory(&tree);
    // The root directory is not an entry.
    let names = inventory
        .keys()
        .filter(|path| !path.as_os_str().is_empty())
        .count();
    assert_eq!(whole["entries"], names);
    // The root and the blocks.
    assert_eq!(
        whole["metadata_chunks"],
        whole["blocks"].as_u64().unwrap() + 1
    );
    let packs = whole["packs"].as_array().unwrap();
    let packed: u64 = packs
        .iter()
        .map(|pack| pack["bytes"].as_u64().unwrap())
        .sum();
    let stored = ["metadata_stored_bytes", "data_stored_bytes"];
    let stored = stored.map(|field| whole[field].as_u64().unwrap());
    assert_eq!(packed, stored.iter().sum::<u64>());
    assert!(packs.iter().all(|pack| pack["listed"] == true));
    assert_eq!(whole["missing_chunks"], 0);

    assert_eq!(
        says(&["resolve", &image]).trim_end(),
        whole["rootfs_digest"]
    );
    let tag = &whole["index_annotations"]["org.opencontainers.image.ref.name"];
    assert_eq!(tag, "t");

    let text = says(&["inspect", &image]);
    for line in ["root       ", "metadata   ", "data       ", "pack       "] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn what_is_no_text_is_told_in_json() {
    let scratch = tempfile::tempdir().unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    symlink(OsStr::from_bytes(b"to/\xff"), tree.join("link")).unwrap();
    symlink("text", tree.join("plain")).unwrap();
    build(&tree, &store, "t", 1);
    let image = reference(&store, "t");
    let listed = lines(&says(&["ls", "--json", &image]));
    assert_eq!(listed[0]["target_hex"], "746f2fff");
    assert_eq!(listed[0]["target"], "to/\u{fffd}");
    assert_eq!(listed[1]["target_hex"], Value::Null);
    let link = &lines(&says(&["inspect", "--json", &image, "link"]))[0];
    assert_eq!(link["target_hex"], "746f2fff");
}

#[test]
fn list_tag_and_untag() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, image) = linked_tree(scratch.path());
    let path = store.to_str().unwrap();
    let digest = open(&store, "t").1.root.manifest_digest().to_oci();
    says(&["tag", &image, "other"]);
    says(&["tag", &format!("{path}@{digest}"), "third"]);
    let listed = lines(&says(&["list", "--json", path]));
    let tags: Vec<_> = listed.iter().map(|image| image["tag"].as_str()).collect();
    assert_eq!(tags, [Some("t"), Some("other"), Some("third")]);
    let size: u64 = {
        let (store, image) = open(&store, "t");
        let blobs = image
            .manifest
            .layers
            .iter()
            .map(|layer| layer.size)
            .sum::<u64>();
        let manifest = store.blob_size(image.root.manifest_digest());
        blobs + image.manifest.config.size + manifest.unwrap().unwrap()
    };
    for image in &listed {
        assert_eq!(image["manifest_digest"], digest);
        assert_eq!(image["bytes"], size);
        assert_eq!(image["puzzlefs"], true);
    }
    assert_eq!(says(&["images", path]).lines().count(), 3);

    says(&["untag", &image]);
    assert!(
        fails(&["untag", &image]).contains("no image is tagged 't'; the tags are: other, third")
    );
    assert!(fails(&["tag", &image, "x"]).contains("no image is tagged 't'"));
    assert_eq!(
        run(&["tag", &reference(&store, "other"), "a/b"])
            .status
            .code(),
        Some(2)
    );
    check_store(&store);

    // What cannot be read is listed, and told.
    let manifest = store.join("blobs/sha256").join(&digest["sha256:".len()..]);
    fs::write(manifest, "{").unwrap();
    let output = run(&["list", path]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    assert!(
        said.contains("third: ") && said.contains("is damaged"),
        "{said}"
    );

    // By its manifest it loses all that it has, also what cannot be written as a tag here, and what
    // is none. A sweep, which it was in the way of, goes on.
    let index = store.join("index.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let manifests = text["manifests"].as_array_mut().unwrap();
    manifests[0]["annotations"]["org.opencontainers.image.ref.name"] = "registry/a:b".into();
    manifests[1]["annotations"] = serde_json::Value::Null;
    fs::write(&index, text.to_string()).unwrap();
    let by_digest = format!("{path}@{digest}");
    let said = fails(&["gc", path]);
    assert!(said.contains("untag them"), "{said}");
    says(&["untag", &by_digest]);
    assert_eq!(says(&["list", path]), "");
    let said = fails(&["untag", &by_digest]);
    assert!(
        said.contains(&format!("index.json: {digest} is not listed there")),
        "{said}"
    );
    says(&["gc", path]);
}

/// The new tag may be given with its store, which must be the image's own, by whatever path.
#[test]
fn a_tag_may_have_its_store() {
    let scratch = tempfile::tempdir().unwrap();
    let (store, image) = linked_tree(scratch.path());
    says(&["tag", &image, &reference(&store, "second")]);
    let detour = store.join("blobs/..");
    says(&["tag", &image, &reference(&detour, "third")]);
    let digest = |tag: &str| *open(&store, tag).1.root.manifest_digest();
    assert_eq!(
        (digest("second"), digest("third")),
        (digest("t"), digest("t"))
    );
    let other = scratch.path().join("other");
    says(&["copy", "-q", &image, other.to_str().unwrap()]);
    for (target, reason) in [
        (reference(&other, "x"), "use 'puzzlefs copy "),
        (reference(&store, "-x"), "a tag is"),
        (
            format!("{}@{}", store.display(), digest("t").to_oci()),
            "give the new tag",
        ),
    ] {
        let output = run(&["tag", &image, &target]);
        assert_eq!(output.status.code(), Some(2), "{target}");
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
    let missing = reference(&scratch.path().join("none"), "x");
    assert!(fails(&["tag", &image, &missing]).contains("cannot open the store"));
}
