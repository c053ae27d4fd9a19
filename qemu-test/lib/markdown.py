# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reads the parts of Markdown pages that the checks compare with the code."""
import re


def tables(text):
    """Yields each table: the line number and the cells of its header, and the cells of its other rows."""
    rows = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            rows.append((number, [cell.strip() for cell in cells]))
        elif rows:
            # The second row is the ruler.
            if len(rows) > 2:
                yield *rows[0], [row for _, row in rows[2:]]
            rows = []
