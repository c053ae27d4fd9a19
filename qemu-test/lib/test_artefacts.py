# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests of lib/artefacts.py."""
import hashlib
import os
import tempfile
import unittest

from artefacts import Artefacts

ONE = b"#!/bin/bash\n# title: one\n# inputs: A B\n# files: guest/init\n"
TWO = b"#!/bin/bash\n# needs: one kernel-root\n"
ROOT = b"#!/bin/bash\n"
VARIABLES = {"A": "1", "B": " two\nlines ", "KERNEL_ROOT": "root"}


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


class Keys(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        for name, data in (("steps/one", ONE), ("steps/two", TWO), ("steps/root", ROOT),
                           ("guest/init", b"x")):
            self.write(name, data)

    def write(self, name, data):
        path = os.path.join(self.top, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def key(self, name, **changes):
        return Artefacts(self.top, {**VARIABLES, **changes}).key(name)

    def test_a_key_covers_script_files_and_inputs_in_this_order(self):
        self.assertEqual(self.key("one"), sha(ONE, b"x", b"A=1\n", b"B= two\nlines \n"))

    def test_a_key_covers_the_keys_of_needed_artefacts(self):
        needed = f"{self.key('one')}\n{self.key('root')}\n".encode()
        self.assertEqual(self.key("two"), sha(TWO, needed))

    def test_a_change_of_an_input_reaches_those_above(self):
        for name in ("one", "two"):
            self.assertNotEqual(self.key(name), self.key(name, A="2"))
        self.assertEqual(self.key("root"), self.key("root", A="2"))

    def test_kernel_root_is_the_one_of_the_kernel(self):
        artefacts = Artefacts(self.top, {**VARIABLES, "KERNEL_ROOT": "one"})
        self.assertEqual(artefacts.needs("two"), ["one", "one"])

    def test_headers(self):
        artefacts = Artefacts(self.top, VARIABLES)
        self.assertEqual(artefacts.header("one", "title"), "one")
        self.assertEqual(artefacts.header("one", "disk"), "")

    def test_a_circle_is_an_error(self):
        self.write("steps/root", b"# needs: two\n")
        with self.assertRaisesRegex(ValueError, "needs itself"):
            self.key("two")

    def test_an_input_that_is_not_set_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "the input B of one is not set"):
            Artefacts(self.top, {"A": "1"}).key("one")


if __name__ == "__main__":
    unittest.main()
