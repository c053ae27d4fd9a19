#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The tools, run by an ordinary user and by root on archives, layouts, stores and images that are
# made to have them write elsewhere: nothing but their target changes, nothing of elsewhere is read,
# and none of them waits for ever.
#
# timeout: 150
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile

from case import CASE_DIR, check, equal, fail, run, write_file
from metadata import Chunk, Inode, Store

USER = 1234
work = f"{CASE_DIR}/work"
victim = f"{CASE_DIR}/victim"
os.chmod(CASE_DIR, 0o755)


def digest(contents):
    return hashlib.sha256(contents).hexdigest()


# What must stay as it is: among it another store, and names that a tool of ours might remove.
os.mkdir(victim)
write_file(f"{victim}/secret", b"a secret")
os.makedirs(f"{victim}/sha256")
os.makedirs(f"{victim}/staging-old")
write_file(f"{victim}/staging-old/file", b"keep me")
for number in range(3):
    write_file(f"{victim}/sha256/{digest(b'blob %d' % number)}", b"blob %d" % number)
write_file(f"{victim}/index.json.new", b"keep me")
run("chown", "-R", f"{USER}:{USER}", victim)


def snapshot():
    """All that can be told of the victim's files."""
    found = {}
    for at, names, files in os.walk(victim):
        for name in [".", *names, *files]:
            path = f"{at}/{name}"
            info = os.lstat(path)
            contents = open(path, "rb").read() if stat.S_ISREG(info.st_mode) else b""
            found[path] = (info.st_mode, info.st_uid, info.st_nlink if stat.S_ISREG(info.st_mode) else 0,
                           info.st_mtime_ns, contents)
    return found


before = snapshot()


def tool(user, *arguments, stdin=None):
    """Runs a tool; returns its status and what it said. It must not crash, nor wait."""
    command = ["puzzlefs", *arguments]
    if user:
        command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all",
                   "--bounding-set=-all", "--", *command]
    try:
        done = subprocess.run(command, stdin=stdin or subprocess.DEVNULL, capture_output=True, timeout=60,
                              cwd=work)
    except subprocess.TimeoutExpired:
        fail(f"does not end: {' '.join(command)}")
    said = (done.stdout + done.stderr).decode(errors="replace")
    check(done.returncode in (0, 1), f"status {done.returncode} of {' '.join(command)}: {said}")
    check("a secret" not in said, f"{' '.join(command)} tells a secret: {said}")
    return done.returncode, said


def fresh(owner=0):
    shutil.rmtree(work, ignore_errors=True)
    os.mkdir(work)
    os.chown(work, owner, owner)


def unharmed(what):
    now = snapshot()
    if now != before:
        changed = [path for path in sorted(set(now) | set(before)) if now.get(path) != before.get(path)]
        fail(f"{what}: changed: {changed}")


def within(directory, what):
    """All that was made is in there, and no file of it is also elsewhere."""
    for at, names, files in os.walk(directory):
        for name in names + files:
            info = os.lstat(f"{at}/{name}")
            check(not stat.S_ISREG(info.st_mode) or (info.st_dev, info.st_ino) not in elsewhere,
                  f"{what}: {at}/{name} is the victim's")


elsewhere = {(os.lstat(path).st_dev, os.lstat(path).st_ino) for path in before}


# ---------------------------------------------------------------- archives

def member(name, kind=tarfile.REGTYPE, target="", mode=0o644, contents=b"hostile", uid=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid = kind, target, mode, uid, uid
    if kind == tarfile.REGTYPE:
        info.size = len(contents)
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        # /dev/mem, or the first disk.
        info.devmajor, info.devminor = (1, 1) if kind == tarfile.CHRTYPE else (254, 0)
    return info, contents


def archive(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as file:
        for info, contents in members:
            file.addfile(info, io.BytesIO(contents) if info.isreg() else None)
    return stream.getvalue()


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LINK, HARD, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
archives = {
    "a path with ..": [member("../victim/secret")],
    "a path with .. in it": [member("a/b/../../../victim/secret")],
    "an absolute path": [member(f"{victim}/secret")],
    "a path of a directory that is a link": [member("l", LINK, victim), member("l/secret")],
    "the same, with ..": [member("l", LINK, "../victim"), member("l/secret")],
    "a chain of links": [member("a", LINK, ".."), member("b", LINK, "a/victim"), member("b/secret")],
    "a directory over a link": [member("l", LINK, victim), member("l", DIR, mode=0o777), member("l/secret")],
    "a link over a directory": [member("d", DIR), member("d", LINK, victim), member("d/secret")],
    "a file over a link": [member("l", LINK, f"{victim}/secret"), member("l")],
    "a hard link to elsewhere": [member("h", HARD, f"{victim}/secret"), member("h")],
    "a hard link with ..": [member("h", HARD, "../victim/secret"), member("h")],
    "a hard link by way of a link": [member("l", LINK, victim), member("h", HARD, "l/secret"), member("h")],
    "a hard link to a link": [member("l", LINK, f"{victim}/secret"), member("h", HARD, "l"), member("h")],
    "devices": [member("mem", tarfile.CHRTYPE), member("disk", tarfile.BLKTYPE)],
    "a set-uid program": [member("su", mode=0o6755), member("mine", mode=0o4755, uid=USER)],
    "dots": [member("."), member("./."), member("a/./b")],
    "names": [member("a\n\x1b[2Jb"), member("-rf"), member("~"), member("$HOME")],
}
for user in (USER, 0):
    for what, members in archives.items():
        fresh(user)
        what = f"{what}, by {user}"
        write_file(f"{work}/hostile.tar", archive(members))
        status, said = tool(user, "build", "hostile.tar", "store:image")
        unharmed(f"build of {what}")
        if user:
            with open(f"{work}/hostile.tar", "rb") as stream:
                tool(user, "build", "-", "store:stream", stdin=stream)
            unharmed(f"build of {what}, as a stream")
        if status == 0:
            status, said = tool(user, "extract", "store:image", "out")
            unharmed(f"extraction of {what}")
            within(f"{work}/out", f"extraction of {what}")
            tool(user, "cat", "store:image", "l/secret")
        if user == 0:
            continue
        # As the one layer of a container's image.
        layer = archive(members)
        fresh(user)
        layout = Store(f"{work}/layout")
        config = json.dumps({"architecture": "amd64", "os": "linux",
                             "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}"]}}).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": f"sha256:{layout.add(config).hex()}", "size": len(config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": f"sha256:{layout.add(layer).hex()}", "size": len(layer)}]}).encode()
        write_file(f"{work}/layout/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        write_file(f"{work}/layout/index.json", json.dumps({"schemaVersion": 2, "manifests": [
            {"mediaType": MANIFEST, "digest": f"sha256:{layout.add(manifest).hex()}",
             "size": len(manifest), "annotations": {"org.opencontainers.image.ref.name": "t"}}]}).encode())
        status, said = tool(user, "import", "layout:t", "store:image")
        unharmed(f"import of {what}")
        if status == 0:
            tool(user, "extract", "store:image", "out")
            unharmed(f"extraction of an import of {what}")
            within(f"{work}/out", f"extraction of an import of {what}")

# What an ordinary user gets of programs that were to run as somebody else, and of devices.
fresh(USER)
write_file(f"{work}/hostile.tar", archive(archives["a set-uid program"]))
equal(tool(USER, "build", "hostile.tar", "store:image")[0], 0, "build")
equal(tool(USER, "extract", "store:image", "out")[0], 0, "extract")
for name, mode in (("su", 0o755), ("mine", 0o4755)):
    info = os.lstat(f"{work}/out/{name}")
    equal((info.st_uid, stat.S_IMODE(info.st_mode)), (USER, mode), f"owner and mode of {name}")
equal(tool(0, "extract", "store:image", "as-root")[0], 0, "extract by root")
equal(stat.S_IMODE(os.lstat(f"{work}/as-root/su").st_mode), 0o6755, "the mode, by root")
fresh(USER)
write_file(f"{work}/hostile.tar", archive(archives["devices"]))
equal(tool(USER, "build", "hostile.tar", "store:image")[0], 0, "build")
equal(tool(USER, "extract", "store:image", "out")[0], 1, "an ordinary user makes no device")
check(not os.path.lexists(f"{work}/out/mem"), "there is a device")

# ---------------------------------------------------------------- layouts that name blobs elsewhere

fresh(USER)
os.mkdir(f"{work}/layout")
Store(f"{work}/layout")
write_file(f"{work}/layout/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
for name in (f"sha256:../../../../{victim}/secret", f"sha256:../../../victim/secret", "sha256:",
             f"{victim}/secret", "sha512:" + "0" * 128, "sha256:" + "A" * 64):
    write_file(f"{work}/layout/index.json", json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": MANIFEST, "digest": name, "size": 8,
         "annotations": {"org.opencontainers.image.ref.name": "t"}}]}).encode())
    for command in (("import", "layout:t", "store:image"), ("extract", "layout:t", "out"),
                    ("copy", "layout:t", "other:t"),
                    ("resolve", "layout:t"), ("verify", "layout"), ("gc", "layout")):
        equal(tool(0, *command)[0], 1, f"{command} of a manifest {name}")
        unharmed(f"{command} of a manifest {name}")

# ---------------------------------------------------------------- stores that lead elsewhere

os.makedirs(f"{CASE_DIR}/tree")
write_file(f"{CASE_DIR}/tree/file", b"contents")
write_file(f"{CASE_DIR}/tree/other", bytes(range(256)) * 1000)


run("puzzlefs", "build", "--quiet", f"{CASE_DIR}/tree", f"{CASE_DIR}/sound:image")


def sound():
    """A store in which nothing is wrong."""
    fresh()
    shutil.copytree(f"{CASE_DIR}/sound", f"{work}/store")
    return f"{work}/store"


def replace(path, by):
    """A symbolic link, or what else `by` makes, in the place of something."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
    if callable(by):
        by(path)
    else:
        os.symlink(by, path)


def empty_with_blobs(store):
    shutil.rmtree(store)
    os.mkdir(store)
    os.symlink(victim, f"{store}/blobs")


stores = {
    "blobs are elsewhere": lambda s: replace(f"{s}/blobs", victim),
    "blobs/sha256 is elsewhere": lambda s: replace(f"{s}/blobs/sha256", f"{victim}/sha256"),
    "it is to be made, and blobs is elsewhere": empty_with_blobs,
    "its locks are elsewhere": lambda s: replace(f"{s}/.puzzlefs", victim),
    "a lock is elsewhere": lambda s: replace(f"{s}/.puzzlefs/gc.lock", f"{victim}/secret"),
    "the index's lock is elsewhere": lambda s: replace(f"{s}/.puzzlefs/index.lock", f"{victim}/secret"),
    "a lock is a FIFO": lambda s: replace(f"{s}/.puzzlefs/gc.lock", os.mkfifo),
    "the new index is elsewhere": lambda s: replace(f"{s}/.puzzlefs/index.json.new", f"{victim}/secret"),
    "the new index is a file of somebody's": lambda s: os.link(f"{CASE_DIR}/linked",
                                                               f"{s}/.puzzlefs/index.json.new"),
    "the index is elsewhere": lambda s: replace(f"{s}/index.json", f"{victim}/secret"),
    "the index is a FIFO": lambda s: replace(f"{s}/index.json", os.mkfifo),
    "the index is endless": lambda s: replace(f"{s}/index.json", "/dev/zero"),
    "the mark of a layout is elsewhere": lambda s: replace(f"{s}/oci-layout", f"{victim}/secret"),
    "the blobs are links": lambda s: [replace(f"{s}/blobs/sha256/{name}", f"{victim}/secret")
                                      for name in os.listdir(f"{s}/blobs/sha256")],
    "the blobs are FIFOs": lambda s: [replace(f"{s}/blobs/sha256/{name}", os.mkfifo)
                                      for name in os.listdir(f"{s}/blobs/sha256")],
    "the blobs are directories": lambda s: [replace(f"{s}/blobs/sha256/{name}", os.mkdir)
                                            for name in os.listdir(f"{s}/blobs/sha256")],
    "a staging directory is elsewhere": lambda s: os.symlink(victim, f"{s}/.puzzlefs/staging-x"),
}
write_file(f"{CASE_DIR}/linked", b"somebody's")
for what, damage in stores.items():
    for command in (("build", f"{CASE_DIR}/tree", "store:other"), ("gc", "store"),
                    ("tag", "store:image", "new"),
                    ("untag", "store:image"), ("verify", "store"), ("copy", "store:image", "fresh:image"),
                    ("extract", "store:image", "out"), ("enable-verity", "store")):
        damage(sound())
        tool(0, *command)
        unharmed(f"a store where {what}: {command[0]}")
        with open(f"{CASE_DIR}/linked", "rb") as file:
            equal(file.read(), b"somebody's", f"a store where {what}: {command[0]}")
for what in ("blobs are elsewhere", "blobs/sha256 is elsewhere", "its locks are elsewhere",
             "the index is a FIFO"):
    stores[what](sound())
    equal(tool(0, "build", f"{CASE_DIR}/tree", "store:other")[0], 1, f"a build into a store where {what}")
# And into a sound one all of it goes.
equal(tool(0, "build", f"{CASE_DIR}/tree", f"{sound()}:other")[0], 0, "a build")
write_file(f"{work}/store/.puzzlefs/index.json.new", b"left by a dead writer")
equal(tool(0, "tag", "store:image", "new")[0], 0, "tag")

# ---------------------------------------------------------------- images that no builder made

ROOTFS, FILEDATA = "application/vnd.puzzlefs.image.rootfs.v1", "application/vnd.puzzlefs.image.filedata.v1"
LINKED, FILE, DIRECTORY, LINKED_BELOW = 2, 3, 4, 5


def image(entries, *more):
    """A store with an image whose root has these entries, as OCI wants it; returns the source."""
    fresh(USER)
    made = Store(f"{work}/store")
    data = made.add(b"hostile" * 100)
    rootfs = made.add_image([
        Inode(1, "dir", 0o777, entries=entries), Inode(LINKED, "lnk", 0o777, target=os.fsencode(victim)),
        Inode(FILE, chunks=[Chunk(data, 700)], mode=0o666),
        Inode(DIRECTORY, "dir", 0o777, entries=[(b"secret", FILE)]),
        Inode(LINKED_BELOW, "lnk", 0o777, target=b"a/secret"), *more])
    blob = bytes.fromhex(rootfs)
    config = made.add(b"{}")
    size = os.path.getsize(f"{work}/store/blobs/sha256/{rootfs}")
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": f"sha256:{config.hex()}",
                   "size": 2},
        "layers": [{"mediaType": ROOTFS, "digest": f"sha256:{blob.hex()}", "size": size},
                   {"mediaType": FILEDATA, "digest": f"sha256:{data.hex()}", "size": 700}]}).encode()
    write_file(f"{work}/store/oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    write_file(f"{work}/store/index.json", json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": MANIFEST, "digest": f"sha256:{made.add(manifest).hex()}", "size": len(manifest),
         "annotations": {"org.opencontainers.image.ref.name": "image"}}]}).encode())


images = {
    "a name with a slash": [(b"../victim/secret", FILE)],
    "a name with a slash below a link": [(b"a", LINKED), (b"a/secret", FILE)],
    "the name ..": [(b"..", DIRECTORY)],
    "the name .": [(b".", DIRECTORY)],
    "an absolute name": [(os.fsencode(f"{victim}/secret"), FILE)],
    "no name": [(b"", FILE)],
    "a name with a zero": [(b"a\0b", FILE)],
    "a link and a directory of one name": [(b"a", LINKED), (b"a", DIRECTORY)],
    "a directory and a link of one name": [(b"a", DIRECTORY), (b"a", LINKED)],
    "a link and a file of one name": [(b"a", LINKED), (b"a", FILE)],
    "a link under two names, and a file of the second": [(b"a", LINKED), (b"b", LINKED), (b"b", FILE)],
    "a directory in two places": [(b"a", DIRECTORY), (b"b", DIRECTORY)],
    "the root in itself": [(b"a", 1)],
}
for what, entries in images.items():
    for user in (USER, 0):
        image(entries)
        run("chown", "-R", f"{USER}:{USER}", work)
        status, said = tool(user, "extract", "store:image", "out")
        equal(status, 1, f"extraction of {what}")
        unharmed(f"extraction of {what}, by {user}")
        within(f"{work}/out", f"extraction of {what}")
image([(b"a", LINKED), (b"b", LINKED_BELOW), (b"c", FILE), (b"d", DIRECTORY), (b"e", LINKED)])
equal(tool(USER, "extract", "store:image", "out")[0], 0, "extraction of what is odd, but right")
unharmed("extraction of what is odd, but right")
equal(os.readlink(f"{work}/out/b"), "a/secret", "a link")
equal(open(f"{work}/out/d/secret", "rb").read(), b"hostile" * 100, "a file")
