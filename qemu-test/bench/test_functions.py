# SPDX-License-Identifier: MIT OR Apache-2.0
"""Tests of bench/functions.py."""
import base64
import tempfile
import unittest
import zlib

import functions


class Names(unittest.TestCase):
    def test_rust(self):
        for name, expected in (
                ("_RNvMs_NtNtCs6GzGTpCiBDQ_13puzzlefs_main5codec11frame_cacheNtB4_9SlotHints4find",
                 "puzzlefs_main::codec::frame_cache::SlotHints::find"),
                # An underscore separates a length from a name that begins with a digit or an underscore.
                ("_RNvC1a5__new", "a::_new"),
                # A length beyond the name.
                ("_RNvC1a99b", "a::b")):
            self.assertEqual(functions.readable(name), expected)

    def test_compiler(self):
        self.assertEqual(functions.readable("link_path_walk.part.0.constprop.0"), "link_path_walk")
        self.assertEqual(functions.readable("read_pages.cold"), "read_pages")
        self.assertEqual(functions.readable("__x64.coldest"), "__x64.coldest")


class Runs(unittest.TestCase):
    def test_runs(self):
        text = "ffffffff81000100 second.isra.0\nffffffff81000000 first\n"
        encoded = base64.b64encode(zlib.compress(text.encode())).decode()
        addresses, names = functions.symbols([("symbols.00000008", encoded[8:]),
                                              ("symbols.00000000", encoded[:8])])
        with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:
            file.write("run\n0 5\nffffffff81000000 1\nffffffff810000ff 2\nffffffff81000100 4\nrun\n")
            file.flush()
            self.assertEqual(functions.read(file.name, addresses, names),
                             [{"programs": 5, "first": 3, "second": 4}, {}])


if __name__ == "__main__":
    unittest.main()
