#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Boots guests and follows the cases in them.

    guests.py WORK LOGS COUNT -- QEMU...

WORK/together and WORK/alone list cases, one per line: FILE:TIMEOUT, and for those that boot alone two more
fields, separated by tabs: the initramfs and arguments for the kernel. COUNT guests share the cases. QEMU is
the command that boots a guest; @INITRAMFS@ and @ARGUMENTS@ in it stand for these fields.

Each result is printed as soon as it is known. WORK/counts gets the numbers of passed, failed and skipped
cases, WORK/metrics the figures that cases took; LOGS keeps the consoles. The environment gives SLOWNESS (the
factor for time limits), PUZZLEFS_GRACE (seconds that a case may exceed its limit, default 45),
PUZZLEFS_GUESTS_FROM (guests after the first start when this file exists) and KINITRAMFS.

A guest writes a line for each event to its second serial port; qemu-test/guest/runner lists them. The answer
to `@next` is "FILE TIMEOUT" or "end".
"""
import contextlib
import os
import pathlib
import select
import shutil
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field


@dataclass
class Case:
    """One line of a queue."""
    file: str
    timeout: str
    initramfs: str = ""
    arguments: str = ""

    @classmethod
    def parse(cls, line):
        entry, *rest = line.split("\t")
        file, _, timeout = entry.rpartition(":")
        return cls(file, timeout, *rest)

    @property
    def name(self):
        return os.path.basename(self.file).rsplit(".", 1)[0]


class Queue:
    """Cases that several guests share: each is taken once."""

    def __init__(self, cases):
        self._cases = list(cases)
        self._lock = threading.Lock()

    def take(self):
        with self._lock:
            return self._cases.pop(0) if self._cases else None


class Report:
    """Prints results, counts them and keeps the figures. Guests that run at once share it."""

    VERDICTS = {"ok": "ok {name} ({rest} s)", "failed": "FAILED {name}: {rest}",
                "skipped": "skipped {name}: {rest}"}

    def __init__(self, out):
        self.counts = dict.fromkeys(self.VERDICTS, 0)
        self.metrics = []
        self._out = out
        self._lock = threading.Lock()

    def result(self, verdict, name, rest, lines=()):
        with self._lock:
            self.counts[verdict] += 1
            first = self.VERDICTS[verdict].format(name=name, rest=rest)
            self._out.write("".join(f"{line}\n" for line in (first, *lines)))
            self._out.flush()

    def remark(self, text):
        with self._lock:
            self._out.write(f"{text}\n")
            self._out.flush()

    def metric(self, figure):
        with self._lock:
            self.metrics.append(figure)


@dataclass
class Conversation:
    """The state of one guest: which case it runs, and until when something must happen.

    It has no clock and no process: `hear` gets each line with the time, and returns the answer, if any.
    When `ended` is set, the guest needs no more of us; `cause` is then set if it failed.
    """
    first: Case
    queue: Queue
    report: Report
    started: float
    slowness: int = 1
    grace: int = 45
    given: Case = None
    boot_limit: int = 180
    name: str = ""
    output: list = field(default_factory=list)
    cause: str = ""
    ended: bool = False
    booted: bool = False
    hung: bool = False

    def __post_init__(self):
        self.case_start = self.started
        self.deadline = self.started + self.boot_limit * self.slowness
        # A boot that fails is blamed on the case that it was for.
        self.next = self.given = self.first

    def hear(self, line, now):
        try:
            return self._hear(line, now)
        except (ValueError, KeyError):
            self.fail(f"the guest sent a damaged line: {line}")
            return None

    def _hear(self, line, now):
        kind, _, rest = line.partition(" ")
        if kind == "@boot":
            self.booted = True
            self.deadline = now + 60 * self.slowness
        elif kind == "@fatal":
            self.fail(rest)
        elif kind == "@next":
            return self._hand_out(now)
        elif kind == "@begin":
            self.name, _, limit = rest.rpartition(" ")
            self.output = []
            self.case_start = now
            # The guest has a limit of its own. Ours is for a guest that cannot enforce it.
            self.deadline = now + int(limit) + self.grace * self.slowness
        elif kind == "@metric":
            self.report.metric(rest)
        elif kind == "@out":
            self.output.append(f"    {rest}")
        elif kind == "@klog":
            self.output.append(f"    [kernel] {rest}")
        elif kind == "@end":
            _, verdict, seconds, *reason = rest.split(None, 3)
            text = seconds if verdict == "ok" else "".join(reason)
            self.report.result(verdict, self.name, text, self.output)
            self.given, self.name, self.output = None, "", []
            self.deadline = now + 60 * self.slowness
        elif kind == "@done":
            self.ended = True
        return None

    def _hand_out(self, now):
        if self.next is None and self.queue:
            self.next = self.queue.take()
        self.given, self.next = self.next, None
        self.deadline = now + 60 * self.slowness
        return f"{self.given.file} {self.given.timeout}" if self.given else "end"

    def check_time(self, now):
        if not self.ended and now > self.deadline:
            self.hung = True
            self.fail(f"the guest hung: killed after {int(now - self.case_start)} s")

    @property
    def hung_at_boot(self):
        """The kernel has not reached its first program, so nothing of ours has run."""
        return self.hung and not self.booted

    def fail(self, cause):
        self.cause, self.ended = cause, True

    def blame(self):
        """Returns the name and the cause of the failure: of the case, of the boot or of the shutdown."""
        if self.name:
            return self.name, self.cause
        name = self.given.name if self.given else "shutdown"
        return name, self.cause.replace("the guest", "the guest, with no case running,", 1)


class Lines:
    """Splits a pipe into lines without blocking."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.at_end = False
        self._part = b""

    def read(self, seconds):
        """Yields the lines that arrive within this time. A part of a line is kept for the next call."""
        if not select.select([self.pipe], [], [], seconds)[0]:
            return
        data = os.read(self.pipe.fileno(), 65536)
        self.at_end = not data
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "surrogateescape")


@dataclass
class Runner:
    """Runs guests, one after the other, until the queues are empty."""
    number: int
    work: pathlib.Path
    logs: pathlib.Path
    qemu: list
    report: Report
    slowness: int = 1
    grace: int = 45
    boot_limit: int = 180

    def run_all(self, together, alone, initramfs):
        while (case := together.take()) is not None:
            self.run(case, together, initramfs)
        while (case := alone.take()) is not None:
            self.run(case, None, case.initramfs)

    def run(self, case, queue, initramfs):
        """Boots, runs this case and then those of the queue. Reports the death of the guest.

        An emulated kernel on a busy machine can hang before its first program, where the module cannot be
        loaded yet. Such a boot is repeated once, unless the initramfs is what the case tests.
        """
        conversation = self.boot(case, queue, initramfs)
        if conversation.hung_at_boot and not case.initramfs:
            what = f"guest {self.number}: {conversation.cause}, before its first program"
            self.report.remark(f"{what}; it boots again")
            conversation = self.boot(case, queue, initramfs)
        if conversation.cause:
            self.blame(conversation)

    def boot(self, case, queue, initramfs):
        console = self.console
        errors = self.errors
        console.write_bytes(b"")
        known = {"@INITRAMFS@": initramfs, "@ARGUMENTS@": case.arguments}
        command = [substitute(word, known) for word in self.qemu]
        # QEMU dies with this thread, however it ends.
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        command += ["-serial", f"file:{console}", "-serial", "stdio"]
        with open(errors, "wb") as stderr:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        conversation = Conversation(case, queue, self.report, time.monotonic(), self.slowness, self.grace,
                                    boot_limit=self.boot_limit)
        try:
            converse(conversation, process)
        finally:
            end(process, patience=0 if conversation.cause or not conversation.ended else 20)
        shutil.copyfile(console, self.logs / f"console-{self.number}.log")
        return conversation

    def blame(self, conversation):
        name, cause = conversation.blame()
        lines = [*conversation.output, "    --- the console's last lines:",
                 *(f"    {line[:200]}" for line in text_of(self.console).splitlines()[-30:]),
                 *(f"    [qemu] {line}" for line in text_of(self.errors).splitlines())]
        self.report.result("failed", name, cause, lines)
        shutil.copyfile(self.console, self.logs / f"console-{name}.log")

    @property
    def console(self):
        return self.work / f"console-{self.number}.log"

    @property
    def errors(self):
        return self.work / f"qemu-{self.number}.log"


def substitute(word, known):
    for placeholder, value in known.items():
        word = word.replace(placeholder, value)
    return word


def converse(conversation, process):
    lines = Lines(process.stdout)
    while not conversation.ended:
        for line in lines.read(5):
            answer = conversation.hear(line, time.monotonic())
            if answer is not None:
                # A guest that died reads no answer: the end of its output says so.
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(f"{answer}\n".encode())
                    process.stdin.flush()
            if conversation.ended:
                return
        conversation.check_time(time.monotonic())
        if lines.at_end and not conversation.ended:
            conversation.fail("the guest died")


def end(process, patience):
    """Waits so many seconds for a process, then kills it."""
    try:
        process.wait(patience or 0.001)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()


def text_of(file):
    return file.read_bytes().decode("utf-8", "surrogateescape").replace("\r", "")


def run_guests(runners, together, alone, initramfs, wait_for):
    """Runs the guests at once, those after the first when `wait_for` exists or the first has ended."""
    first_ended = threading.Event()

    def work(runner):
        try:
            while runner.number > 1 and wait_for and not (first_ended.is_set() or os.path.exists(wait_for)):
                first_ended.wait(1)
            runner.run_all(together, alone, initramfs)
        except Exception:
            traceback.print_exc()
            runner.report.result("failed", f"guest {runner.number}", "it was not followed to its end")
        finally:
            if runner.number == 1:
                first_ended.set()

    threads = [threading.Thread(target=work, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(arguments):
    work, logs, count, _, *qemu = arguments
    work, logs = pathlib.Path(work), pathlib.Path(logs)
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    report = Report(sys.stdout)
    together, alone = (Queue(map(Case.parse, (work / name).read_text(encoding="utf-8").splitlines()))
                       for name in ("together", "alone"))
    slowness, grace = int(os.environ["SLOWNESS"]), int(os.environ.get("PUZZLEFS_GRACE") or 45)
    runners = [Runner(number, work, logs, qemu, report, slowness, grace)
               for number in range(1, int(count) + 1)]
    run_guests(runners, together, alone, os.environ["KINITRAMFS"], os.environ.get("PUZZLEFS_GUESTS_FROM"))
    (work / "metrics").write_text("".join(f"{figure}\n" for figure in report.metrics))
    (work / "counts").write_text(" ".join(map(str, report.counts.values())) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
