// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures to fetch an image from a source that is not trusted.

use crate::model::digest::Digest;
use crate::model::json::ParseError;
use crate::model::media::NotPuzzlefs;
use puzzlefs_schema::v4::PackError;
use std::io;
use std::path::PathBuf;

/// A failure of a conversation with a fetcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TalkFault {
    /// A message is not one that is known.
    #[error("it sent a message that is unknown")]
    Malformed,
    /// A message has no end.
    #[error("it sent a message that is too long")]
    TooLong,
    /// The process sends nothing.
    #[error("it does not answer")]
    Silent,
    /// The process has ended the conversation.
    #[error("it ended the conversation")]
    Ended,
}

/// A failure to fetch an image, because its source does not have it as the manifest says.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The manifest cannot be parsed.
    #[error("cannot fetch the image: its manifest is {cause}")]
    Manifest {
        /// The cause.
        cause: ParseError,
    },
    /// The manifest is that of another kind of image.
    #[error("cannot fetch the image: {cause}")]
    NotPuzzlefs {
        /// The cause.
        cause: NotPuzzlefs,
    },
    /// A digest in the manifest is malformed.
    #[error(
        "cannot fetch the image: its manifest has a digest that is not sha256: '{}'",
        .digest.escape_default())]
    NotADigest {
        /// The text in place of a digest.
        digest: String,
    },
    /// The blob that arrived is not the one that the manifest lists.
    #[error(
        "cannot fetch blob {wanted}: the bytes that arrived have sha256 {found}; the source or the \
         connection changed them: fetch it again, or push the image again")]
    Blob {
        /// The digest in the manifest.
        wanted: Digest,
        /// The digest of the bytes that arrived.
        found: Digest,
    },
    /// The blob that arrived has another length.
    #[error(
        "cannot fetch blob {blob}: {found} bytes arrived instead of {wanted}; push the image again"
    )]
    Length {
        /// The digest of the blob.
        blob: Digest,
        /// The length in the manifest.
        wanted: u64,
        /// The number of bytes that arrived.
        found: u64,
    },
    /// A pack of the manifest is malformed.
    #[error("cannot fetch pack {pack}: {cause}; push the image again")]
    Pack {
        /// The digest of the pack.
        pack: Digest,
        /// The violated rule.
        cause: PackError,
    },
    /// A chunk that arrived is not the one that the index of the pack lists.
    #[error(
        "cannot fetch chunk {wanted} of pack {pack}: the bytes that arrived have sha256 {found}; the \
         source or the connection changed them: fetch it again, or push the image again")]
    Chunk {
        /// The digest of the pack.
        pack: Digest,
        /// The digest in the index of the pack.
        wanted: Digest,
        /// The digest of the bytes that arrived.
        found: Digest,
    },
    /// No pack of the manifest has a chunk of the image.
    #[error("cannot use the image: its packs lack chunk {chunk}; push the image again")]
    NotWhole {
        /// The digest of the chunk.
        chunk: Digest,
    },
    /// The packs have more chunks than an image can have.
    #[error("cannot fetch the image: its packs have more than {max} chunks")]
    TooManyChunks {
        /// The limit.
        max: usize,
    },
    /// An image of this kind has no chunks that could be fetched one by one.
    #[error(
        "cannot fetch the image on demand: {}; 'puzzlefs pull' brings all of it",
        if *.is_container { "it is a container image" } else { "it has format 3" })]
    NoChunks {
        /// It is a container image, and not a PuzzleFS image of format 3.
        is_container: bool,
    },
    /// The source cannot read parts of blobs.
    #[error(
        "cannot fetch the image on demand: the server answers requests for parts of pack {pack} with all \
         of it; 'puzzlefs pull' brings the whole image")]
    Unranged {
        /// The digest of the pack.
        pack: Digest,
    },
    /// Another process serves the requests of a store, and cannot be reached.
    #[error(
        "cannot serve {}: another fetcher holds the lock .puzzlefs/fetcher.lock and does not accept \
         images; stop that process, and try again", .store.display())]
    Unreachable {
        /// The path of the store.
        store: PathBuf,
    },
    /// A process of another user serves the requests of a store.
    #[error(
        "cannot use the fetcher of {}: it is a process of another user; run the command as that user",
        .store.display())]
    ForeignFetcher {
        /// The path of the store.
        store: PathBuf,
    },
    /// A conversation between a fetcher and another process has failed.
    #[error(
        "cannot talk to the process at {}: {cause}; use tools of one version, or stop that process",
        .path.display())]
    Talk {
        /// The path of the socket.
        path: PathBuf,
        /// The cause.
        cause: TalkFault,
    },
    /// The fetcher of a store cannot fetch an image.
    #[error("the fetcher of {}: {message}", .store.display())]
    Refused {
        /// The path of the store.
        store: PathBuf,
        /// Its message.
        message: String,
    },
    /// The device of the kernel module does not exist.
    #[error(
        "cannot open {}: the module of the kernel is not loaded or knows no fetchers, and 'modprobe \
         puzzlefs' {modprobe}", .path.display())]
    NoDevice {
        /// The path of the device.
        path: PathBuf,
        /// The result of modprobe(8).
        modprobe: String,
    },
    /// The caller may not open the device.
    #[error("cannot open {}: permission denied; run the command as root", .path.display())]
    DeviceDenied {
        /// The path of the device.
        path: PathBuf,
    },
    /// The kernel cannot serve requests of a store.
    #[error(
        "cannot serve {}: the kernel refuses the store: {cause}; the kernel's log (dmesg) may say more",
        .store.display())]
    Attach {
        /// The path of the store.
        store: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// The device has given bytes that are not requests.
    #[error(
        "cannot read requests from {}: it gave {found} bytes, which is not a number of requests; use the \
         module and the tools of one version", .path.display())]
    DeviceRecords {
        /// The path of the device.
        path: PathBuf,
        /// The number of bytes.
        found: usize,
    },
}
