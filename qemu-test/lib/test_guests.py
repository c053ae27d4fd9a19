# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests of lib/guests.py: the conversation alone, and guests that are shell scripts."""
import contextlib
import io
import pathlib
import tempfile
import unittest

from guests import Case, Conversation, Queue, Report, Runner, run_guests

# A guest that passes each case it is given.
PASSING = """
echo @boot
while echo @next; read -r file limit && [ "$file" != end ]; do
	name=${file##*/} name=${name%.*}
	echo "@begin $name $limit"
	echo "@end $name ok 0.1"
done
echo @done
"""


def case(name, timeout=10):
    return Case(f"cases/{name}.sh", str(timeout))


class Talk(unittest.TestCase):
    def setUp(self):
        self.out = io.StringIO()
        self.report = Report(self.out)

    def start(self, first="a", *more, **options):
        return Conversation(case(first), Queue(map(case, more)), self.report, started=100, **options)

    def hear(self, conversation, *lines, now=100):
        return [conversation.hear(line, now) for line in lines]

    def test_cases_are_handed_out_until_none_is_left(self):
        talk = self.start("a", "b")
        self.assertEqual(self.hear(talk, "@boot", "@next", "@next", "@next", "@done"),
                         [None, "cases/a.sh 10", "cases/b.sh 10", "end", None])
        self.assertTrue(talk.ended)
        self.assertEqual(talk.cause, "")

    def test_results_are_reported_with_the_output_of_failures(self):
        talk = self.start()
        self.hear(talk, "@next", "@begin a 10", "@metric bytes 3", "@out  text", "@klog oops",
                  "@end a failed 1.5 it is wrong", "@begin b 10", "@end b ok 0.2",
                  "@begin c 10", "@end c skipped 0.1 no reason given")
        self.assertEqual(self.out.getvalue(), "FAILED a: it is wrong\n     text\n    [kernel] oops\n"
                                              "ok b (0.2 s)\nskipped c: no reason given\n")
        self.assertEqual(self.report.counts, {"ok": 1, "failed": 1, "skipped": 1})
        self.assertEqual(self.report.metrics, ["bytes 3"])

    def test_a_case_has_its_limit_and_the_grace(self):
        talk = self.start(grace=5, slowness=2)
        self.hear(talk, "@next", "@begin a 10", now=200)
        talk.check_time(220)
        self.assertFalse(talk.ended)
        talk.check_time(221)
        self.assertEqual(talk.blame(), ("a", "the guest hung: killed after 21 s"))

    def test_a_boot_has_three_minutes(self):
        talk = self.start()
        talk.check_time(280)
        self.assertFalse(talk.ended)
        talk.check_time(281)
        self.assertEqual(talk.blame(), ("a", "the guest, with no case running, hung: killed after 181 s"))

    def test_a_death_before_begin_is_blamed_on_the_case_that_was_given(self):
        talk = self.start()
        self.hear(talk, "@next")
        talk.fail("the guest died")
        self.assertEqual(talk.blame(), ("a", "the guest, with no case running, died"))

    def test_a_death_after_the_last_case_is_the_shutdown(self):
        talk = self.start()
        self.hear(talk, "@next", "@begin a 10", "@end a ok 1.0", "@next")
        talk.fail("the guest died")
        self.assertEqual(talk.blame()[0], "shutdown")

    def test_fatal_ends_the_guest_with_its_reason(self):
        talk = self.start()
        self.hear(talk, "@fatal no disk")
        self.assertTrue(talk.ended)
        self.assertEqual(talk.cause, "no disk")

    def test_other_lines_are_ignored(self):
        talk = self.start()
        self.assertEqual(self.hear(talk, "", "[    1.0] kernel", "@unknown x"), [None] * 3)
        self.assertFalse(talk.ended)


class Queues(unittest.TestCase):
    def test_a_line(self):
        self.assertEqual(Case.parse("cases/a:b.py:90\t/initrd\tx=1 y"),
                         Case("cases/a:b.py", "90", "/initrd", "x=1 y"))
        self.assertEqual(Case.parse("cases/read-all.py:90").name, "read-all")

    def test_each_case_is_taken_once(self):
        queue = Queue([1, 2])
        self.assertEqual([queue.take() for _ in range(4)], [1, 2, None, None])


class Guests(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)
        self.logs = self.work / "logs"
        self.logs.mkdir()
        self.out = io.StringIO()
        self.report = Report(self.out)

    def run_script(self, script, together=(), alone=(), count=1, wait_for=None, **limits):
        qemu = ["sh", "-c", script, "@INITRAMFS@", "@ARGUMENTS@"]
        runners = [Runner(number, self.work, self.logs, qemu, self.report, **limits)
                   for number in range(1, count + 1)]
        run_guests(runners, Queue(together), Queue(alone), "initramfs", wait_for)
        return self.out.getvalue()

    def test_all_cases_of_both_queues(self):
        alone = [Case("cases/c.sh", "10", "other", "x=1")]
        told = self.run_script(PASSING + 'echo "$0 $1" >>' + str(self.work / "boots"), [case("a"), case("b")],
                               alone)
        self.assertEqual(told, "ok a (0.1 s)\nok b (0.1 s)\nok c (0.1 s)\n")
        self.assertEqual((self.work / "boots").read_text(), "initramfs \nother x=1\n")

    def test_two_guests_share_the_cases(self):
        told = self.run_script(PASSING, [case(f"n{number}") for number in range(20)], count=2)
        self.assertEqual(sorted(told.splitlines()), sorted(f"ok n{number} (0.1 s)" for number in range(20)))

    def test_later_guests_wait_for_the_first(self):
        told = self.run_script(PASSING, [case("a")], count=2, wait_for=str(self.work / "never"))
        self.assertEqual(told, "ok a (0.1 s)\n")

    def test_after_a_death_the_next_guest_takes_the_next_case(self):
        script = 'echo error >&2; echo @next; read -r file _; case $file in *a.sh) exit;; esac' + PASSING
        told = self.run_script(script, [case("a"), case("b"), case("c")])
        self.assertEqual(told, "FAILED a: the guest, with no case running, died\n"
                               "    --- the console's last lines:\n    [qemu] error\nok c (0.1 s)\n")
        self.assertTrue((self.logs / "console-a.log").exists())

    def test_a_kernel_that_hangs_is_booted_once_more(self):
        first = self.work / "first"
        hang = "exec /bin/sleep 1000"
        once = f"[ -e {first} ] || {{ : >{first}; {hang}; }}\n" + PASSING
        told = self.run_script(once, [case("a"), case("b")], boot_limit=0)
        self.assertRegex(told, r"^guest 1: the guest hung: killed after \d+ s, before its first program; "
                               r"it boots again\nok a \(0.1 s\)\nok b \(0.1 s\)\n$")
        self.out.truncate(0)
        self.out.seek(0)
        told = self.run_script(hang, [case("a")], boot_limit=0)
        self.assertEqual(told.count("it boots again"), 1)
        self.assertIn("FAILED a: the guest, with no case running, hung", told)
        # What an initramfs of a case does is tested by that case.
        self.out.truncate(0)
        self.out.seek(0)
        told = self.run_script(hang, alone=[Case("cases/c.sh", "10", "other")], boot_limit=0)
        self.assertEqual(told.count("it boots again"), 0)
        # A guest that dies stays dead.
        self.out.truncate(0)
        self.out.seek(0)
        self.assertEqual(self.run_script("exit 1", [case("a")]).count("it boots again"), 0)

    def test_a_guest_that_sends_a_damaged_line_is_killed(self):
        told = self.run_script("echo @end a; exec /bin/sleep 1000", [case("a")])
        self.assertEqual(told, "FAILED a: the guest, with no case running, sent a damaged line: "
                               "@end a\n    --- the console's last lines:\n")

    def test_a_runner_that_breaks_is_a_failure(self):
        self.logs.rmdir()
        with contextlib.redirect_stderr(io.StringIO()):
            told = self.run_script(PASSING, [case("a")])
        self.assertEqual(told, "ok a (0.1 s)\nFAILED guest 1: it was not followed to its end\n")


if __name__ == "__main__":
    unittest.main()
