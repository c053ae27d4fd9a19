// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs fetch` with a test that stands for the kernel. Only a guest has the device.

use crate::common::*;
use crate::objects::stores;
use crate::registry::server::{client, Form, Server};
use puzzlefs_lib::fetch::{Conversation, FetcherReply, FetcherRequest};
use puzzlefs_lib::{Digest, Progress, Store};
use puzzlefs_schema::v4::{PackFooter, FOOTER_LEN};
use rustix::fd::OwnedFd;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};
use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A store with an image `t`, and a device.
struct World {
    scratch: tempfile::TempDir,
    listener: OwnedFd,
}

impl World {
    fn new() -> Self {
        let scratch = memory_scratch();
        make_noise(&scratch.path().join("tree"), 4 << 20);
        build(
            &scratch.path().join("tree"),
            &scratch.path().join("from"),
            "t",
            2,
        );
        let listener = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let address = SocketAddrUnix::new(scratch.path().join("device")).unwrap();
        net::bind(&listener, &address).unwrap();
        net::listen(&listener, 1).unwrap();
        World { scratch, listener }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn file(&self) -> String {
        format!("file://{}:t", self.path("from").display())
    }

    fn command(&self, image: &str, store: &str, options: &[&str]) -> Command {
        let mut command = puzzlefs();
        command.args(["fetch", image]).arg(self.path(store));
        command.arg("--device").arg(self.path("device"));
        command.args(["--retries", "0"]).args(options);
        command
    }

    /// Starts a fetcher of the image, which attaches to the store `to`.
    fn start(&self, image: &str, options: &[&str]) -> Fetcher {
        let mut command = self.command(image, "to", options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let device = net::accept(&self.listener).unwrap();
        let fetcher = Fetcher { child, device };
        let path = fetcher.receive();
        assert_eq!(
            path,
            self.path("to")
                .canonicalize()
                .unwrap()
                .as_os_str()
                .as_encoded_bytes()
        );
        fetcher
    }

    /// The digests of the chunks of the image, in order of position.
    fn chunks(&self) -> Vec<Digest> {
        chunks_of(&self.path("from"), "t")
    }

    fn assert_arrived(&self) {
        assert_same(
            &image_inventory(&self.path("from"), "t"),
            &image_inventory(&self.path("to"), "t"),
        );
    }
}

/// The digests of the chunks of an image, in order of position.
fn chunks_of(store: &Path, tag: &str) -> Vec<Digest> {
    let (store, image) = open(store, tag);
    let mut chunks = Vec::new();
    for layer in image.manifest.layers {
        let digest = Digest::from_oci(&layer.digest).unwrap();
        let pack = fs::read(store.blob_path(&digest)).unwrap();
        let Ok(footer) = PackFooter::parse(&pack) else {
            continue;
        };
        let range = footer.index_range(layer.size).unwrap();
        let index = &pack[range.start as usize..pack.len() - FOOTER_LEN];
        let index = footer.index(index).unwrap();
        chunks.extend(
            index
                .iter()
                .map(|chunk| Digest::from(chunk.unwrap().digest)),
        );
    }
    chunks
}

/// A fetcher that serves.
struct Fetcher {
    child: Child,
    device: OwnedFd,
}

impl Fetcher {
    fn receive(&self) -> Vec<u8> {
        let mut bytes = [0; 4096];
        let (len, _) = net::recv(&self.device, &mut bytes, RecvFlags::empty()).unwrap();
        bytes[..len].to_vec()
    }

    /// Requests chunks, with numbers from `first` on. Returns the answers in the order of the requests.
    fn request(&self, first: u64, chunks: &[Digest]) -> Vec<i32> {
        let mut records = Vec::new();
        for (id, chunk) in (first..).zip(chunks) {
            records.extend(id.to_le_bytes());
            records.extend(chunk.as_bytes());
            records.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        }
        net::send(&self.device, &records, SendFlags::empty()).unwrap();
        let mut answers = vec![None; chunks.len()];
        while answers.contains(&None) {
            let received = self.receive();
            assert!(!received.is_empty(), "the fetcher has ended");
            for answer in received.chunks_exact(16) {
                let id = u64::from_le_bytes(answer[..8].try_into().unwrap());
                let errno = i32::from_le_bytes(answer[8..12].try_into().unwrap());
                assert_eq!(answer[12..], [0; 4]);
                let place = &mut answers[(id - first) as usize];
                assert_eq!(place.replace(errno), None);
            }
        }
        answers.into_iter().flatten().collect()
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(id, signal).unwrap();
    }

    fn finish(self) -> Output {
        finish(self.child)
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_fetcher_serves_until_all_data_is_there() {
    let world = World::new();
    let chunks = world.chunks();
    for complete in ["idle", "now"] {
        let fetcher = world.start(&world.file(), &["--complete", complete]);
        let run = fetcher.finish();
        assert!(run.status.success(), "{}", stderr(&run));
        let said = format!("is complete in {}:t\n", world.path("to").display());
        assert!(stdout(&run).ends_with(&said), "{run:?}");
        world.assert_arrived();
        assert!(leftovers(&world.path("to")).is_empty());
        // Nothing is left to serve, and no device is attached.
        let again = output(&mut world.command(&world.file(), "to", &[]));
        assert!(stdout(&again).ends_with(&said), "{again:?}");
        drop(net::accept(&world.listener).unwrap());
        fs::remove_dir_all(world.path("to")).unwrap();
    }
    assert!(chunks.len() > 10);
}

#[test]
fn a_signal_ends_a_fetcher() {
    let world = World::new();
    let chunks = world.chunks();
    for signal in [Signal::TERM, Signal::INT] {
        let fetcher = world.start(&world.file(), &["--complete=never"]);
        assert_eq!(fetcher.request(5, &chunks[..2]), [0, 0]);
        assert_eq!(fetcher.request(0, &[Digest::of(b"unknown")]), [ENOENT]);
        // Another process does not serve the store meanwhile.
        let second = output(&mut world.command(&world.file(), "to", &[]));
        assert!(second.status.success());
        assert!(stdout(&second).starts_with("another process serves"));
        drop(net::accept(&world.listener).unwrap());
        fetcher.signal(signal);
        let run = fetcher.finish();
        assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    }
    // The rest may have arrived before the signal.
    let fetcher = world.start(&world.file(), &["--complete=idle"]);
    fetcher.signal(Signal::TERM);
    let run = fetcher.finish();
    assert!([Some(0), Some(130)].contains(&run.status.code()), "{run:?}");
}

#[test]
fn chunks_come_by_http_and_failures_are_answers() {
    let world = World::new();
    let chunks = world.chunks();
    let port = stores::files(&world.path("from"));
    let web = format!("http://127.0.0.1:{port}/:t");
    let fetcher = world.start(&web, &["--complete=never"]);
    assert_eq!(fetcher.request(0, &chunks[..5]), [0; 5]);
    // The source loses its packs.
    let blobs = world.path("from/blobs/sha256");
    fs::rename(&blobs, world.path("hidden")).unwrap();
    let last = &chunks[chunks.len() - 1..];
    assert_eq!(fetcher.request(10, last), [EIO]);
    fs::rename(world.path("hidden"), &blobs).unwrap();
    assert_eq!(fetcher.request(20, last), [0]);
    fetcher.signal(Signal::TERM);
    let run = fetcher.finish();
    let said = stderr(&run);
    let lines = said.lines().filter(|line| !line.contains("serving"));
    assert_eq!(lines.count(), 1, "{said}");
    assert!(
        said.contains("cannot fetch from http://127.0.0.1"),
        "{said}"
    );
    // Another one brings the rest.
    assert!(world.start(&web, &[]).finish().status.success());
    world.assert_arrived();
}

#[test]
fn a_killed_fetcher_is_replaced() {
    let world = World::new();
    let chunks = world.chunks();
    for first in [0, 3, 6] {
        let fetcher = world.start(&world.file(), &["--complete=never"]);
        assert_eq!(fetcher.request(0, &chunks[first..first + 3]), [0; 3]);
        fetcher.signal(Signal::KILL);
        fetcher.finish();
    }
    assert!(world
        .start(&world.file(), &["--complete=now"])
        .finish()
        .status
        .success());
    world.assert_arrived();
}

#[test]
fn a_background_fetcher_reports_the_manifest() {
    let world = World::new();
    let mut command = world.command(&world.file(), "to", &["--background", "--complete=never"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let device = net::accept(&world.listener).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let (_, image) = open(&world.path("to"), "t");
    let manifest = image.root.manifest_digest().to_oci();
    let process = child.id();
    assert_eq!(line, format!("{manifest} serves {process}\n"));
    let fetcher = Fetcher { child, device };
    fetcher.receive();
    assert_eq!(fetcher.request(0, &world.chunks()[..1]), [0]);
    // A second one ends at once.
    let mut command = world.command(&world.file(), "to", &["--background"]);
    let second = output(&mut command);
    let wanted = format!("{manifest} served {process}\n");
    assert_eq!(stdout(&second), wanted, "{second:?}");
    assert!(second.status.success());
    // The parent also gets the failure of an image.
    let other = world.file().replace(":t", ":other");
    let mut command = world.command(&other, "to2", &["--background"]);
    let failed = output(&mut command);
    assert_eq!(
        (stdout(&failed), failed.status.code()),
        ("failed 1\n".to_owned(), Some(1))
    );
    assert!(stderr(&failed).contains("other"), "{failed:?}");
    fetcher.signal(Signal::TERM);
    assert!(fetcher.finish().status.success());
}

/// Adds an image that shares most of its chunks with `t`. Returns the digests of its own chunks.
fn add_image(world: &World, tag: &str, seed: u64) -> Vec<Digest> {
    let first = world.chunks();
    fs::write(world.path("tree/own"), noise(500_000, seed)).unwrap();
    build(&world.path("tree"), &world.path("from"), tag, 2);
    let all = chunks_of(&world.path("from"), tag);
    assert!(all.iter().any(|chunk| first.contains(chunk)));
    let own: Vec<Digest> = all.into_iter().filter(|one| !first.contains(one)).collect();
    assert!(own.len() > 2);
    own
}

/// The records of fetches of the store, sorted.
fn records(world: &World) -> Vec<PathBuf> {
    let Ok(records) = fs::read_dir(world.path("to/.puzzlefs/fetches")) else {
        return Vec::new();
    };
    let mut records: Vec<PathBuf> = records.map(|entry| entry.unwrap().path()).collect();
    records.sort();
    records
}

/// Runs another fetcher of the store, which hands its image over.
fn hand_over(world: &World, tag: &str, options: &[&str]) -> Output {
    let image = world.file().replace(":t", &format!(":{tag}"));
    let run = output(&mut world.command(&image, "to", options));
    drop(net::accept(&world.listener).unwrap());
    run
}

/// Continues the images of the store until they are complete.
fn go_on(world: &World) -> Output {
    let mut command = puzzlefs();
    command.arg("fetch").arg(world.path("to"));
    command.arg("--device").arg(world.path("device"));
    let run = output(&mut command);
    drop(net::accept(&world.listener).unwrap());
    run
}

/// Lets the next fetcher complete the images that have records.
fn complete_recorded(world: &World) {
    for record in records(world) {
        let text = fs::read_to_string(&record).unwrap();
        assert!(text.contains("\"never\""), "{text}");
        fs::write(&record, text.replace("\"never\"", "\"now\"")).unwrap();
    }
}

fn status(world: &World) -> serde_json::Value {
    let mut command = puzzlefs();
    command.args(["status", "--json"]).arg(world.path("to"));
    let run = output(&mut command);
    assert!(run.status.success(), "{}", stderr(&run));
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn one_process_serves_several_images() {
    let world = World::new();
    let first = world.chunks();
    let second = add_image(&world, "u", 5000);
    let fetcher = world.start(&world.file(), &["--complete=never"]);
    assert_eq!(fetcher.request(0, &first[..1]), [0]);
    assert_eq!(fetcher.request(10, &second[..1]), [ENOENT]);
    let run = hand_over(&world, "u", &["--complete=never"]);
    assert!(run.status.success(), "{run:?}");
    let said = stdout(&run);
    assert!(said.starts_with("another process serves"), "{run:?}");
    assert_eq!(records(&world).len(), 2);
    assert_eq!(fetcher.request(20, &second[..2]), [0, 0]);
    assert_eq!(fetcher.request(30, &first[1..2]), [0]);
    // An image that cannot be served is the failure of the process that asks.
    let message = failure(&hand_over(&world, "x", &[]));
    assert!(message.contains("the fetcher of"), "{message}");
    assert!(message.contains("x"), "{message}");
    let run = hand_over(&world, "u", &["--creds", "me:secret"]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(!stderr(&run).contains("secret"), "{run:?}");
    fetcher.signal(Signal::TERM);
    let run = fetcher.finish();
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    assert!(!world.path("to/.puzzlefs/fetcher.sock").exists());
    // Another process completes both, without their names.
    complete_recorded(&world);
    let run = go_on(&world);
    assert!(run.status.success(), "{}", stderr(&run));
    assert!(records(&world).is_empty(), "{run:?}");
    world.assert_arrived();
    let wanted = image_inventory(&world.path("from"), "u");
    assert_same(&wanted, &image_inventory(&world.path("to"), "u"));
    let said = stdout(&go_on(&world));
    assert!(said.starts_with("nothing is left to fetch"), "{said}");
    assert!(leftovers(&world.path("to")).is_empty());
}

#[test]
fn a_killed_fetcher_of_several_images_is_continued() {
    let world = World::new();
    let second = add_image(&world, "u", 5000);
    let fetcher = world.start(&world.file(), &["--complete=never"]);
    // The first image is prepared.
    assert_eq!(fetcher.request(0, &world.chunks()[..1]), [0]);
    let run = hand_over(&world, "u", &["--complete=never"]);
    assert!(run.status.success(), "{run:?}");
    fetcher.signal(Signal::KILL);
    fetcher.finish();
    // Other images get the tags at the source. Those in the store may be mounted, and stay.
    let before = says(&["list", world.path("to").to_str().unwrap()]);
    let third = add_image(&world, "v", 6000);
    for (tag, seed) in [("t", 7000), ("u", 8000)] {
        fs::write(world.path("tree/own"), noise(100_000, seed)).unwrap();
        build(&world.path("tree"), &world.path("from"), tag, 2);
    }
    // A fetcher of another image serves all of them.
    let image = world.file().replace(":t", ":v");
    let fetcher = world.start(&image, &["--complete=never"]);
    let wanted = [*second.last().unwrap(), *third.last().unwrap()];
    assert_eq!(fetcher.request(0, &wanted), [0, 0]);
    wait_until("the images are served", || {
        status(&world)["fetcher"]["tags"] == serde_json::json!(["t", "u", "v"])
            && records(&world).len() == 3
    });
    let after = says(&["list", world.path("to").to_str().unwrap()]);
    let has_stayed = before.lines().all(|line| after.contains(line));
    assert!(has_stayed, "{before}{after}");
    // A signal leaves the records. An image without its tag is not continued.
    fetcher.signal(Signal::TERM);
    assert_eq!(fetcher.finish().status.code(), Some(0));
    assert_eq!(records(&world).len(), 3);
    says(&["untag", &reference(&world.path("to"), "t")]);
    complete_recorded(&world);
    let run = go_on(&world);
    assert!(run.status.success(), "{}", stderr(&run));
    assert!(records(&world).is_empty());
    let state = status(&world);
    let images = state["images"].as_array().unwrap();
    let tags = images.iter().map(|image| image["tag"].as_str().unwrap());
    assert_eq!(tags.collect::<Vec<_>>(), ["u", "v"]);
    let is_complete = images.iter().all(|image| image["complete"] == true);
    assert!(is_complete, "{state}");
}

#[test]
fn a_signal_is_no_failure_of_an_image_that_is_never_completed() {
    let world = World::new();
    let fetcher = world.start(&world.file(), &["--complete=never"]);
    assert_eq!(fetcher.request(0, &world.chunks()[..1]), [0]);
    fetcher.signal(Signal::TERM);
    assert_eq!(fetcher.finish().status.code(), Some(0));
    // The source accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!("http://{}/:t", silent.local_addr().unwrap());
    let [record] = &records(&world)[..] else {
        panic!("not one record");
    };
    let text = fs::read_to_string(record).unwrap();
    let text = text.replace(&world.file(), &source);
    for (complete, status_code) in [("never", 0), ("idle", 130)] {
        fs::write(record, text.replace("never", complete)).unwrap();
        let mut command = puzzlefs();
        command.arg("fetch").arg(world.path("to"));
        command.arg("--device").arg(world.path("device"));
        let child = command.spawn().unwrap();
        let device = net::accept(&world.listener).unwrap();
        let fetcher = Fetcher { child, device };
        fetcher.receive();
        wait_until("the image is being prepared", || {
            status(&world)["fetcher"]["preparing"] == serde_json::json!(["t"])
        });
        fetcher.signal(Signal::TERM);
        assert_eq!(fetcher.finish().status.code(), Some(status_code));
    }
}

#[test]
fn an_image_is_forgotten_that_cannot_be_mounted() {
    let world = World::new();
    add_image(&world, "u", 5000);
    let fetcher = world.start(&world.file(), &["--complete=never"]);
    // The first image is prepared.
    assert_eq!(fetcher.request(0, &world.chunks()[..1]), [0]);
    let run = hand_over(&world, "u", &["--background", "--complete=never"]);
    let manifest = stdout(&run).split(' ').next().unwrap().to_owned();
    let store = Store::open(&world.path("to")).unwrap();
    let progress = Progress::default();
    let forget = |tag: &str, manifest: &str| {
        let mut conversation = Conversation::connect(&store).unwrap().unwrap();
        let (tag, manifest) = (tag.to_owned(), manifest.to_owned());
        conversation
            .send(&FetcherRequest::Forget { tag, manifest })
            .unwrap();
        let reply = conversation.receive::<FetcherReply>(&progress).unwrap();
        assert!(matches!(reply, Some(FetcherReply::Forgotten)));
    };
    // Another manifest is another image.
    forget("t", &manifest);
    forget("u", "sha256:x");
    assert_eq!(records(&world).len(), 2);
    forget("u", &manifest);
    assert_eq!(records(&world).len(), 1);
    wait_until("the image is forgotten", || {
        status(&world)["fetcher"]["tags"] == serde_json::json!(["t"])
    });
    assert_eq!(fetcher.request(10, &world.chunks()[..1]), [0]);
    // A peer that sends something else gets an error, and the service goes on.
    let mut conversation = Conversation::connect(&store).unwrap().unwrap();
    conversation.send(&"nonsense").unwrap();
    let reply = conversation.receive::<FetcherReply>(&progress).unwrap();
    let is_refused = matches!(reply, Some(FetcherReply::Failed { .. }));
    assert!(is_refused, "{reply:?}");
    fetcher.signal(Signal::TERM);
    assert_eq!(fetcher.finish().status.code(), Some(0));
}

#[test]
fn the_status_of_a_store() {
    let world = World::new();
    let chunks = world.chunks();
    let fetcher = world.start(&world.file(), &["--complete=never"]);
    // The metadata is there, and the first of the data is not.
    assert_eq!(fetcher.request(0, &chunks[..4]), [0; 4]);
    let state = status(&world);
    let image = &state["images"][0];
    assert_eq!(image["tag"], "t");
    assert_eq!(image["complete"], false);
    assert_eq!(image["source"], world.file());
    assert_eq!(image["served"], true);
    let count = |name: &str| image[name].as_u64().unwrap();
    let all = count("local_chunks") + count("missing_chunks");
    assert_eq!(all, chunks.len() as u64);
    assert!((2..=4).contains(&count("local_chunks")), "{state}");
    assert!(count("missing_bytes") > count("local_bytes"), "{state}");
    let served = &state["fetcher"];
    assert_eq!(served["process"], fetcher.child.id());
    assert_eq!(served["requests"], 0);
    assert!(served["fetched_bytes"].as_u64().unwrap() > 1000, "{state}");
    assert!(served["last_error"].is_null(), "{state}");
    // A failure shows.
    let blobs = world.path("from/blobs/sha256");
    fs::rename(&blobs, world.path("hidden")).unwrap();
    assert_eq!(fetcher.request(10, &chunks[chunks.len() - 1..]), [EIO]);
    let state = status(&world);
    let message = state["fetcher"]["last_error"]["message"].as_str().unwrap();
    assert!(message.contains("cannot fetch from"), "{message}");
    let text = says(&["status", world.path("to").to_str().unwrap()]);
    assert!(text.contains("in transfer"), "{text}");
    assert!(text.contains("last failure"), "{text}");
    fetcher.signal(Signal::TERM);
    fetcher.finish();
    // Without a fetcher, the store still has its state.
    let state = status(&world);
    assert!(state.get("fetcher").is_none(), "{state}");
    assert_eq!(state["images"][0]["served"], false);
    let text = says(&["status", world.path("to").to_str().unwrap()]);
    assert!(text.contains("incomplete"), "{text}");
    assert!(text.contains("no fetcher answers"), "{text}");
}

#[test]
fn a_collection_removes_records_without_images() {
    let world = World::new();
    let fetcher = world.start(&world.file(), &["--complete=never"]);
    let chunks = world.chunks();
    assert_eq!(fetcher.request(0, &chunks), vec![0; chunks.len()]);
    fetcher.signal(Signal::TERM);
    fetcher.finish();
    let store = world.path("to");
    says(&["gc", store.to_str().unwrap()]);
    assert_eq!(records(&world).len(), 1);
    says(&["untag", &reference(&store, "t")]);
    says(&["gc", store.to_str().unwrap()]);
    assert!(records(&world).is_empty());
}

#[test]
fn an_image_needs_a_store() {
    let run = output(puzzlefs().args(["fetch", "docker://registry.example/app:1"]));
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(stderr(&run).contains("give the store"), "{run:?}");
}

#[test]
fn failures_before_the_service() {
    let world = World::new();
    let fails =
        |image: &str, options: &[&str]| failure(&output(&mut world.command(image, "to", options)));
    let mut command = puzzlefs();
    command.args(["fetch", &world.file(), "--device=/nonexistent"]);
    let message = failure(&output(command.arg(world.path("to"))));
    assert!(message.contains("modprobe puzzlefs"), "{message}");
    assert!(!world.path("to").exists());
    build_v3(&world.path("tree"), &world.path("from"), "v3", 2);
    let v3 = world.file().replace(":t", ":v3");
    let message = fails(&v3, &[]);
    assert!(
        message.contains("it has format 3; 'puzzlefs pull'"),
        "{message}"
    );
    let message = fails(&world.file().replace(":t", ":other"), &[]);
    assert!(message.contains("other"), "{message}");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn chunks_come_from_a_registry() {
    let world = World::new();
    let server = Server::start(world.scratch.path(), Form::Plain);
    let remote = server.image("team/app:t");
    let from = reference(&world.path("from"), "t");
    let pushed = output(client(world.scratch.path()).args(["push", &from, &remote]));
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    let chunks = world.chunks();
    let fetcher = world.start(&remote, &["--complete=never"]);
    assert_eq!(
        fetcher.request(0, &chunks[..chunks.len() / 2]),
        vec![0; chunks.len() / 2]
    );
    fetcher.signal(Signal::TERM);
    assert!(fetcher.finish().status.success());
    let run = world.start(&remote, &["--complete=idle"]).finish();
    assert!(run.status.success(), "{}", stderr(&run));
    world.assert_arrived();
}

/// A store on a disk that is too small: readers get ENOSPC, and the service goes on.
#[test]
#[ignore = "needs root"]
fn a_full_disk_is_an_answer() {
    needs_root();
    let world = World::new();
    let chunks = world.chunks();
    let small = world.path("to");
    fs::create_dir(&small).unwrap();
    with_mount("tmpfs", c"size=600k", &small, || {
        let fetcher = world.start(&world.file(), &["--complete=never"]);
        let answers = fetcher.request(0, &chunks);
        assert!(answers.contains(&ENOSPC), "{answers:?}");
        assert!(answers.iter().all(|errno| [0, ENOSPC].contains(errno)));
        assert_eq!(fetcher.request(10_000, &[Digest::of(b"unknown")]), [ENOENT]);
        fetcher.signal(Signal::TERM);
        let run = fetcher.finish();
        assert_eq!(run.status.code(), Some(0));
        assert!(stderr(&run).contains("make room"), "{}", stderr(&run));
    });
}

#[test]
fn a_lazy_mount_needs_the_name_of_a_remote_image() {
    let scratch = tempfile::tempdir().unwrap();
    let lazy = |image: &str, directory: &Path| {
        let mut command = puzzlefs();
        command.args(["mount", "--lazy", image]).arg(directory);
        let store = scratch.path().join("store");
        output(command.arg("--store").arg(store.join("x")))
    };
    let run = lazy("/srv/images:t", scratch.path());
    assert_eq!(run.status.code(), Some(2), "{}", stderr(&run));
    let run = lazy("file:///srv/images:t", &scratch.path().join("missing"));
    assert_eq!(run.status.code(), Some(1), "{}", stderr(&run));
    assert!(stderr(&run).contains("the mount point"));
    assert!(!scratch.path().join("store").exists());
}
