// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs push`, `puzzlefs pull` and `puzzlefs convert` with object stores and servers of files, and a
//! proxy that disturbs.

mod convert;
pub mod stores;

use crate::common::layout::{layer, layers, tagged, Layout};
use crate::common::*;
use crate::registry::proxy::{always, first, Fault, Proxy, Request};
use crate::registry::server::client;
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use stores::{request, BUCKET};

/// A store with an image `t` of a tree, and a place for others.
struct World {
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = World {
            scratch: memory_scratch(),
        };
        let tree = world.path("tree");
        make_noise(&tree, 20 << 20);
        build(&tree, &world.path("from"), "t", 2);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn image(&self, tag: &str) -> String {
        reference(&self.path("from"), tag)
    }

    /// The command, for an S3 server at a port.
    fn command(&self, port: u16) -> Command {
        let mut command = client(self.scratch.path());
        command
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
            .env("AWS_ACCESS_KEY_ID", "key-of-test")
            .env("AWS_SECRET_ACCESS_KEY", "secret-of-test")
            .env("AWS_SESSION_TOKEN", "token-of-test")
            .env("AWS_REGION", "us-east-1");
        command
    }

    fn try_run(&self, port: u16, arguments: &[&str]) -> Output {
        output(self.command(port).args(arguments))
    }

    /// Runs a command with `--json`, which must succeed.
    #[track_caller]
    fn run(&self, port: u16, arguments: &[&str]) -> Value {
        let run = self.try_run(port, &[arguments, &["--json"]].concat());
        assert!(run.status.success(), "{arguments:?}: {}", stderr(&run));
        serde_json::from_slice(&run.stdout).unwrap()
    }

    /// Runs a command, which must fail with status 1, and returns its message.
    #[track_caller]
    fn fails(&self, port: u16, arguments: &[&str]) -> String {
        failure(&self.try_run(port, arguments))
    }

    #[track_caller]
    fn pull(&self, port: u16, image: &str, store: &str) -> Value {
        self.run(port, &["pull", image, self.path(store).to_str().unwrap()])
    }

    /// Pulls, which must fail, and returns the message. The store has no tag then, and is whole.
    #[track_caller]
    fn pull_fails(&self, port: u16, image: &str, store: &str, options: &[&str]) -> String {
        let store = self.path(store);
        let pull = ["pull", image, store.to_str().unwrap()];
        let message = self.fails(port, &[&pull, options].concat());
        assert_not_arrived(&store);
        message
    }

    #[track_caller]
    fn assert_arrived(&self, store: &str) {
        assert_arrived(&self.path("from"), &self.path(store));
    }
}

fn answer(status: &str) -> Fault {
    Fault::Answer(status.to_owned(), b"no".to_vec())
}

fn is_index(request: &Request) -> bool {
    request.method == "GET" && request.path.ends_with("/index.json")
}

fn is_blob(request: &Request) -> bool {
    request.method == "GET" && request.path.contains("/blobs/sha256/")
}

/// Returns true for a request for many bytes of a blob, such as those of a pack.
fn is_large(request: &Request) -> bool {
    is_blob(request) && request.has_large_range()
}

/// The tags of the index at a prefix of the bucket.
fn tags(port: u16, prefix: &str) -> Vec<String> {
    let (status, body) = request(port, "GET", &format!("/{BUCKET}/{prefix}/index.json"), b"");
    assert_eq!(status, 200);
    let index: Value = serde_json::from_slice(&body).unwrap();
    let tag = |entry: &Value| {
        let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
        name.as_str().unwrap().to_owned()
    };
    index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(tag)
        .collect()
}

#[test]
#[ignore = "needs the S3 server that 'qemu-test/provision registry-root' installs"]
fn an_image_travels_through_an_object_store() {
    let world = World::new();
    let server = stores::s3(world.scratch.path());
    let proxy = Proxy::start(server.port, |_| Fault::Pass);
    let port = proxy.port;
    let remote = "s3://images/team/app:t";
    let pushed = world.run(port, &["push", &world.image("t"), remote]);
    assert_eq!(pushed["image"], remote);
    assert_eq!(number(&pushed, "shared_blobs"), 0);
    assert!(number(&pushed, "sent_bytes") > number(&pushed, "new_bytes"));
    // The large pack in parts, several at once; the index last, on a condition.
    let requests = proxy.requests();
    let parts = requests
        .iter()
        .filter(|request| request.path.contains("partNumber="));
    assert!(parts.clone().count() >= 3);
    assert!(parts.clone().all(|part| part.length <= 8 << 20));
    let last = requests.last().unwrap();
    assert!(last.method == "PUT" && last.path.ends_with("/images/team/app/index.json"));
    assert_eq!(last.header("if-none-match"), Some("*"));
    assert_eq!(
        request(port, "GET", "/images/team/app/oci-layout", b"").0,
        200
    );

    // Only the index is read and written again.
    let again = world.run(
        port,
        &["push", &world.image("t"), "s3://images/team/app:again"],
    );
    assert_eq!(number(&again, "new_blobs"), 0);
    let last = proxy.requests().last().unwrap().clone();
    assert!(last.header("if-match").is_some(), "{last:?}");
    assert_eq!(tags(server.port, "team/app"), ["t", "again"]);

    let pulled = world.pull(port, remote, "to");
    assert_eq!(pulled["manifest_digest"], pushed["manifest_digest"]);
    assert_eq!(number(&pulled, "new_bytes"), number(&pushed, "new_bytes"));
    world.assert_arrived("to");
    let again = world.pull(port, remote, "to");
    assert_eq!(
        (number(&again, "new_blobs"), number(&again, "requests")),
        (0, 2)
    );
    let digest = pushed["manifest_digest"].as_str().unwrap();
    let other = reference(&world.path("to"), "other");
    let by_digest = format!("s3://images/team/app@{digest}");
    world.run(port, &["pull", &by_digest, &other]);
    let message = world.fails(port, &["pull", "s3://images/team/app:missing", &other]);
    let wanted =
        "cannot pull from s3://images/team/app: index.json: it has no image 'missing'; it has \
                  again, t";
    assert!(message.contains(wanted), "{message}");
    let message = world.fails(port, &["pull", "s3://images/none:t", &other]);
    assert!(
        message.contains("index.json: it does not exist"),
        "{message}"
    );
}

#[test]
#[ignore = "needs the S3 server that 'qemu-test/provision registry-root' installs"]
fn an_update_fetches_only_new_data() {
    let world = World::new();
    let server = stores::s3(world.scratch.path());
    let port = server.port;
    world.run(port, &["push", &world.image("t"), "s3://images/app:t"]);
    world.pull(port, "s3://images/app:t", "to");
    let tree = world.path("tree");
    fs::write(tree.join("more/new"), noise(50_000, 2000)).unwrap();
    fs::write(tree.join("more/7"), noise(40_000, 2001)).unwrap();
    // Its packs have nothing in common with those of the first version.
    build_with(&["--fresh"], &tree, &world.path("second"), "t");
    let second = reference(&world.path("second"), "t");
    world.run(port, &["push", &second, "s3://images/app:second"]);
    let target = reference(&world.path("to"), "second");
    let pulled = world.run(port, &["pull", "s3://images/app:second", &target]);
    let received = number(&pulled, "received_bytes");
    assert!((90_000..600_000).contains(&received), "{pulled}");
    assert!(number(&pulled, "requests") < 20, "{pulled}");
    assert_same(
        &image_inventory(&world.path("second"), "t"),
        &image_inventory(&world.path("to"), "second"),
    );
    let message = world.fails(port, &["push", &target, "s3://images/app:third"]);
    assert!(
        message.contains("packs missing; run 'puzzlefs complete'"),
        "{message}"
    );
    assert_eq!(tags(port, "app"), ["t", "second"]);
}

#[test]
#[ignore = "needs the S3 server that 'qemu-test/provision registry-root' installs"]
fn a_push_that_came_between_is_kept() {
    let world = World::new();
    let server = stores::s3(world.scratch.path());
    let port = server.port;
    let (image, prefix) = (world.image("t"), "s3://images/app");
    world.run(port, &["push", &image, &format!("{prefix}:first")]);
    // Another push replaces the index before each of the first two attempts. moto does not compare.
    let others = AtomicUsize::new(0);
    let (program, other) = (world.command(port), image.clone());
    let environment: Vec<_> = program
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let proxy = Proxy::start(port, move |request| {
        let is_write = request.method == "PUT" && request.path.ends_with("/index.json");
        let number = others.load(Relaxed);
        if !is_write || number == 2 {
            return Fault::Pass;
        }
        others.store(number + 1, Relaxed);
        let mut command = puzzlefs();
        command
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let run = output(command.args([
            "push",
            "-q",
            &other,
            &format!("s3://images/app:other{number}"),
        ]));
        assert!(run.status.success(), "{}", stderr(&run));
        assert!(request.header("if-match").is_some());
        answer("412 Precondition Failed")
    });
    world.run(proxy.port, &["push", &image, &format!("{prefix}:last")]);
    assert_eq!(tags(port, "app"), ["first", "other0", "other1", "last"]);

    // Without an end.
    let is_write =
        |request: &Request| request.method == "PUT" && request.path.ends_with("/index.json");
    let proxy = Proxy::start(port, always(is_write, answer("501 Not Implemented")));
    let message = world.fails(proxy.port, &["push", &image, &format!("{prefix}:none")]);
    assert!(
        message.contains("AWS_CONDITIONAL_PUT=disabled"),
        "{message}"
    );
    let mut command = world.command(port);
    let command = command.args(["push", "-q", &image, &format!("{prefix}:plain")]);
    let run = output(command.env("AWS_CONDITIONAL_PUT", "disabled"));
    assert!(run.status.success(), "{}", stderr(&run));
    assert_eq!(tags(port, "app").last().unwrap(), "plain");
}

#[test]
#[ignore = "needs the S3 server that 'qemu-test/provision registry-root' installs"]
fn interrupted_uploads_are_repeated_or_removed() {
    let world = World::new();
    let server = stores::s3(world.scratch.path());
    let is_part = |request: &Request| request.path.contains("partNumber=");
    let is_put = |request: &Request| request.method == "PUT";
    for (at, (count, fault)) in [
        (2, answer("503 Slow Down")),
        (2, answer("429 Too Many Requests")),
        (1, Fault::Cut(0)),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::start(server.port, first(count, is_put, fault));
        let remote = format!("s3://images/app{at}:t");
        world.run(proxy.port, &["push", &world.image("t"), &remote]);
        let store = format!("to{at}");
        world.pull(server.port, &remote, &store);
        world.assert_arrived(&store);
    }
    // The parts of an upload that failed are removed, and there is no index.
    for (at, (fault, wanted)) in [
        (answer("500 Internal Server Error"), "status 500: no"),
        (
            answer("403 Forbidden"),
            "access is denied: no; check AWS_ACCESS_KEY_ID",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::start(server.port, always(is_part, fault));
        let remote = format!("s3://images/failed{at}:t");
        let options = ["--retries=0", "--request-timeout=1"];
        let image = world.image("t");
        let arguments = [&["push", &image, &remote], &options[..]].concat();
        let message = world.fails(proxy.port, &arguments);
        assert!(message.contains(wanted), "{message}");
        let place = format!("cannot push to s3://images/failed{at}: blobs/sha256/");
        assert!(message.contains(&place), "{message}");
        let removed =
            |request: &Request| request.method == "DELETE" && request.path.contains("uploadId=");
        assert!(proxy.requests().iter().any(removed));
        let path = format!("/images/failed{at}/index.json");
        assert_eq!(request(server.port, "GET", &path, b"").0, 404);
    }
    let begins = |request: &Request| request.path.contains("?uploads");
    let proxy = Proxy::start(server.port, always(begins, Fault::Stall(0)));
    let options = ["--retries=0", "--request-timeout=1"];
    let image = world.image("t");
    let arguments = [&["push", &image, "s3://images/silent:t"], &options[..]].concat();
    let message = world.fails(proxy.port, &arguments);
    assert!(message.contains("did not answer for 1 s"), "{message}");
}

#[test]
#[ignore = "needs the S3 server that 'qemu-test/provision registry-root' installs"]
fn damaged_blobs_are_not_pushed() {
    let world = World::new();
    let server = stores::s3(world.scratch.path());
    let blobs = fs::read_dir(world.path("from/blobs/sha256")).unwrap();
    let largest = blobs.map(|entry| entry.unwrap().path());
    let largest = largest
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[1000] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let message = world.fails(
        server.port,
        &["push", &world.image("t"), "s3://images/app:t"],
    );
    assert!(message.contains("is damaged: its sha256 is"), "{message}");
    assert_eq!(
        request(server.port, "GET", "/images/app/index.json", b"").0,
        404
    );
}

#[test]
#[ignore = "needs the S3 server that 'qemu-test/provision registry-root' installs"]
fn requests_with_credentials_follow_no_redirect() {
    let world = World::new();
    let server = stores::s3(world.scratch.path());
    world.run(
        server.port,
        &["push", &world.image("t"), "s3://images/app:t"],
    );
    let other = Proxy::start(server.port, |_| Fault::Pass);
    let location = format!(
        "Location: http://127.0.0.1:{}/images/app/index.json",
        other.port
    );
    for status in ["301 Moved", "307 Temporary Redirect"] {
        let redirect = answer(&format!("{status}\r\n{location}"));
        let proxy = Proxy::start(server.port, always(|_| true, redirect));
        let message = world.pull_fails(proxy.port, "s3://images/app:t", "to", &[]);
        assert!(
            message.contains("the server answered with a redirect"),
            "{message}"
        );
        let message = world.fails(
            proxy.port,
            &["push", &world.image("t"), "s3://images/app:t"],
        );
        assert!(
            message.contains("the server answered with a redirect"),
            "{message}"
        );
        assert!(!message.contains("secret-of-test"), "{message}");
    }
    assert_eq!(other.requests().len(), 0);
    // No service gives credentials at this address, which is valid on one link only.
    let mut command = client(world.scratch.path());
    let command = command
        .args(["pull", "s3://images/app:t", "to"])
        .env(
            "AWS_ENDPOINT_URL",
            format!("http://127.0.0.1:{}", server.port),
        )
        .env("AWS_METADATA_ENDPOINT", "http://169.254.255.254:1");
    let run = output(command.current_dir(world.scratch.path()));
    let wanted = "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    assert!(stderr(&run).contains(wanted), "{run:?}");
    // Plain HTTP is for this host alone.
    let mut command = world.command(server.port);
    let command = command
        .args(["pull", "s3://images/app:t", "to"])
        .env("AWS_ENDPOINT_URL", "http://192.0.2.1");
    let run = output(command.current_dir(world.scratch.path()));
    assert!(
        stderr(&run).contains("plain HTTP to '192.0.2.1', which is not this host"),
        "{run:?}"
    );
    let to = world.path("to");
    let to = to.to_str().unwrap();
    let arguments = ["pull", "s3://images/app:t", to, "--creds=a:b"];
    let run = world.try_run(server.port, &arguments);
    assert!(
        stderr(&run).contains("--creds is not for such stores"),
        "{run:?}"
    );
}

/// Serves the store of a world. Returns the port and the address of the image `t`.
fn served(world: &World) -> u16 {
    stores::files(world.scratch.path())
}

fn address(port: u16) -> String {
    format!("http://127.0.0.1:{port}/from:t")
}

#[test]
fn a_server_of_files_is_read() {
    let world = World::new();
    let port = served(&world);
    let pulled = world.pull(0, &address(port), "to");
    world.assert_arrived("to");
    assert_eq!(pulled["image"], address(port));
    // Index, manifest, configuration, and two packs with their indexes.
    assert_eq!(number(&pulled, "requests"), 7, "{pulled}");

    let proxy = Proxy::start(port, |_| Fault::WithoutRange);
    world.pull(0, &address(proxy.port), "whole");
    world.assert_arrived("whole");
    let ranges = proxy.requests();
    let ranges = ranges
        .iter()
        .filter(|request| request.header("range").is_some());
    // As many as are made before the first answer.
    assert!((1..=2).contains(&ranges.count()));

    let message = world.fails(0, &["push", &world.image("t"), &address(port)]);
    assert!(
        message.contains("it can only be read; give s3://"),
        "{message}"
    );
}

#[test]
#[ignore = "needs the programs that 'qemu-test/provision registry-root' installs"]
fn certificates_of_servers_of_files_are_verified() {
    let world = World::new();
    let (server, ca) = stores::https(world.scratch.path(), world.scratch.path());
    let address = format!("https://127.0.0.1:{}/from:t", server.port);
    let message = world.pull_fails(0, &address, "to", &["--retries=0"]);
    assert!(
        message.contains("the certificate of the server cannot be verified"),
        "{message}"
    );
    let store = world.path("to");
    let store = store.to_str().unwrap();
    world.run(
        0,
        &["pull", &address, store, "--cert-dir", ca.to_str().unwrap()],
    );
    world.assert_arrived("to");
    let insecure = world.path("insecure");
    world.run(
        0,
        &[
            "pull",
            &address,
            insecure.to_str().unwrap(),
            "--tls-verify=false",
        ],
    );
    world.assert_arrived("insecure");
    let name = format!(".config/containers/certs.d/127.0.0.1:{}", server.port);
    let directory = world.path(&name);
    fs::create_dir_all(&directory).unwrap();
    fs::copy(ca.join("ca.crt"), directory.join("own.crt")).unwrap();
    world.pull(0, &address, "third");
}

#[test]
fn redirects_carry_no_credentials_to_another_server() {
    let world = World::new();
    let port = served(&world);
    let other = Proxy::start(port, |_| Fault::Pass);
    let to = other.port;
    let proxy = Proxy::start(port, move |request| {
        answer(&format!(
            "302 Found\r\nLocation: http://127.0.0.1:{to}{}",
            request.path
        ))
    });
    let store = world.path("to");
    let arguments = [
        "pull",
        &address(proxy.port),
        store.to_str().unwrap(),
        "--creds=me:secret",
    ];
    world.run(0, &arguments);
    world.assert_arrived("to");
    let authorised = |proxy: &Proxy| {
        let requests = proxy.requests();
        let with = requests
            .iter()
            .filter(|request| request.header("authorization").is_some());
        (requests.len(), with.count())
    };
    assert_eq!(authorised(&proxy), (7, 7));
    assert_eq!(authorised(&other), (7, 0));
    // In a circle, and to another host without encryption.
    let circle = Proxy::start(port, |request| {
        let host = request.header("host").unwrap();
        answer(&format!(
            "302 Found\r\nLocation: http://{host}{}",
            request.path
        ))
    });
    let message = world.pull_fails(0, &address(circle.port), "none", &["--retries=0"]);
    assert!(message.contains("too many redirects"), "{message}");
    assert!(circle.requests().len() < 10);
    let away = Proxy::start(port, |_| {
        answer("302 Found\r\nLocation: http://192.0.2.1/index.json")
    });
    let message = world.pull_fails(0, &address(away.port), "none", &["--retries=0"]);
    assert!(message.contains("plain HTTP to '192.0.2.1'"), "{message}");
}

#[test]
fn broken_connections_are_resumed() {
    let world = World::new();
    let port = served(&world);
    for (at, fault) in [
        Fault::Cut(3 << 20),
        Fault::Cut(0),
        answer("429 Too Many Requests"),
        answer("503 Service Unavailable"),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = Proxy::start(port, first(2, is_large, fault.clone()));
        let store = format!("to{at}");
        let pulled = world.pull(0, &address(proxy.port), &store);
        world.assert_arrived(&store);
        assert_eq!(number(&pulled, "requests"), 9, "{fault:?}: {pulled}");
        let again = number(&pulled, "received_bytes") - number(&pulled, "new_bytes");
        assert!(again < 128 << 10, "{fault:?}: {pulled}");
    }
    // A cut without ranges: everything once more.
    let cut = first(1, is_blob, Fault::Cut(10));
    let proxy = Proxy::start(port, move |request| match cut(request) {
        Fault::Pass => Fault::WithoutRange,
        fault => fault,
    });
    world.pull(0, &address(proxy.port), "whole");
    world.assert_arrived("whole");
}

#[test]
fn faults_leave_the_store_whole() {
    let world = World::new();
    let port = served(&world);
    type Case = (&'static str, fn(&Request) -> bool, Fault, &'static str);
    let huge = Fault::Answer("200 OK".to_owned(), vec![b' '; 20 << 20]);
    let wrong = |range: &str| {
        Fault::Answer(
            format!("206 Partial\r\nContent-Range: bytes {range}"),
            b"no".to_vec(),
        )
    };
    let entry = |digest: &str| {
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": 2,
            "annotations": {"org.opencontainers.image.ref.name": "t"}}]});
        Fault::Answer("200 OK".to_owned(), index.to_string().into_bytes())
    };
    let endless = "index.json: it is larger than the 16777216 bytes";
    let cases: [Case; 20] = [
        (
            "chunk",
            is_large,
            Fault::Corrupt(2 << 20),
            "the bytes that arrived have sha256",
        ),
        (
            "pack index",
            is_large,
            Fault::Corrupt(usize::MAX),
            "cannot fetch",
        ),
        (
            "blobs",
            is_blob,
            Fault::Corrupt(10),
            "its bytes have sha256",
        ),
        (
            "index",
            is_index,
            Fault::Corrupt(0),
            "index.json: it is not an OCI image index",
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
            "index.json: the server did not answer for 1 s",
        ),
        ("cut", is_large, Fault::Cut(70_000), "the connection failed"),
        (
            "short",
            is_large,
            Fault::Truncate(70_000),
            "the connection failed",
        ),
        (
            "short blob",
            is_blob,
            Fault::Truncate(70),
            "its bytes have sha256",
        ),
        (
            "limit",
            is_large,
            answer("429 Too Many Requests"),
            "limits the number of requests",
        ),
        (
            "error",
            is_blob,
            answer("500 Internal Server Error"),
            "status 500: no",
        ),
        (
            "cursor",
            is_blob,
            Fault::Answer("500 No".to_owned(), b"\x1b[2Jhello".to_vec()),
            "\\u{1b}[2Jhello",
        ),
        (
            "gone",
            is_blob,
            answer("404 Not Found"),
            "it does not exist",
        ),
        (
            "denied",
            is_index,
            answer("403 Forbidden"),
            "access is denied: no; check --creds",
        ),
        ("huge", is_index, huge, endless),
        (
            "other range",
            is_large,
            wrong("5-6/10"),
            "the answer of the server cannot be used",
        ),
        (
            "other size",
            is_large,
            answer("416 No"),
            "it is shorter than the manifest states",
        ),
        (
            "path",
            is_index,
            entry("sha256:../../../etc/passwd"),
            "is not a sha256 digest",
        ),
        (
            "absent",
            is_index,
            entry(&format!("sha256:{}", "ab".repeat(32))),
            "it does not exist",
        ),
        ("endless error", is_index, answer("500 No"), "status 500"),
    ];
    for (at, (name, is_it, fault, wanted)) in cases.into_iter().enumerate() {
        let proxy = Proxy::start(port, always(is_it, fault));
        let options = ["--retries=0", "--request-timeout=1"];
        let store = format!("to{at}");
        let message = world.pull_fails(0, &address(proxy.port), &store, &options);
        assert!(message.contains(wanted), "{name}: {message}");
        let place = format!("http://127.0.0.1:{}/from", proxy.port);
        assert!(
            message.contains(&place) || message.contains("cannot fetch"),
            "{name}: {message}"
        );
    }
    // Without a length, to the end of time.
    let proxy = Proxy::start(port, always(is_index, Fault::Endless));
    let message = world.pull_fails(0, &address(proxy.port), "to", &["--retries=0"]);
    assert!(
        message.contains("cannot be used") || message.contains(endless),
        "{message}"
    );
    // A pull goes on where an earlier one has failed.
    world.pull(0, &address(port), "to0");
    world.assert_arrived("to0");
}

#[test]
fn layouts_of_this_host_are_read_and_written() {
    let world = World::new();
    let remote = format!("file://{}/layout:t", world.scratch.path().display());
    let to = world.path("to");
    let message = world.fails(0, &["pull", &remote, to.to_str().unwrap()]);
    assert!(message.contains("it does not exist"), "{message}");
    let pushed = world.run(0, &["push", &world.image("t"), &remote]);
    assert_eq!(number(&pushed, "shared_blobs"), 0);
    world.run(0, &["push", &world.image("t"), &remote.replace(":t", ":u")]);
    world.pull(0, &remote, "to");
    world.assert_arrived("to");
    // It is a store, once it has an index of chunks.
    let layout = world.path("layout");
    says(&["reindex", layout.to_str().unwrap()]);
    says(&["verify", "-q", layout.to_str().unwrap()]);
    assert_same(
        &image_inventory(&world.path("from"), "t"),
        &image_inventory(&layout, "u"),
    );
    // A layout of another version is left alone.
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    let message = world.fails(0, &["push", &world.image("t"), &remote]);
    assert!(
        message.contains("version '9' of an image layout is not known"),
        "{message}"
    );
    fs::write(
        layout.join("index.json"),
        r#"{"schemaVersion":7,"manifests":[]}"#,
    )
    .unwrap();
    let message = world.fails(0, &["push", &world.image("t"), &remote]);
    assert!(
        message.contains("version 7 of an index is not known"),
        "{message}"
    );
}

#[test]
fn container_images_of_a_layout_are_imported() {
    let world = World::new();
    let layout = Layout::new(world.path("layout"));
    let amd64 = layout.image("amd64", &layers().0);
    let arm64 = layout.image("arm64", &[(layer("echo arm64 >name"), "gzip")]);
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [arm64, amd64]});
    let index = layout.blob(media_type, index.to_string().as_bytes());
    layout.index(&[tagged(index, "both"), tagged(arm64, "one")]);
    let port = served(&world);
    for (tag, platform) in [
        ("both", "linux/amd64"),
        ("both", "linux/arm64"),
        ("one", "linux/arm64"),
    ] {
        let name = format!("http://127.0.0.1:{port}/layout:{tag}");
        let store = world.path(&format!("{tag}-{}", platform.replace('/', "-")));
        let target = reference(&store, "t");
        let pulled = world.run(0, &["pull", &name, &target, "--platform", platform]);
        assert_eq!(pulled["imported"], true, "{pulled}");
        let imported = reference(&world.path("imported"), "t");
        let source = format!("{}:{tag}", layout.0.display());
        let report = world.run(0, &["import", &source, &imported, "--platform", platform]);
        let root = open(&store, "t").1.root.digest().to_hex();
        assert_eq!(report["rootfs_digest"], root);
        says(&["verify", "-q", store.to_str().unwrap()]);
    }
}

#[test]
fn an_interrupted_pull_leaves_no_tag() {
    let world = World::new();
    let port = served(&world);
    let proxy = Proxy::start(port, always(is_large, Fault::Stall(1 << 20)));
    let (remote, store) = (address(proxy.port), world.path("to"));
    let mut command = client(world.scratch.path());
    let command = command.args(["pull", &remote, store.to_str().unwrap()]);
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let pull = command.spawn().unwrap();
    wait_until("a pack is requested", || {
        proxy.requests().iter().any(is_large)
    });
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&pull),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let run = finish(pull);
    assert_eq!(run.status.code(), Some(130), "{run:?}");
    assert!(stderr(&run).contains("nothing was tagged"), "{run:?}");
    world.pull(0, &address(port), "to");
    world.assert_arrived("to");
}

#[test]
fn addresses_that_are_none_are_wrong_usage() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let store = store.to_str().unwrap();
    for arguments in [
        ["pull", "s3://bucket/../other:t", store],
        ["pull", "https://me:secret@localhost/app:t", store],
        ["pull", "https://localhost/app?x=1", store],
        ["pull", "s3://bucket/app:t", "store@sha256:1"],
        ["push", "store:t", "ftp://localhost/app"],
        ["push", "s3://bucket/app:t", "s3://bucket/app:t"],
        ["list", "--json", "s3://bucket/app:t"],
        [
            "convert",
            "docker://localhost/app:t",
            "s3://bucket/../app:t",
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
    // No server.
    let arguments = ["pull", "http://127.0.0.1:1/app:t", store, "--retries=0"];
    let run = output(client(scratch.path()).args(arguments));
    assert_eq!(run.status.code(), Some(1));
    let wanted = "cannot pull from http://127.0.0.1:1/app: index.json: the connection failed: ";
    assert!(stderr(&run).contains(wanted), "{}", stderr(&run));
    assert!(Path::new(store).is_dir());
}
