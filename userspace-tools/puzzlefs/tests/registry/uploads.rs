// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interrupted uploads of a large pack, which go on where the registry has bytes.

use super::*;
use proxy::nth;

/// The size of a part of an upload.
const PART: usize = 16 << 20;

/// A world whose image has a pack of three parts.
fn world() -> World {
    World::of(memory_scratch(), Form::Plain, 40 << 20)
}

/// Pushes through a proxy, and returns the requests for parts, with the first and the last byte of each.
fn push(world: &World, proxy: &Proxy, name: &str) -> (Value, Vec<(usize, usize)>) {
    let pushed = world.run(&["push", &world.image("t"), &proxy.image(name)]);
    let parts = proxy.requests().into_iter().filter(Request::is_part);
    let parts = parts.map(|request| {
        let range = request.header("content-range").unwrap();
        let (from, to) = range.split_once('-').unwrap();
        (from.parse().unwrap(), to.parse().unwrap())
    });
    (pushed, parts.collect())
}

fn assert_pulled(world: &World, name: &str) {
    world.pull(&world.server.image(name), name.trim_end_matches(":t"));
    world.assert_arrived(name.trim_end_matches(":t"));
}

/// The size of the largest blob of the image.
fn pack(world: &World) -> usize {
    let blobs = fs::read_dir(world.path("from/blobs/sha256")).unwrap();
    let sizes = blobs.map(|blob| blob.unwrap().metadata().unwrap().len());
    sizes.max().unwrap() as usize
}

fn count(proxy: &Proxy, is_it: impl Fn(&Request) -> bool) -> usize {
    let requests = proxy.requests();
    requests.iter().filter(|request| is_it(request)).count()
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_lost_part_is_sent_again() {
    let world = world();
    let end = pack(&world) - 1;
    let proxy = Proxy::start(
        world.server.port,
        nth(1, Request::is_part, Fault::Lose(1 << 20)),
    );
    let (pushed, parts) = push(&world, &proxy, "app:t");
    let second = (PART, 2 * PART - 1);
    assert_eq!(parts, [(0, PART - 1), second, second, (2 * PART, end)]);
    assert_eq!(count(&proxy, Request::is_status), 1);
    // The pieces that were on their way when the connection ended.
    let again = number(&pushed, "sent_bytes") - number(&pushed, "new_bytes");
    assert!(((1 << 20)..(12 << 20)).contains(&again), "{pushed}");
    assert_pulled(&world, "app:t");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn bytes_that_the_registry_has_are_not_sent_again() {
    let world = world();
    let end = pack(&world) - 1;
    let kept = 5_000_001;
    let lose = nth(1, Request::is_part, Fault::Keep(kept));
    let proxy = Proxy::start(world.server.port, move |request| match lose(request) {
        Fault::Pass if request.is_status() => Fault::Kept,
        fault => fault,
    });
    let (_, parts) = push(&world, &proxy, "app:t");
    let on = PART + kept;
    let wanted = [
        (0, PART - 1),
        (PART, 2 * PART - 1),
        (on, on + PART - 1),
        (on + PART, end),
    ];
    assert_eq!(parts, wanted);
    assert_eq!(count(&proxy, Request::is_status), 1);
    assert_pulled(&world, "app:t");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn an_upload_that_the_registry_dropped_begins_anew() {
    let world = world();
    // The registry has a part of the part, which the place of the upload does not state: it drops all.
    let proxy = Proxy::start(
        world.server.port,
        nth(1, Request::is_part, Fault::Keep(5_000_001)),
    );
    let (_, parts) = push(&world, &proxy, "app:t");
    assert_eq!(parts.len(), 5, "{parts:?}");
    assert_eq!(parts[0], parts[2]);
    assert_pulled(&world, "app:t");

    // A registry that always breaks.
    let proxy = Proxy::start(world.server.port, |request| {
        if request.is_part() && !request.header("content-range").unwrap().starts_with("0-") {
            Fault::Lose(0)
        } else {
            Fault::Pass
        }
    });
    let (image, name) = (world.image("t"), proxy.image("broken:t"));
    let message = world.fails(&["push", &image, &name, "--retries=1"]);
    assert!(message.contains("the connection failed"), "{message}");
    let parts = count(&proxy, Request::is_part);
    assert_eq!((count(&proxy, Request::is_status), parts), (1, 3));
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_lost_answer_costs_no_upload() {
    let world = world();
    let is_commit =
        |request: &Request| request.method == "PUT" && request.path.contains("/uploads/");
    // Those of the pack and of the other blobs.
    let proxy = Proxy::start(world.server.port, first(9, is_commit, Fault::Forget));
    let (pushed, parts) = push(&world, &proxy, "app:t");
    assert_eq!(parts.len(), 3, "{parts:?}");
    assert_eq!(number(&pushed, "sent_bytes"), number(&pushed, "new_bytes"));
    assert_pulled(&world, "app:t");
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn a_registry_without_parts_gets_whole_blobs() {
    let world = world();
    let refuse = |status: &str| Fault::Answer(status.to_owned(), Vec::new());
    for (name, status) in [("a:t", "405 Method Not Allowed"), ("b:t", "404 Not Found")] {
        let proxy = Proxy::start(world.server.port, always(Request::is_part, refuse(status)));
        let (_, parts) = push(&world, &proxy, name);
        assert_eq!(parts.len(), 1);
        assert_pulled(&world, name);
    }
    // A limit on the size of requests.
    let limited = always(
        |request| request.length > 4 << 20,
        refuse("413 Request Entity Too Large"),
    );
    let proxy = Proxy::start(world.server.port, limited);
    let (_, parts) = push(&world, &proxy, "c:t");
    assert_eq!(parts.len(), 1 + pack(&world).div_ceil(4 << 20));
    assert_pulled(&world, "c:t");
}
