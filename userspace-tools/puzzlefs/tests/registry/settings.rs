// SPDX-License-Identifier: MIT OR Apache-2.0

//! `registries.conf`: mirrors, blocked registries, and names without a registry.

use super::containers::{publish, two_platforms};
use super::*;

/// "someone:a:secret" in base64.
const AUTH: &str = "c29tZW9uZTphOnNlY3JldA==";

/// Runs a command with these settings.
fn run_with(world: &World, settings: &str, arguments: &[&str]) -> Output {
    let file = world.path("registries.conf");
    fs::write(&file, settings).unwrap();
    let mut command = client(world.scratch.path());
    output(
        command
            .args(arguments)
            .env("CONTAINERS_REGISTRIES_CONF", file),
    )
}

/// Pulls with these settings, and returns the place that the image comes from.
#[track_caller]
fn pull_with(world: &World, settings: &str, image: &str, store: &str) -> String {
    let target = world.path(store);
    let arguments = ["pull", image, target.to_str().unwrap(), "--json"];
    let run = run_with(world, settings, &arguments);
    assert_success(&run);
    world.assert_arrived(store);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    report["image"].as_str().unwrap().to_owned()
}

/// A table for the registry at a port, with mirrors.
fn table(port: u16, mirrors: &[u16]) -> String {
    let mut text = format!("[[registry]]\nlocation = '127.0.0.1:{port}'\n");
    for mirror in mirrors {
        text += &format!("[[registry.mirror]]\nlocation = '127.0.0.1:{mirror}'\n");
    }
    text
}

fn pass(world: &World) -> Proxy {
    Proxy::start(world.server.port, |_| Fault::Pass)
}

/// A registry without an image.
fn empty(world: &World) -> Server {
    let directory = world.path("empty");
    fs::create_dir(&directory).unwrap();
    Server::start(&directory, Form::Plain)
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_mirror_is_used_instead_of_the_registry() {
    let world = World::new(Form::Plain);
    world.run(&[
        "push",
        &world.image("t"),
        &world.server.image("copies/app:t"),
    ]);
    // One answer breaks: the mirror gets another request.
    let cut = first(1, Request::is_blob, Fault::Cut(100));
    let (registry, mirror) = (pass(&world), Proxy::start(world.server.port, cut));
    let settings = format!(
        "[[registry]]\nprefix = '127.0.0.1:{}/team'\nlocation = '127.0.0.1:{0}/team'\n\
         [[registry.mirror]]\nlocation = '127.0.0.1:{}/copies'\n",
        registry.port, mirror.port
    );
    let image = registry.image("team/app:t");
    let from = pull_with(&world, &settings, &image, "to");
    assert_eq!(from, mirror.image("copies/app:t"));
    assert!(registry.requests().is_empty());
    let store = world.path("to");
    let shown = run_with(
        &world,
        &settings,
        &["pull", &image, store.to_str().unwrap()],
    );
    let shown = String::from_utf8(shown.stdout).unwrap();
    let line = format!("    from: {}", mirror.image("copies/app:t"));
    assert!(shown.contains(&line), "{shown}");
    // Such a mirror is for digests, and the registry lacks the image.
    let settings = format!("{settings}pull-from-mirror = 'digest-only'\n");
    let before = mirror.requests().len();
    let store = world.path("none");
    let arguments = ["pull", &image, store.to_str().unwrap()];
    let message = failure(&run_with(&world, &settings, &arguments));
    assert!(message.contains("the registry has no"), "{message}");
    assert_eq!(mirror.requests().len(), before);
    let digest = open(&world.path("to"), "t")
        .1
        .root
        .manifest_digest()
        .to_oci();
    let image = registry.image(&format!("team/app@{digest}"));
    let target = reference(&store, "t");
    assert_success(&run_with(&world, &settings, &["pull", &image, &target]));
    assert!(mirror.requests().len() > before);
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn the_next_place_replaces_one_that_fails() {
    let world = World::new(Form::Plain);
    world.push();
    let (lacking, closed) = (empty(&world), free_port());
    let answer = |head: &str| {
        let fault = Fault::Answer(head.to_owned(), Vec::new());
        Proxy::start(world.server.port, move |_| fault.clone())
    };
    let (denying, busy) = (answer("403 Forbidden"), answer("503 Busy"));
    let missing = Fault::Answer("404 Not Found".to_owned(), Vec::new());
    let incomplete = Proxy::start(world.server.port, always(Request::is_blob, missing));
    let registry = pass(&world);
    let mirrors = [
        closed,
        lacking.port,
        denying.port,
        busy.port,
        incomplete.port,
    ];
    let settings = table(registry.port, &mirrors);
    let from = pull_with(&world, &settings, &registry.image("app:t"), "to");
    assert_eq!(from, registry.image("app:t"));
    let tried = busy.requests();
    let tried = tried.iter().filter(|request| request.is_manifest());
    assert_eq!(tried.count(), 1);
    assert!(incomplete.requests().iter().any(Request::is_blob));
    // The message says what each place lacks.
    let store = world.path("none");
    let arguments = [
        "pull",
        &registry.image("other:t"),
        store.to_str().unwrap(),
        "--retries=0",
    ];
    let settings = table(registry.port, &mirrors[..2]);
    let message = failure(&run_with(&world, &settings, &arguments));
    let last = format!("cannot pull from 127.0.0.1:{}/other: ", registry.port);
    let first = format!("; before: 127.0.0.1:{closed}/other (the connection failed: ");
    let second = format!(", 127.0.0.1:{}/other (the registry has no ", lacking.port);
    for part in [last, first, second] {
        assert!(message.contains(&part), "{part}: {message}");
    }
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn blocked_registries_see_no_request() {
    let world = World::new(Form::Plain);
    let registry = pass(&world);
    let settings = format!(
        "{}[[registry]]\n",
        table(registry.port, &[world.server.port])
    ) + &format!(
        "prefix = '127.0.0.1:{}/team'\nblocked = true\n",
        registry.port
    );
    let (image, store) = (registry.image("team/app:t"), world.path("to"));
    let from = world.image("t");
    for arguments in [
        &["pull", &image, store.to_str().unwrap()][..],
        &["push", &from, &image],
        &["convert", &image, &registry.image("app:t")],
        &["convert", &registry.image("app:t"), &image],
    ] {
        let message = failure(&run_with(&world, &settings, arguments));
        assert!(message.contains("registries.conf blocks it"), "{message}");
    }
    assert!(registry.requests().is_empty());
    let permitted = ["push", &from, &registry.image("teams/app:t")];
    assert_success(&run_with(&world, &settings, &permitted));
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn names_without_a_registry_are_searched() {
    let world = World::new(Form::Plain);
    let lacking = empty(&world);
    let search = |ports: &[u16]| {
        let names = ports.iter().map(|port| format!("'127.0.0.1:{port}'"));
        let names = names.collect::<Vec<_>>().join(", ");
        format!("unqualified-search-registries = [{names}]")
    };
    let (from, store) = (world.image("t"), world.path("none"));
    let store = store.to_str().unwrap();
    let one = search(&[world.server.port]);
    assert_success(&run_with(&world, &one, &["push", &from, "docker://app:t"]));
    let several = search(&[lacking.port, world.server.port]);
    let found = pull_with(&world, &several, "docker://app:t", "to");
    assert_eq!(found, world.server.image("app:t"));
    let message = failure(&run_with(
        &world,
        &several,
        &["pull", "docker://other:t", store],
    ));
    let (first, last) = (lacking.port, world.server.port);
    for part in [
        format!("cannot pull from 127.0.0.1:{last}/other: "),
        format!("before: 127.0.0.1:{first}/other ("),
    ] {
        assert!(message.contains(&part), "{part}: {message}");
    }
    // A command does not choose where it writes, or who gets a password.
    let creds = ["pull", "docker://app:t", store, "--creds=a:b"];
    let message = failure(&run_with(&world, &several, &creds));
    assert!(message.contains("--creds"), "{message}");
    let push = run_with(&world, &several, &["push", &from, "docker://app:t"]);
    assert_eq!(push.status.code(), Some(2), "{push:?}");
    assert!(stderr(&push).contains("several search registries"));
    let none = run_with(&world, "", &["pull", "docker://app:t", store]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    let message = stderr(&none);
    assert!(message.contains("the registry is missing"), "{message}");
    assert!(message.contains("registries.conf"), "{message}");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_later_file_replaces_a_table() {
    let world = World::new(Form::Plain);
    world.push();
    let (registry, mirror) = (pass(&world), pass(&world));
    let directory = world.path(".config/containers");
    let additions = directory.join("registries.conf.d");
    fs::create_dir_all(&additions).unwrap();
    let blocked = format!("{}blocked = true\n", table(registry.port, &[]));
    fs::write(directory.join("registries.conf"), &blocked).unwrap();
    let image = registry.image("app:t");
    let message = world.pull_fails(&image, "none", &[]);
    assert!(message.contains("registries.conf blocks it"), "{message}");
    fs::write(additions.join("10-a.conf"), &blocked).unwrap();
    let text = table(registry.port, &[mirror.port]);
    fs::write(additions.join("20-b.conf"), text).unwrap();
    let pulled = world.pull(&image, "to");
    assert_eq!(pulled["image"], mirror.image("app:t"));
    world.assert_arrived("to");
    fs::write(additions.join("30-c.conf"), &blocked).unwrap();
    let message = world.pull_fails(&image, "none", &[]);
    assert!(message.contains("30-c.conf blocks it"), "{message}");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_mirror_gets_no_credentials_of_the_registry() {
    let world = World::new(Form::Login);
    let creds = format!("{USER}:{PASSWORD}");
    let (image, remote) = (world.image("t"), world.server.image("app:t"));
    world.run(&["push", &image, &remote, "--creds", &creds]);
    let mirror = pass(&world);
    let settings = table(world.server.port, &[mirror.port]);
    let file = world.path("auth.json");
    let has_credentials = |request: &Request| request.header("authorization").is_some();
    let pull = |options: &[&str], store: &str| {
        let store = world.path(store);
        let arguments = [
            &["pull", &remote, store.to_str().unwrap(), "--json"],
            options,
        ]
        .concat();
        let run = run_with(&world, &settings, &arguments);
        assert_success(&run);
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        report["image"].as_str().unwrap().to_owned()
    };
    let entry = |port| format!(r#"{{"auths":{{"127.0.0.1:{port}":{{"auth":"{AUTH}"}}}}}}"#);
    fs::write(&file, entry(world.server.port)).unwrap();
    let authfile = format!("--authfile={}", file.display());
    assert_eq!(pull(&[&authfile], "first"), remote);
    assert_eq!(pull(&["--creds", &creds], "second"), remote);
    assert!(!mirror.requests().is_empty());
    assert!(!mirror.requests().iter().any(has_credentials));
    // A mirror has credentials of its own.
    fs::write(&file, entry(mirror.port)).unwrap();
    assert_eq!(pull(&[&authfile], "third"), mirror.image("app:t"));
    assert!(mirror.requests().iter().any(has_credentials));
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn an_insecure_place_needs_no_known_certificate() {
    let world = World::new(Form::Tls);
    let ca = world.server.ca();
    let (image, remote) = (world.image("t"), world.server.image("app:t"));
    world.run(&["push", &image, &remote, "--cert-dir", ca.to_str().unwrap()]);
    let store = world.path("none");
    let pull = ["pull", &remote, store.to_str().unwrap()];
    let secure = table(world.server.port, &[]);
    let refused = "the certificate of the registry cannot be verified";
    let message = failure(&run_with(&world, &secure, &pull));
    assert!(message.contains(refused), "{message}");
    let insecure = format!("{secure}insecure = true\n");
    assert_eq!(pull_with(&world, &insecure, &remote, "to"), remote);
    let push = ["push", &image, &world.server.image("pushed:t")];
    assert_success(&run_with(&world, &insecure, &push));
    // It holds for the mirror alone.
    let mirror = format!(
        "{secure}[[registry.mirror]]\nlocation = '127.0.0.1:{}/x'\ninsecure = true\n",
        world.server.port
    );
    let message = failure(&run_with(&world, &mirror, &pull));
    assert!(message.contains(refused), "{message}");
    assert!(
        message.contains("/x/app (the registry has no "),
        "{message}"
    );
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_conversion_reads_at_a_mirror_unless_it_writes_to_the_same_repository() {
    let world = World::new(Form::Plain);
    let layout = two_platforms(&world);
    publish(&world, &layout, "app:t");
    let (registry, mirror) = (pass(&world), pass(&world));
    let settings = table(registry.port, &[mirror.port]);
    let image = registry.image("app:t");
    assert_success(&run_with(&world, &settings, &["convert", &image]));
    assert!(mirror.requests().is_empty());
    let before = registry.requests().len();
    let other = world.server.image("other:t");
    assert_success(&run_with(&world, &settings, &["convert", &image, &other]));
    assert!(mirror.requests().iter().any(Request::is_blob));
    assert_eq!(registry.requests().len(), before);
    // The mirror itself is written: its own image would come back.
    let copy = mirror.image("app:t");
    assert_success(&run_with(&world, &settings, &["convert", &image, &copy]));
    assert!(registry.requests().len() > before);
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn malformed_settings_are_refused() {
    let world = World::new(Form::Plain);
    let (from, to) = (world.image("t"), world.server.image("app:t"));
    let arguments = ["push", &from, &to];
    for (text, cause) in [
        ("[[registry]\n", "line 1: "),
        (
            "[registries.search]\nregistries = ['registry.example']\n",
            "[registries] is of version 1 of the format",
        ),
    ] {
        let message = failure(&run_with(&world, text, &arguments));
        let file = world.path("registries.conf").display().to_string();
        for part in [cause, &file, "correct the file"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let mut command = client(world.scratch.path());
    let command = command.args(arguments);
    let message = failure(&output(
        command.env("CONTAINERS_REGISTRIES_CONF", "/missing"),
    ));
    assert!(message.contains("cannot read /missing"), "{message}");
}
