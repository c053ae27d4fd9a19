// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to read or write a store.

use crate::model::chunk::ChunkFault;
use crate::model::digest::Digest;
use crate::model::json::ParseError;
use crate::model::media::NotPuzzlefs;
use crate::model::oci::{AnnotationsTooLarge, UnknownIndex};
use crate::model::reference::Selector;
use puzzlefs_schema::v4::{IndexError, PackError, MAX_PACKS};
use std::fmt;
use std::io;
use std::path::PathBuf;

/// A failure to read or write a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A store is expected at a path that is not a directory.
    #[error(
        "cannot open the store {}: not a directory, and so no store; 'puzzlefs import' reads image \
         archives, 'puzzlefs build' reads archives of a tree", .path.display())]
    NotADirectory {
        /// The path of the store.
        path: PathBuf,
    },
    /// A part of the path of a new store is not a directory.
    #[error(
        "cannot create the store {}: not a directory, and no store can be in it; \
         give another for the store", .path.display())]
    BeneathAFile {
        /// The path of the store.
        path: PathBuf,
    },
    /// The directory is not an OCI image layout.
    #[error(
        "cannot open the store {}: not an OCI image layout: it has no file 'oci-layout'",
        .path.display())]
    NotALayout {
        /// The path of the store.
        path: PathBuf,
    },
    /// The directory for a new store contains other files.
    #[error(
        "cannot create the store {}: neither empty nor an OCI image layout; \
         give a new directory for the store", .path.display())]
    NotEmpty {
        /// The path of the store.
        path: PathBuf,
    },
    /// A directory of the store is another file, or a symbolic link.
    #[error("cannot open {}: not a directory; a symbolic link is not followed here", .path.display())]
    NotFollowed {
        /// The path of the directory.
        path: PathBuf,
    },
    /// The record of a fetch is malformed.
    #[error("cannot use {}: {cause}; remove the file, and fetch the image again", .path.display())]
    FetchRecord {
        /// The path of the record.
        path: PathBuf,
        /// The cause.
        cause: ParseError,
    },
    /// The record of a fetch belongs to another user, and names files of credentials.
    #[error(
        "cannot use {}: it belongs to user {owner}, and root or the user of this command must own it; \
         remove the file, and fetch the image again", .path.display())]
    ForeignRecord {
        /// The path of the record.
        path: PathBuf,
        /// The number of the user.
        owner: u32,
    },
    /// A file of the store is a directory, a device or a symbolic link.
    #[error("cannot read {}: not a regular file", .path.display())]
    NotARegularFile {
        /// The path of the file.
        path: PathBuf,
    },
    /// The root that a manifest names is not a digest.
    #[error(
        "cannot find the root of the image: the annotation {} of {} is not 64 hexadecimal digits; \
         build or copy the image again", crate::model::oci::ROOT, .manifest.display())]
    RootAnnotation {
        /// The path of the manifest.
        manifest: PathBuf,
    },
    /// A file of the store is larger than the limit.
    #[error("cannot read {}: larger than the {max} bytes that are allowed here", .path.display())]
    TooLarge {
        /// The path of the file.
        path: PathBuf,
        /// The limit in bytes.
        max: u64,
    },
    /// A document of the store cannot be parsed.
    #[error("cannot read {}: {cause}", .path.display())]
    Malformed {
        /// The path of the document.
        path: PathBuf,
        /// The cause.
        cause: ParseError,
    },
    /// The index has a version or a type that this version does not know.
    #[error("cannot use {}: {cause}", .path.display())]
    UnknownIndex {
        /// The path of the index.
        path: PathBuf,
        /// The cause.
        cause: UnknownIndex,
    },
    /// A manifest has a type that this version does not know.
    #[error(
        "cannot follow {}: its type, '{}', is not known here, so the blobs that it needs are not known",
        .path.display(), .media_type.escape_default())]
    UnknownType {
        /// The path of the manifest.
        path: PathBuf,
        /// Its media type.
        media_type: String,
    },
    /// A descriptor names its blob by something other than a SHA-256 digest.
    #[error("cannot use {}: '{}' is not a sha256 digest", .path.display(), .digest.escape_default())]
    NotADigest {
        /// The path of the document with the descriptor.
        path: PathBuf,
        /// The digest as it is written there.
        digest: String,
    },
    /// A blob does not match its digest or the size in its descriptor.
    #[error("cannot use {}: the blob is damaged: {damage}", .path.display())]
    Damaged {
        /// The path of the blob.
        path: PathBuf,
        /// The difference.
        damage: Damage,
    },
    /// A blob does not exist.
    #[error("cannot use {}: the blob is missing", .path.display())]
    Missing {
        /// The path of the blob.
        path: PathBuf,
    },
    /// The index lists no image under a tag.
    #[error("cannot use {}: no image is tagged '{tag}'; {}", .store.display(), Tags(.tags))]
    NoSuchTag {
        /// The path of the store.
        store: PathBuf,
        /// The tag.
        tag: String,
        /// All tags of the store.
        tags: Vec<String>,
    },
    /// The index does not list an image that shall lose its tags.
    #[error("cannot untag an image of {}: {image} is not listed there", .path.display())]
    NotListed {
        /// The path of the index.
        path: PathBuf,
        /// The image.
        image: Selector,
    },
    /// The image has another format.
    #[error("cannot use {}: {selector} is {cause}", .store.display())]
    NotPuzzlefs {
        /// The path of the store.
        store: PathBuf,
        /// The image.
        selector: Selector,
        /// The format that it has, and the command that reads it.
        cause: NotPuzzlefs,
    },
    /// Another tool changes the index too often.
    #[error(
        "cannot write {}: another tool changes it again and again; try again when that has ended",
        .path.display())]
    Contended {
        /// The path of the index.
        path: PathBuf,
    },
    /// A pack violates a rule of the format.
    #[error(
        "cannot use {}: malformed pack: {cause}; copy the image again from a store that has it",
        .path.display())]
    Pack {
        /// The path of the pack.
        path: PathBuf,
        /// The violated rule.
        cause: PackError,
    },
    /// A pack cannot be written.
    #[error("cannot write a pack in {}: {cause}", .path.display())]
    NewPack {
        /// The path of the directory.
        path: PathBuf,
        /// The violated rule.
        cause: PackError,
    },
    /// The recipe of a pack violates a rule of the format.
    #[error("cannot use {}: malformed recipe of a pack: {cause}; remove the file", .path.display())]
    Recipe {
        /// The path of the recipe.
        path: PathBuf,
        /// The violated rule.
        cause: PackError,
    },
    /// A chunk is damaged.
    #[error("cannot use the chunk {digest} of {}: {cause}", .path.display())]
    Chunk {
        /// The path of the pack or the loose chunk.
        path: PathBuf,
        /// The digest of the chunk.
        digest: Digest,
        /// The cause.
        cause: ChunkFault,
    },
    /// A chunk is neither in a pack nor loose.
    #[error(
        "cannot find the chunk {digest} in {}: neither in a pack nor loose; 'puzzlefs copy --check' from a \
         store that has the image restores it", .store.display())]
    ChunkMissing {
        /// The path of the store.
        store: PathBuf,
        /// The digest of the chunk.
        digest: Digest,
    },
    /// The chunk index does not list the packs of an image, and cannot be changed. The kernel needs it.
    #[error(
        "cannot mount from {}: its chunk index lacks the image and cannot be written ({cause}); run \
         'puzzlefs reindex' where the store is writable, or mount with --fuse", .store.display())]
    NotIndexed {
        /// The path of the store.
        store: PathBuf,
        /// The failure to write the index.
        cause: Box<crate::error::Error>,
    },
    /// The catalogue of the chunk index violates a rule of the format.
    #[error("cannot use {}: {cause}; 'puzzlefs reindex' rebuilds the chunk index", .path.display())]
    ChunkIndex {
        /// The path of the catalogue.
        path: PathBuf,
        /// The violated rule.
        cause: IndexError,
    },
    /// A part of the chunk index is damaged.
    #[error("cannot use {}: the chunk index is damaged; 'puzzlefs reindex' rebuilds it", .path.display())]
    ChunkIndexDamaged {
        /// The path of the index.
        path: PathBuf,
    },
    /// A table of the chunk index cannot be used.
    #[error("cannot use {}: {cause}; 'puzzlefs reindex' rebuilds the chunk index", .path.display())]
    ChunkTable {
        /// The path of the table.
        path: PathBuf,
        /// The cause.
        cause: TableFault,
    },
    /// A pack that the chunk index lists does not exist.
    #[error(
        "cannot use {}: the chunk index lists the pack, and it is missing; 'puzzlefs reindex' rebuilds \
         the index", .path.display())]
    IndexedPackMissing {
        /// The path of the pack.
        path: PathBuf,
    },
    /// A record of the chunk index is wrong.
    #[error(
        "cannot use {}: the chunk {digest} is not where its record says, in the pack {pack}; 'puzzlefs \
         reindex' rebuilds the chunk index", .path.display())]
    ChunkRecord {
        /// The path of the table.
        path: PathBuf,
        /// The digest of the chunk.
        digest: Digest,
        /// The pack that the record names.
        pack: Digest,
    },
    /// The store has more packs than a chunk index can list.
    #[error(
        "cannot index {}: the store has more than {MAX_PACKS} packs; 'puzzlefs repack' makes fewer of \
         them", .store.display())]
    TooManyPacks {
        /// The path of the store.
        store: PathBuf,
    },
    /// A table of the chunk index has the highest number that there is.
    #[error(
        "cannot write {}: a table has the highest number; remove the files beside it, and 'puzzlefs \
         reindex' writes them again", .path.display())]
    TableNumber {
        /// The path of the catalogue.
        path: PathBuf,
    },
    /// A document cannot be written as JSON.
    #[error("cannot write {} as JSON: {cause}", .path.display())]
    NotJson {
        /// The path of the document.
        path: PathBuf,
        /// The cause.
        cause: serde_json::Error,
    },
    /// The annotations of an image do not fit into the index.
    #[error("cannot tag an image '{tag}' in {}: {cause}", .store.display())]
    Annotations {
        /// The path of the store.
        store: PathBuf,
        /// The tag.
        tag: String,
        /// The cause.
        cause: AnnotationsTooLarge,
    },
}

/// The reason that a table of the chunk index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableFault {
    /// The file of the table does not exist.
    #[error("the table is missing")]
    Missing,
    /// The file has another length than the catalogue states.
    #[error("the table has {found} bytes instead of {expected}")]
    Length {
        /// The length that the catalogue states.
        expected: u64,
        /// The length of the file.
        found: u64,
    },
    /// The table has another number of records than the catalogue states.
    #[error("the table has {found} records instead of {expected}")]
    Records {
        /// The number that the catalogue states.
        expected: u32,
        /// The number of records.
        found: u64,
    },
    /// A page violates a rule.
    #[error("page {page}: {cause}")]
    Page {
        /// The number of the page.
        page: u32,
        /// The violated rule.
        cause: IndexError,
    },
    /// A page cannot be read.
    #[error("page {page}: {cause}")]
    Read {
        /// The number of the page.
        page: u32,
        /// The cause.
        cause: io::Error,
    },
}

/// A difference between a blob and its digest or descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its contents have this digest.
    Contents(Digest),
    /// Its size is not the one in its descriptor.
    Size {
        /// The size in bytes.
        found: u64,
        /// The size in the descriptor.
        wanted: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Contents(found) => write!(f, "its contents have sha256 {found}"),
            Damage::Size { found, wanted } => write!(f, "it has {found} bytes instead of {wanted}"),
        }
    }
}

/// A list of tags in a message.
struct Tags<'a>(&'a [String]);

impl fmt::Display for Tags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        if self.0.is_empty() {
            return f.write_str("the store holds no tags");
        }
        let shown = &self.0[..self.0.len().min(SHOWN)];
        write!(f, "the tags are: {}", shown.join(", "))?;
        if self.0.len() > SHOWN {
            write!(f, " and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}
