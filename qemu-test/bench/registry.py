#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Pushes and pulls images by each client in turn, and measures it.

usage: registry.py ROUNDS NETWORKS PARTS

NETWORKS are some of `loopback` and `link`, PARTS of `sample`, `series` and `layer`, separated by blanks. The
process has a network namespace of its own. Writes registry.json and registry.md to /mnt/bench.
"""

import atexit
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

import link
from build import BENCH, OUT, PUZZLEFS, SAMPLE, VERSIONS, megabytes, row, run, size_of

ROOT = "/mnt/root"
# What a registry is filled with, and its data. The images of peers stay for another run.
MADE, PEERS, DATA = f"{BENCH}/made", "/mnt/peers", f"{BENCH}/data"
PORT, CHUNKS_PORT = 5000, 5001
ROUND_TRIP_MS, MBIT = 20, 100
HOSTS = {"loopback": "127.0.0.1", "link": link.NEAR}
SKOPEO = ["skopeo", "--insecure-policy", "copy", "-q"]
# Where skopeo remembers which registry has which blob.
MEMORY = "/var/lib/containers/cache"
STORAGE = f"""[storage]
driver = "overlay"
graphroot = "{OUT}/containers"
runroot = "{OUT}/containers-run"
[storage.options]
pull_options = {{enable_partial_images = "true", insecure_allow_unpredictable_image_contents = "true"}}
"""


# --- The networks and the servers ---

class Network:
    """The network between a client and the servers."""

    def __init__(self, name):
        self.name, self.host, self.prefix, self.line = name, HOSTS[name], [], None
        self.counters = "/proc/self/net/dev", "lo"
        if name == "link":
            command = [sys.executable, f"{BENCH}/link.py", str(ROUND_TRIP_MS), str(MBIT)]
            self.line = subprocess.Popen(command, stdout=subprocess.PIPE)
            atexit.register(self.line.kill)
            if self.line.stdout.readline() != b"ready\n":
                sys.exit("registry: the line does not come up")
            self.prefix = ["nsenter", f"--net=/proc/{self.line.pid}/ns/net"]
            self.counters = f"/proc/{self.line.pid}/net/dev", "far"

    def received(self):
        """The bytes that clients have received, with all headers. On loopback, those that they have sent
        count, too."""
        path, interface = self.counters
        with open(path) as file:
            found = re.search(rf"^ *{interface}: *(\d+)", file.read(), re.MULTILINE)
        return int(found[1])

    def run(self, *commands):
        """Runs commands of a client one after the other. Returns the sums of their times, the bytes that
        arrived and the number of requests."""
        bytes_before, requests_before = self.received(), requests()
        runs = [run(self.prefix + command) for command in commands]
        sums = {what: sum(one[what] for one in runs) for what in ("wall", "durable", "cpu")}
        return {**sums, "memory": max(one["memory"] for one in runs),
                "wire": self.received() - bytes_before, "requests": requests() - requests_before}

    def report(self, *command):
        """The same for a command of ours, with its report."""
        path = f"{OUT}/report"
        measured = self.run(["sh", "-c", 'exec "$@" --json --tls-verify=false >"$0"', path, *command])
        with open(path) as file:
            return {**measured, "report": json.load(file)}

    def image(self, name):
        return f"docker://{self.host}:{PORT}/{name}"

    def end(self):
        if self.line:
            self.line.kill()
            self.line.wait()


class Registry:
    """Debian's registry, without images at first."""

    def __init__(self):
        shutil.rmtree(DATA, ignore_errors=True)
        shutil.rmtree(MEMORY, ignore_errors=True)
        os.mkdir(DATA)
        with open(f"{BENCH}/registry.yml", "w") as file:
            file.write(f"version: 0.1\nlog: {{level: error}}\n"
                       f"storage: {{filesystem: {{rootdirectory: {DATA}}}}}\n"
                       f"http: {{addr: '0.0.0.0:{PORT}'}}\n")
        with open(f"{BENCH}/access", "w") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", f"{BENCH}/registry.yml"], stdout=log,
                                            stderr=subprocess.DEVNULL)
        atexit.register(self.process.kill)
        wait_for(PORT)

    def end(self):
        self.process.kill()
        self.process.wait()


def requests():
    """The requests that the registry and the server of chunks have answered."""
    with open(f"{BENCH}/access") as file:
        return sum('HTTP/1.1"' in line for line in file) + Chunks.answered


def wait_for(port):
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                sys.exit(f"registry: nothing listens at port {port}")
            time.sleep(0.02)


class Chunks(http.server.SimpleHTTPRequestHandler):
    """The server of casync's chunks: connections stay open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answered = 0

    def log_request(self, *_):
        Chunks.answered += 1

    @staticmethod
    def start():
        handler = functools.partial(Chunks, directory=f"{PEERS}/casync")
        server = http.server.ThreadingHTTPServer(("0.0.0.0", CHUNKS_PORT), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()


# --- The images ---

def blob(layout, path):
    """Moves a file into a layout. Returns its digest and its size."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    os.makedirs(f"{layout}/blobs/sha256", exist_ok=True)
    os.rename(path, f"{layout}/blobs/sha256/{digest}")
    return f"sha256:{digest}", os.path.getsize(f"{layout}/blobs/sha256/{digest}")


def document(layout, media_type, value):
    with open(f"{layout}/new", "w") as file:
        json.dump(value, file)
    digest, size = blob(layout, f"{layout}/new")
    return {"mediaType": media_type, "digest": digest, "size": size}


def ordinary_image(layout, tree, compress):
    """An image `t` with one layer."""
    os.makedirs(layout)
    kind = "application/vnd.oci.image"
    subprocess.run(["tar", "--xattrs", "-C", tree, "-cf", f"{layout}/layer", "."], check=True)
    with open(f"{layout}/layer", "rb") as file:
        identity = hashlib.file_digest(file, "sha256").hexdigest()
    suffix = ""
    if compress:
        subprocess.run(["gzip", "-n", f"{layout}/layer"], check=True)
        os.rename(f"{layout}/layer.gz", f"{layout}/layer")
        suffix = "+gzip"
    digest, size = blob(layout, f"{layout}/layer")
    layer = {"mediaType": f"{kind}.layer.v1.tar{suffix}", "digest": digest, "size": size}
    config = document(layout, f"{kind}.config.v1+json", {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{identity}"]}})
    manifest = document(layout, f"{kind}.manifest.v1+json", {
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": config, "layers": [layer]})
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    with open(f"{layout}/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [manifest]}, file)
    with open(f"{layout}/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')


def kept(name, make):
    """Makes a directory of PEERS, unless an earlier run has."""
    path = f"{PEERS}/{name}"
    if not os.path.isdir(path):
        shutil.rmtree(f"{PEERS}/new", ignore_errors=True)
        make(f"{PEERS}/new")
        os.rename(f"{PEERS}/new", path)
    return path


def kept_ordinary(name, tree):
    """An ordinary image with a gzip layer."""
    return kept(name, lambda path: ordinary_image(path, tree, True))


def layer_of(layout):
    """The largest blob of a layout: its path and its size."""
    found = os.scandir(f"{layout}/blobs/sha256")
    return max(((entry.path, entry.stat().st_size) for entry in found), key=lambda one: one[1])


def make_chunked(path, tree):
    """An image with a zstd:chunked layer, which takes skopeo half a minute."""
    ordinary_image(f"{OUT}/layout", tree, False)
    os.mkdir(path)
    run([*SKOPEO, "--dest-compress-format=zstd:chunked", f"oci:{OUT}/layout:t", f"oci:{path}:t"])
    shutil.rmtree(f"{OUT}/layout")


def make_casync(path):
    os.mkdir(path)
    for number, tree in enumerate(VERSIONS, 1):
        run(["casync", "make", f"--store={path}/store.castr", f"{path}/v{number}.caidx", tree])


def build_ours(tree, target):
    subprocess.run([PUZZLEFS, "build", "-q", tree, target], check=True)


# --- The measurements ---

def sample(networks, rounds):
    """Pushes and pulls of one root filesystem."""
    build_ours(SAMPLE, f"{MADE}/sample:t")
    _, layer = layer_of(kept_ordinary("ordinary", SAMPLE))
    results = {"store": size_of(f"{MADE}/sample"), "layer": layer,
               **{network.name: {"push": {"ours": [], "skopeo": []}, "pull": {"ours": [], "umoci": []}}
                  for network in networks}}
    for _ in range(rounds):
        for network in networks:
            of = results[network.name]
            for name, push in (("ours", push_ours), ("skopeo", push_ordinary)):
                registry = Registry()
                empty_out()
                of["push"][name].append(push(network))
                registry.end()
            registry = Registry()
            empty_out()
            push_ours(network)
            push_ordinary(network)
            of["pull"]["ours"].append(pull_ours(network, "ours:t", f"{OUT}/store:t"))
            empty_out()
            of["pull"]["umoci"].append(network.run(
                [*SKOPEO, "--src-tls-verify=false", network.image("ordinary:t"), f"oci:{OUT}/layout:t"],
                ["umoci", "unpack", "--image", f"{OUT}/layout:t", f"{OUT}/bundle"]))
            registry.end()
    return results


def push_ours(network):
    return network.report(PUZZLEFS, "push", f"{MADE}/sample:t", network.image("ours:t"))


def push_ordinary(network):
    return network.run([*SKOPEO, "--dest-tls-verify=false", f"oci:{PEERS}/ordinary:t",
                        network.image("ordinary:t")])


def pull_ours(network, image, target):
    return network.report(PUZZLEFS, "pull", network.image(image), target)


def empty_out():
    # containers-storage leaves mounts.
    with open("/proc/self/mountinfo") as file:
        mounted = [line.split()[4] for line in file]
    for path in reversed(mounted):
        if path.startswith(f"{OUT}/"):
            subprocess.run(["umount", path], check=True)
    if os.path.exists(OUT):
        shutil.rmtree(OUT)
    os.mkdir(OUT)
    os.sync()


def series(networks):
    """Ten versions, pulled one after the other by a host that has the earlier ones."""
    registry = Registry()
    loopback = Network("loopback")
    empty_out()
    kept("casync", make_casync)
    storage = f"{BENCH}/storage.conf"
    with open(storage, "w") as file:
        file.write(STORAGE)
    for number, tree in enumerate(VERSIONS, 1):
        # One builder with all versions, and builders with one version each.
        build_ours(tree, f"{MADE}/versions:v{number}")
        build_ours(tree, f"{MADE}/apart-{number}:v{number}")
        for name, store in ("ours", "versions"), ("apart", f"apart-{number}"):
            loopback.report(PUZZLEFS, "push", f"{MADE}/{store}:v{number}",
                            loopback.image(f"{name}:v{number}"))
        layout = kept(f"chunked-{number}", functools.partial(make_chunked, tree=tree))
        loopback.run([*SKOPEO, "--dest-tls-verify=false", f"oci:{layout}:t",
                      loopback.image(f"chunked:v{number}")])
    Chunks.start()
    results = {}
    for network in networks:
        def ours(name, number):
            return pull_ours(network, f"{name}:v{number}", f"{OUT}/store:v{number}")

        def chunked(number):
            target = f"containers-storage:localhost/app:v{number}"
            return network.run(["env", f"CONTAINERS_STORAGE_CONF={storage}", *SKOPEO,
                                "--src-tls-verify=false", network.image(f"chunked:v{number}"), target])

        def casync(number):
            server = f"http://{network.host}:{CHUNKS_PORT}"
            seed = [f"--seed={OUT}/{number - 1}"] if number > 1 else []
            return network.run(["casync", "extract", f"--store={server}/store.castr", *seed,
                                f"{server}/v{number}.caidx", f"{OUT}/{number}"])

        clients = {"one builder": lambda number: ours("ours", number),
                   "a builder for each version": lambda number: ours("apart", number),
                   "zstd:chunked": chunked, "casync": casync}
        results[network.name] = {}
        for name, client in clients.items():
            empty_out()
            pulls = [client(number) for number in range(1, len(VERSIONS) + 1)]
            results[network.name][name] = {"pulls": pulls}
            if os.path.isdir(f"{OUT}/store"):
                results[network.name][name]["store"] = size_of(f"{OUT}/store")
    registry.end()
    return results


def large_layer(rounds):
    """Imports of a large layer."""
    layout = kept_ordinary("large", f"{ROOT}/usr/lib")
    path, layer = layer_of(layout)
    results = {"layer": layer, "tree": size_of(f"{ROOT}/usr/lib"),
               "gzip": [], "ours": [], "umoci": []}
    commands = {"gzip": ["gzip", "-dc", path],
                "ours": [PUZZLEFS, "import", "-q", f"{layout}:t", f"{OUT}/store:t"],
                "umoci": ["umoci", "unpack", "--image", f"{layout}:t", f"{OUT}/bundle"]}
    for _ in range(rounds):
        for name, command in commands.items():
            empty_out()
            with open(path, "rb") as file:
                while file.read(1 << 20):
                    pass
            results[name].append(run(command))
    return results


# --- The page ---

def middle(runs, what="wall"):
    return statistics.median(one[what] for one in runs)


def spread(runs, what="wall"):
    values, median = [one[what] for one in runs], middle(runs, what)
    return f"{median:.2f} ± {max(max(values) - median, median - min(values)):.2f} s"


def page_of_sample(results, networks):
    yield row("", "network", "PuzzleFS", "peer", "ratio", "on the disk, PuzzleFS", "peer", "target")
    yield "|" + " --- |" * 8
    for way, peer, target in ("push", "skopeo", "≤ 1.2"), ("pull", "umoci", "≤ 0.6"):
        for network in networks:
            of = results[network][way]
            ratio = middle(of["ours"]) / middle(of[peer])
            yield row(way, network, spread(of["ours"]), spread(of[peer]), f"{ratio:.2f}",
                      spread(of["ours"], "durable"), spread(of[peer], "durable"), target)


def page_of_series(results, networks):
    yield row("image", "network", "v1, bytes received", "updates, bytes received",
              "most requests of an update", "received / new data", "received, all / store", "v1, time",
              "updates, time")
    yield "|" + " --- |" * 9
    for network in networks:
        for name, of in results[network].items():
            first, *updates = of["pulls"]
            new, all_of_store = "", ""
            if "store" in of:
                reports = [one["report"] for one in updates]
                new_bytes = sum(one["new_bytes"] for one in reports)
                new = f"{sum(one['received_bytes'] for one in reports) / new_bytes:.3f}"
                received = sum(one["report"]["received_bytes"] for one in of["pulls"])
                all_of_store = f"{received / of['store']:.3f}"
            wire = [megabytes(of_some["wire"]) for of_some in (first, total(updates))]
            if network == "loopback":
                wire = ["", ""]
            most = max(one["requests"] for one in updates)
            yield row(name, network, *wire, str(most), new, all_of_store, f"{first['wall']:.2f} s",
                      f"{total(updates)['wall']:.2f} s")


def total(runs):
    return {what: sum(one[what] for one in runs) for what in ("wall", "wire")}


def page_of_layer(of):
    yield row("command", "wall", "processor", "peak memory", "ratio to `gzip -dc`")
    yield "|" + " --- |" * 5
    for name, command in ("gzip", "gzip -dc"), ("ours", "puzzlefs import"), ("umoci", "umoci unpack"):
        memory = max(one["memory"] for one in of[name])
        yield row(f"`{command}`", spread(of[name]), f"{middle(of[name], 'cpu'):.2f} s", megabytes(memory, 0),
                  f"{middle(of[name]) / middle(of['gzip']):.2f}")


def page(results):
    networks = results["networks"]
    yield f"""<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
<!-- Written by `make bench-registry`. -->
Images in Debian's `docker-registry`, pushed and pulled on one machine of {results['processors']} CPUs
(`make bench-registry`). Times are medians of {results['rounds']} rounds and the largest deviation from them;
each round measures every client. *On the disk* includes `sync -f`. PuzzleFS syncs before it exits.

| network | meaning |
| --- | --- |
| loopback | the loopback interface |
| link | {ROUND_TRIP_MS} ms round trip and {MBIT} Mbit/s in each direction, by `qemu-test/bench/link.py` |
"""
    if "sample" in results:
        of = results["sample"]
        yield f"""
The image is one Debian root filesystem: {megabytes(of['store'])} as a PuzzleFS store,
{megabytes(of['layer'])} as one gzip layer. The peer of a push is `skopeo copy` of the layer,
that of a pull is `skopeo copy` and `umoci unpack`.
"""
        yield from page_of_sample(of, networks)
    if "series" in results:
        yield """
Ten versions of a Debian root filesystem (`qemu-test/steps/series`), pulled in order by one host. *One
builder* has all versions in one store. *A builder for each version* has no earlier version, so its packs have
nothing in common with earlier packs. zstd:chunked is pulled by skopeo to an overlay of containers-storage,
and casync extracts each version with the last one as the seed. Bytes received include all headers. *New data*
counts the packs and manifests that the store lacked. Debian has no package of desync.

| target | limit |
| --- | --- |
| requests of an update | < 20 |
| received / new data | ≤ 1.1 |
| received, all / store | ≤ 1.05 |
| bytes of updates | ≤ 0.5 of the best peer |
"""
        yield from page_of_series(results["series"], networks)
    if "layer" in results:
        of = results["layer"]
        yield f"""
A gzip layer of {megabytes(of['layer'], 0)} with {megabytes(of['tree'], 0)} of files, from a local OCI layout.
The target is the time of `gzip -dc`.
"""
        yield from page_of_layer(of)


def main():
    rounds, names, parts = int(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
    # Stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by a signal"))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.makedirs(MADE)
    results = {"rounds": rounds, "unit": "seconds, bytes", "processors": os.cpu_count(), "networks": names,
               "round_trip_ms": ROUND_TRIP_MS, "mbit": MBIT}
    networks = [Network(name) for name in names]
    try:
        if "sample" in parts:
            results["sample"] = sample(networks, rounds)
        if "series" in parts:
            results["series"] = series(networks)
        if "layer" in parts:
            results["layer"] = large_layer(rounds)
    finally:
        empty_out()
        for network in networks:
            network.end()
    with open(f"{BENCH}/registry.json", "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(f"{BENCH}/registry.md", "w") as file:
        file.writelines(line + "\n" for line in page(results))


if __name__ == "__main__":
    main()
