# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The metadata chunks of a PuzzleFS image, format 4.
#
# Each is one message in the standard (unpacked) stream framing, with one
# segment. Documentation/image-format-4.md gives the rules. The elements of all
# lists have data only: a reader finds every field of an element at a fixed
# place. A later revision can add fields at the end of a struct; a reader skips
# those that it does not know.
#
# Fields marked "(difference)" are stored as the difference to a prediction; the
# page lists the predictions. The comments describe the values.

@0xd4d81eb6bd7008b4;

struct Root {
    # The chunk from which an image is reached.

    version @0 :UInt16;
    # 4, in every kind of message.

    kind @1 :UInt16;
    # The kind of message: 1.

    level @2 :UInt8;
    # 0 if the children are blocks, 1 if they are block lists.

    inodeCount @3 :UInt64;
    # The number of inodes of the image.

    dataSize @4 :UInt64;
    # The sum of the sizes of all regular files in bytes, each inode once.

    children @5 :List(Child);
}

struct BlockList {
    # A part of a long list of blocks.

    version @0 :UInt16;
    kind @1 :UInt16;
    # 2.

    children @2 :List(Child);
    # Blocks.
}

struct Child {
    # A block, or a block list.

    digest0 @0 :UInt64;
    digest1 @1 :UInt64;
    digest2 @2 :UInt64;
    digest3 @3 :UInt64;
    # The SHA-256 of the stored bytes. digest0 has the first eight bytes, the
    # first of them in its lowest bits.

    storedLength @4 :UInt32;
    contentLength @5 :UInt32;

    inodes @6 :UInt32;
    # The number of inodes in the block, or in all blocks of the block list.

    blocks @7 :UInt32;
    # 1 for a block; the number of blocks of a block list.
}

struct Block {
    # A few hundred inodes with all that belongs to them.

    version @0 :UInt16;
    kind @1 :UInt16;
    # 3.

    inodes @2 :List(Inode);
    entries @3 :List(Entry);
    extents @4 :List(Extent);
    chunks @5 :List(Chunk);
    parts @6 :List(Part);
    sets @7 :List(Set);
    attributes @8 :List(Attribute);

    bytes @9 :Data;
    # The pool: names, targets of symbolic links, and values of attributes.
}

struct ListBlock {
    # A part of a directory's entries, or of a file's extents.

    version @0 :UInt16;
    kind @1 :UInt16;
    # 4.

    of @2 :UInt8;
    # The type of the inode that the list belongs to: 4 (directory) or 8 (regular
    # file), as in Entry.type.

    level @3 :UInt8;
    # 0 if the list has entries or extents. Otherwise it has parts, and the
    # level of their list blocks is lower.

    entries @4 :List(Entry);
    extents @5 :List(Extent);
    chunks @6 :List(Chunk);
    parts @7 :List(Part);

    bytes @8 :Data;
    # The pool: names.
}

struct Inode {
    mode @0 :UInt16;
    # st_mode: the type in the upper four bits, the permissions in the lower twelve.

    long @1 :Bool;
    # True if the range below lies in parts.

    links @2 :UInt32;
    # st_nlink.

    uid @3 :UInt32;
    gid @4 :UInt32;

    mtimeSeconds @5 :Int64;
    # The time of the last modification, in seconds since the epoch.

    mtimeNanoseconds @6 :UInt32;
    # Nanoseconds past that second, less than 1,000,000,000.

    set @7 :UInt32;
    # 1 plus the number of the attribute set in sets; 0 if there are no attributes.

    size @8 :UInt64;
    # Of a regular file, its size in bytes. Of a device, major * 2^20 + minor.
    # Otherwise 0.

    first @9 :UInt32;
    count @10 :UInt32;
    # A range of entries (directory), extents (regular file), bytes (symbolic
    # link), or parts (see long). Otherwise 0 and 0. (first: difference)

    parentDistance @11 :Int32;
    parentSlot @12 :UInt16;
    # The parent of a directory; the root directory is its own parent. 0 and 0
    # for other types.
}

struct Entry {
    nameOffset @0 :UInt32;
    # In bytes. (difference)

    nameLength @1 :UInt8;

    type @2 :UInt8;
    # The upper four bits of the inode's mode, as in d_type.

    slot @3 :UInt16;
    # The inode's place in its block. (difference)

    distance @4 :Int32;
    # The number of that block, less the number of the block with the directory.
    # (difference)
}

struct Extent {
    offset @0 :UInt64;
    # In the file. The extent ends where the next one begins, or with the file.
    # (difference)

    chunk @1 :UInt32;
    # The chunk's place in chunks; 2^32 - 1 for a hole. (difference)

    chunkOffset @2 :UInt32;
    # In the chunk's content; 0 for a hole. (difference)
}

struct Chunk {
    digest0 @0 :UInt64;
    digest1 @1 :UInt64;
    digest2 @2 :UInt64;
    digest3 @3 :UInt64;
    # As in Child.

    storedLength @4 :UInt32;
    contentLength @5 :UInt32;
}

struct Part {
    # A list block.

    firstOffset @0 :UInt64;
    # Of a file: the offset of its first extent. Otherwise 0.

    chunk @1 :UInt32;
    # The chunk's place in chunks.

    count @2 :UInt32;
    # The number of entries or extents in it, or in all list blocks below it.

    nameOffset @3 :UInt32;
    nameLength @4 :UInt8;
    # Of a directory: the name of its first entry. Otherwise 0 and 0.
}

struct Set {
    # The extended attributes of an inode: a range of attributes.

    first @0 :UInt32;
    count @1 :UInt32;
}

struct Attribute {
    nameOffset @0 :UInt32;
    nameLength @1 :UInt8;
    # The full name, the namespace's prefix included.

    valueLength @2 :UInt32;

    value @3 :UInt32;
    # Where the value begins in bytes. If it has more than 1,024 bytes: the place
    # in chunks of the chunk whose content it is.
}
