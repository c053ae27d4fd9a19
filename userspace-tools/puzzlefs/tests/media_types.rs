// SPDX-License-Identifier: MIT OR Apache-2.0

//! Inputs that are something else than the command expects: each message says what the input is and
//! which command takes it, in our own words.

use crate::common::layout::Layout;
use crate::common::tar::{archive, file};
use crate::common::*;
use serde_json::{json, Value};
use std::fs;
use std::path::Path;
use std::process::Output;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn import(source: &str, store: &Path) -> Output {
    run(&["import", "--json", source, &reference(store, "t")])
}

/// What is said of an input, none of it by the JSON parser.
fn said(output: &Output) -> String {
    let said = stderr(output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    for words in [
        "missing field",
        "invalid type",
        "EOF while",
        "expected value",
        "expected ident",
    ] {
        assert!(!said.contains(words), "{said}");
    }
    said
}

/// The archive of a layer.
fn layer() -> Vec<u8> {
    archive(&[file("file", b"contents")])
}

/// The configuration of an image of one layer, changed by a function.
fn configuration(change: impl FnOnce(&mut Value)) -> Value {
    let digest = puzzlefs_lib::Digest::of(&layer()).to_oci();
    let mut config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    change(&mut config);
    config
}

/// A manifest of one layer, changed by a function.
fn manifest(layout: &Layout, config: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": layout.blob(CONFIG, config.to_string().as_bytes()),
        "layers": [layout.blob(LAYER, &layer())],
    });
    change(&mut manifest);
    layout.blob(MANIFEST, manifest.to_string().as_bytes())
}

#[test]
fn images_that_cannot_be_imported() {
    let scratch = tempfile::tempdir().unwrap();
    let layout = Layout::new(scratch.path().join("layout"));
    let source = layout.0.to_str().unwrap();
    let store = scratch.path().join("store");
    let config = configuration(|_| ());
    let refused = |wanted: &str, image: Value| {
        layout.index(&[image]);
        let said = said(&import(source, &store));
        assert!(said.contains(wanted), "{wanted}: {said}");
    };
    let with_layer = |media_type: &str| {
        // None of its bytes is read: they are not there.
        manifest(&layout, &config, |manifest| {
            manifest["layers"][0]["mediaType"] = json!(media_type);
            manifest["layers"][0]["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
            manifest["layers"][0]["urls"] = json!(["https://vendor.test/layer"]);
        })
    };
    for (media_type, wanted) in [
        (
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "layer 1 of it is encrypted ('application/vnd.oci.image.layer.v1.tar+gzip+encrypted'); \
             decrypt the image with 'skopeo copy --decryption-key'",
        ),
        (
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "and not part of the input; download it from https://vendor.test/layer to blobs/sha256/0",
        ),
        (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "layer 1 is nondistributable ('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip')",
        ),
        ("application/vnd.in-toto+json", "layer 1 of it is an attestation"),
        (
            "application/vnd.dev.cosign.simplesigning.v1+json",
            "layer 1 of it is a signature of the type",
        ),
        ("application/vnd.erofs.layer.v1", "an EROFS filesystem of the type"),
        ("application/octet-stream", "'puzzlefs import' reads layers that are tar archives"),
        ("application/vnd.puzzlefs.image.rootfs.v1", "it is a PuzzleFS image already; 'puzzlefs copy'"),
        (LAYER, "blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000 is missing"),
    ] {
        refused(wanted, with_layer(media_type));
    }
    let with_config = |media_type: &str, artifact_type: &str| {
        manifest(&layout, &config, |manifest| {
            manifest["config"]["mediaType"] = json!(media_type);
            manifest["layers"][0]["mediaType"] = json!("application/vnd.cncf.helm.chart.v1.tar");
            if !artifact_type.is_empty() {
                manifest["artifactType"] = json!(artifact_type);
            }
        })
    };
    let helm = "application/vnd.cncf.helm.config.v1+json";
    refused(
        "it is an artifact of the type 'text/x', not an image of a root filesystem; no command",
        with_config("application/vnd.oci.empty.v1+json", "text/x"),
    );
    refused(
        "it is an artifact, not an image",
        with_config("application/vnd.oci.empty.v1+json", ""),
    );
    refused(
        "it is an artifact of the type 'text/x'",
        with_config(helm, "text/x"),
    );
    refused(
        "it is an artifact of the type 'application/vnd.cncf.helm",
        with_config(helm, ""),
    );
    for os in ["windows", "Windows"] {
        let config = configuration(|config| config["os"] = json!(os));
        let image = manifest(&layout, &config, |_| ());
        refused("the image is for Windows (", image);
    }
    let typed = |media_type: &str| {
        let mut descriptor = manifest(&layout, &config, |_| ());
        descriptor["mediaType"] = json!(media_type);
        descriptor
    };
    refused(
        "it is an image of Docker's schema 1; 'skopeo copy --format oci' converts it",
        typed("application/vnd.docker.distribution.manifest.v1+prettyjws"),
    );
    refused(
        "it is an artifact",
        typed("application/vnd.oci.artifact.manifest.v1+json"),
    );
    let unknown = layout.blob("text/plain", b"some text");
    refused("it is an artifact of the type 'text/plain'", unknown);

    // What is damaged is told in our own words.
    for (text, wanted) in [
        (
            "",
            "not the configuration of a container image: it is empty",
        ),
        ("{", "it is JSON that ends early"),
        ("text", "it is not JSON, at line 1, column "),
        ("[]", "a field is missing or of another type"),
        ("{}", "it lists no layers"),
        (
            r#"{"rootfs": {"diff_ids": 1}}"#,
            "a field is missing or of another type, at line 1",
        ),
        (
            r#"{"rootfs": {}}"#,
            "the configuration is of 0 layers, the manifest of 1",
        ),
    ] {
        let image = manifest(&layout, &config, |manifest| {
            manifest["config"] = layout.blob(CONFIG, text.as_bytes());
        });
        refused(wanted, image);
    }
    for (text, wanted) in [
        ("", "not an OCI image manifest: it is empty"),
        ("{}", "it is an artifact, not an image"),
        (
            r#"{"config": {}}"#,
            "not an OCI image manifest: it is JSON, but a field is missing",
        ),
    ] {
        refused(wanted, layout.blob(MANIFEST, text.as_bytes()));
    }
    for text in [
        "",
        "{",
        "x",
        "[]",
        "{}",
        r#"{"schemaVersion": 2, "manifests": 7}"#,
    ] {
        fs::write(layout.0.join("index.json"), text).unwrap();
        let said = said(&import(source, &store));
        assert!(
            said.contains("index.json: not an OCI image index: it is"),
            "{said}"
        );
    }
    let saved = scratch.path().join("saved.tar");
    for text in ["", "x", "{}", r#"[{"Layers": 1}]"#] {
        fs::write(&saved, archive(&[file("manifest.json", text.as_bytes())])).unwrap();
        let said = said(&import(saved.to_str().unwrap(), &store));
        assert!(
            said.contains("manifest.json: not the manifest of 'docker save': "),
            "{said}"
        );
    }
    // What 'skopeo copy' writes into dir:DIRECTORY.
    let flat = scratch.path().join("flat");
    fs::create_dir(&flat).unwrap();
    let image = manifest(&layout, &config, |_| ());
    fs::copy(layout.blob_path(&image), flat.join("manifest.json")).unwrap();
    let told = said(&import(flat.to_str().unwrap(), &store));
    assert!(
        told.contains("in skopeo's format 'dir:'; 'skopeo copy dir:"),
        "{told}"
    );
    fs::write(&saved, archive(&[file("repositories", b"{}")])).unwrap();
    let said = said(&import(saved.to_str().unwrap(), &store));
    assert!(
        said.contains("an image archive of Docker before 1.10"),
        "{said}"
    );
}

#[test]
fn images_that_are_odd_and_can_be_imported() {
    let scratch = tempfile::tempdir().unwrap();
    let layout = Layout::new(scratch.path().join("layout"));
    let source = layout.0.to_str().unwrap();
    let store = scratch.path().join("store");
    let taken = |what: &str, options: &[&str], images: &[Value]| {
        layout.index(images);
        let target = reference(&store, "t");
        let arguments = [&["import", "--json", source, &target], options].concat();
        let output = run(&arguments);
        assert!(output.status.success(), "{what}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{what}");
        assert!(
            image_inventory(&store, "t").contains_key(Path::new("file")),
            "{what}"
        );
    };
    for (what, change) in [
        ("no architecture", json!({"architecture": null})),
        ("no system", json!({"os": null})),
        ("neither", json!({"os": null, "architecture": null})),
        ("empty", json!({"os": "", "architecture": ""})),
        ("another system", json!({"os": "freebsd"})),
    ] {
        for remove in [false, true] {
            let config = configuration(|config| {
                for (key, value) in change.as_object().unwrap() {
                    config[key] = value.clone();
                    if remove && value.is_null() {
                        config.as_object_mut().unwrap().remove(key);
                    }
                }
            });
            let image = manifest(&layout, &config, |_| ());
            taken(what, &[], std::slice::from_ref(&image));
            if what != "another system" {
                taken(what, &["--platform", "linux/amd64"], &[image]);
            }
        }
    }
    let config = configuration(|_| ());
    for media_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ] {
        let image = manifest(&layout, &config, |manifest| {
            manifest["layers"][0]["mediaType"] = json!(media_type);
        });
        taken(media_type, &[], &[image]);
    }
    let typed = |media_type: &str| {
        let mut descriptor = manifest(&layout, &config, |_| ());
        descriptor["mediaType"] = json!(media_type);
        descriptor
    };
    taken(
        "Docker's",
        &[],
        &[typed(
            "application/vnd.docker.distribution.manifest.v2+json",
        )],
    );
    taken("untyped", &[], &[typed("application/json")]);
    taken(
        "a configuration of no type",
        &[],
        &[manifest(&layout, &config, |manifest| {
            manifest["config"]["mediaType"] = json!("application/octet-stream");
        })],
    );
    // An image for another machine, alone but for what is attached to it.
    let mut image = typed(MANIFEST);
    image["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let mut attestation = layout.blob(MANIFEST, b"{}");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut signature = layout.blob(MANIFEST, b"[]");
    signature["artifactType"] = json!("application/vnd.dev.cosign");
    taken("attachments", &[], &[image, attestation, signature]);
}

/// Every command that reads a PuzzleFS image says what else it was given.
#[test]
fn images_that_are_not_of_puzzlefs() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let layout = Layout::new(path("layout"));
    let tagged = |mut descriptor: Value, tag: &str| {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        descriptor
    };
    let image = manifest(&layout, &configuration(|_| ()), |_| ());
    let mut amd64 = image.clone();
    amd64["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "manifests": [amd64]}).to_string();
    let index = layout.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
    let encrypted = manifest(&layout, &configuration(|_| ()), |manifest| {
        manifest["layers"][0]["mediaType"] =
            json!("application/vnd.oci.image.layer.v1.tar+encrypted");
    });
    let artifact = manifest(&layout, &configuration(|_| ()), |manifest| {
        manifest["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
        manifest["artifactType"] = json!("text/x");
    });
    let schema1 = layout.blob(
        "application/vnd.docker.distribution.manifest.v1+json",
        br#"{"schemaVersion": 1, "fsLayers": [], "history": []}"#,
    );
    layout.index(&[
        tagged(image.clone(), "image"),
        tagged(index, "index"),
        tagged(encrypted, "encrypted"),
        tagged(artifact, "artifact"),
        tagged(schema1, "schema1"),
        tagged(layout.blob(MANIFEST, b"text"), "text"),
    ]);
    let store = layout.0.to_str().unwrap();
    let empty = path("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    let import =
        |tag: &str| format!("'puzzlefs import {store}:{tag} STORE:TAG' makes a PuzzleFS image");
    for (tag, parts) in [
        (
            "image",
            ["it is an ordinary container image", &import("image")],
        ),
        (
            "index",
            [
                "an index of container images (linux/amd64)",
                &import("index"),
            ],
        ),
        (
            "encrypted",
            ["layer 1 of it is encrypted", "skopeo copy --decryption-key"],
        ),
        (
            "artifact",
            [
                "it is an artifact of the type 'text/x'",
                "no command of puzzlefs",
            ],
        ),
        (
            "schema1",
            ["an image of Docker's schema 1", "skopeo copy --format oci"],
        ),
        (
            "text",
            [
                "not an OCI image manifest: it is not JSON",
                "line 1, column",
            ],
        ),
    ] {
        let name = format!("{store}:{tag}");
        for arguments in [
            &["ls", &name][..],
            &["cat", &name, "file"],
            &["inspect", &name],
            &["inspect", &name, "file"],
            &["extract", &name, empty],
            &["mount", &name, empty],
            &["mount", "--fuse", &name, empty],
            &["mount", "--writable", "--fuse", &name, empty],
            &["resolve", &name],
            &["diff", &name, &name],
            &["tag", &name, "other"],
        ] {
            let said = said(&run(arguments));
            for part in parts {
                assert!(said.contains(part), "{arguments:?}: {part}: {said}");
            }
        }
    }
    let name = format!("{store}@{}", image["digest"].as_str().unwrap());
    let said = said(&run(&["ls", &name]));
    assert!(
        said.contains("'puzzlefs import' makes a PuzzleFS image of it, by its tag"),
        "{said}"
    );
}

#[test]
fn references_of_other_tools() {
    let scratch = tempfile::tempdir().unwrap();
    let target = reference(&scratch.path().join("store"), "t");
    let mount_point = scratch.path().to_str().unwrap();
    for (name, wanted) in [
        (
            "docker://debian:13",
            "'docker://debian:13': an image in a registry; 'puzzlefs pull docker://debian:13 STORE:TAG' gets",
        ),
        (
            "docker://debian",
            "by 'skopeo copy docker://debian oci:DIRECTORY:TAG', and give",
        ),
        (
            "containers-storage:localhost/x:1",
            "an image of Podman's storage",
        ),
        ("docker-daemon:debian:13", "an image of the Docker daemon"),
        (
            "oci:layout:13",
            "'oci:' is a transport of other tools; give 'layout:13' alone",
        ),
        ("oci-archive:/tmp/x.tar:13", "give '/tmp/x.tar:13' alone"),
        ("docker-archive:/tmp/x.tar", "give '/tmp/x.tar' alone"),
        ("dir:/tmp/x", "an image in skopeo's own format"),
    ] {
        for arguments in [
            &["import", name, &target][..],
            &["build", name, &target],
            &["build", mount_point, name],
            &["ls", name],
            &["mount", name, mount_point],
            &["mount", "--fuse", name, mount_point],
            &["extract", name, mount_point],
            &["copy", name, &target],
            &["list", name],
            &["verify", name],
        ] {
            let output = run(arguments);
            let said = said(&output);
            assert!(said.contains(wanted), "{arguments:?}: {said}");
            assert!(said.contains("puzzlefs import"), "{arguments:?}: {said}");
        }
    }
    assert!(!scratch.path().join("store").exists());
    // A store may be called so.
    fs::create_dir(scratch.path().join("tree")).unwrap();
    for store in ["oci", "docker"] {
        let mut command = puzzlefs();
        let command = command
            .current_dir(scratch.path())
            .args(["build", "-q", "tree"]);
        let output = command.arg(format!("{store}:13")).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

/// An image archive holds a root filesystem, and is none.
#[test]
fn image_archives_are_not_built() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let layout = Layout::new(path("layout"));
    layout.index(&[manifest(&layout, &configuration(|_| ()), |_| ())]);
    let tar = |name: &str, options: &[&str]| {
        let mut command = std::process::Command::new("tar");
        let command = command.args(options).arg("-cf").arg(path(name));
        assert!(command
            .arg("-C")
            .arg(&layout.0)
            .arg(".")
            .status()
            .unwrap()
            .success());
    };
    tar("oci.tar", &[]);
    tar("oci.tar.gz", &["-z"]);
    let saved = archive(&[
        file("c.json", b"{}"),
        file("x/layer.tar", &layer()),
        file(
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":null,"Layers":["x/layer.tar"]}]"#,
        ),
    ]);
    fs::write(path("saved.tar"), saved).unwrap();
    for (name, wanted) in [
        (
            "oci.tar",
            "it is a container image in an OCI image layout; give it to 'puzzlefs import'",
        ),
        (
            "oci.tar.gz",
            "it is a container image in an OCI image layout; give it to",
        ),
        (
            "saved.tar",
            "it is a container image that 'docker save' wrote; give it to 'puzzlefs import'",
        ),
    ] {
        let output = build_with(&[], &path(name), &path("store"), "t");
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(said.contains(wanted), "{said}");
    }
    // Nor is it a store.
    let name = format!("{}:x", path("saved.tar").display());
    for arguments in [
        &["ls", &name][..],
        &["mount", &name, "/"],
        &["inspect", &name],
    ] {
        let said = said(&run(arguments));
        assert!(
            said.contains("not a directory, and so no store; 'puzzlefs import' reads"),
            "{said}"
        );
    }
    // The files of a directory may be wanted as they are.
    let output = build_with(&[], &layout.0, &path("store"), "t");
    assert!(output.status.success(), "{}", stderr(&output));
    let wanted = "whose files are stored as they are; 'puzzlefs import' imports the image";
    assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    // These names alone say nothing.
    let tree = archive(&[
        file("manifest.json", b"[{\"name\": \"x\"}]"),
        file("oci-layout", b""),
    ]);
    fs::write(path("tree.tar"), tree).unwrap();
    let output = build_with(&[], &path("tree.tar"), &path("store"), "t");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}
