// SPDX-License-Identifier: MIT OR Apache-2.0

//! Container images in a registry, which a pull imports.

use super::*;
use crate::common::layout::{layer, layers, tagged, Layout};
use puzzlefs_lib::Digest;
use serde_json::json;
use std::sync::Condvar;
use std::time::Duration;

/// Copies an image of a layout to the registry, with all images of an index.
pub fn publish(world: &World, layout: &Layout, name: &str) -> String {
    let from = format!("oci:{}:t", layout.0.display());
    let to = format!("docker://127.0.0.1:{}/{name}", world.server.port);
    let arguments = ["copy", "--all", "--dest-tls-verify=false"];
    skopeo(
        world.scratch.path(),
        &[&arguments[..], &[&from, &to]].concat(),
    );
    to
}

/// Imports an image of a layout, and returns the digest of its root.
fn imported(world: &World, layout: &Layout, options: &[&str]) -> String {
    let (source, store) = (layout.0.display().to_string(), world.path("imported"));
    let target = reference(&store, "t");
    let report = world.run(&[&["import", &source, &target], options].concat());
    report["rootfs_digest"].as_str().unwrap().to_owned()
}

/// Returns the digest of the root of the image `t`.
fn root_of(store: &Path) -> String {
    open(store, "t").1.root.digest().to_hex()
}

/// An index of images for two platforms, with an attestation.
pub fn two_platforms(world: &World) -> Layout {
    let layout = Layout::new(world.path("layout"));
    let amd64 = layout.image("amd64", &layers().0);
    let arm64 = layout.image("arm64", &[(layer("echo arm64 >name"), "gzip")]);
    let mut attestation = layout.image("amd64", &[(layer("echo attested >name"), "")]);
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [attestation, arm64, amd64],
    });
    let index = layout.blob(
        "application/vnd.oci.image.index.v1+json",
        index.to_string().as_bytes(),
    );
    layout.index(&[tagged(index, "t")]);
    layout
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_container_image_is_imported() {
    let world = World::new(Form::Plain);
    let layout = two_platforms(&world);
    let name = publish(&world, &layout, "ordinary:t");
    for platform in ["linux/amd64", "linux/arm64"] {
        let options = ["--platform", platform];
        let store = world.path(&platform.replace('/', "-"));
        let target = store.to_str().unwrap();
        let pulled = world.run(&[&["pull", &name, target], &options[..]].concat());
        assert_eq!(pulled["imported"], true, "{pulled}");
        assert_eq!(root_of(&store), imported(&world, &layout, &options));
        says(&["verify", "-q", target]);
        assert_eq!(leftovers(&store), [""; 0]);
        // The index, the manifest, the configuration, and the layers.
        let layers = if platform == "linux/amd64" { 3 } else { 1 };
        assert_eq!(number(&pulled, "requests"), 3 + layers);
    }
    let message = world.pull_fails(&name, "none", &["--platform", "linux/s390x"]);
    assert!(
        message.contains("there is no image for linux/s390x"),
        "{message}"
    );
    assert!(message.contains("linux/arm64"), "{message}");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_container_image_is_imported_once() {
    let world = World::new(Form::Plain);
    let layout = Layout::new(world.path("layout"));
    let image = layout.image("amd64", &[(layer("echo x >y"), "gzip")]);
    layout.index(&[tagged(image, "t")]);
    publish(&world, &layout, "ordinary:t");
    // The layer arrives when all pulls have asked for the configuration, which each reads first.
    let (asked, all_asked) = (Mutex::new(Vec::new()), Condvar::new());
    let proxy = Proxy::start(world.server.port, move |request| {
        if request.is_blob() {
            let mut asked = asked.lock().unwrap();
            asked.push(request.path.clone());
            all_asked.notify_all();
            if asked[0] != request.path {
                let missing = |asked: &mut Vec<String>| {
                    asked.iter().filter(|path| **path == asked[0]).count() < 4
                };
                drop(all_asked.wait_timeout_while(asked, Duration::from_secs(60), missing));
            }
        }
        Fault::Pass
    });
    let (name, store) = (proxy.image("ordinary:t"), world.path("to"));
    let blobs = || {
        { proxy.requests() }
            .iter()
            .filter(|request| request.is_blob())
            .count()
    };
    pull_four_times_at_once(&world, &name);
    // Each pull reads the configuration, and one reads the layer.
    assert_eq!(blobs(), 4 + 1);
    let root = root_of(&store);
    assert_eq!(root, imported(&world, &layout, &[]));

    let target = reference(&store, "other");
    let pulled = world.run(&["pull", &name, &target]);
    assert_eq!(blobs(), 5 + 1);
    assert_eq!(
        (&pulled["imported"], number(&pulled, "new_blobs")),
        (&json!(true), 0)
    );
    assert_eq!(open(&store, "other").1.root.digest().to_hex(), root);

    // It is read again if a chunk is lost, and if `gc` has removed the image.
    let blobs_of_store = fs::read_dir(store.join("blobs/sha256")).unwrap();
    let largest = blobs_of_store.map(|blob| blob.unwrap().path());
    let largest = largest.max_by_key(|path| fs::metadata(path).unwrap().len());
    fs::remove_file(largest.unwrap()).unwrap();
    world.run(&["pull", &name, &target]);
    assert_eq!(blobs(), 6 + 2);
    says(&["verify", "-q", store.to_str().unwrap()]);
    for tag in ["t", "other"] {
        says(&["untag", &reference(&store, tag)]);
    }
    says(&["gc", store.to_str().unwrap()]);
    assert_eq!(
        fs::read_dir(store.join(".puzzlefs/imports"))
            .unwrap()
            .count(),
        0
    );
    world.run(&["pull", &name, &target]);
    assert_eq!(blobs(), 7 + 3);
    assert_eq!(open(&store, "other").1.root.digest().to_hex(), root);
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn an_index_can_have_the_puzzlefs_image_too() {
    let world = World::new(Form::Plain);
    let layout = Layout::new(world.path("layout"));
    let ordinary = layout.image("amd64", &[(layer("echo ordinary >name"), "gzip")]);
    let from = world.path("from");
    for blob in fs::read_dir(from.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(
            blob.path(),
            layout.0.join("blobs/sha256").join(blob.file_name()),
        )
        .unwrap();
    }
    let own = fs::read(from.join("index.json")).unwrap();
    let mut own = serde_json::from_slice::<Value>(&own).unwrap()["manifests"][0].clone();
    own["annotations"] = json!({"io.puzzlefs.root": root_of(&from)});
    own["platform"] = ordinary["platform"].clone();
    let index = json!({"schemaVersion": 2, "manifests": [ordinary, own]});
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = layout.blob(media_type, index.to_string().as_bytes());
    layout.index(&[tagged(index, "t")]);
    let name = publish(&world, &layout, "both:t");
    let amd64 = ["--platform", "linux/amd64"];
    let store = world.path("to");
    let pulled = world.run(&[&["pull", &name, store.to_str().unwrap()], &amd64[..]].concat());
    assert_eq!(pulled["imported"], false, "{pulled}");
    world.assert_arrived("to");
    // Other tools take the first image.
    assert_ne!(imported(&world, &layout, &amd64), root_of(&from));
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn faults_of_layers_are_found() {
    let world = World::new(Form::Plain);
    let layout = Layout::new(world.path("layout"));
    // More than what one connection brings.
    let large = "head -c 3000000 /dev/urandom >large";
    let image = layout.image("amd64", &[(layer(large), "gzip"), (layer("echo x >y"), "")]);
    layout.index(&[tagged(image, "t")]);
    publish(&world, &layout, "ordinary:t");
    let image = "ordinary:t";
    let is_layer = |request: &Request| request.path.contains("/blobs/") && is_large(request);
    let proxy = Proxy::start(world.server.port, first(2, is_layer, Fault::Cut(1 << 20)));
    let pulled = world.pull(&proxy.image(image), "to");
    assert_eq!(root_of(&world.path("to")), imported(&world, &layout, &[]));
    assert_eq!(number(&pulled, "requests"), 2 + 2 + 2);
    for (fault, wanted) in [
        (Fault::Corrupt(1000), "the bytes that arrived have sha256"),
        (
            Fault::Answer("404 Not Found".to_owned(), b"{}".to_vec()),
            "the registry has no such blob",
        ),
        (Fault::Stall(0), "did not answer for 2 s"),
    ] {
        let proxy = Proxy::start(world.server.port, always(is_layer, fault));
        let options = ["--request-timeout", "2", "--retries", "0"];
        let message = world.pull_fails(&proxy.image(image), "broken", &options);
        assert!(message.contains(wanted), "{message}");
        assert_eq!(leftovers(&world.path("broken")), [""; 0]);
    }
}

/// Reads the manifest or the index of a name.
fn raw(world: &World, name: &str) -> (String, Value) {
    let raw = skopeo(
        world.scratch.path(),
        &["inspect", "--raw", "--tls-verify=false", name],
    );
    let digest = Digest::of(raw.as_bytes()).to_oci();
    (digest, serde_json::from_str(&raw).unwrap())
}

/// Pulls the image of a platform, which must be a PuzzleFS image with this root.
fn assert_variant(world: &World, name: &str, platform: &str, root: &str) {
    let store = world.path(&format!("variant-{}", Digest::of(name.as_bytes()).to_hex()));
    let target = reference(&store, "t");
    let pulled = world.run(&["pull", name, &target, "--platform", platform]);
    assert_eq!(pulled["imported"], false, "{pulled}");
    assert_eq!(root_of(&store), root);
    says(&["verify", "-q", store.to_str().unwrap()]);
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_converted_image_is_published_under_its_tag() {
    let world = World::new(Form::Plain);
    let layout = two_platforms(&world);
    let name = publish(&world, &layout, "app:t");
    let (_, before) = raw(&world, &name);
    let converted = world.run(&["convert", &name]);
    let (digest, index) = raw(&world, &name);
    assert_eq!(converted["index_digest"], digest);
    let (old, new) = (
        before["manifests"].as_array().unwrap(),
        index["manifests"].as_array().unwrap(),
    );
    assert_eq!(new[..3], old[..]);
    assert_eq!(new.len(), 5);
    assert_eq!(new[3]["platform"]["os.features"], json!(["puzzlefs"]));
    for platform in ["linux/amd64", "linux/arm64"] {
        let root = imported(&world, &layout, &["--platform", platform]);
        assert_variant(&world, &name, platform, &root);
        let variants = converted["variants"].as_array().unwrap();
        assert!(variants
            .iter()
            .any(|variant| variant["rootfs_digest"] == root.as_str()));
    }
    // Other clients see the container image.
    let copied = format!("oci:{}:t", world.path("copied").display());
    skopeo(
        world.scratch.path(),
        &[
            "copy",
            "--src-tls-verify=false",
            "--override-arch=amd64",
            &name,
            &copied,
        ],
    );
    let (_, manifest) = raw(&world, &copied);
    assert_eq!(
        manifest["layers"].as_array().unwrap().len(),
        3,
        "{manifest}"
    );
    // Another conversion replaces the PuzzleFS images, which are the same.
    let again = world.run(&["convert", &name]);
    assert_eq!(again["index_digest"], digest);
    assert_eq!(number(&again, "new_blobs"), 3, "{again}");
    // One platform, from a store that keeps the chunks.
    let kept = world.path("kept");
    let options = ["--platform=linux/arm64", "--store", kept.to_str().unwrap()];
    let one = world.run(
        &[
            &["convert", &name, &world.server.image("one:t")],
            &options[..],
        ]
        .concat(),
    );
    assert_eq!(one["variants"].as_array().unwrap().len(), 1);
    assert!(says(&["list", kept.to_str().unwrap()]).contains("t-linux-arm64"));
    let message = world.fails(&["convert", &name, "--platform=linux/s390x"]);
    assert!(message.contains("linux/amd64"), "{message}");
    world.push();
    let message = world.fails(&["convert", &world.server.image("app:t")]);
    assert!(
        message.contains("it is a PuzzleFS image already"),
        "{message}"
    );
    for arguments in [
        ["convert", &name, "/store:t"],
        ["convert", "/store:t", &name],
    ] {
        assert_eq!(world.try_run(&arguments).status.code(), Some(2));
    }
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_converted_image_goes_to_another_registry_with_its_signatures() {
    let world = World::new(Form::Login);
    let source = World::new(Form::Plain);
    let layout = two_platforms(&source);
    let name = publish(&source, &layout, "team/app:t");
    let (digest, index) = raw(&source, &name);
    let signature = Layout::new(source.path("signature"));
    signature.index(&[tagged(
        signature.image("amd64", &[(layer("echo x >s"), "")]),
        "t",
    )]);
    let tag = format!("{}.sig", digest.replace(':', "-"));
    publish(&source, &signature, &format!("team/app:{tag}"));
    // An artifact that the source lists.
    let artifact = referrer(&source, "team/app:sbom");
    let listed = json!({"schemaVersion": 2, "manifests": [artifact]}).to_string();
    let of_index = format!("/referrers/{digest}");
    let proxy = Proxy::start(source.server.port, move |request| {
        if request.path.ends_with(&of_index) {
            Fault::Answer("200 OK".to_owned(), listed.clone().into_bytes())
        } else {
            Fault::Pass
        }
    });
    let target = world.server.image("copy:t");
    let creds = format!("{USER}:{PASSWORD}");
    let arguments = [
        "convert",
        &proxy.image("team/app:t"),
        &target,
        "--creds",
        &creds,
    ];
    let converted = world.run(&arguments);
    assert_eq!(number(&converted, "artifacts"), 2, "{converted}");
    // Each blob is fetched once.
    let requests = proxy.requests();
    let blobs = requests.iter().filter(|request| request.is_blob());
    let mut paths: Vec<_> = blobs.map(|request| &request.path).collect();
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), count, "{paths:?}");
    let has_credentials = |request: &Request| request.header("authorization").is_some();
    assert!(!proxy.requests().iter().any(has_credentials));
    let login = format!("--creds={creds}");
    let inspect = |name: &str| -> Value {
        let options = ["inspect", "--raw", "--tls-verify=false", &login, name];
        serde_json::from_str(&skopeo(world.scratch.path(), &options)).unwrap()
    };
    let copied = inspect(&target);
    let all = copied["manifests"].as_array().unwrap();
    assert_eq!(all[..3], index["manifests"].as_array().unwrap()[..]);
    assert_eq!(
        inspect(&world.server.image(&format!("copy:{tag}")))["schemaVersion"],
        2
    );
    // The other registry has no lists of artifacts: they are under a tag.
    let tag = digest.replace(':', "-");
    let list = inspect(&world.server.image(&format!("copy:{tag}")));
    assert_eq!(list["manifests"], json!([artifact]));
    let message = "another conversion lists it once";
    world.run(&arguments);
    let list = inspect(&world.server.image(&format!("copy:{tag}")));
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1, "{message}");
    // All blobs are there.
    let options = ["copy", "--all", "--src-tls-verify=false"];
    let copy = format!("oci:{}:t", world.path("all").display());
    skopeo(
        world.scratch.path(),
        &[
            &options[..],
            &[&format!("--src-creds={creds}"), &target, &copy],
        ]
        .concat(),
    );
}

/// Publishes an artifact, and returns its descriptor.
fn referrer(world: &World, name: &str) -> Value {
    let artifact = Layout::new(world.path("artifact"));
    let image = artifact.image("amd64", &[(layer("echo sbom >s"), "")]);
    artifact.index(&[tagged(image, "t")]);
    let name = publish(world, &artifact, name);
    let (digest, _) = raw(world, &name);
    let size = skopeo(
        world.scratch.path(),
        &["inspect", "--raw", "--tls-verify=false", &name],
    )
    .len();
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": size,
        "artifactType": "application/spdx+json",
        "annotations": {"kind": "sbom"},
    })
}
