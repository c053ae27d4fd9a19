// SPDX-License-Identifier: MIT OR Apache-2.0

//! The container images that the store has imported from a registry: `.puzzlefs/imports/<key>`.
//!
//! The key is a digest of everything that the result depends on: the container image and the options. The
//! file has the digest of the manifest that the import has made, in hexadecimal.
//!
//! A record is a hint. It can be lost, and the image that it names can be gone.

use crate::error::{Error, Result};
use crate::model::digest::Digest;
use crate::store::chunks::directory::PrivateDirectory;
use crate::store::oci_layout::Store;
use std::io::Read;

/// The name of the directory of records.
const IMPORTS: &str = "imports";
/// The beginning of the names of unfinished records.
const NEW: &str = "import.new";
/// The length of a record, in bytes.
const LENGTH: u64 = 64;

/// Returns the manifest that the import with this key has made. A damaged record counts as none.
pub(crate) fn known_import(store: &Store, key: &Digest) -> Result<Option<Digest>> {
    let Some(directory) = PrivateDirectory::open(store, IMPORTS)? else {
        return Ok(None);
    };
    read(&directory, &key.to_hex())
}

/// Keeps the manifest that the import with this key has made.
pub(crate) fn keep_import(store: &Store, key: &Digest, manifest: &Digest) -> Result<()> {
    let directory = PrivateDirectory::create(store, IMPORTS)?;
    directory.replace_file(NEW, &key.to_hex(), manifest.to_hex().as_bytes())
}

/// Removes the records of manifests that `is_needed` returns false for, and unfinished ones.
pub(crate) fn remove_imports(store: &Store, is_needed: impl Fn(&Digest) -> bool) -> Result<()> {
    let Some(directory) = PrivateDirectory::open(store, IMPORTS)? else {
        return Ok(());
    };
    for name in directory.names()? {
        let manifest = if name.starts_with(NEW) {
            None
        } else {
            read(&directory, &name)?
        };
        if !manifest.is_some_and(|manifest| is_needed(&manifest)) {
            directory.remove_file(&name)?;
        }
    }
    Ok(())
}

fn read(directory: &PrivateDirectory, name: &str) -> Result<Option<Digest>> {
    let Some(file) = directory.open_file(name)? else {
        return Ok(None);
    };
    let mut hex = Vec::new();
    file.take(LENGTH + 1)
        .read_to_end(&mut hex)
        .map_err(Error::io(directory.file_path(name), "read"))?;
    Ok(Digest::from_hex(&hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn records_are_kept_while_their_images_are() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let digest = |number: u8| Digest::of(&[number]);
        assert_eq!(known_import(&store, &digest(1)).unwrap(), None);
        remove_imports(&store, |_| false).unwrap();
        for key in [1, 2] {
            keep_import(&store, &digest(key), &digest(key + 10)).unwrap();
        }
        let directory = store.path().join(".puzzlefs/imports");
        fs::write(directory.join("import.new-1"), "").unwrap();
        fs::write(directory.join(digest(3).to_hex()), "x".repeat(1000)).unwrap();
        assert_eq!(known_import(&store, &digest(3)).unwrap(), None);
        remove_imports(&store, |manifest| *manifest == digest(11)).unwrap();
        assert_eq!(known_import(&store, &digest(1)).unwrap(), Some(digest(11)));
        assert_eq!(known_import(&store, &digest(2)).unwrap(), None);
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
    }
}
