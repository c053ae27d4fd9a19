# SPDX-License-Identifier: MIT OR Apache-2.0
"""The tracepoints puzzlefs:*, in an instance of tracefs of their own."""

import contextlib
import os
import re

import mountapi
from case import check, equal

TRACEFS = "/sys/kernel/tracing"
INSTANCE = f"{TRACEFS}/instances/puzzlefs"
EVENTS = f"{INSTANCE}/events/puzzlefs"
_LINE = re.compile(r"\s*.*-(\d+)\s+\[\d+\]\s+\S+\s+[\d.]+: puzzlefs_(\w+): (.*)")
_FIELD = re.compile(r'(\w+)=("[^"]*"|\S+)')
_FIELDS = {
    "request": "dev ino offset len folios kind",
    "request_end": "dev ino offset len failed duration_ns",
    "chunk": "chunk file offset len encoding source wait_ns",
    "read": "reads len wait_ns",
    "decode": "step stored_len content_len duration_ns",
    "prefetch": "file offset len",
    "error": "image ino offset digest error cause",
}
_NUMBERS = {"ino", "offset", "len", "folios", "failed", "duration_ns", "wait_ns", "reads", "stored_len",
            "content_len", "error"}


class Event:
    """An event: its task, its name, and its fields."""

    def __init__(self, task, name, text):
        self.task, self.name = task, name
        found = _FIELD.findall(text)
        equal(" ".join(key for key, _ in found), _FIELDS[name], f"the fields of {name}")
        for key, value in found:
            setattr(self, key, int(value) if key in _NUMBERS else value.strip('"'))

    def __repr__(self):
        return f"{self.name} {vars(self)}"


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def lines():
    """The lines of the buffer."""
    with open(f"{INSTANCE}/trace") as file:
        return [line for line in file if not line.startswith("#")]


def make_instance():
    """Makes the instance, which is removed with rmdir(2)."""
    if not os.path.exists(f"{TRACEFS}/events"):
        mountapi.mount("tracefs", TRACEFS, flags=0, fs_type="tracefs")
    if os.path.exists(INSTANCE):
        # A case that failed has left it.
        os.rmdir(INSTANCE)
    os.mkdir(INSTANCE)
    write(f"{INSTANCE}/buffer_size_kb", "4096")


def begin():
    """Turns the events on, with an empty buffer."""
    write(f"{INSTANCE}/trace", "")
    write(f"{EVENTS}/enable", "1")


def end():
    """Turns the events off."""
    write(f"{EVENTS}/enable", "0")


def seen():
    """The events in the buffer."""
    events = []
    for line in lines():
        check("LOST" not in line, "the buffer has no room for all events")
        match = _LINE.match(line)
        check(match, f"no event: {line!r}")
        events.append(Event(*match.groups()))
    return events


@contextlib.contextmanager
def traced():
    """Gives a list, in which the events are that occur while the body runs."""
    events = []
    begin()
    try:
        yield events
    finally:
        end()
    events += seen()


def named(events, name, **fields):
    """The events of a name, with these values of fields."""
    return [event for event in events if event.name == name
            and all(getattr(event, key) == value for key, value in fields.items())]
