# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The metadata blob of a PuzzleFS image, manifest version 3.
#
# The blob is one message in the standard (unpacked) stream framing; its root
# is Rootfs. Documentation/image-format describes what it stands for.
#
# What is published stays: fields are added at the end of a struct, never
# renumbered, and a reader that does not know them passes over them. Those
# that the published version 3 does not have are marked "extension" and say
# how their absence is told.

@0x84ae5e6e88b7cbb7;

struct Rootfs {
    # An image.

    metadatas @0 :List(InodeVector);
    # The layers, the topmost first.

    fsVerityData @1 :List(VerityData);
    # The fs-verity digests of the data blobs, ascending by the blobs' digests.

    manifestVersion @2 :UInt64;
    # 3.

    dataSize @3 :UInt64;
    # Extension: the sum of the sizes of all regular files in bytes, each inode
    # counted once. 0 where it is absent.
}

struct InodeVector {
    # A layer.

    inodes @0 :List(Inode);
    # Ascending by number.
}

struct Inode {
    # A file of any kind.

    ino @0 :UInt64;
    # Its number; the root directory is 1.

    mode :union {
        # Its kind, and what only that kind has.

        unknown @1 :Void;
        fifo @2 :Void;
        chr @3 :Chr;
        dir @4 :Dir;
        blk @5 :Blk;
        file @6 :List(FileChunk);
        # A regular file: its chunks in order. Its size is the sum of their lengths.
        lnk @7 :Void;
        sock @8 :Void;
        wht @9 :Void;
        # A whiteout: what lower layers have under this number is gone.
    }

    uid @10 :UInt32;
    gid @11 :UInt32;

    permissions @12 :UInt16;
    # The lower twelve bits of the mode.

    additional @13 :InodeAdditional;

    mtimeSeconds @14 :Int64;
    # Extension: the time of the last modification, in seconds since the epoch.

    mtimeNanoseconds @15 :UInt32;
    # Extension: and the nanoseconds past that second, less than 1,000,000,000.

    size @16 :UInt64;
    # Extension: a regular file's size in bytes, so that it can be had without
    # adding up the chunks. It must equal their sum. 0 for other kinds.

    nlink @17 :UInt32;
    # Extension: how many directory entries, in all directories, have this
    # inode; for a directory, 2 and one for each subdirectory.
    #
    # No inode that can be reached has 0: so 0 says that of this inode all
    # extensions are absent, and their fields are not looked at.
}

struct Chr {
    # A character device.

    major @0 :UInt64;
    minor @1 :UInt64;
}

struct Blk {
    # A block device.

    major @0 :UInt64;
    minor @1 :UInt64;
}

struct Dir {
    # A directory.

    entries @0 :List(DirEntry);
    # No name twice. Mostly in byte order of the names, but that has to be checked.

    lookBelow @1 :Bool;
    # The directory of this number in the next layer that has it is merged
    # under this one.
}

struct DirEntry {
    ino @0 :UInt64;
    name @1 :Data;
}

struct FileChunk {
    # A part of a regular file.

    blob @0 :BlobRef;

    len @1 :UInt64;
    # In bytes; not 0.
}

struct BlobRef {
    # Where in a blob a chunk begins.

    digest @0 :Data;
    # SHA-256 of the blob as it is stored: the name of its file.

    offset @1 :UInt64;
    # In the blob's uncompressed content, in bytes.

    compressed @2 :Bool;
    # The blob is in the zstd seekable format.
}

struct InodeAdditional {
    xattrs @0 :List(Xattr);

    symlinkTarget @1 :Data;
    # Without a terminator.
}

struct Xattr {
    key @0 :Data;
    # The full name, the namespace's prefix included.

    val @1 :Data;
}

struct VerityData {
    digest @0 :Data;
    # SHA-256 of a blob as it is stored.

    verity @1 :Data;
    # Its fs-verity digest: SHA-256, blocks of 4096 bytes, no salt.
}
