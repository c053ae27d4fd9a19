// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs convert` from, to and between object stores.

use super::*;
use crate::registry::server::{self, skopeo, Form};
use puzzlefs_lib::Digest;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A layout with an index `t` of images for two platforms, a signature of it under a tag, and a list of
/// components that refers to it without a tag. Returns their descriptors.
fn container_images(world: &World) -> (Layout, [Value; 3]) {
    let layout = Layout::new(world.path("layout"));
    let amd64 = layout.image("amd64", &layers().0);
    let arm64 = layout.image("arm64", &[(layer("echo arm64 >name"), "gzip")]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [arm64, amd64]});
    let index = layout.blob(INDEX, index.to_string().as_bytes());
    let config = layout.blob("application/vnd.oci.empty.v1+json", b"{}");
    let artifact = |content: &str, subject: Option<&Value>| {
        let content = layout.blob("text/plain", content.as_bytes());
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [content],
        });
        if let Some(subject) = subject {
            manifest["subject"] = subject.clone();
            manifest["artifactType"] = json!("application/spdx+json");
        }
        layout.blob(MANIFEST, manifest.to_string().as_bytes())
    };
    let signature = artifact("signed", None);
    let components = artifact("components", Some(&index));
    let name = format!(
        "{}.sig",
        index["digest"].as_str().unwrap().replace(':', "-")
    );
    layout.index(&[
        tagged(index.clone(), "t"),
        tagged(signature.clone(), &name),
        components.clone(),
    ]);
    (layout, [index, signature, components])
}

fn file(directory: &Path) -> String {
    format!("file://{}:t", directory.display())
}

/// Parses a document of a layout in a directory.
fn document(layout: &Path, digest: &str) -> Value {
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn entries(layout: &Path) -> Vec<Value> {
    let index = fs::read(layout.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

/// Every blob of a layout has its digest.
fn assert_whole(layout: &Path) {
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let digest = Digest::of(&fs::read(&path).unwrap()).to_hex();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), digest);
    }
}

impl World {
    /// Pulls the PuzzleFS image of both platforms, which has the root that `import` gives it.
    fn assert_variants(&self, port: u16, image: &str, layout: &Layout) {
        for platform in ["linux/amd64", "linux/arm64"] {
            let name = Digest::of(format!("{image} {platform}").as_bytes()).to_hex();
            let options = ["--platform", platform];
            let store = self.path(&name);
            let pull = ["pull", image, store.to_str().unwrap()];
            let pulled = self.run(port, &[&pull, &options[..]].concat());
            assert_eq!(pulled["imported"], false, "{pulled}");
            let target = reference(&self.path("imported"), "t");
            let import = ["import", &reference(&layout.0, "t"), &target];
            let imported = self.run(port, &[&import, &options[..]].concat());
            let root = open(&store, "t").1.root.digest().to_hex();
            assert_eq!(imported["rootfs_digest"], root);
            says(&["verify", "-q", store.to_str().unwrap()]);
        }
    }
}

#[test]
#[ignore = "needs the programs that 'qemu-test/provision registry-root' installs"]
fn a_converted_image_is_published_to_a_directory() {
    let world = World::new();
    let (layout, [index, signature, components]) = container_images(&world);
    let (from, to) = (file(&layout.0), world.path("to"));
    let converted = world.run(0, &["convert", &from, &file(&to)]);
    assert_eq!(number(&converted, "artifacts"), 2, "{converted}");
    assert_eq!(converted["image"], file(&to));

    let all = entries(&to);
    let find = |wanted: &str| {
        let mut all = all.iter();
        all.find(|entry| entry["digest"] == wanted).unwrap()
    };
    let digest = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    assert_eq!(find(&digest(&components)), &components);
    let signed = find(&digest(&signature));
    let tag = format!("{}.sig", digest(&index).replace(':', "-"));
    assert_eq!(signed, &tagged(signature.clone(), &tag));
    let published = converted["index_digest"].as_str().unwrap();
    assert_eq!(find(published)["mediaType"], INDEX);
    let [old, new] = [&index["digest"], &converted["index_digest"]]
        .map(|digest| document(&to_or(&to, &layout.0, digest), digest.as_str().unwrap()));
    let (old, new) = (
        old["manifests"].as_array().unwrap(),
        new["manifests"].as_array().unwrap(),
    );
    assert_eq!(new[..2], old[..]);
    assert_eq!(new.len(), 4);
    assert_eq!(new[3]["platform"]["os.features"], json!(["puzzlefs"]));
    assert_whole(&to);
    world.assert_variants(0, &file(&to), &layout);

    // Other tools take the container image of the same tag.
    let copy = world.path("copy");
    let (from_to, to_copy) = (
        format!("oci:{}:t", to.display()),
        format!("oci:{}:t", copy.display()),
    );
    let options = ["copy", "--override-arch=amd64", &from_to, &to_copy];
    skopeo(world.scratch.path(), &options);
    let manifest =
        |layout: &Path, entry: &Value| document(layout, entry["digest"].as_str().unwrap());
    assert_eq!(
        manifest(&copy, &entries(&copy)[0])["layers"]
            .as_array()
            .unwrap()
            .len(),
        manifest(&layout.0, &old[1])["layers"]
            .as_array()
            .unwrap()
            .len(),
    );

    // Another conversion changes nothing, and one within the layout keeps its other entries.
    let again = world.run(0, &["convert", &from, &file(&to)]);
    assert_eq!(number(&again, "new_blobs"), 0, "{again}");
    assert_eq!(entries(&to), all);
    world.run(0, &["convert", &from]);
    let kept = entries(&layout.0);
    assert_eq!(kept[0]["digest"], published);
    assert_eq!(kept[1..], [signed.clone(), components.clone()]);
    assert_whole(&layout.0);
    let message = world.fails(0, &["convert", &file(&world.path("from")), &file(&to)]);
    assert!(
        message.contains("it is a PuzzleFS image already"),
        "{message}"
    );
    assert_eq!(entries(&to), all);
}

/// The first of two layouts that has a document.
fn to_or(first: &Path, second: &Path, digest: &Value) -> PathBuf {
    let name = digest.as_str().unwrap().replace(':', "/");
    let has = first.join("blobs").join(name).exists();
    if has { first } else { second }.to_path_buf()
}

#[test]
#[ignore = "needs the servers that 'qemu-test/provision registry-root' installs"]
fn a_converted_image_travels_between_all_kinds_of_places() {
    let world = World::new();
    let (layout, [index, ..]) = container_images(&world);
    let s3 = stores::s3(world.scratch.path());
    let registry = server::Server::start(world.scratch.path(), Form::Plain);
    let names = ["s3://images/app:t", &registry.image("app:t")];
    let mut from = file(&layout.0);
    for to in names {
        let converted = world.run(s3.port, &["convert", &from, to]);
        assert_eq!(number(&converted, "artifacts"), 2, "{from} {converted}");
        assert!(number(&converted, "requests") > 10, "{converted}");
        world.assert_variants(s3.port, to, &layout);
        // The next one begins with the container images alone.
        from = match to.strip_prefix("s3://images/app:t") {
            Some(_) => format!("s3://images/app@{}", index["digest"].as_str().unwrap()),
            None => to.to_owned(),
        };
        if to.starts_with("s3:") {
            // It is not in the layout: the tag was set to the new index, and only its images were copied.
            let path = format!("/{BUCKET}/app/blobs/{}", digest_path(&index));
            let bytes = fs::read(layout.blob_path(&index)).unwrap();
            assert_eq!(request(s3.port, "PUT", &path, &bytes).0, 200);
        }
    }
    // From the registry, whose index has the PuzzleFS images already, to a directory.
    let to = world.path("to");
    let converted = world.run(s3.port, &["convert", &from, &file(&to)]);
    assert_eq!(converted["variants"].as_array().unwrap().len(), 2);
    assert_whole(&to);
    world.assert_variants(s3.port, &file(&to), &layout);
}

fn digest_path(descriptor: &Value) -> String {
    descriptor["digest"].as_str().unwrap().replace(':', "/")
}

#[test]
fn a_server_of_files_is_converted_from_and_not_to() {
    let world = World::new();
    let (layout, _) = container_images(&world);
    let address = format!("http://127.0.0.1:{}/layout:t", served(&world));
    let to = world.path("to");
    world.run(0, &["convert", &address, &file(&to)]);
    world.assert_variants(0, &file(&to), &layout);
    for arguments in [
        &["convert", &address][..],
        &["convert", &file(&to), &address],
    ] {
        let message = world.fails(0, arguments);
        assert!(message.contains("it can only be read"), "{message}");
    }
    let store = reference(&world.path("from"), "t");
    for arguments in [["convert", &address, &store], ["convert", &store, &address]] {
        assert_eq!(world.try_run(0, &arguments).status.code(), Some(2));
    }
}

#[test]
fn a_conversion_that_fails_leaves_the_index_as_it_was() {
    let world = World::new();
    let (layout, [_, signature, components]) = container_images(&world);
    let to = world.path("to");
    world.run(0, &["convert", &file(&layout.0), &file(&to)]);
    let before = entries(&to);
    let amd64 = &document(&layout.0, layout_index(&layout)["digest"].as_str().unwrap());
    let manifest = &amd64["manifests"][1];
    let manifest = document(&layout.0, manifest["digest"].as_str().unwrap());
    // A missing layer, a damaged manifest of an artifact, and an artifact that is no JSON.
    let fail = |wanted: &str| {
        let message = world.fails(0, &["convert", &file(&layout.0), &file(&world.path("new"))]);
        assert!(message.contains(wanted), "{message}");
        assert!(!world.path("new/index.json").exists());
        let _ = fs::remove_dir_all(world.path("new"));
        let message = world.fails(0, &["convert", &file(&layout.0), &file(&to)]);
        assert!(message.contains(wanted), "{message}");
        assert_eq!(entries(&to), before);
    };
    let spoil = |descriptor: &Value, bytes: Option<&[u8]>| {
        let path = layout.blob_path(descriptor);
        let kept = fs::read(&path).unwrap();
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        (path, kept)
    };
    let restore = |(path, kept): (PathBuf, Vec<u8>)| fs::write(path, kept).unwrap();
    let spoilt = spoil(&components, Some(b"{\"subject\": 1}"));
    fail("its bytes have sha256");
    restore(spoilt);
    let spoilt = spoil(&signature, None);
    fail("it does not exist");
    restore(spoilt);
    let strange = layout.blob(MANIFEST, b"not JSON");
    let mut entries_of_source = entries(&layout.0);
    entries_of_source.push(strange);
    layout.index(&entries_of_source);
    fail("the answer of the server cannot be used");
    entries_of_source.pop();
    layout.index(&entries_of_source);
    let layers = manifest["layers"].as_array().unwrap();
    fs::remove_dir_all(&to).unwrap();
    fs::create_dir(&to).unwrap();
    let spoilt = spoil(&layers[1], None);
    let message = world.fails(0, &["convert", &file(&layout.0), &file(&to)]);
    assert!(message.contains("it does not exist"), "{message}");
    assert!(!to.join("index.json").exists());
    restore(spoilt);
    world.run(0, &["convert", &file(&layout.0), &file(&to)]);
}

/// The descriptor of the index `t`.
fn layout_index(layout: &Layout) -> Value {
    entries(&layout.0).swap_remove(0)
}
