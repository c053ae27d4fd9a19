// SPDX-License-Identifier: MIT OR Apache-2.0

//! Credentials for registries, from the files of Podman and Docker and from credential helpers.
//!
//! The order is that of containers-auth.json(5): the first file with an entry for the registry decides.
//!
//! | place | if |
//! | --- | --- |
//! | `--creds` | given |
//! | `--authfile` | given; no other file is read |
//! | `$REGISTRY_AUTH_FILE` | set; no other file is read |
//! | `$XDG_RUNTIME_DIR/containers/auth.json`, or `/run/containers/UID/auth.json` | it exists |
//! | `$XDG_CONFIG_HOME/containers/auth.json`, or `~/.config/containers/auth.json` | it exists |
//! | `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json` | it exists |

use crate::error::SetupError;
use crate::reference::RemoteImage;
use crate::token::Secret;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;
use serde::de::IgnoredAny;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The largest file of credentials read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The names in a file of credentials.
#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    auths: BTreeMap<String, IgnoredAny>,
}

/// A user name and a password from the command line.
#[derive(Clone, PartialEq, Eq)]
pub struct UserPassword {
    user: String,
    password: String,
}

impl UserPassword {
    /// The user name and the password.
    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.user, &self.password)
    }
}

impl std::str::FromStr for UserPassword {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((user, password)) if !user.is_empty() => Ok(UserPassword {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            _ => Err("give USER:PASSWORD"),
        }
    }
}

impl std::fmt::Debug for UserPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserPassword")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Finds the credentials for an image.
///
/// # Errors
///
/// If a file that exists cannot be read or is malformed, or a credential helper fails for another reason
/// than that it knows no credentials.
pub(crate) fn find(
    image: &RemoteImage,
    given: Option<&UserPassword>,
    authfile: Option<&Path>,
) -> Result<Secret, SetupError> {
    if let Some(UserPassword { user, password }) = given {
        return Ok(basic(user.clone(), password.clone()));
    }
    let named = authfile
        .map(Path::to_path_buf)
        .or_else(|| variable("REGISTRY_AUTH_FILE"));
    let (files, must_exist) = match named {
        Some(file) => (vec![file], true),
        None => (default_files(), false),
    };
    for file in files {
        if let Some(found) = in_file(&file, image, must_exist)? {
            return Ok(found);
        }
    }
    Ok(Secret::Auth(RegistryAuth::Anonymous))
}

fn basic(user: String, password: String) -> Secret {
    Secret::Auth(RegistryAuth::Basic(user, password))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The files that are read if none is named.
fn default_files() -> Vec<PathBuf> {
    let home = variable("HOME");
    let run = variable("XDG_RUNTIME_DIR").unwrap_or_else(|| {
        let user = rustix::process::getuid().as_raw();
        PathBuf::from(format!("/run/containers/{user}"))
    });
    // Podman's directory of a user without a session is not below another `containers`.
    let run = if run.starts_with("/run/containers") {
        run.join("auth.json")
    } else {
        run.join("containers/auth.json")
    };
    let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
    let config = variable("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    let docker = variable("DOCKER_CONFIG").or_else(|| below_home(".docker"));
    let config = config.map(|config| config.join("containers/auth.json"));
    let docker = docker.map(|docker| docker.join("config.json"));
    [Some(run), config, docker].into_iter().flatten().collect()
}

/// Finds the credentials for an image in a file. Returns `None` if it has none.
fn in_file(
    path: &Path,
    image: &RemoteImage,
    must_exist: bool,
) -> Result<Option<Secret>, SetupError> {
    let unusable = |cause: String| SetupError::Credentials {
        path: path.to_path_buf(),
        cause,
    };
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut text));
    match read {
        Err(cause) if cause.kind() == ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(cause) => {
            let path = path.to_path_buf();
            return Err(SetupError::Read { path, cause });
        }
        Ok(_) if text.len() as u64 > FILE_MAX => {
            return Err(unusable(format!("it has more than {FILE_MAX} bytes")))
        }
        Ok(_) => {}
    }
    let keys: Keys = serde_json::from_slice(&text).map_err(|cause| unusable(cause.to_string()))?;
    for key in names(image, &keys) {
        match docker_credential::get_credential_from_reader(&text[..], &key) {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                return Ok(Some(basic(user, password)))
            }
            Ok(DockerCredential::IdentityToken(token)) => return Ok(Some(Secret::Identity(token))),
            Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") => {}
            // Its text holds what the helper printed.
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                return Err(unusable(format!("the credential helper {helper} failed")))
            }
            Err(cause) => return Err(unusable(cause.to_string())),
        }
    }
    Ok(None)
}

/// The names to look for, the most specific first: a file can have credentials for a repository, or for
/// all of a namespace. Helpers know registries alone.
fn names(image: &RemoteImage, keys: &Keys) -> Vec<String> {
    let registry = image.registry();
    let mut names = Vec::new();
    let mut repository = image.repository();
    while !repository.is_empty() {
        let name = format!("{registry}/{repository}");
        if keys.auths.contains_key(&name) {
            names.push(name);
        }
        repository = repository.rsplit_once('/').map_or("", |(above, _)| above);
    }
    names.push(registry.to_owned());
    // As `docker login` writes it for its own registry.
    names.push(format!("https://index.{registry}/v1/"));
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::fs;

    fn image(name: &str) -> RemoteImage {
        RemoteImage::parse(OsStr::new(name)).unwrap()
    }

    fn user(found: Option<Secret>) -> String {
        match found {
            Some(Secret::Auth(RegistryAuth::Basic(user, password))) => {
                format!("{user}:{password}")
            }
            Some(Secret::Identity(token)) => format!("identity {token}"),
            Some(Secret::Auth(_)) => "other".to_owned(),
            None => "none".to_owned(),
        }
    }

    /// "u:p", "n:q" and "h:r" in base64.
    const FILE: &str = r#"{"auths": {
        "localhost:5000": {"auth": "dTpw"},
        "localhost:5000/team": {"auth": "bjpx"},
        "https://index.hub.example/v1/": {"auth": "aDpy"},
        "token.example": {"auth": "", "identitytoken": "x"},
        "broken.example": {"auth": "%"}
    }}"#;

    #[test]
    fn the_most_specific_entry_of_a_file_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("auth.json");
        fs::write(&path, FILE).unwrap();
        let find = |name: &str| in_file(&path, &image(name), true);
        assert_eq!(user(find("docker://localhost:5000/a").unwrap()), "u:p");
        assert_eq!(
            user(find("docker://localhost:5000/team/a/b").unwrap()),
            "n:q"
        );
        assert_eq!(
            user(find("docker://localhost:5000/teams/a").unwrap()),
            "u:p"
        );
        assert_eq!(user(find("docker://hub.example/debian").unwrap()), "h:r");
        assert_eq!(user(find("docker://localhost:5001/a").unwrap()), "none");
        assert_eq!(
            user(find("docker://token.example/a").unwrap()),
            "identity x"
        );
        let error = find("docker://broken.example/a").err().unwrap();
        assert!(matches!(error, SetupError::Credentials { .. }), "{error}");
    }

    #[test]
    fn files_that_cannot_be_used() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("auth.json");
        let find = |must_exist| in_file(&path, &image("docker://localhost/a"), must_exist);
        assert_eq!(user(find(false).unwrap()), "none");
        assert!(matches!(find(true), Err(SetupError::Read { .. })));
        fs::write(&path, "{").unwrap();
        assert!(matches!(find(false), Err(SetupError::Credentials { .. })));
        fs::write(&path, vec![b' '; FILE_MAX as usize + 1]).unwrap();
        assert!(matches!(find(false), Err(SetupError::Credentials { .. })));
        fs::write(&path, "{}").unwrap();
        assert_eq!(user(find(true).unwrap()), "none");
    }

    #[test]
    fn a_user_and_a_password() {
        let parse = |text: &str| text.parse::<UserPassword>();
        let found = parse("me:a:b").unwrap();
        assert_eq!((&found.user[..], &found.password[..]), ("me", "a:b"));
        assert!(!format!("{found:?}").contains("a:b"));
        assert!(parse("me").is_err() && parse(":x").is_err());
    }
}
