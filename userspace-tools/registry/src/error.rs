// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failures of exchanges with a registry.

use puzzlefs_lib::message::printable;
use puzzlefs_lib::Digest;
use std::fmt;
use std::path::PathBuf;

/// The most characters of a registry's message that an error shows.
const MESSAGE_MAX: usize = 300;

/// A failure of an exchange with a registry. It names the registry and the repository.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {registry}/{repository}: {fault}")]
pub struct RegistryError {
    /// The verb, which the place follows in the message: "pull from".
    pub action: &'static str,
    /// The host of the registry, with its port if that was given.
    pub registry: String,
    /// The name of the repository.
    pub repository: String,
    /// The cause, and a remedy.
    pub fault: RegistryFault,
}

/// No place has given an image.
#[derive(Debug)]
pub struct PlacesError {
    /// The failure of each place.
    pub failures: Vec<RegistryError>,
}

impl std::error::Error for PlacesError {}

impl fmt::Display for PlacesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((last, earlier)) = self.failures.split_last() else {
            return f.write_str("no place was tried");
        };
        last.fmt(f)?;
        for (number, error) in earlier.iter().enumerate() {
            let before = if number == 0 { "; before:" } else { "," };
            let (registry, repository) = (&error.registry, &error.repository);
            let cause = error.fault.brief();
            write!(f, "{before} {registry}/{repository} ({cause})")?;
        }
        Ok(())
    }
}

impl From<PlacesError> for puzzlefs_lib::Error {
    fn from(error: PlacesError) -> Self {
        puzzlefs_lib::Error::Remote(Box::new(error))
    }
}

impl From<RegistryError> for puzzlefs_lib::Error {
    fn from(error: RegistryError) -> Self {
        puzzlefs_lib::Error::Remote(Box::new(error))
    }
}

/// The cause of a [`RegistryError`].
#[derive(Debug, thiserror::Error)]
pub enum RegistryFault {
    /// No connection can be made, or it broke and further attempts failed, too.
    #[error("the connection failed: {0}; check the host, the port and the network, and try again")]
    Connection(String),
    /// The registry's certificate cannot be verified.
    #[error(
        "the certificate of the registry cannot be verified: {0}; put the certificate of its CA, as \
         a file NAME.crt, into a directory and give that by --cert-dir, or into \
         /etc/containers/certs.d/HOST:PORT")]
    Certificate(String),
    /// The registry has sent nothing for the time of `--request-timeout`.
    #[error("the registry did not answer for {seconds} s; try again, or give a longer --request-timeout")]
    Stalled {
        /// The time in seconds.
        seconds: u64,
    },
    /// The registry denies access, and no credentials were found.
    #[error("the registry wants credentials; run 'podman login REGISTRY', or give --creds or --authfile")]
    CredentialsNeeded,
    /// The registry or its token server denies access in spite of credentials.
    #[error(
        "the registry denies access to the user '{user}'{message}; check the password and the \
         permissions"
    )]
    Denied {
        /// The name of the user.
        user: String,
        /// The message of the server.
        message: Message,
    },
    /// The token server denies access.
    #[error("the registry's token server refused{0}; check the credentials and the name of the repository")]
    Token(Message),
    /// The registry limits the number of requests, and further attempts failed, too.
    #[error("the registry limits the number of requests (status 429); wait, or give a smaller --transfers")]
    TooManyRequests,
    /// The registry does not have the repository or the image.
    #[error("the registry has no {what}{message}; check the name and the tag")]
    NotFound {
        /// The missing thing.
        what: String,
        /// The message of the registry.
        message: Message,
    },
    /// The registry refuses a request.
    #[error("the registry answered with status {status}{message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The message of the registry.
        message: Message,
    },
    /// The registry does not keep to the distribution specification.
    #[error("the answer of the registry is not as the OCI distribution specification says: {0}")]
    Protocol(Message),
    /// The manifest is larger than the limit.
    #[error(
        "the manifest is larger than the {max} bytes that are allowed; images with fewer layers have a \
         smaller one")]
    ManifestTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// The manifest has another digest than was asked for, or than the registry states.
    #[error(
        "the manifest has the digest {found}, not {wanted}; the registry or the connection changed it")]
    ManifestDigest {
        /// The digest of the bytes that arrived.
        found: Digest,
        /// The digest that was expected.
        wanted: Message,
    },
    /// The registry has stored the manifest under another digest.
    #[error(
        "the registry stored the manifest as {found}, not {wanted}; other hosts would not get this \
         image")]
    ManifestChanged {
        /// The digest that the registry states.
        found: Message,
        /// The digest of the manifest.
        wanted: Digest,
    },
    /// A publication cannot be made.
    #[error(transparent)]
    Publish(PublishFault),
    /// The registry has more bytes of a blob than the manifest states.
    #[error("the registry sent more bytes of blob {digest} than the manifest states")]
    BlobTooLong {
        /// The digest of the blob.
        digest: Digest,
    },
    /// The store lacks packs that the manifest lists.
    #[error(
        "the image is not complete: {packs} of its packs missing; run 'puzzlefs complete' first"
    )]
    Incomplete {
        /// The number of missing packs.
        packs: usize,
    },
    /// A blob changed while it was uploaded, or is damaged.
    #[error(
        "the blob {} is damaged: its contents have sha256 {found}; 'puzzlefs verify' lists all damage",
        .path.display())]
    DamagedBlob {
        /// The path of the blob.
        path: PathBuf,
        /// The digest of its contents.
        found: Digest,
    },
    /// A file of settings forbids the registry.
    #[error("{} blocks it; set 'blocked' to false there to permit it", .file.display())]
    Blocked {
        /// The path of the file.
        file: PathBuf,
    },
    /// The client cannot be set up.
    #[error("cannot set up TLS: {0}; install the package ca-certificates, or give --cert-dir")]
    Tls(String),
}

impl RegistryFault {
    /// Returns true if another place can have the image: this one cannot be reached, refuses, or lacks it.
    pub(crate) fn is_of_place(&self) -> bool {
        matches!(
            self,
            RegistryFault::Connection(_)
                | RegistryFault::Certificate(_)
                | RegistryFault::Stalled { .. }
                | RegistryFault::CredentialsNeeded
                | RegistryFault::Denied { .. }
                | RegistryFault::Token(_)
                | RegistryFault::TooManyRequests
                | RegistryFault::NotFound { .. }
                | RegistryFault::Status { .. }
                | RegistryFault::Blocked { .. }
        )
    }

    /// The cause without the remedy.
    fn brief(&self) -> String {
        let text = self.to_string();
        let cause = text.split_once("; ").map(|(cause, _)| cause.to_owned());
        cause.unwrap_or(text)
    }
}

/// The cause why an image cannot be published, which the place alone does not have.
#[derive(Debug, thiserror::Error)]
pub enum PublishFault {
    /// No image is for a platform that was asked for.
    #[error(
        "there is no image of Linux for these platforms; there is: {found}; choose with --platform"
    )]
    NoPlatform {
        /// The platforms of all images.
        found: Message,
    },
    /// An index and the artifacts that refer to it list more manifests than are copied.
    #[error(
        "the index and the artifacts of its images have more than {max} manifests; convert within the \
         repository"
    )]
    TooManyManifests {
        /// The limit.
        max: usize,
    },
    /// The image to convert is a PuzzleFS image.
    #[error("it is a PuzzleFS image already; 'skopeo copy' copies it to another registry")]
    AlreadyConverted,
}

/// A text that a server sent, for one line of a message.
#[derive(Debug)]
pub struct Message(String);

impl Message {
    /// Keeps the beginning of a text.
    pub fn new(text: impl AsRef<str>) -> Self {
        Message(text.as_ref().trim().chars().take(MESSAGE_MAX).collect())
    }

    /// The same, to follow other words.
    pub fn appended(text: impl AsRef<str>) -> Self {
        let Message(text) = Message::new(text);
        Message(if text.is_empty() {
            text
        } else {
            format!(": {text}")
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.0.as_bytes()))
    }
}

/// The credentials for a registry, its certificates, or settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("cannot read {}: {cause}", .path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// A file of credentials is too large, or malformed.
    #[error("cannot use the credentials in {}: {cause}; log in again, or give --creds", .path.display())]
    Credentials {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// A file of settings is too large, or malformed.
    #[error(
        "cannot use the settings in {}: {cause}; correct the file as containers-registries.conf(5) says",
        .path.display())]
    Settings {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// Credentials are given for a name that stands for images in several registries.
    #[error(
        "cannot use --creds or --src-creds for '{name}', which stands for images in several registries; \
         give docker://HOST/NAME:TAG")]
    CredsForSeveral {
        /// The name.
        name: String,
    },
    /// The directory has no certificate.
    #[error("cannot use {}: it has no certificate NAME.crt", .path.display())]
    NoCertificate {
        /// The path of the directory.
        path: PathBuf,
    },
}

impl From<SetupError> for puzzlefs_lib::Error {
    fn from(error: SetupError) -> Self {
        puzzlefs_lib::Error::Remote(Box::new(error))
    }
}
