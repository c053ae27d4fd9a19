// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs push` and `puzzlefs pull` with Debian's registry, skopeo, and a proxy that disturbs.

mod cache;
mod clients;
mod containers;
pub mod proxy;
pub mod server;
mod settings;
mod tokens;
mod uploads;

use crate::common::*;
use proxy::{always, first, Fault, Proxy, Request};
use serde_json::Value;
use server::{client, free_port, skopeo, Form, Server, PASSWORD, USER};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Mutex;

/// A registry, a store with an image `t` of a tree, and a place for other stores.
struct World {
    scratch: tempfile::TempDir,
    server: Server,
}

impl World {
    fn new(form: Form) -> Self {
        World::of(memory_scratch(), form, 6 << 20)
    }

    /// `large` is the size of the largest file.
    fn of(scratch: tempfile::TempDir, form: Form, large: usize) -> Self {
        let server = Server::start(scratch.path(), form);
        let world = World { scratch, server };
        let tree = world.path("tree");
        make_noise(&tree, large);
        build(&tree, &world.path("from"), "t", 2);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn image(&self, tag: &str) -> String {
        reference(&self.path("from"), tag)
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        output(client(self.scratch.path()).args(arguments))
    }

    /// Runs a command with `--json`, which must succeed.
    fn run(&self, arguments: &[&str]) -> Value {
        let run = self.try_run(&[arguments, &["--json"]].concat());
        assert!(run.status.success(), "{arguments:?}: {}", stderr(&run));
        serde_json::from_slice(&run.stdout).unwrap()
    }

    /// Runs a command, which must fail with status 1, and returns its message.
    fn fails(&self, arguments: &[&str]) -> String {
        failure(&self.try_run(arguments))
    }

    fn push(&self) {
        self.run(&["push", &self.image("t"), &self.server.image("app:t")]);
    }

    fn pull(&self, image: &str, store: &str) -> Value {
        self.run(&["pull", image, self.path(store).to_str().unwrap()])
    }

    /// Pulls, which must fail, and returns the message. The store has no tag then, and is whole.
    fn pull_fails(&self, image: &str, store: &str, options: &[&str]) -> String {
        let store = self.path(store);
        let arguments = [&["pull", image, store.to_str().unwrap()], options].concat();
        let message = self.fails(&arguments);
        assert_not_arrived(&store);
        message
    }

    fn assert_arrived(&self, store: &str) {
        assert_arrived(&self.path("from"), &self.path(store));
    }
}

#[track_caller]
fn assert_success(run: &Output) {
    assert!(run.status.success(), "{}", stderr(run));
}

/// Returns true for a request for many bytes of a blob, such as those of a pack.
fn is_large(request: &Request) -> bool {
    request.is_blob() && request.has_large_range()
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn an_image_travels_through_a_registry() {
    for format in ["4", "3"] {
        let world = World::new(Form::Plain);
        let (tree, from) = (world.path("tree"), world.path("from"));
        let option = format!("--format={format}");
        let built = build_with(&[&option, "--compress"], &tree, &from, "t");
        let built: Value = serde_json::from_slice(&built.stdout).unwrap();
        let remote = world.server.image("team/app:1.0");
        let pushed = world.run(&["push", &world.image("t"), &remote]);
        assert_eq!(pushed["manifest_digest"], built["manifest_digest"]);
        assert_eq!(
            (
                number(&pushed, "shared_blobs"),
                number(&pushed, "mounted_blobs")
            ),
            (0, 0)
        );
        assert_eq!(number(&pushed, "sent_bytes"), number(&pushed, "new_bytes"));
        let again = world.run(&["push", &world.image("t"), &remote]);
        assert_eq!(number(&again, "new_blobs"), 1);
        assert_eq!(
            number(&again, "shared_blobs") + 1,
            number(&pushed, "new_blobs")
        );

        let to = reference(&world.path("to"), "t");
        let pulled = world.run(&["pull", &remote, &to]);
        assert_eq!(pulled["manifest_digest"], built["manifest_digest"]);
        assert_eq!(number(&pulled, "new_bytes"), number(&pushed, "new_bytes"));
        world.assert_arrived("to");
        let again = world.run(&["pull", &remote, &to]);
        assert_eq!(
            (number(&again, "new_blobs"), number(&again, "requests")),
            (0, 1)
        );

        let digest = built["manifest_digest"].as_str().unwrap();
        let by_digest = world.server.image(&format!("team/app@{digest}"));
        let other = reference(&world.path("to"), "other");
        world.run(&["pull", &by_digest, &other]);
        let store = world.path("to");
        let refused = world.try_run(&["pull", &by_digest, store.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn skopeo_copies_pushed_images_and_pushes_others() {
    let world = World::new(Form::Plain);
    world.push();
    let from = format!("docker://127.0.0.1:{}/app:t", world.server.port);
    let to = format!("oci:{}:t", world.path("skopeo").display());
    skopeo(
        world.scratch.path(),
        &["copy", "--src-tls-verify=false", &from, &to],
    );
    assert_same(&image_inventory(&world.path("from"), "t"), &{
        says(&["reindex", world.path("skopeo").to_str().unwrap()]);
        image_inventory(&world.path("skopeo"), "t")
    });
    let other = format!("docker://127.0.0.1:{}/other:t", world.server.port);
    skopeo(
        world.scratch.path(),
        &["copy", "--dest-tls-verify=false", &to, &other],
    );
    world.pull(&other, "to");
    world.assert_arrived("to");
    let digest = |store: &str| {
        open(&world.path(store), "t")
            .1
            .root
            .manifest_digest()
            .to_oci()
    };
    assert_eq!(digest("to"), digest("from"));
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn credentials_come_from_files_and_helpers() {
    let world = World::new(Form::Login);
    let (image, remote) = (world.image("t"), world.server.image("app:t"));
    let push = |options: &[&str]| world.try_run(&[&["push", &image, &remote], options].concat());
    let message = failure(&push(&[]));
    assert!(
        message.contains("the registry wants credentials"),
        "{message}"
    );
    let place = format!("cannot push to 127.0.0.1:{}/app: ", world.server.port);
    assert!(message.contains(&place), "{message}");
    let message = failure(&push(&["--creds", "someone:wrong-password"]));
    assert!(
        message.contains("denies access to the user 'someone'"),
        "{message}"
    );
    assert!(!message.contains("wrong-password"), "{message}");
    let creds = format!("{USER}:{PASSWORD}");
    assert_success(&push(&["--creds", &creds]));
    let message = world.pull_fails(&remote, "to", &[]);
    assert!(
        message.contains("the registry wants credentials"),
        "{message}"
    );

    // "someone:a:secret" in base64.
    let name = format!("127.0.0.1:{}", world.server.port);
    let text = format!(r#"{{"auths":{{"{name}":{{"auth":"c29tZW9uZTphOnNlY3JldA=="}}}}}}"#);
    let file = world.path("auth.json");
    fs::write(&file, &text).unwrap();
    assert_success(&push(&["--authfile", file.to_str().unwrap()]));
    let message = failure(&push(&["--authfile", "/missing"]));
    assert!(message.contains("cannot read /missing"), "{message}");
    let store = world.path("to");
    let pull = || {
        let mut command = client(world.scratch.path());
        command.args(["pull", &remote, store.to_str().unwrap()]);
        command
    };
    for (variable, directory, name) in [
        ("REGISTRY_AUTH_FILE", "a", ""),
        ("XDG_RUNTIME_DIR", "run", "containers/auth.json"),
        ("XDG_CONFIG_HOME", "config", "containers/auth.json"),
        ("DOCKER_CONFIG", "docker", "config.json"),
    ] {
        let value = world.path(directory);
        let file = if name.is_empty() {
            value.clone()
        } else {
            value.join(name)
        };
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &text).unwrap();
        let run = output(pull().env(variable, value));
        assert!(run.status.success(), "{variable}: {}", stderr(&run));
    }
    // A helper, for Docker's file in the home directory. Another process writes the program: one that another
    // test starts must not inherit the open file.
    let text = format!(
        "#!/bin/sh\ncat >/dev/null\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n"
    );
    fs::write(world.path("script"), text).unwrap();
    let mut install = Command::new("install");
    let install = install.args(["-m", "755"]).arg(world.path("script"));
    assert_success(&output(install.arg(world.path("docker-credential-test"))));
    fs::create_dir(world.path(".docker")).unwrap();
    fs::write(
        world.path(".docker/config.json"),
        r#"{"credsStore":"test"}"#,
    )
    .unwrap();
    let path = format!("{}:/usr/bin:/bin", world.scratch.path().display());
    let run = output(pull().env("PATH", path));
    assert!(run.status.success(), "{}", stderr(&run));
    world.assert_arrived("to");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn certificates_of_private_cas_are_verified() {
    let world = World::new(Form::Tls);
    let (image, remote) = (world.image("t"), world.server.image("app:t"));
    let push = |options: &[&str]| world.try_run(&[&["push", &image, &remote], options].concat());
    let message = failure(&push(&[]));
    assert!(
        message.contains("the certificate of the registry cannot be verified"),
        "{message}"
    );
    let ca = world.server.ca();
    assert_success(&push(&["--cert-dir", ca.to_str().unwrap()]));
    let message = failure(&push(&["--cert-dir", "/missing"]));
    assert!(message.contains("cannot read /missing"), "{message}");
    assert_success(&push(&["--tls-verify=false"]));
    let name = format!(".config/containers/certs.d/127.0.0.1:{}", world.server.port);
    let directory = world.path(&name);
    fs::create_dir_all(&directory).unwrap();
    fs::copy(ca.join("ca.crt"), directory.join("own.crt")).unwrap();
    world.pull(&remote, "to");
    world.assert_arrived("to");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn an_update_fetches_only_new_data() {
    let world = World::new(Form::Plain);
    world.push();
    world.pull(&world.server.image("app:t"), "to");
    let tree = world.path("tree");
    fs::write(tree.join("more/new"), noise(50_000, 2000)).unwrap();
    fs::write(tree.join("more/7"), noise(40_000, 2001)).unwrap();
    // Its packs have nothing in common with those of the first version.
    build_with(&["--fresh"], &tree, &world.path("second"), "t");
    let second = reference(&world.path("second"), "t");
    let remote = world.server.image("app:second");
    world.run(&["push", &second, &remote]);
    let pulled = world.run(&["pull", &remote, &reference(&world.path("to"), "second")]);
    // The files, the bundle of a neighbour, metadata and the index.
    let received = number(&pulled, "received_bytes");
    assert!((90_000..600_000).contains(&received), "{pulled}");
    assert!(number(&pulled, "requests") < 20, "{pulled}");
    assert_eq!(number(&pulled, "partial_packs"), 1);
    let to = world.path("to");
    assert_same(
        &image_inventory(&world.path("second"), "t"),
        &image_inventory(&to, "second"),
    );
    says(&["verify", "-q", to.to_str().unwrap()]);
    // An image that is not complete is not pushed; a complete one is the same again.
    let image = reference(&to, "second");
    let message = world.fails(&["push", &image, &world.server.image("app:third")]);
    assert!(
        message.contains("1 of its packs missing; run 'puzzlefs complete'"),
        "{message}"
    );
    says(&["complete", &image]);
    let pushed = world.run(&["push", &image, &world.server.image("app:third")]);
    assert_eq!(pushed["manifest_digest"], pulled["manifest_digest"]);
    assert_eq!(number(&pushed, "new_blobs"), 1);
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_registry_is_asked_once_whether_it_wants_a_token() {
    let world = World::new(Form::Plain);
    world.push();
    let proxy = Proxy::start(world.server.port, |_| Fault::Pass);
    world.pull(&proxy.image("app:t"), "to");
    let asked = proxy.requests();
    assert!(asked.iter().filter(|request| request.is_blob()).count() > 1);
    let asked = asked.iter().filter(|request| request.path == "/v2/");
    assert_eq!(asked.count(), 1);
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_registry_without_ranges_gives_whole_packs() {
    let world = World::new(Form::Plain);
    world.push();
    let proxy = Proxy::start(world.server.port, |_| Fault::WithoutRange);
    world.pull(&proxy.image("app:t"), "to");
    world.assert_arrived("to");
    let asked = proxy.requests();
    assert!(asked
        .iter()
        .any(|request| request.header("range").is_some()));
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn broken_connections_are_resumed() {
    let world = World::new(Form::Plain);
    world.push();
    let answer = |status: &str| Fault::Answer(status.to_owned(), b"busy".to_vec());
    for (at, fault) in [
        Fault::Cut(3 << 20),
        Fault::Cut(0),
        Fault::Truncate(100_000),
        answer("429 Too Many Requests"),
        answer("503 Service Unavailable"),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::start(world.server.port, first(2, is_large, fault.clone()));
        let store = format!("to{at}");
        let pulled = world.pull(&proxy.image("app:t"), &store);
        world.assert_arrived(&store);
        // Manifest, configuration, two packs with their indexes, and two repeated requests.
        assert_eq!(number(&pulled, "requests"), 8, "{fault:?}: {pulled}");
        // Indexes are read with chunks before them. Nothing else is fetched twice.
        let again = number(&pulled, "received_bytes") - number(&pulled, "new_bytes");
        assert!(again < 128 << 10, "{fault:?}: {pulled}");
    }
    // A cut without ranges: everything once more.
    let cut = first(1, Request::is_blob, Fault::Cut(10));
    let proxy = Proxy::start(world.server.port, move |request| match cut(request) {
        Fault::Pass => Fault::WithoutRange,
        fault => fault,
    });
    world.pull(&proxy.image("app:t"), "whole");
    world.assert_arrived("whole");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_failed_pull_is_continued_by_the_next_one() {
    let world = World::new(Form::Plain);
    world.push();
    let cut = first(1, is_large, Fault::Cut(5 << 20));
    let proxy = Proxy::start(world.server.port, cut);
    let message = world.pull_fails(&proxy.image("app:t"), "to", &["--retries=0"]);
    assert!(message.contains("the connection failed"), "{message}");
    let place = format!("cannot pull from 127.0.0.1:{}/app: ", proxy.port);
    assert!(message.contains(&place), "{message}");
    let pulled = world.pull(&proxy.image("app:t"), "to");
    world.assert_arrived("to");
    let received = number(&pulled, "received_bytes");
    assert!(received < 4 << 20, "{pulled}");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn faults_leave_the_store_whole() {
    let world = World::new(Form::Plain);
    world.push();
    let answer = |status: &str| Fault::Answer(status.to_owned(), b"no".to_vec());
    type Case = (&'static str, fn(&Request) -> bool, Fault, &'static str);
    let cases: [Case; 11] = [
        (
            "chunk",
            is_large,
            Fault::Corrupt(2 << 20),
            "the bytes that arrived have sha256",
        ),
        (
            "index",
            Request::is_blob,
            Fault::Corrupt(usize::MAX),
            "cannot fetch",
        ),
        (
            "blobs",
            Request::is_blob,
            Fault::Corrupt(10),
            "cannot fetch",
        ),
        (
            "manifest",
            Request::is_manifest,
            Fault::Corrupt(100),
            "the manifest has the digest",
        ),
        (
            "stall",
            is_large,
            Fault::Stall(70_000),
            "did not answer for 1 s",
        ),
        (
            "silence",
            |_| true,
            Fault::Stall(0),
            "did not answer for 1 s",
        ),
        ("cut", is_large, Fault::Cut(70_000), "the connection failed"),
        (
            "short",
            is_large,
            Fault::Truncate(70_000),
            "the connection failed",
        ),
        (
            "limit",
            is_large,
            answer("429 Too Many Requests"),
            "limits the number of requests",
        ),
        (
            "error",
            Request::is_blob,
            answer("500 Internal Server Error"),
            "status 500: no",
        ),
        (
            "gone",
            Request::is_manifest,
            answer("404 Not Found"),
            "the registry has no such image",
        ),
    ];
    for (name, is_it, fault, wanted) in cases {
        let proxy = Proxy::start(world.server.port, always(is_it, fault));
        let options = ["--retries=0", "--request-timeout=1"];
        let message = world.pull_fails(&proxy.image("app:t"), "to", &options);
        assert!(message.contains(wanted), "{name}: {message}");
        drop(proxy);
    }
    world.pull(&world.server.image("app:t"), "to");
    world.assert_arrived("to");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn hostile_registries_are_refused() {
    let world = World::new(Form::Plain);
    world.push();
    let endless = always(Request::is_manifest, Fault::Endless);
    let proxy = Proxy::start(world.server.port, endless);
    let message = world.pull_fails(&proxy.image("app:t"), "to", &[]);
    assert!(
        message.contains("the manifest is larger than the 4194304 bytes"),
        "{message}"
    );
    let large = "x".repeat(100 << 20).into_bytes();
    let answer = Fault::Answer("200 OK".to_owned(), large);
    let proxy = Proxy::start(world.server.port, always(Request::is_manifest, answer));
    let message = world.pull_fails(&proxy.image("app:t"), "to", &[]);
    assert!(
        message.contains("the manifest is larger than the 4194304 bytes"),
        "{message}"
    );
    // A message that would move a cursor.
    let answer = Fault::Answer("500 No".to_owned(), b"\x1b[2Jhello".to_vec());
    let proxy = Proxy::start(world.server.port, always(Request::is_blob, answer));
    let message = world.pull_fails(&proxy.image("app:t"), "to", &["--retries=0"]);
    assert!(message.contains("\\u{1b}[2Jhello"), "{message}");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn other_hosts_get_no_credentials() {
    let world = World::new(Form::Login);
    let creds = format!("{USER}:{PASSWORD}");
    world.run(&[
        "push",
        &world.image("t"),
        &world.server.image("app:t"),
        "--creds",
        &creds,
    ]);
    // The place that redirects lead to answers requests without credentials, as object stores do.
    let name = format!("Authorization: Basic {}", "c29tZW9uZTphOnNlY3JldA==");
    let data = world
        .server
        .directory
        .join("data/docker/registry/v2/blobs/sha256");
    let other = Proxy::start(world.server.port, move |request| {
        let hex = request.path.rsplit(':').next().unwrap().to_owned();
        let blob = fs::read(data.join(&hex[..2]).join(&hex).join("data")).unwrap();
        match request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes="))
        {
            Some(range) => {
                let (from, to) = range.split_once('-').unwrap();
                let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                let to = to.min(blob.len() - 1);
                Fault::Answer("206 Partial Content".to_owned(), blob[from..=to].to_vec())
            }
            None => Fault::Answer("200 OK".to_owned(), blob),
        }
    });
    // Another name of this host.
    let target = format!("http://localhost:{}", other.port);
    let proxy = Proxy::start(world.server.port, move |request| {
        if request.is_blob() {
            let path = &request.path;
            let head = format!("307 Temporary Redirect\r\nLocation: {target}{path}");
            Fault::Answer(head, Vec::new())
        } else {
            Fault::Pass
        }
    });
    let store = world.path("to");
    let arguments = [
        "pull",
        &proxy.image("app:t"),
        store.to_str().unwrap(),
        "--creds",
        &creds,
    ];
    world.run(&arguments);
    world.assert_arrived("to");
    let authorised = |proxy: &Proxy| {
        let requests = proxy.requests();
        let count = requests
            .iter()
            .filter(|r| r.header("authorization").is_some())
            .count();
        (requests.len(), count)
    };
    let (requests, with_credentials) = authorised(&other);
    assert!(
        requests >= 3 && with_credentials == 0,
        "{name}: {requests} {with_credentials}"
    );
    let (_, with_credentials) = authorised(&proxy);
    assert!(with_credentials >= 3);
}

/// A token server before a registry. Each token is good for three requests.
fn token_server(to: u16) -> Proxy {
    const USES: usize = 3;
    let issued = Mutex::new(Vec::<usize>::new());
    Proxy::start(to, move |request| {
        let mut issued = issued.lock().unwrap();
        let given = request.header("authorization").unwrap_or_default();
        let answer = |head: String, body: String| Fault::Answer(head, body.into_bytes());
        if request.path.starts_with("/token") {
            // "someone:a:secret" in base64.
            if given != "Basic c29tZW9uZTphOnNlY3JldA==" {
                return answer("403 Forbidden".to_owned(), "go away".to_owned());
            }
            let token = format!(r#"{{"token":"number-{}"}}"#, issued.len());
            issued.push(0);
            return answer("200 OK".to_owned(), token);
        }
        let number = given.strip_prefix("Bearer number-");
        let number = number.and_then(|number| number.parse::<usize>().ok());
        if let Some(uses) = number.and_then(|number| issued.get_mut(number)) {
            *uses += 1;
            if *uses <= USES {
                return Fault::Pass;
            }
        }
        let host = request.header("host").unwrap();
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
        let head = format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}");
        answer(head, String::new())
    })
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn expired_tokens_are_renewed() {
    let world = World::new(Form::Plain);
    let proxy = token_server(world.server.port);
    let (remote, store) = (proxy.image("app:t"), world.path("to"));
    let creds = format!("{USER}:{PASSWORD}");
    let access = ["--creds", &creds[..], "--transfers=1"];
    let run = |arguments: &[&str]| world.try_run(&[arguments, &access].concat());
    assert_success(&run(&["push", &world.image("t"), &remote]));
    assert_success(&run(&["pull", &remote, store.to_str().unwrap()]));
    world.assert_arrived("to");
    let requests = proxy.requests();
    let tokens = requests
        .iter()
        .filter(|request| request.path.starts_with("/token"));
    assert!(tokens.clone().count() >= 4);
    assert!(tokens
        .clone()
        .any(|request| request.path.contains("app%3Apull%2Cpush")));
    // The server refuses others.
    let refused = ["pull", &remote, store.to_str().unwrap(), "--creds=other:x"];
    let message = failure(&world.try_run(&refused));
    assert!(
        message.contains("token server refused: go away"),
        "{message}"
    );
}

/// Pulls an image by four processes into the store `to`.
fn pull_four_times_at_once(world: &World, remote: &str) {
    let store = world.path("to");
    let start = || {
        let mut command = client(world.scratch.path());
        let command = command.args(["pull", "-q", remote, store.to_str().unwrap()]);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let pulls: Vec<_> = (0..4).map(|_| start()).collect();
    for pull in pulls {
        let run = finish(pull);
        assert!(run.status.success(), "{}", stderr(&run));
    }
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn concurrent_pulls_fetch_an_image_once() {
    let world = World::new(Form::Plain);
    world.push();
    let proxy = Proxy::start(world.server.port, |_| Fault::Pass);
    pull_four_times_at_once(&world, &proxy.image("app:t"));
    world.assert_arrived("to");
    let requests = proxy.requests();
    assert_eq!(
        requests
            .iter()
            .filter(|request| request.is_manifest())
            .count(),
        4
    );
    // The configuration, and two packs with their indexes.
    let blobs = requests.iter().filter(|request| request.is_blob());
    assert_eq!(blobs.count(), 5);
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn pushes_adapt_to_the_registry() {
    let world = World::new(Form::Plain);
    let is_upload =
        |request: &Request| request.method == "PUT" && request.path.contains("/uploads/");
    // A limit on the size of requests, as web servers before registries have it.
    let answer = Fault::Answer("413 Request Entity Too Large".to_owned(), Vec::new());
    let limited = always(|request| request.length > 4 << 20, answer);
    let proxy = Proxy::start(world.server.port, limited);
    world.run(&["push", &world.image("t"), &proxy.image("app:t")]);
    assert!(proxy
        .requests()
        .iter()
        .any(|request| request.method == "PATCH"));
    world.pull(&world.server.image("app:t"), "to");
    world.assert_arrived("to");

    let busy = Fault::Answer("503 Service Unavailable".to_owned(), Vec::new());
    let proxy = Proxy::start(world.server.port, first(2, is_upload, busy));
    let pushed = world.run(&["push", &world.image("t"), &proxy.image("other:t")]);
    assert_eq!(number(&pushed, "shared_blobs"), 0);
    world.pull(&world.server.image("other:t"), "other");
    world.assert_arrived("other");

    // The registry takes blobs from another repository.
    let target = world.server.image("third:t");
    let pushed = world.run(&["push", &world.image("t"), &target, "--mount-from", "app"]);
    assert_eq!(number(&pushed, "new_blobs"), 1);
    let target = world.server.image("fourth:t");
    let pushed = world.run(&[
        "push",
        &world.image("t"),
        &target,
        "--mount-from",
        "missing",
    ]);
    assert_eq!(number(&pushed, "mounted_blobs"), 0);
    let message = world.fails(&["push", &world.image("missing"), &target]);
    assert!(message.contains("missing"), "{message}");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn damaged_blobs_are_not_pushed() {
    let world = World::new(Form::Plain);
    let blobs = fs::read_dir(world.path("from/blobs/sha256")).unwrap();
    let largest = blobs.map(|entry| entry.unwrap().path());
    let largest = largest
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[1000] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let message = world.fails(&["push", &world.image("t"), &world.server.image("app:t")]);
    assert!(
        message.contains("is damaged: its contents have sha256"),
        "{message}"
    );
    let message = world.pull_fails(&world.server.image("app:t"), "to", &[]);
    assert!(
        message.contains("the registry has no such image"),
        "{message}"
    );
}

#[test]
fn references_that_are_none_are_wrong_usage() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let store = store.to_str().unwrap();
    for arguments in [
        ["pull", "localhost:5000/app:t", store],
        ["pull", "docker://localhost:5000/../app:t", store],
        ["pull", "docker://localhost:5000/app:t", "store@sha256:1"],
        ["push", "store:t", "store:t"],
        [
            "push",
            "docker://localhost:5000/app:t",
            "docker://localhost:5000/app:t",
        ],
    ] {
        let run = output(client(scratch.path()).args(arguments));
        assert_eq!(
            run.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&run)
        );
    }
    // No certificates of CAs.
    fs::write(scratch.path().join("none"), "").unwrap();
    let image = "docker://127.0.0.1:1/app:t";
    let arguments = ["pull", image, store, "--tls-verify=false"];
    let mut pull = client(scratch.path());
    let pull = pull
        .args(arguments)
        .env("SSL_CERT_FILE", scratch.path().join("none"));
    let message = failure(&output(pull));
    assert!(
        message.contains("install the package ca-certificates"),
        "{message}"
    );
    // No server.
    let arguments = ["pull", "docker://127.0.0.1:1/app:t", store, "--retries=0"];
    let run = output(client(scratch.path()).args(arguments));
    assert_eq!(run.status.code(), Some(1));
    let wanted = "cannot pull from 127.0.0.1:1/app: the connection failed: ";
    assert!(stderr(&run).contains(wanted), "{}", stderr(&run));
    assert!(Path::new(store).is_dir());
}
