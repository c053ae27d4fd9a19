// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a source becomes what the kernel gets, by `-f`: everything but the mount.

#![allow(missing_docs)]

use puzzlefs_lib::builder::{self, BuildOptions, Format};
use puzzlefs_lib::{Digest, Progress, Store};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn helper(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mount-puzzlefs"));
    command.args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn build(format: Format, tree: &Path, store: &Path, tag: &str) -> builder::Summary {
    let store = Store::create(store).unwrap();
    let mut options = BuildOptions::new(tag);
    options.format = format;
    builder::build(tree, &store, &options, &Progress::default()).unwrap()
}

/// Adds the manifest of an image of format 4 with a wrong root, and names the image.
fn manifest(store: &str, root: &str) -> String {
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"m","digest":"sha256:{root}","size":2}},
            "layers":[],"annotations":{{"io.puzzlefs.root":"{root}"}}}}"#
    );
    let hex = Digest::of(text.as_bytes()).to_hex();
    fs::write(format!("{store}/blobs/sha256/{hex}"), text).unwrap();
    format!("{store}@sha256:{hex}")
}

/// Copies a store as another tool does, without what is beside the OCI layout.
fn copy_layout(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    for name in ["oci-layout", "index.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    for blob in fs::read_dir(from.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), to.join("blobs/sha256").join(blob.file_name())).unwrap();
    }
}

#[test]
fn packs_that_another_tool_copied_are_indexed() {
    let scratch = tempfile::tempdir().unwrap();
    let scratch = scratch.path().canonicalize().unwrap();
    let (tree, store, copy) = (
        scratch.join("tree"),
        scratch.join("store"),
        scratch.join("copy"),
    );
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "contents").unwrap();
    let root = build(Format::V4, &tree, &store, "first").rootfs.to_hex();
    copy_layout(&store, &copy);
    let source = format!("{}:first", copy.display());
    let directory = tree.to_str().unwrap();
    let wanted = format!("rootfs={root}");

    // The pack is missing, then damaged where it has the root, then as it was.
    let pack = fs::read_dir(copy.join("blobs/sha256"))
        .unwrap()
        .map(|blob| blob.unwrap().path())
        .find(|blob| {
            fs::read(blob)
                .unwrap()
                .windows(8)
                .any(|bytes| bytes == b"PZFSPACK")
        })
        .unwrap();
    let bytes = fs::read(&pack).unwrap();
    let mut damaged = bytes.clone();
    damaged[9] ^= 1;
    for contents in [None, Some(&damaged)] {
        match contents {
            Some(contents) => fs::write(&pack, contents).unwrap(),
            None => fs::remove_file(&pack).unwrap(),
        }
        let output = helper(&["-fv", &source, directory]);
        assert_eq!(output.status.code(), Some(32));
        assert!(stderr(&output).contains("neither in a pack nor loose"));
    }
    fs::write(&pack, bytes).unwrap();
    // The index cannot be written.
    let private = copy.join(".puzzlefs");
    fs::remove_dir_all(&private).unwrap();
    fs::create_dir_all(private.join("chunks.lock")).unwrap();
    let output = helper(&["-fv", &source, directory]);
    assert_eq!(output.status.code(), Some(32));
    let said = stderr(&output);
    assert!(said.contains("chunks.lock"), "{said}");
    assert!(
        said.contains("run 'puzzlefs reindex' where the store is writable"),
        "{said}"
    );
    fs::remove_dir_all(&private).unwrap();
    let output = helper(&["-fv", &source, directory]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&wanted), "{}", stderr(&output));
    assert!(copy.join(".puzzlefs/chunks/catalogue").exists());
}

#[test]
fn sources() {
    let scratch = tempfile::tempdir().unwrap();
    let scratch = scratch.path().canonicalize().unwrap();
    let (tree, store) = (scratch.join("tree"), scratch.join("a:store@x"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "contents").unwrap();
    let image = build(Format::V3, &tree, &store, "first");
    let packed = build(Format::V4, &tree, &store, "second");
    let directory = scratch.join("mnt");
    fs::create_dir(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    let store = store.to_str().unwrap();
    let rootfs = image.rootfs.to_hex();

    let wanted = format!("mount.puzzlefs: source {store}, options rootfs={rootfs}");
    let digest = format!("{store}@{}", image.manifest.to_oci());
    let around = format!("{store}/../a:store@x/.:first");
    for source in [&format!("{store}:first"), &digest, &around] {
        let output = helper(&["-fv", source, directory, "-o", "rw,nosuid"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output).lines().next(), Some(&*wanted));
    }

    // What names the image by itself goes through as it is.
    let option = format!("rootfs={rootfs},verify=none");
    let output = helper(&["-fv", store, directory, "-o", &option]);
    assert!(output.status.success(), "{}", stderr(&output));
    let wanted = format!("mount.puzzlefs: source {store}, options {option}");
    assert_eq!(stderr(&output).lines().next(), Some(&*wanted));
    let option = format!("oci_root_dir={store},image_manifest={rootfs}");
    let output = helper(&["-fv", "none", directory, "-o", &option]);
    assert!(stderr(&output).starts_with(&format!("mount.puzzlefs: source none, options {option}")));

    // The manifest's digest, from which all the rest is verified.
    let verity = image.manifest_verity.to_hex();
    let first = format!("{store}:first");
    for (more, wanted) in [("", "verify=fsverity"), (",verify=digest", "verify=digest")] {
        let option = format!("digest={verity}{more}");
        let said = stderr(&helper(&["-fv", &first, directory, "-o", &option]));
        assert!(
            said.contains(&format!(" options rootfs={rootfs},")),
            "{said}"
        );
        assert!(said.contains(",rootfs_verity="), "{said}");
        assert!(said.contains(wanted) && !said.contains("digest="), "{said}");
    }
    for (option, code, message) in [
        (
            format!("digest={rootfs}"),
            32,
            "not the image that was asked for",
        ),
        (format!("digest={verity},verify=none"), 1, "drop one"),
        ("digest=1234".to_owned(), 1, "64 digits"),
        ("digest".to_owned(), 1, "64 digits"),
    ] {
        let output = helper(&["-f", &first, directory, "-o", &option]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{option}: {said}");
        assert!(said.contains(message), "{option}: {said}");
    }

    // Of an image of format 4, the kernel gets the root.
    let (chunked, root) = (format!("{store}:second"), packed.rootfs.to_hex());
    let wanted = format!("mount.puzzlefs: source {store}, options rootfs={root}");
    let output = helper(&["-fv", &chunked, directory]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().next(), Some(&*wanted));
    let option = format!("digest={}", packed.manifest_verity.to_hex());
    let said = stderr(&helper(&["-fv", &chunked, directory, "-o", &option]));
    assert!(
        said.contains(&format!("{root},verify=fsverity\n")),
        "{said}"
    );
    let option = format!("digest={verity}");
    let said = stderr(&helper(&["-f", &chunked, directory, "-o", &option]));
    assert!(said.contains("not the image that was asked for"), "{said}");
    let said = stderr(&helper(&[
        "-f",
        &manifest(store, &"4".repeat(64)),
        directory,
    ]));
    assert!(said.contains("neither in a pack nor loose"), "{said}");
    let said = stderr(&helper(&["-f", &manifest(store, "44"), directory]));
    assert!(said.contains("is not 64 hexadecimal digits"), "{said}");

    let missing = format!("{store}:third");
    let unknown = format!("{store}@sha256:{rootfs}");
    let both = format!("rootfs={rootfs}");
    let table: [(&[&str], i32, &str); 9] = [
        (
            &[&missing, directory],
            32,
            "no image is tagged 'third'; the tags are: first, second",
        ),
        (&[store, directory], 1, "a tag is 1 to 128"),
        (&["/proc", directory], 1, "give the image as"),
        (
            &[&first, directory, "-o", &both],
            1,
            "give either a tag or digest",
        ),
        // The metadata blob is there, but no manifest.
        (&[&unknown, directory], 32, "not an OCI image manifest"),
        (
            &["/nonesuch:t", directory],
            32,
            "cannot open the store /nonesuch: ",
        ),
        (
            &["/proc:t", directory],
            32,
            "/proc: not an OCI image layout",
        ),
        (&[&first, "/nonesuch"], 32, "the mount point: No such file"),
        (&[&first], 1, "give a source and a directory"),
    ];
    for (arguments, code, message) in table {
        let arguments: Vec<&str> = ["-f"].iter().chain(arguments).copied().collect();
        let output = helper(&arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(message), "{said}");
        assert!(said.starts_with("mount.puzzlefs: "), "{said}");
    }

    // Where nothing can be told, the exit status still is.
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mount-puzzlefs"));
    let status = command.stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mount-puzzlefs"));
    let output = command.arg("--help").stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));

    // Another tool has removed the pack of the image.
    let blobs = Path::new(store).join("blobs/sha256");
    let opened = Store::open(Path::new(store)).unwrap();
    let (manifest, _) = opened.manifest(&packed.manifest).unwrap();
    let pack = blobs.join(&manifest.layers[0].digest["sha256:".len()..]);
    fs::rename(&pack, pack.with_extension("gone")).unwrap();
    let said = stderr(&helper(&["-f", &chunked, directory]));
    assert!(said.contains("lists the pack, and it is missing"), "{said}");
    fs::rename(pack.with_extension("gone"), &pack).unwrap();

    let rootfs_path = Path::new(store).join("blobs/sha256").join(&rootfs);
    fs::rename(&rootfs_path, rootfs_path.with_extension("gone")).unwrap();
    let said = stderr(&helper(&["-f", &first, directory]));
    assert!(said.contains("the metadata blob is missing"), "{said}");
    fs::write(&rootfs_path, "short").unwrap();
    let said = stderr(&helper(&["-f", &first, directory]));
    assert!(
        said.contains("the metadata blob is damaged: it has 5 bytes"),
        "{said}"
    );
}
