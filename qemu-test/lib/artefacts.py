#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Answers questions about the artefacts in the cache.

    artefacts.py header NAME KEY    the value of a header line of steps/NAME
    artefacts.py needs NAME         the artefacts that steps/NAME needs, one per line
    artefacts.py key NAME           the key of the artefact

An artefact is in CACHE/NAME-KEY. Its key covers everything that it is made of: the script steps/NAME, the
files and the variables that its header names, and the keys of the artefacts that it needs. The variables
come from the environment, KERNEL_ROOT among them: the step that `kernel-root` stands for.
"""
import hashlib
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


class Artefacts:
    def __init__(self, top, variables):
        self.top = top
        self.variables = variables

    def read(self, file):
        with open(os.path.join(self.top, file), "rb") as data:
            return data.read()

    def script(self, name):
        return self.read(f"steps/{name}")

    def header(self, name, key):
        """Returns the values of all header lines of this key, as one text."""
        pattern = rf"^# {re.escape(key)}: *(.*)$"
        return "\n".join(re.findall(pattern, self.script(name).decode(), re.MULTILINE))

    def needs(self, name):
        root = self.variables.get("KERNEL_ROOT", "")
        return [root if word == "kernel-root" else word for word in self.header(name, "needs").split()]

    def key(self, name, above=()):
        """Returns the key of an artefact. Raises ValueError for a circle of steps or a variable not set."""
        if name in above:
            raise ValueError(f"{name} needs itself: {' '.join(above)}")
        digest = hashlib.sha256(self.script(name))
        for file in self.header(name, "files").split():
            digest.update(self.read(file))
        for variable in self.header(name, "inputs").split():
            if variable not in self.variables:
                raise ValueError(f"the input {variable} of {name} is not set")
            digest.update(f"{variable}={self.variables[variable]}\n".encode())
        for needed in self.needs(name):
            digest.update(f"{self.key(needed, (*above, name))}\n".encode())
        return digest.hexdigest()[:12]


def main(arguments):
    artefacts = Artefacts(TOP, os.environ)
    match arguments:
        case ["header", name, key]:
            print(artefacts.header(name, key))
        case ["needs", name]:
            print("\n".join(artefacts.needs(name)))
        case ["key", name]:
            print(artefacts.key(name))
        case _:
            raise ValueError(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, ValueError) as error:
        sys.exit(f"artefacts.py: {error}")
