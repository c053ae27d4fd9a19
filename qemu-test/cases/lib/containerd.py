# SPDX-License-Identifier: MIT OR Apache-2.0
"""containerd with the snapshotter, and a registry on the loopback address, as cases start and kill them."""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import urllib.request

from case import CASE_DIR, check, equal, eventually, run

RUN = "/run/containerd-case"
CONTAINERD_SOCKET = f"{RUN}/containerd.sock"
SNAPSHOTTER_SOCKET = f"{RUN}/snapshotter.sock"
# The directory with the settings of registries, containerd's and those of the snapshotter.
HOSTS = f"{CASE_DIR}/hosts"
SNAPSHOTTER_HOSTS = f"{CASE_DIR}/snapshotter-hosts"
ROOT = f"{CASE_DIR}/snapshotter"
STORE = f"{ROOT}/store"
PORT = 5000
# A port of the loopback address that refuses connections.
CLOSED_PORT = 9
METRICS_PORT = 9464

CONFIG = f"""
root = "{CASE_DIR}/containerd"
state = "{RUN}/state"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[proxy_plugins.puzzlefs]
  type = "snapshot"
  address = "{SNAPSHOTTER_SOCKET}"
[proxy_plugins.puzzlefs.exports]
  root = "{ROOT}"
[proxy_plugins.puzzlefs-diff]
  type = "diff"
  address = "{SNAPSHOTTER_SOCKET}"
[plugins."io.containerd.service.v1.diff-service"]
  default = ["puzzlefs-diff", "walking"]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "puzzlefs"
  differ = "puzzlefs-diff"
"""
CRI_CONFIG = f"""
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost:{PORT}/team/pause:1"
  stats_collect_period = 1
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "puzzlefs"
  disable_snapshot_annotations = false
  discard_unpacked_layers = true
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{HOSTS}"
"""
# For containerd 2.
CRI_CONFIG_NEW = f"""
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "puzzlefs"
  disable_snapshot_annotations = false
  discard_unpacked_layers = true
  stats_collect_period = 1
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost:{PORT}/team/pause:1"
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{HOSTS}"
"""
NO_CRI_CONFIG = 'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'


def loopback_up():
    """The guest has no other network."""
    iff_up, siocsifflags = 1, 0x8914
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", b"lo", iff_up))


def accepts(port):
    """Returns true if a port of the loopback address accepts connections."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Service:
    """A program that runs until it is killed or ended."""

    def __init__(self, name, *command):
        self.name, self.command, self.process = name, command, None
        self.log = f"{CASE_DIR}/{name}.log"

    def start(self, is_ready):
        """Starts the program, and waits until it is ready."""
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)

        def is_up():
            check(self.process.poll() is None, f"{self.name} ends: {self.logged()[-400:]}")
            return is_ready()
        eventually(is_up, f"{self.name} does not start")

    def kill(self):
        """Kills the program."""
        self.process.kill()
        self.process.wait()

    def end(self):
        """Ends the program, which must end well."""
        self.process.terminate()
        eventually(lambda: self.process.poll() is not None, f"{self.name} does not end")
        equal(self.process.returncode, 0, f"the status of {self.name}")

    def logged(self):
        """Returns the log."""
        with open(self.log, errors="backslashreplace") as log:
            return log.read()


def make_certificate(paths, *options):
    """Makes a certificate and a key, by options of openssl req."""
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days",
        "2", "-keyout", paths["key"], "-out", paths["certificate"], *options)


class Registry(Service):
    """Debian's registry at `PORT`. All programs that are started later trust its certificate alone."""

    def __init__(self):
        config = f"{CASE_DIR}/registry.json"
        super().__init__("registry", "docker-registry", "serve", config)
        authority, own = [{"certificate": f"{CASE_DIR}/{name}.pem", "key": f"{CASE_DIR}/{name}.key"}
                          for name in ("authority", "registry")]
        make_certificate(authority, "-subj", "/CN=authority")
        make_certificate(own, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext",
                         "basicConstraints=critical,CA:FALSE", "-CA", authority["certificate"], "-CAkey",
                         authority["key"])
        os.environ["SSL_CERT_FILE"] = authority["certificate"]
        with open(config, "w") as file:
            json.dump({
                "version": "0.1", "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": f"{CASE_DIR}/registry"}},
                "http": {"addr": f"127.0.0.1:{PORT}", "tls": own},
            }, file)

    def start(self, is_ready=lambda: accepts(PORT)):
        super().start(is_ready)


class Snapshotter(Service):
    """puzzlefs-snapshotter."""

    def __init__(self):
        super().__init__(
            "snapshotter", "puzzlefs-snapshotter", "serve", "--root", ROOT, "--mounts", f"{RUN}/images",
            "--address", SNAPSHOTTER_SOCKET, "--containerd", CONTAINERD_SOCKET, "--hosts", SNAPSHOTTER_HOSTS,
            "--metrics", f"127.0.0.1:{METRICS_PORT}")

    def start(self, is_ready=None):
        before = self.logged().count("listening on") if os.path.exists(self.log) else 0
        super().start(is_ready or (lambda: self.logged().count("listening on") > before))

    def use_registry(self, port=PORT):
        """Makes the snapshotter take images of the host `localhost` from a port of it."""
        os.makedirs(f"{SNAPSHOTTER_HOSTS}/localhost", exist_ok=True)
        with open(f"{SNAPSHOTTER_HOSTS}/localhost/hosts.toml", "w") as file:
            file.write(f'server = "https://localhost:{port}"\n')

    def metrics(self):
        """Returns the metrics by their names, without the common beginning."""
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=40) as answer:
            lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name.removeprefix("puzzlefs_snapshotter_"): float(value)
                for name, value in (line.rsplit(" ", 1) for line in lines)}

    @contextlib.contextmanager
    def pulling(self, origin):
        """The body must make one image available, from this origin."""
        name = f'pulls_total{{origin="{origin}"}}'
        before = self.metrics()
        yield
        after = self.metrics()
        pulls = {key: after[key] - before.get(key, 0) for key in after if key.startswith("pulls_total")}
        equal({key: count for key, count in pulls.items() if count}, {name: 1}, "images made available")


class Containerd(Service):
    """containerd."""

    def __init__(self, config):
        path = f"{CASE_DIR}/config.toml"
        super().__init__("containerd", "containerd", "--config", path)
        is_new = "cri.v1" in config
        with open(path, "w") as file:
            file.write(f"version = {3 if is_new else 2}\n{config}")

    def start(self, is_ready=lambda: ctr_succeeds("version")):
        super().start(is_ready)


def use_new_containerd():
    """Makes all programs that are started later those of containerd 2."""
    os.environ["PATH"] = f"/opt/containerd-new:{os.environ['PATH']}"


def ctr(*arguments, namespace="default"):
    """Runs ctr, which must succeed; returns its output."""
    return run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", namespace, *arguments)


def ctr_succeeds(*arguments, namespace="default"):
    """Runs ctr; returns true if it succeeds."""
    command = ["ctr", "--address", CONTAINERD_SOCKET, "--namespace", namespace, *arguments]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0


def build_and_push(version, size, name="app"):
    """Builds an image and pushes it to the registry; returns its manifest with the manifest's own size and
    digest. /version names the version, and an image has the data of those before it."""
    tree = f"{CASE_DIR}/tree-{name}"
    os.makedirs(f"{tree}/bin", exist_ok=True)
    shutil.copy("/bin/busybox", f"{tree}/bin/busybox")
    with open(f"{tree}/version", "w") as file:
        file.write(version)
    with open(f"{tree}/data-{version}", "wb") as file:
        file.write(os.urandom(size))
    image = f"{CASE_DIR}/store:{name}-{version}"
    options = ["--entrypoint", "/bin/busybox", "--cmd", "sleep", "--cmd", "3600"]
    run("puzzlefs", "build", "-q", *options, tree, image)
    run("puzzlefs", "push", "-q", image, f"docker://{address(version, name)}")
    with open(f"{CASE_DIR}/store/index.json") as file:
        index = json.load(file)["manifests"]
    digest = next(one["digest"] for one in index if f"{name}-{version}" in one["annotations"].values())
    with open(f"{CASE_DIR}/store/blobs/{digest.replace(':', '/')}", "rb") as file:
        raw = file.read()
    return json.loads(raw) | {"digest": digest, "size": len(raw)}


def address(version, name="app"):
    """Returns the name of an image in the registry."""
    return f"localhost:{PORT}/team/{name}:{version}"


def layers(manifest):
    """Returns the digests of the layers of an image."""
    return {layer["digest"] for layer in manifest["layers"]}


def tags():
    """Returns the number of images in the snapshotter's store, which need not exist yet."""
    if not os.path.exists(f"{STORE}/oci-layout"):
        return 0
    return len(run("puzzlefs", "list", "--json", STORE).splitlines())


def stored():
    """Returns the size of the snapshotter's blobs on disk, in bytes."""
    if not os.path.exists(f"{STORE}/blobs"):
        return 0
    return int(run("du", "-sk", f"{STORE}/blobs").split()[0]) << 10


def has_nothing():
    """Returns true if the snapshotter has no snapshot, no image, no mount and no data."""
    if not os.path.exists(f"{ROOT}/state.json"):
        return stored() == 0
    with open(f"{ROOT}/state.json") as file:
        state = json.load(file)
    with open("/proc/self/mountinfo") as mounts:
        mounted = sum(f"{RUN}/images/" in line for line in mounts)
    remains = (state["snapshots"], state["images"], state.get("leaving"), os.listdir(f"{ROOT}/snapshots"),
               mounted, tags(), stored() >> 17)
    return not any(remains)
