#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# An ordinary user who cannot open /dev/fuse mounts by fusermount3: one that asks a service outside, as
# in containers, for the mount. The real one opens /dev/fuse as the user, and its refusal is told.
#
# timeout: 120
import os
import socket
import subprocess
import threading

from case import CASE_DIR, build_image, check, equal, run, write_file

USER = 65534
ADDRESS = f"{CASE_DIR}/service"
os.chmod(CASE_DIR, 0o755)
for name in ("src", "bin", "mnt"):
    os.mkdir(name)
write_file("src/file", b"contents")
image = build_image("src")
os.chown("mnt", USER, USER)
os.chmod("/dev/fuse", 0o600)


def serve(listener):
    """Has the real fusermount3 mount, as root, for each that connects."""
    while True:
        connection = listener.accept()[0]
        with connection:
            arguments, (passed,), _, _ = socket.recv_fds(connection, 65536, 1)
            command = ["fusermount3", *arguments.decode().split("\0")]
            done = subprocess.run(command, env={**os.environ, "_FUSE_COMMFD": str(passed)}, pass_fds=[passed],
                                  check=False)
            os.close(passed)
            connection.send(bytes([done.returncode]))


listener = socket.socket(socket.AF_UNIX)
listener.bind(ADDRESS)
os.chmod(ADDRESS, 0o666)
listener.listen()
threading.Thread(target=serve, args=[listener], daemon=True).start()

write_file("bin/fusermount3", f"""#!/usr/bin/env python3
import os, socket, sys
service = socket.socket(socket.AF_UNIX)
service.connect({ADDRESS!r})
socket.send_fds(service, ["\\0".join(sys.argv[1:]).encode()], [int(os.environ["_FUSE_COMMFD"])])
sys.exit(service.recv(1)[0])
""".encode())
os.chmod("bin/fusermount3", 0o755)


def mount(path, *options):
    """Mounts as the user, and gives the exit status and what was said."""
    words = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups",
             "puzzlefs", "mount", "--fuse", *options, image, f"{CASE_DIR}/mnt"]
    done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True,
                          check=False, timeout=60)
    return done.returncode, done.stderr


status, said = mount(f"{CASE_DIR}/bin:{os.environ['PATH']}", "-o", "allow_other,nosuid")
equal((status, said), (0, ""), "a mount by the service")
with open("/proc/mounts", encoding="utf-8") as mounts:
    line = next(line for line in mounts if f" {CASE_DIR}/mnt " in line)
check(line.startswith(f"{CASE_DIR}/store@sha256:") and " fuse.puzzlefs ro," in line, line)
with open("mnt/file", "rb") as file:
    equal(file.read(), b"contents")
run("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "cat", f"{CASE_DIR}/mnt/file")
run("puzzlefs", "umount", "mnt")

status, said = mount(os.environ["PATH"])
equal(status, 1, "a mount by the real fusermount3")
check("cannot open /dev/fuse: Permission denied" in said and "fusermount3: " in said, said)

os.mkdir("empty")
os.symlink("/usr/bin/setpriv", "empty/setpriv")
os.symlink(subprocess.run(["which", "puzzlefs"], capture_output=True, text=True, check=True).stdout.strip(),
           "empty/puzzlefs")
status, said = mount(f"{CASE_DIR}/empty")
equal(status, 1, "a mount without fusermount3")
check("fusermount3 is missing; install the package fuse3" in said, said)
with open("/proc/mounts", encoding="utf-8") as mounts:
    check(CASE_DIR + "/mnt" not in mounts.read(), "something is mounted")
