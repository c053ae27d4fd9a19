// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures of exchanges with an object store.

use super::name::Backend;
use crate::error::{Message, PublishFault};
use puzzlefs_lib::json::ParseError;
use puzzlefs_lib::oci::UnknownIndex;
use puzzlefs_lib::Digest;
use std::fmt;
use std::path::PathBuf;

/// The most tags that an error lists.
const TAGS_MAX: usize = 20;

/// A failure of an exchange with an object store. It names the layout and the object.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {address}: {}{fault}", Subject(.object))]
pub struct ObjectError {
    /// The verb, which the address follows in the message: "pull from".
    pub action: &'static str,
    /// The address of the layout.
    pub address: String,
    /// The name of the object in the layout; empty if the failure is that of the store.
    pub object: String,
    /// The cause, and a remedy.
    pub fault: ObjectFault,
}

struct Subject<'o>(&'o str);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            object => write!(f, "{object}: "),
        }
    }
}

impl From<ObjectError> for puzzlefs_lib::Error {
    fn from(error: ObjectError) -> Self {
        puzzlefs_lib::Error::Remote(Box::new(error))
    }
}

/// The cause of an [`ObjectError`].
#[derive(Debug, thiserror::Error)]
pub enum ObjectFault {
    /// The settings in the environment cannot be used.
    #[error("the settings cannot be used: {0}; check the environment variables")]
    Settings(Message),
    /// An option is for other stores.
    #[error("{option} is not for such stores; credentials come from {}", Variables(*.backend))]
    Option {
        /// The option.
        option: &'static str,
        /// The kind of the store.
        backend: Backend,
    },
    /// The store can only be read.
    #[error("it can only be read; give s3://, gs://, az://, file:// or docker://")]
    ReadOnly,
    /// No connection can be made, or it broke and further attempts failed, too.
    #[error("the connection failed: {0}; check the address and the network, and try again")]
    Connection(String),
    /// The server's certificate cannot be verified.
    #[error(
        "the certificate of the server cannot be verified: {0}; put the certificate of its CA, as a file \
         NAME.crt, into a directory and give that by --cert-dir")]
    Certificate(String),
    /// The server would be spoken to without encryption.
    #[error(
        "plain HTTP to '{host}', which is not this host, would not be verified; use https, or give \
         --tls-verify=false")]
    PlainHttp {
        /// The host.
        host: String,
    },
    /// The server has sent nothing for the time of `--request-timeout`.
    #[error(
        "the server did not answer for {seconds} s; try again, or give a longer --request-timeout"
    )]
    Stalled {
        /// The time in seconds.
        seconds: u64,
    },
    /// The environment has no credentials, and the services that give some do not answer.
    #[error("no credentials were found; set {}", Variables(*.backend))]
    CredentialsNeeded {
        /// The kind of the store.
        backend: Backend,
    },
    /// The server denies access.
    #[error("access is denied{message}; check {} and the permissions", Variables(*.backend))]
    Denied {
        /// The message of the server.
        message: Message,
        /// The kind of the store.
        backend: Backend,
    },
    /// The server limits the number of requests, and further attempts failed, too.
    #[error(
        "the server limits the number of requests (status {status}); wait, or give a smaller --transfers"
    )]
    TooManyRequests {
        /// The HTTP status.
        status: u16,
    },
    /// The object does not exist.
    #[error("it does not exist; check the address, at which an OCI image layout must be")]
    NotFound,
    /// Another writer has replaced the object.
    #[error("others replaced it again and again; try again")]
    Contended,
    /// The server replaces no object on a condition.
    #[error(
        "the server does not replace objects on the condition that they are unchanged; set \
         AWS_CONDITIONAL_PUT=disabled if nobody else pushes at the same time"
    )]
    Unconditional,
    /// The server refuses a request.
    #[error("the server answered with status {status}{message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The message of the server.
        message: Message,
    },
    /// The server sends the request to another place, which would get the credentials.
    #[error(
        "the server answered with a redirect, which is not followed because requests carry credentials; \
         check the region (AWS_REGION) and the endpoint (AWS_ENDPOINT_URL)")]
    Redirected,
    /// The backend lacks an operation.
    #[error("the store does not support this: {0}")]
    Unsupported(Message),
    /// The server does not keep to the rules of its protocol.
    #[error("the answer of the server cannot be used: {0}")]
    Protocol(Message),
    /// The server sends whole objects only.
    #[error("the server sends whole objects only")]
    Unranged,
    /// A document is larger than the limit.
    #[error("it is larger than the {max} bytes that are allowed")]
    TooLarge {
        /// The limit in bytes.
        max: u64,
    },
    /// A blob has another size than the manifest states.
    #[error("it has {found} bytes instead of {wanted}; push the image again")]
    Size {
        /// The size of the object.
        found: u64,
        /// The size in the manifest.
        wanted: u64,
    },
    /// A blob is shorter than the manifest states.
    #[error("it is shorter than the manifest states; push the image again")]
    Short,
    /// A manifest has another digest.
    #[error("its bytes have sha256 {found}; the store or the connection changed them: push the image again")]
    Digest {
        /// The digest of the bytes that arrived.
        found: Digest,
    },
    /// A document cannot be parsed.
    #[error("it is {0}; an OCI image layout must be at the address")]
    Malformed(ParseError),
    /// The index has an unknown form.
    #[error("{0}; update puzzlefs")]
    UnknownIndex(UnknownIndex),
    /// The layout has a version that is not known.
    #[error("version '{0}' of an image layout is not known; update puzzlefs")]
    UnknownLayout(Message),
    /// The index does not list the tag.
    #[error("it has no image '{tag}'{}", Tags(.tags))]
    NoTag {
        /// The tag.
        tag: String,
        /// The tags that it has.
        tags: Vec<String>,
    },
    /// A publication cannot be made.
    #[error(transparent)]
    Publish(PublishFault),
    /// The local store lacks packs that the manifest lists.
    #[error(
        "the image is not complete: {packs} of its packs missing; run 'puzzlefs complete' first"
    )]
    Incomplete {
        /// The number of missing packs.
        packs: usize,
    },
    /// A blob of the local store does not match its digest.
    #[error("{} is damaged: its sha256 is {found}; run 'puzzlefs verify'", .path.display())]
    DamagedBlob {
        /// The path of the blob.
        path: PathBuf,
        /// The digest of its contents.
        found: Digest,
    },
}

/// The variables of the environment that have credentials.
struct Variables(Backend);

impl fmt::Display for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Backend::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true",
            Backend::Gcs => {
                "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, or GOOGLE_SKIP_SIGNATURE=true"
            }
            Backend::Azure => {
                "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_SKIP_SIGNATURE=true"
            }
            Backend::Http => "--creds",
            Backend::File => "the owner of the directory",
        })
    }
}

/// The tags of an index, as the end of a message.
struct Tags<'t>(&'t [String]);

impl fmt::Display for Tags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(", nor any with a tag; give a digest, ADDRESS@sha256:DIGEST");
        }
        let shown: Vec<&str> = self.0.iter().take(TAGS_MAX).map(String::as_str).collect();
        let more = if shown.len() < self.0.len() {
            ", …"
        } else {
            ""
        };
        write!(f, "; it has {}{more}", Message::new(shown.join(", ")))
    }
}
