// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of images on a command line: `<oci-dir>:<tag>` or `<oci-dir>@sha256:<digest>`.

use crate::model::digest::Digest;
use crate::model::transport::{self, Foreign};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, ReferenceError>;

/// The name of an image, a tag or a source cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use '{reference}': {fault}")]
pub struct ReferenceError {
    /// The name as it was given.
    pub reference: String,
    /// The reason.
    pub fault: ReferenceFault,
}

/// The reason that a name cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceFault {
    /// There is neither a tag nor a digest.
    #[error("give the image as <oci-dir>:<tag> or <oci-dir>@sha256:<manifest digest>")]
    NoSelector,
    /// The digest is malformed.
    #[error("a digest is 64 lower-case hexadecimal digits")]
    Digest,
    /// The tag is malformed.
    #[error(
        "a tag is 1 to 128 letters, digits or '.', '_', '-', '+', starting with a letter, a digit \
         or '_'"
    )]
    Tag,
    /// There is no store before the tag or the digest.
    #[error("the store's directory is missing before '{0}'")]
    NoStore(&'static str),
    /// The name is one of another tool.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// A command does not accept the name, for the reason in the message.
    #[error("{0}")]
    Refused(String),
}

impl ReferenceError {
    /// Returns the error for a name that a command does not accept.
    pub fn refused(reference: impl AsRef<OsStr>, reason: impl Into<String>) -> Self {
        Self::new(reference.as_ref(), ReferenceFault::Refused(reason.into()))
    }

    fn new(reference: &OsStr, fault: impl Into<ReferenceFault>) -> Self {
        ReferenceError {
            reference: reference.to_string_lossy().into_owned(),
            fault: fault.into(),
        }
    }
}

/// An image in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// The directory of the OCI image layout.
    pub store: PathBuf,
    /// The image in it.
    pub selector: Selector,
}

/// Selects an image of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The image that `index.json` lists under this tag.
    Tag(String),
    /// The image whose manifest blob has this sha256.
    Manifest(Digest),
}

impl ImageRef {
    /// Reads `<oci-dir>:<tag>` or `<oci-dir>@sha256:<64 hexadecimal digits>`.
    ///
    /// The path may hold `:` and `@`: a digest follows the last `@sha256:`, if the rest has
    /// the length of a digest or no `/`; a tag is what follows the last `:`, and has no `/` in it.
    pub fn parse(reference: &OsStr) -> Result<Self> {
        let bytes = reference.as_bytes();
        let fail = |fault: ReferenceFault| ReferenceError::new(reference, fault);
        if let Some(foreign) = transport::foreign(reference, false) {
            return Err(fail(foreign.into()));
        }
        const MARK: &[u8] = b"@sha256:";
        if let Some(at) = bytes.windows(MARK.len()).rposition(|window| window == MARK) {
            let (store, hex) = (&bytes[..at], &bytes[at + MARK.len()..]);
            if !hex.contains(&b'/') && !hex.contains(&b':') {
                let digest = Digest::from_hex(hex).ok_or_else(|| fail(ReferenceFault::Digest))?;
                return Self::new(store, Selector::Manifest(digest))
                    .ok_or_else(|| fail(ReferenceFault::NoStore("@sha256:")));
            }
        }
        let colon = bytes
            .iter()
            .rposition(|&byte| byte == b':')
            .ok_or_else(|| fail(ReferenceFault::NoSelector))?;
        let (store, tag) = (&bytes[..colon], &bytes[colon + 1..]);
        if tag.contains(&b'/') {
            return Err(fail(ReferenceFault::NoSelector));
        }
        let tag = Self::tag(tag).ok_or_else(|| fail(ReferenceFault::Tag))?;
        Self::new(store, Selector::Tag(tag)).ok_or_else(|| fail(ReferenceFault::NoStore(":")))
    }

    /// Reads `IMAGE[:PATH]`, where PATH is a path in the image.
    ///
    /// Both a store's path and PATH may hold `:`, so the existing stores decide. If the whole text
    /// names an image of an existing directory, there is no PATH. Otherwise PATH begins after the
    /// shortest IMAGE whose store is an existing directory.
    pub fn parse_with_path(reference: &OsStr) -> Result<(Self, Option<&[u8]>)> {
        Self::split_path(reference, |store| store.is_dir())
    }

    fn split_path(
        reference: &OsStr,
        is_store: impl Fn(&Path) -> bool,
    ) -> Result<(Self, Option<&[u8]>)> {
        let whole = Self::parse(reference);
        if let Ok(image) = &whole {
            if is_store(&image.store) {
                return Ok((image.clone(), None));
            }
        }
        let bytes = reference.as_bytes();
        let colons = bytes.iter().enumerate().filter(|(_, byte)| **byte == b':');
        for (at, _) in colons {
            match Self::parse(OsStr::from_bytes(&bytes[..at])) {
                Ok(image) if is_store(&image.store) => return Ok((image, Some(&bytes[at + 1..]))),
                _ => {}
            }
        }
        whole.map(|image| (image, None))
    }

    /// Reads a tag.
    ///
    /// # Errors
    ///
    /// If the text cannot be a tag.
    pub fn parse_tag(tag: &OsStr) -> Result<String> {
        Self::tag(tag.as_bytes()).ok_or_else(|| ReferenceError::new(tag, ReferenceFault::Tag))
    }

    /// Checks the name of a source.
    ///
    /// # Errors
    ///
    /// If it is a reference of another tool, such as `docker://debian:13`. The error names the command
    /// that reads the image.
    pub fn check_source(source: &OsStr) -> Result<()> {
        match transport::foreign(source, true) {
            Some(foreign) if !Path::new(source).exists() => {
                Err(ReferenceError::new(source, foreign))
            }
            _ => Ok(()),
        }
    }

    fn new(store: &[u8], selector: Selector) -> Option<Self> {
        (!store.is_empty()).then(|| ImageRef {
            store: PathBuf::from(OsStr::from_bytes(store)),
            selector,
        })
    }

    fn tag(bytes: &[u8]) -> Option<String> {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let rest = |byte: &u8| word(byte) || b".-+".contains(byte);
        (bytes.len() <= 128 && word(bytes.first()?) && bytes.iter().all(rest))
            .then(|| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Writes the name of an image for messages.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Tag(tag) => f.write_str(tag),
            Selector::Manifest(digest) => f.write_str(&digest.to_oci()),
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Selector::Tag(tag) => write!(f, "{}:{tag}", self.store.display()),
            Selector::Manifest(digest) => write!(f, "{}@sha256:{digest}", self.store.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn references() {
        let tag = |store: &str, tag: &str| Some((store.to_owned(), Ok(tag.to_owned())));
        let digest = |store: &str| Some((store.to_owned(), Err(())));
        let table = [
            (
                "/srv/images:debian".to_owned(),
                tag("/srv/images", "debian"),
            ),
            ("images:13.1".to_owned(), tag("images", "13.1")),
            ("./a:b:c".to_owned(), tag("./a:b", "c")),
            ("/a@b:c".to_owned(), tag("/a@b", "c")),
            ("/a:b/c:d-e_f".to_owned(), tag("/a:b/c", "d-e_f")),
            (format!("/srv/images@sha256:{HEX}"), digest("/srv/images")),
            (format!("/a:b@sha256:{HEX}"), digest("/a:b")),
            (
                format!("/a@sha256:{HEX}@sha256:{HEX}"),
                digest(&format!("/a@sha256:{HEX}")),
            ),
            (
                format!("/a@sha256:{HEX}/b:t"),
                tag(&format!("/a@sha256:{HEX}/b"), "t"),
            ),
            (
                format!("/a@sha256:{HEX}:t"),
                tag(&format!("/a@sha256:{HEX}"), "t"),
            ),
            ("/srv/images".to_owned(), None),
            ("/srv/a:b/images".to_owned(), None),
            ("/srv/images:".to_owned(), None),
            (":tag".to_owned(), None),
            ("".to_owned(), None),
            ("/a:-t".to_owned(), None),
            ("/a:t t".to_owned(), None),
            (format!("/a:{}", "t".repeat(129)), None),
            ("/a@sha256:1234".to_owned(), None),
            (format!("/a@sha256:{}", HEX.to_uppercase()), None),
            (format!("@sha256:{HEX}"), None),
        ];
        for (given, wanted) in table {
            let got = ImageRef::parse(OsStr::new(&given)).ok().map(|image| {
                let store = image.store.to_str().unwrap().to_owned();
                match image.selector {
                    Selector::Tag(tag) => (store, Ok(tag)),
                    Selector::Manifest(digest) => {
                        assert_eq!(digest.to_hex(), HEX);
                        (store, Err(()))
                    }
                }
            });
            assert_eq!(got, wanted, "{given}");
        }
    }

    #[test]
    fn a_path_begins_after_the_image() {
        let split = |stores: &[&str], given: &str| {
            let is_store = |path: &Path| stores.iter().any(|store| path == Path::new(store));
            let (image, path) = ImageRef::split_path(OsStr::new(given), is_store).ok()?;
            let path = path.map(|path| String::from_utf8(path.to_vec()).unwrap());
            Some((image.to_string(), path))
        };
        let image = |image: &str| Some((image.to_owned(), None));
        let path = |image: &str, path: &str| Some((image.to_owned(), Some(path.to_owned())));
        let digest = format!("/s@sha256:{HEX}");
        for (stores, given, wanted) in [
            (&["/s"][..], "/s:t", image("/s:t")),
            (&["/s"], "/s:t:/usr/bin", path("/s:t", "/usr/bin")),
            (&["/s"], "/s:t:usr", path("/s:t", "usr")),
            (&["/s"], "/s:t:/", path("/s:t", "/")),
            (&["/s"], "/s:t:", path("/s:t", "")),
            (&["/s"], "/s:t:/a:b/c:d", path("/s:t", "/a:b/c:d")),
            (&["/s"], &digest, image(&digest)),
            (&["/s"], &format!("{digest}:/a"), path(&digest, "/a")),
            // A store whose name has a colon.
            (&["/s:t"], "/s:t:u", image("/s:t:u")),
            (&["/s:t"], "/s:t:u:/a", path("/s:t:u", "/a")),
            (&["/s", "/s:t"], "/s:t:u", image("/s:t:u")),
            (&["/s", "/s:t"], "/s:t:/u", path("/s:t", "/u")),
            // No store: the error is about the store that the whole text names.
            (&[], "/s:t", image("/s:t")),
            (&[], "/s:t:u", image("/s:t:u")),
            (&[], "/s:t:/u", None),
            (&["/s"], "/s", None),
        ] {
            assert_eq!(split(stores, given), wanted, "{stores:?} {given}");
        }
    }

    #[test]
    fn paths_need_not_be_utf8() {
        let image = ImageRef::parse(OsStr::from_bytes(b"/\xff:t")).unwrap();
        assert_eq!(image.store.as_os_str().as_bytes(), b"/\xff");
    }
}
