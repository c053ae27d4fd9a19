#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Packs and unpacks the corpora of the fuzz targets.

    fuzz/corpus.py pack TARGET DIRECTORY
    fuzz/corpus.py unpack TARGET DIRECTORY
    fuzz/corpus.py --self-test

`corpus/TARGET.tar.xz` holds the inputs that fuzzing found, named by their SHA-1 as libFuzzer does.
`corpus/TARGET/` holds named regressions as plain files. `unpack` writes both to DIRECTORY. `pack`
replaces the archive by the inputs in DIRECTORY, except those that are plain files. The archive
depends only on the inputs.
"""
import hashlib
import io
import pathlib
import sys
import tarfile
import tempfile

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def pack(target, directory, corpus=CORPUS):
    """Returns the number of inputs that were packed."""
    named = {path.read_bytes() for path in plain_files(corpus / target)}
    inputs = {path.read_bytes() for path in plain_files(directory)} - named
    archive = corpus / f"{target}.tar.xz"
    new = archive.with_suffix(".new")
    with tarfile.open(new, "w:xz", format=tarfile.USTAR_FORMAT, preset=9) as tar:
        for name, data in sorted((hashlib.sha1(data).hexdigest(), data) for data in inputs):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    new.rename(archive)
    return len(inputs)


def unpack(target, directory, corpus=CORPUS):
    """Returns the number of inputs that were written."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    with tarfile.open(corpus / f"{target}.tar.xz") as tar:
        for member in tar:
            if not member.isreg() or "/" in member.name:
                raise SystemExit(f"cannot unpack {target}: {member.name!r} is not a plain file name")
            (directory / member.name).write_bytes(tar.extractfile(member).read())
            count += 1
    for path in plain_files(corpus / target):
        (directory / path.name).write_bytes(path.read_bytes())
        count += 1
    return count


def plain_files(directory):
    directory = pathlib.Path(directory)
    return sorted(path for path in directory.iterdir() if path.is_file()) if directory.is_dir() else []


def self_test():
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        corpus, one, two = scratch / "corpus", scratch / "one", scratch / "two"
        for directory in (corpus / "target", one):
            directory.mkdir(parents=True)
        (corpus / "target" / "named").write_bytes(b"named")
        for name, data in (("a", b"\0\1"), ("b", b""), ("again", b""), ("c", b"named")):
            (one / name).write_bytes(data)
        assert pack("target", one, corpus) == 2, "equal inputs and named ones are packed once"
        assert unpack("target", two, corpus) == 3
        assert sorted(path.read_bytes() for path in two.iterdir()) == [b"", b"\0\1", b"named"]
        before = (corpus / "target.tar.xz").read_bytes()
        (one / "a").touch()
        assert pack("target", two, corpus) == 2
        assert (corpus / "target.tar.xz").read_bytes() == before, "the archive depends only on the inputs"
        with tarfile.open(corpus / "target.tar.xz", "w:xz") as tar:
            tar.addfile(tarfile.TarInfo("../outside"))
        try:
            unpack("target", two, corpus)
        except SystemExit as error:
            assert "../outside" in str(error)
        else:
            raise AssertionError("a path is unpacked")


def main(arguments):
    match arguments:
        case ["--self-test"]:
            self_test()
        case ["pack", target, directory]:
            print(pack(target, directory))
        case ["unpack", target, directory]:
            print(unpack(target, directory))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
