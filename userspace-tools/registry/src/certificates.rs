// SPDX-License-Identifier: MIT OR Apache-2.0

//! Certificates of private CAs, from the directories that Podman and Docker use: containers-certs.d(5).
//!
//! Client certificates are not used.

use crate::error::SetupError;
use oci_client::client::{Certificate, CertificateEncoding};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The largest file of certificates read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// The directories with a directory for each registry.
const SYSTEM: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// Reads the certificates of `directory`, or of the directories of a registry if none is given. The
/// system's certificates are trusted beside them.
pub(crate) fn find(
    registry: &str,
    directory: Option<&Path>,
) -> Result<Vec<Certificate>, SetupError> {
    if let Some(directory) = directory {
        let found = of_directory(directory, true)?;
        if found.is_empty() {
            let path = directory.to_path_buf();
            return Err(SetupError::NoCertificate { path });
        }
        return Ok(found);
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let own = home.map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
    let mut found = Vec::new();
    for parent in own.into_iter().chain(SYSTEM.map(PathBuf::from)) {
        // A registry's name has no `/`.
        found.extend(of_directory(&parent.join(registry), false)?);
    }
    Ok(found)
}

/// Reads the files `*.crt` of a directory.
fn of_directory(directory: &Path, must_exist: bool) -> Result<Vec<Certificate>, SetupError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound && !must_exist => return Ok(Vec::new()),
        Err(cause) => return Err(unreadable(directory, cause)),
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
        .collect();
    files.sort_unstable();
    files.iter().map(|path| read(path)).collect()
}

/// Reads a file of certificates.
pub(crate) fn read(path: &Path) -> Result<Certificate, SetupError> {
    let mut data = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut data))
        .map_err(|cause| unreadable(path, cause))?;
    Ok(Certificate {
        encoding: CertificateEncoding::Pem,
        data,
    })
}

fn unreadable(path: &Path, cause: std::io::Error) -> SetupError {
    SetupError::Read {
        path: path.to_path_buf(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_a_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let find = |path: &Path| find("localhost:5000", Some(path));
        let missing = scratch.path().join("missing");
        assert!(matches!(find(&missing), Err(SetupError::Read { .. })));
        fs::write(scratch.path().join("key.pem"), "x").unwrap();
        let none = find(scratch.path());
        assert!(matches!(none, Err(SetupError::NoCertificate { .. })));
        fs::write(scratch.path().join("ca.crt"), "x").unwrap();
        assert_eq!(find(scratch.path()).unwrap().len(), 1);
    }
}
