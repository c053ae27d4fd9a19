# SPDX-License-Identifier: MIT OR Apache-2.0
"""Stops a program at its Nth step, a system call that gives a blob its name or makes data durable.

A seccomp filter reports these system calls of all threads in one order, and each waits for an answer. The
program runs at full speed otherwise. It is started by this file:

    python3 steps.py SOCKET COMMAND...
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import threading

# renameat2 and fsync on amd64. Files that get their names by another call are made durable before it.
STEPS = (316, 74)

# From linux/seccomp.h and linux/bpf_common.h.
SYS_SECCOMP, SET_MODE_FILTER, FLAG_NEW_LISTENER = 317, 1, 8
RET_USER_NOTIF, RET_ALLOW = 0x7FC00000, 0x7FFF0000
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NOTIF_RECV, NOTIF_SEND, FLAG_CONTINUE = 0xC0502100, 0xC0182101, 1
NOTIF_SIZE = 80


class Steps:
    """The steps of a program, which runs on until `stop_at` names one."""

    def __init__(self, path):
        self.path, self.reached, self.count, self.wanted = path, threading.Event(), 0, None
        self._goes_on = threading.Event()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        threading.Thread(target=self._answer, daemon=True).start()

    def command(self, *command):
        """Returns the command that runs a command with this filter."""
        return (sys.executable, __file__, self.path, *command)

    def stop_at(self, number, then=lambda: None):
        """Counts steps from now on, and calls `then` when the program waits at the one of this number."""
        self.count, self.wanted = 0, (number, then)

    def go_on(self):
        """Ends the wait of the program."""
        self._goes_on.set()

    def _answer(self):
        with self._server, self._server.accept()[0] as connection:
            _, (listener,), _, _ = socket.recv_fds(connection, 1, 1)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while poll.poll()[0][1] & select.POLLIN:
            notification = bytearray(NOTIF_SIZE)
            try:
                fcntl.ioctl(listener, NOTIF_RECV, notification)
                self.count += 1
                if self.wanted and self.count == self.wanted[0]:
                    self.reached.set()
                    self.wanted[1]()
                    self._goes_on.wait()
                answer = struct.pack("=8sqiI", bytes(notification[:8]), 0, 0, FLAG_CONTINUE)
                fcntl.ioctl(listener, NOTIF_SEND, answer)
            except OSError as error:
                # The program is gone.
                if error.errno != errno.ENOENT:
                    raise
        os.close(listener)


def _main(path, *command):
    code = [struct.pack("=HBBI", LOAD_NUMBER, 0, 0, 0)]
    for at, number in enumerate(STEPS):
        code.append(struct.pack("=HBBI", JUMP_IF_EQUAL, len(STEPS) - at, 0, number))
    code += [struct.pack("=HBBI", RETURN, 0, 0, value) for value in (RET_ALLOW, RET_USER_NOTIF)]
    instructions = ctypes.create_string_buffer(b"".join(code))
    program = struct.pack("@HP", len(code), ctypes.addressof(instructions))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        libc = ctypes.CDLL(None, use_errno=True)
        listener = libc.syscall(SYS_SECCOMP, SET_MODE_FILTER, FLAG_NEW_LISTENER, program)
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        socket.send_fds(connection, [b"x"], [listener])
    os.execvp(command[0], command)


if __name__ == "__main__":
    _main(*sys.argv[1:])
