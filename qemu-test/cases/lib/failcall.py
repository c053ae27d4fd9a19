# SPDX-License-Identifier: MIT OR Apache-2.0
"""Makes calls of a kernel function fail, by the module of `# needs: fail-call`."""

import contextlib

from case import run, write_file

EVERYBODY = -1
ENOMEM = -12
_PARAMETERS = "/sys/module/fail_call/parameters"


class Failing:
    """The calls of one function; nobody's fail yet."""

    def fail_for(self, pid):
        write_file(f"{_PARAMETERS}/pid", str(pid).encode())

    def fail_for_nobody(self):
        self.fail_for(0)

    def failed(self):
        """How many calls have failed."""
        with open(f"{_PARAMETERS}/failed") as file:
            return int(file.read())


@contextlib.contextmanager
def failing(function, value, argument=None, least=0):
    """While this lasts, calls of the function can be made to return `value`; with `argument`, only
    those whose argument of that number is not less than `least`."""
    which = [] if argument is None else [f"argument={argument}", f"least={least}"]
    run("insmod", "/payload/fail_call.ko", f"function={function}", f"value={value}", *which)
    try:
        yield Failing()
    finally:
        run("rmmod", "fail_call")
