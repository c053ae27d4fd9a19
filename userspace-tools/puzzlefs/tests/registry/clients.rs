// SPDX-License-Identifier: MIT OR Apache-2.0

//! oras and umoci, clients that do not know PuzzleFS: what they copy is ours, and what they make is pulled.

use super::*;
use server::other;

fn oras(world: &World, arguments: &[&str]) -> String {
    other(world.scratch.path(), "oras", arguments)
}

/// Copies an image by oras.
fn copy(world: &World, arguments: &[&str]) {
    oras(world, &[&["cp", "--no-tty"], arguments].concat());
}

fn umoci(world: &World, arguments: &[&str]) -> String {
    other(world.scratch.path(), "umoci", arguments)
}

fn manifest_digest(store: &Path) -> String {
    open(store, "t").1.root.manifest_digest().to_oci()
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn oras_copies_pushed_images_and_pushes_others() {
    let world = World::new(Form::Plain);
    world.push();
    let address = world.server.address("app");
    let tags = oras(&world, &["repo", "tags", "--plain-http", &address]);
    assert_eq!(tags.trim(), "t");
    let image = format!("{address}:t");
    let resolved = oras(&world, &["resolve", "--plain-http", &image]);
    assert_eq!(resolved.trim(), manifest_digest(&world.path("from")));

    let layout = world.path("oras");
    let at = format!("{}:t", layout.display());
    copy(
        &world,
        &["--from-plain-http", &image, "--to-oci-layout", &at],
    );
    // umoci sees the image, and keeps all of its blobs when it collects garbage.
    let directory = layout.to_str().unwrap();
    assert_eq!(umoci(&world, &["ls", "--layout", directory]).trim(), "t");
    umoci(&world, &["gc", "--layout", directory]);
    says(&["reindex", directory]);
    world.assert_arrived("oras");

    let other = world.server.address("other:t");
    copy(
        &world,
        &["--from-oci-layout", &at, "--to-plain-http", &other],
    );
    world.pull(&world.server.image("other:t"), "to");
    world.assert_arrived("to");
    assert_eq!(
        manifest_digest(&world.path("to")),
        manifest_digest(&world.path("from"))
    );
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs, and root"]
fn images_of_umoci_are_pulled_and_converted_ones_unpacked() {
    let world = World::new(Form::Plain);
    let (tree, layout) = (world.path("tree"), world.path("umoci"));
    let (tree, directory) = (tree.to_str().unwrap(), layout.to_str().unwrap());
    let at = format!("{directory}:t");
    umoci(&world, &["init", "--layout", directory]);
    umoci(&world, &["new", "--image", &at]);
    umoci(&world, &["insert", "--image", &at, tree, "/"]);
    let address = world.server.address("app:t");
    copy(
        &world,
        &["--from-oci-layout", &at, "--to-plain-http", &address],
    );
    let name = world.server.image("app:t");
    let pulled = world.pull(&name, "pulled");
    assert_eq!(pulled["imported"], true, "{pulled}");
    extract(&world.path("pulled"), "t", &world.path("extracted"));
    assert_same_files(&world, "extracted");

    // A client that knows no PuzzleFS takes the container image of the published index.
    world.run(&["convert", &name]);
    let platform = format!("{}/{}", "linux", architecture(&world, &name));
    let copied = format!("{}:t", world.path("copied").display());
    let from = ["--platform", &platform, "--from-plain-http", &address];
    copy(&world, &[&from[..], &["--to-oci-layout", &copied]].concat());
    let bundle = world.path("bundle");
    umoci(
        &world,
        &["unpack", "--image", &copied, bundle.to_str().unwrap()],
    );
    assert_same_files(&world, "bundle/rootfs");
    // And puzzlefs the other one.
    let pulled = world.pull(&name, "converted");
    assert_eq!(pulled["imported"], false, "{pulled}");
    extract(&world.path("converted"), "t", &world.path("again"));
    assert_same_files(&world, "again");
}

/// The architecture of the first image of an index.
fn architecture(world: &World, name: &str) -> String {
    let index = skopeo(
        world.scratch.path(),
        &["inspect", "--raw", "--tls-verify=false", name],
    );
    let index: Value = serde_json::from_str(&index).unwrap();
    let platform = &index["manifests"][0]["platform"];
    platform["architecture"].as_str().unwrap().to_owned()
}

/// Compares files with those of the tree.
#[track_caller]
fn assert_same_files(world: &World, directory: &str) {
    let mut diff = Command::new("diff");
    let diff = diff.arg("-r").arg(world.path("tree"));
    let compared = output(diff.arg(world.path(directory)));
    let said = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(compared.status.success(), "{said}{}", stderr(&compared));
}
