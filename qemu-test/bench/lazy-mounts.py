#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Images of a registry behind a slow link, mounted before their data has arrived, and pulled: time until
# programs have started and until everything is read, bytes that arrive, and requests.
# timeout: 3600
# klog-allow: puzzlefs: image|puzzlefs-fetch
#
# Not a test: nothing is compared with a limit. `qemu-test/bench/lazy` prints the tables. /payload/images has
# the images `puzzlefs-zstd` and `puzzlefs-zstd-order` of one tree, the helpers of cases in `lib`, and `plan`,
# with lines `rounds NUMBER`, `networks RTT_MS/MBIT...` and `parts PART...`.
import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

IMAGES = "/payload/images"
sys.path.insert(0, f"{IMAGES}/lib")
# pylint: disable=wrong-import-position
import packs  # noqa: E402
from case import CASE_DIR, check, counters, drop_caches, equal, eventually, metric, run, \
    write_file  # noqa: E402
from containerd import make_certificate  # noqa: E402

READER = "/payload/bin/reader"
NEAR, FAR, PORT = "10.99.0.1", "10.99.0.2", 5000
# The names of the images in the registry, and their stores in IMAGES.
STORES = {"plain": "puzzlefs-zstd", "order": "puzzlefs-zstd-order"}
# The command whose start-up order the second image has.
START = "python3 -c 'import json, socket, ssl' && nginx -V"
# Of the program in the image, without the variables of cases.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
MNT, STORE = f"{CASE_DIR}/mnt", f"{CASE_DIR}/store"
# tmpfs: the registry reads nothing from the disk, whatever is in the page cache.
DATA, ACCESS = "/tmp/registry", f"{CASE_DIR}/access"

with open(f"{IMAGES}/plan", encoding="ascii") as plan:
    PLAN = dict(line.rstrip("\n").split(" ", 1) for line in plan)
ROUNDS, PARTS = int(PLAN["rounds"]), PLAN["parts"].split()
# The least number of rounds of the part `local`.
LOCAL_ROUNDS = 3


# --- The link and the registry ---

def make_link():
    """A pair of interfaces: `near` here, and `far` in a namespace of this name."""
    run("modprobe", "-a", "veth", "sch_netem")
    run("ip", "netns", "add", "far")
    atexit.register(run, "ip", "netns", "del", "far")
    run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", "far")
    for namespace, interface, address in (([], "near", NEAR), (["-n", "far"], "far", FAR)):
        run("ip", *namespace, "address", "add", f"{address}/24", "dev", interface)
        run("ip", *namespace, "link", "set", interface, "up")
    run("ip", "-n", "far", "link", "set", "lo", "up")


def shape(network):
    """Gives each direction half of the round trip, and the rate."""
    round_trip, rate = map(float, network.split("/"))
    for namespace, interface in ([], "near"), (["-n", "far"], "far"):
        run("tc", *namespace, "qdisc", "replace", "dev", interface, "root", "netem", "delay",
            f"{round_trip / 2}ms", "rate", f"{rate}mbit")


def measure_link(network):
    """The round trip of a byte, and the throughput of one connection during about a second."""
    size = min(int(network.split("/")[1]) * 1_000_000 // 8, 32 << 20)
    listeners, is_ready = [], threading.Event()

    def serve():
        # The thread's own namespace, in which the sockets stay.
        with open("/run/netns/far", "rb") as namespace:
            os.setns(namespace.fileno(), os.CLONE_NEWNET)
        listeners.append(socket.create_server((FAR, 0)))
        is_ready.set()
        with listeners[0] as listener, listener.accept()[0] as client:
            while command := client.recv(1):
                client.sendall(command if command == b"1" else bytes(size))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    check(is_ready.wait(40), "the server of the link does not start")
    with socket.create_connection(listeners[0].getsockname(), timeout=120) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask(command, wanted):
            begun = time.monotonic()
            server.sendall(command)
            while wanted:
                length = len(server.recv(min(wanted, 1 << 18)))
                check(length, "the server of the link has closed the connection")
                wanted -= length
            return time.monotonic() - begun

        round_trip = statistics.median(ask(b"1", 1) for _ in range(20))
        rate = size * 8 / ask(b"2", size)
    thread.join()
    metric(f"link.{network}..1", f"round_trip={round_trip * 1e6:.0f} rate={rate / 1e6:.1f}")


def start_registry():
    """Starts the registry in the namespace, and returns its process."""
    # The guest has no CA certificates. Clients want some even if they use none.
    authority = {"certificate": f"{CASE_DIR}/authority.pem", "key": f"{CASE_DIR}/authority.key"}
    make_certificate(authority, "-subj", "/CN=authority")
    os.environ["SSL_CERT_FILE"] = authority["certificate"]
    os.makedirs(DATA)
    with open(f"{CASE_DIR}/registry.json", "w", encoding="ascii") as file:
        json.dump({"version": "0.1", "log": {"level": "error"},
                   "storage": {"filesystem": {"rootdirectory": DATA}},
                   "http": {"addr": f"0.0.0.0:{PORT}"}}, file)
    with open(ACCESS, "wb") as access, open(f"{CASE_DIR}/registry.log", "wb") as log:
        command = ["ip", "netns", "exec", "far", "docker-registry", "serve", f"{CASE_DIR}/registry.json"]
        process = subprocess.Popen(command, stdout=access, stderr=log)
    atexit.register(process.kill)

    def accepts():
        check(process.poll() is None, "the registry has ended")
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection((FAR, PORT)).close()
            return True
        return False
    eventually(accepts, "the registry does not start")
    return process


def requests(path=b""):
    """The requests that the registry has answered, of all paths or of one."""
    with open(ACCESS, "rb") as file:
        return sum(b'HTTP/1.1"' in line and (not path or b" %b HTTP" % path in line) for line in file)


def checks():
    """The requests that find out if the registry wants credentials."""
    return requests(b"/v2/")


def received():
    """The bytes that have arrived here, with all headers."""
    with open("/sys/class/net/near/statistics/rx_bytes", encoding="ascii") as file:
        return int(file.read())


def connections():
    """The TCP connections that processes here have opened."""
    with open("/proc/self/net/snmp", encoding="ascii") as file:
        names, values = (line.split() for line in file if line.startswith("Tcp:"))
    return int(values[names.index("ActiveOpens")])


def busy():
    """The time of all processors, in microseconds, in which they were not idle."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _idle, _iowait, irq, softirq = map(int, file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def cpu_time(numbers):
    """The CPU time of processes, in microseconds. A process that has ended counts as none."""
    ticks = 0
    for number in numbers:
        with contextlib.suppress(OSError), open(f"/proc/{number}/stat", encoding="ascii") as file:
            # The name can have blanks. The numbers of the fields after it are two less.
            fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")


def address(image, host=FAR):
    return f"docker://{host}:{PORT}/bench/{image}:t"


# --- Stores ---

# The places of the chunks in the packs of each image, by digests in hexadecimal.
PLACES = {}
# A gap of this many bytes between two ranges costs less than another request.
SMALL_GAP = 8 << 10


def places_of(store):
    """The places of the chunks in the packs of a store, and the names of its other blobs."""
    places, others = {}, set()
    for name in os.listdir(f"{store}/blobs/sha256"):
        path = f"{store}/blobs/sha256/{name}"
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 16))
            is_pack = file.read(8) == b"PZFSPACK"
        if is_pack:
            places.update((place.digest.hex(), place) for place in packs.places_in(path))
        else:
            others.add(name)
    return places, others


def stored(image, store=STORE):
    """The digests of the chunks of an image that a store has."""
    places, others = places_of(store)
    check(set(places) <= set(PLACES[image]), "the store has chunks of no image")
    return set(places) | others & set(PLACES[image])


def figures_of(image, digests):
    """The number of chunks, their stored bytes, and the number of ranges of the packs that they form."""
    places = [PLACES[image][digest] for digest in digests]
    places.sort(key=lambda place: (place.pack, place.offset))
    ranges, last = 0, None
    for place in places:
        if last is None or place.pack != last.pack or place.offset - last.offset - last.length > SMALL_GAP:
            ranges += 1
        last = place
    return {"chunks": len(places), "bytes": sum(place.length for place in places), "ranges": ranges}


# --- The measurements ---

def processes(word):
    """The processes with a word in their command lines."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as line:
            if word in line.read().split(b"\0"):
                found.append(int(process))
    return found


def unmount():
    run("umount", MNT)
    # It may wait for a chunk.
    eventually(lambda: not processes(b"--prefetch-mount"), "the process that reads ahead does not end")
    for process in processes(b"--background"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    eventually(lambda: not processes(b"--background"), "the fetcher does not end")


@contextlib.contextmanager
def cold():
    """The body mounts an image on MNT. At first, STORE does not exist, and nothing is in the page cache."""
    shutil.rmtree(STORE, ignore_errors=True)
    drop_caches()
    # But the programs that are timed.
    run("puzzlefs", "--version")
    run(READER, "mark")
    try:
        yield
    finally:
        if os.path.ismount(MNT):
            unmount()


def pull(image, store=STORE):
    run("puzzlefs", "pull", "-q", "--tls-verify=false", address(image), f"{store}:t")


def mount(store=STORE, *options):
    run("puzzlefs", "mount", "-o", ",".join(["ro", *options]), f"{store}:t", MNT)


def mount_lazily(image, complete, *options):
    run("puzzlefs", "mount", "--lazy", f"--complete={complete}", "--tls-verify=false", "--store",
        f"{STORE}:t", "-o", ",".join(["ro", *options]), address(image), MNT)


def options_of(image):
    """The mount options that the order of an image takes."""
    return ["prefetch"] if image == "order" else []


def start():
    run(READER, "run", MNT, "/bin/sh", "-c", START, env=ENVIRONMENT)


WANTED = {}


def read(workload):
    """Reads everything or walks over all names. Each run reads the same."""
    _, count, _ = run(READER, workload, MNT).split()
    equal(count, WANTED.setdefault(workload, count), f"the count of {workload}")


def report(key, figures):
    metric(key, " ".join(f"{name}={value}" for name, value in figures.items()))


class Stopwatch:
    """Times and counts since it was made."""

    COUNTERS = {"received": received, "requests": requests, "checks": checks, "connections": connections,
                "busy": busy, "registry": lambda: cpu_time([REGISTRY.pid])}

    def __init__(self):
        self.before = {name: counter() for name, counter in self.COUNTERS.items()}
        self.begun = time.monotonic()
        self.figures = {}

    def lap(self, name):
        """Notes the time and the counts until now."""
        self.figures[name] = round((time.monotonic() - self.begun) * 1e6)
        for what, counter in self.COUNTERS.items():
            self.figures[f"{name}_{what}"] = counter() - self.before[what]

    def report(self, key, more=()):
        """Reports all laps."""
        report(key, {**self.figures, "waits": counters(MNT)["fetches_awaited"],
                     "fetcher": cpu_time(processes(b"--background")), **dict(more)})


def without_readahead():
    """Sets the readahead of the mount to 0: only pages that are accessed are read."""
    number = os.stat(MNT).st_dev
    write_file(f"/sys/class/bdi/{os.major(number)}:{os.minor(number)}/read_ahead_kb", b"0")


def touched():
    """The chunks that a start accesses. Both images have the same chunks."""
    with cold():
        mount_lazily("plain", "never")
        without_readahead()
        start()
        report("touched...1", figures_of("plain", stored("plain")))


def start_locally(image, number):
    with cold():
        watch = Stopwatch()
        mount(f"{CASE_DIR}/{image}", "verify=digest", *options_of(image))
        watch.lap("mount")
        start()
        watch.lap("ready")
        watch.report(f"start-local..{image}.{number}")


def start_pulled(network, number):
    with cold():
        watch = Stopwatch()
        pull("plain")
        watch.lap("pull")
        mount()
        watch.lap("mount")
        start()
        watch.lap("ready")
        watch.report(f"start.{network}.pull.{number}")


def start_lazily(network, image, complete, number):
    with cold():
        watch = Stopwatch()
        mount_lazily(image, complete, *options_of(image))
        watch.lap("mount")
        start()
        watch.lap("ready")
        # With --complete=never, they are those that were requested.
        chunks = figures_of(image, stored(image)) if complete == "never" else ()
        watch.report(f"start.{network}.{image}-{complete}.{number}", chunks)


def read_pulled(network, number):
    with cold():
        watch = Stopwatch()
        pull("plain")
        watch.lap("pull")
        mount()
        watch.lap("mount")
        read("read")
        watch.lap("read")
        watch.report(f"read.{network}.pull.{number}")


def read_lazily(network, complete, number):
    with cold():
        watch = Stopwatch()
        mount_lazily("plain", complete)
        watch.lap("mount")
        read("read")
        watch.lap("read")
        watch.report(f"read.{network}.{complete}.{number}")


def walk_lazily(network, number):
    with cold():
        mount_lazily("plain", "never")
        before = stored("plain")
        watch = Stopwatch()
        read("walk")
        watch.lap("walk")
        watch.report(f"walk.{network}.never.{number}", figures_of("plain", stored("plain") - before))


def of_local_data(system, number):
    """Reads an image that is complete, with and without a fetcher."""
    options = {"digest": "verify=digest", "fetcher": "fetch=wait"}[system]
    with contextlib.ExitStack() as stack:
        if system == "fetcher":
            # It gets no requests.
            device = os.open("/dev/puzzlefs", os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, device)
            os.write(device, os.fsencode(f"{CASE_DIR}/plain"))
        for workload in "walk", "read", "ready":
            with cold():
                mount(f"{CASE_DIR}/plain", options)
                watch = Stopwatch()
                if workload == "ready":
                    start()
                else:
                    read(workload)
                watch.lap(workload)
                watch.report(f"local.{workload}.{system}.{number}")


def main():
    for image, store in STORES.items():
        PLACES[image], _ = places_of(f"{IMAGES}/{store}")
        run("ip", "netns", "exec", "far", "puzzlefs", "push", "-q", "--tls-verify=false",
            f"{IMAGES}/{store}:debian", address(image, "127.0.0.1"))
        pull(image, f"{CASE_DIR}/{image}")
        report(f"image..{image}.1", figures_of(image, stored(image, f"{CASE_DIR}/{image}")))
    if "start" in PARTS:
        touched()
    for number in range(1, ROUNDS + 1):
        if "start" in PARTS:
            for image in STORES:
                start_locally(image, number)
    if "local" in PARTS:
        # Only the spread shows if two figures differ.
        for number in range(1, max(ROUNDS, LOCAL_ROUNDS) + 1):
            for system in "digest", "fetcher":
                of_local_data(system, number)
    for network in PLAN["networks"].split():
        shape(network)
        measure_link(network)
        for number in range(1, ROUNDS + 1):
            if "start" in PARTS:
                start_pulled(network, number)
                for image in STORES:
                    start_lazily(network, image, "idle", number)
                    start_lazily(network, image, "never", number)
            if "read" in PARTS:
                read_pulled(network, number)
                for complete in "idle", "now":
                    read_lazily(network, complete, number)
            if "walk" in PARTS:
                walk_lazily(network, number)


os.mkdir(MNT)
make_link()
REGISTRY = start_registry()
main()
