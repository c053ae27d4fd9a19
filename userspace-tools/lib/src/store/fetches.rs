// SPDX-License-Identifier: MIT OR Apache-2.0

//! The images whose chunks a fetcher brings: `.puzzlefs/fetches/<key>`.
//!
//! The key is the digest of the tag. The file is a JSON object: the source of the image, and the options by
//! which another fetcher continues after a restart. It has no secrets.
//!
//! A record names files of credentials, so a record of another user counts as none.

use crate::error::{Error, Result, StoreError};
use crate::model::digest::Digest;
use crate::model::json;
use crate::model::platform::Platform;
use crate::store::chunks::directory::PrivateDirectory;
use crate::store::oci_layout::Store;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The name of the directory of records.
const FETCHES: &str = "fetches";
/// The beginning of the names of unfinished records.
const NEW: &str = "fetch.new";
/// The largest record read, in bytes.
const RECORD_MAX: u64 = 64 << 10;
/// The most records that are read.
const RECORDS_MAX: usize = 1024;

/// The time at which chunks are fetched that no reader has requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Completion {
    /// Whenever a transfer is free.
    Now,
    /// One range at a time, if there are no requests.
    Idle,
    /// Never.
    Never,
}

/// Parses a limit of a rate: a number of bytes, or of units of 1024, 1024² or 1024³ bytes.
///
/// # Errors
///
/// If the text is not such a number, or it is 0.
pub fn parse_rate(text: &str) -> Result<NonZeroU64, &'static str> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (text.strip_suffix(['k', 'K']), 1 << 10),
        Some(b'm' | b'M') => (text.strip_suffix(['m', 'M']), 1 << 20),
        Some(b'g' | b'G') => (text.strip_suffix(['g', 'G']), 1 << 30),
        _ => (Some(text), 1),
    };
    let number: Option<u64> = number.and_then(|number| number.parse().ok());
    let rate = number.and_then(|number| number.checked_mul(unit));
    rate.and_then(NonZeroU64::new)
        .ok_or("give a number of bytes from 1 on, with K, M or G for units of 1024, 1024² or 1024³")
}

/// An image whose chunks a fetcher brings. Nothing here is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRecord {
    /// The name of the image, as the user gave it.
    pub image: String,
    /// The tag in the store.
    pub tag: String,
    /// The digest of the manifest, as OCI spells it, once the image is prepared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// The platform, if it is not that of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The time at which the rest is fetched.
    pub complete: Completion,
    /// The file of credentials, instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authfile: Option<PathBuf>,
    /// The directory of CA certificates, instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_dir: Option<PathBuf>,
    /// Certificates are verified.
    pub tls_verify: bool,
    /// The longest silence of the source, in seconds.
    pub request_timeout: u64,
    /// The number of further attempts after a failure.
    pub retries: u32,
    /// The number of simultaneous transfers.
    pub transfers: u8,
    /// The rate of chunks that no reader has requested, in bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_rate: Option<NonZeroU64>,
}

impl FetchRecord {
    /// Returns the digest of the manifest, once the image is prepared.
    pub fn manifest_digest(&self) -> Option<Digest> {
        Digest::from_oci(self.manifest.as_deref()?)
    }

    /// Returns true if the tag of the record still names its manifest.
    ///
    /// # Errors
    ///
    /// If the index of the store cannot be read.
    pub fn is_current(&self, store: &Store) -> Result<bool> {
        let index = store.index()?;
        let tagged = index.find(&self.tag).map(|found| found.digest.as_str());
        Ok(self.manifest.is_some() && tagged == self.manifest.as_deref())
    }

    /// Keeps the record, durably. It replaces another one with its tag.
    ///
    /// # Errors
    ///
    /// If the record cannot be written, or a path in it is not UTF-8.
    pub fn keep(&self, store: &Store) -> Result<()> {
        let directory = PrivateDirectory::create(store, FETCHES)?;
        let key = key(&self.tag);
        let text = serde_json::to_vec(self);
        let text = text.map_err(Error::io(directory.file_path(&key), "write"))?;
        directory.replace_file(NEW, &key, &text)?;
        directory.sync()
    }

    /// Removes the record of a tag, if it has the manifest.
    ///
    /// # Errors
    ///
    /// If the record cannot be read or removed.
    pub fn remove(store: &Store, tag: &str, manifest: &Digest) -> Result<()> {
        let Some(directory) = PrivateDirectory::open(store, FETCHES)? else {
            return Ok(());
        };
        let key = key(tag);
        match read(&directory, &key) {
            Ok(Some(record)) if record.manifest_digest() == Some(*manifest) => {
                directory.remove_file(&key)?;
                directory.sync()
            }
            _ => Ok(()),
        }
    }

    /// Reads the records of a store, in the order of their tags, and the errors of those that cannot be
    /// used.
    ///
    /// # Errors
    ///
    /// If the directory of the records cannot be read.
    pub fn read_all(store: &Store) -> Result<(Vec<FetchRecord>, Vec<Error>)> {
        let (mut records, mut errors) = (Vec::new(), Vec::new());
        let Some(directory) = PrivateDirectory::open(store, FETCHES)? else {
            return Ok((records, errors));
        };
        let mut names = directory.names()?;
        names.retain(|name| !name.starts_with(NEW));
        names.sort_unstable();
        for name in names.iter().take(RECORDS_MAX) {
            match read(&directory, name) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        records.sort_unstable_by(|one, two| one.tag.cmp(&two.tag));
        Ok((records, errors))
    }
}

/// Removes the records whose tags do not name their manifests, unfinished ones and damaged ones.
pub(crate) fn remove_fetches(store: &Store) -> Result<()> {
    let Some(directory) = PrivateDirectory::open(store, FETCHES)? else {
        return Ok(());
    };
    for name in directory.names()? {
        let is_needed = match read(&directory, &name) {
            Ok(Some(record)) => !name.starts_with(NEW) && record.is_current(store)?,
            Ok(None) | Err(_) => false,
        };
        if !is_needed {
            directory.remove_file(&name)?;
        }
    }
    Ok(())
}

fn key(tag: &str) -> String {
    Digest::of(tag.as_bytes()).to_hex()
}

/// Reads a record of this user or of root.
fn read(directory: &PrivateDirectory, name: &str) -> Result<Option<FetchRecord>> {
    let Some(file) = directory.open_file(name)? else {
        return Ok(None);
    };
    let path = directory.file_path(name);
    let owner = file.metadata().map_err(Error::io(&path, "examine"))?.uid();
    let own = rustix::process::geteuid().as_raw();
    if owner != own && owner != 0 {
        return Err(StoreError::ForeignRecord { path, owner }.into());
    }
    let mut text = Vec::new();
    file.take(RECORD_MAX + 1)
        .read_to_end(&mut text)
        .map_err(Error::io(&path, "read"))?;
    let record: FetchRecord = json::parse(&text, "the record of a fetch").map_err(|cause| {
        let path = path.clone();
        StoreError::FetchRecord { path, cause }
    })?;
    // A record under another key would be kept and removed by the wrong tag.
    if key(&record.tag) != name && !name.starts_with(NEW) {
        return Ok(None);
    }
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::oci::{self, Descriptor};
    use crate::store::staging::{Content, Staging};
    use std::fs;

    fn record(tag: &str, manifest: Option<Digest>) -> FetchRecord {
        FetchRecord {
            image: format!("docker://registry.example/app:{tag}"),
            tag: tag.to_owned(),
            manifest: manifest.map(Digest::to_oci),
            platform: None,
            complete: Completion::Idle,
            authfile: Some("/etc/auth.json".into()),
            cert_dir: None,
            tls_verify: true,
            request_timeout: 60,
            retries: 5,
            transfers: 6,
            limit_rate: None,
        }
    }

    fn set_tag(store: &Store, tag: &str, contents: &[u8]) -> Digest {
        let digest = Digest::of(contents);
        let staging = Staging::new(store).unwrap();
        staging.put(&digest, Content::Bytes(&[contents])).unwrap();
        staging.commit().unwrap();
        let size = contents.len() as u64;
        let descriptor = Descriptor::new(oci::MANIFEST, digest, size);
        store.set_tag(tag, descriptor).unwrap();
        digest
    }

    #[test]
    fn rates() {
        let parsed = |text: &str| parse_rate(text).map(NonZeroU64::get).ok();
        assert_eq!(parsed("1"), Some(1));
        assert_eq!(parsed("500k"), Some(500 << 10));
        assert_eq!(parsed("3M"), Some(3 << 20));
        assert_eq!(parsed("2G"), Some(2 << 30));
        for other in [
            "",
            "0",
            "K",
            "0M",
            "1.5M",
            "-1",
            "1T",
            "1KM",
            "1é",
            "99999999999G",
        ] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn records_are_kept_while_their_tags_name_them() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        remove_fetches(&store).unwrap();
        assert!(FetchRecord::read_all(&store).unwrap().0.is_empty());
        let (one, two) = (set_tag(&store, "b", b"1"), set_tag(&store, "a", b"2"));
        let (first, second) = (record("b", Some(one)), record("a", Some(two)));
        for record in [&first, &second] {
            record.keep(&store).unwrap();
            assert!(record.is_current(&store).unwrap());
        }
        record("gone", Some(one)).keep(&store).unwrap();
        record("unprepared", None).keep(&store).unwrap();
        let (records, errors) = FetchRecord::read_all(&store).unwrap();
        let tags: Vec<&str> = records.iter().map(|record| &*record.tag).collect();
        assert_eq!(
            (tags, errors.len()),
            (vec!["a", "b", "gone", "unprepared"], 0)
        );
        remove_fetches(&store).unwrap();
        let (records, _) = FetchRecord::read_all(&store).unwrap();
        assert_eq!(records, [second, first]);
        // The record of another manifest stays.
        FetchRecord::remove(&store, "a", &one).unwrap();
        FetchRecord::remove(&store, "b", &one).unwrap();
        FetchRecord::remove(&store, "c", &one).unwrap();
        assert_eq!(FetchRecord::read_all(&store).unwrap().0.len(), 1);
        set_tag(&store, "a", b"3");
        remove_fetches(&store).unwrap();
        assert!(FetchRecord::read_all(&store).unwrap().0.is_empty());
    }

    #[test]
    fn damaged_records_are_errors_and_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let digest = set_tag(&store, "a", b"1");
        record("a", Some(digest)).keep(&store).unwrap();
        let directory = store.path().join(".puzzlefs/fetches");
        let good = fs::read(directory.join(key("a"))).unwrap();
        fs::write(directory.join("fetch.new-1-x"), &good).unwrap();
        // A record under the key of another tag.
        fs::write(directory.join(key("b")), &good).unwrap();
        fs::write(directory.join(key("c")), &good[..good.len() - 3]).unwrap();
        fs::write(directory.join(key("d")), vec![b' '; 100_000]).unwrap();
        fs::create_dir(directory.join(key("e"))).unwrap();
        let (records, errors) = FetchRecord::read_all(&store).unwrap();
        assert_eq!((records.len(), errors.len()), (1, 3), "{errors:?}");
        let mut text = errors.iter().map(ToString::to_string);
        assert!(text.all(|text| text.contains(".puzzlefs/fetches/")));
        fs::remove_dir(directory.join(key("e"))).unwrap();
        remove_fetches(&store).unwrap();
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
    }
}
