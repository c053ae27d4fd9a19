// SPDX-License-Identifier: MIT OR Apache-2.0

//! The places that an image is read from: settings in files, and one attempt after another.
//!
//! | file | if |
//! | --- | --- |
//! | `$CONTAINERS_REGISTRIES_CONF` | set |
//! | `containers/registries.conf` in `$XDG_CONFIG_HOME` or `~/.config` | it exists, and none is named |
//! | `/etc/containers/registries.conf` | it exists, and neither of the above |
//! | `registries.conf.d/*.conf` in `/etc/containers`, then those beside the user's file | they exist |

use crate::client::RegistryOptions;
use crate::error::{PlacesError, RegistryError, RegistryFault, SetupError};
use crate::reference::{ImageName, RemoteImage};
use crate::settings::{Place, RegistrySettings};
use puzzlefs_lib::message::printable;
use puzzlefs_lib::{Error, Result};
use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The largest file of settings read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// The directory of the system's settings.
const SYSTEM: &str = "/etc/containers";

impl RegistrySettings {
    /// Reads the settings of the user and of the system.
    ///
    /// # Errors
    ///
    /// If a file that exists cannot be read or is malformed, or a named one is missing.
    pub fn read() -> Result<Self, SetupError> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let named = variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
        let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
        let own = config.map(|config| config.join("containers"));
        Self::of(named.as_deref(), Path::new(SYSTEM), own.as_deref())
    }

    /// Reads a named file or that of a directory, and then additions of both directories.
    fn of(named: Option<&Path>, system: &Path, own: Option<&Path>) -> Result<Self, SetupError> {
        let mut settings = RegistrySettings::default();
        let directories = [Some(system), own];
        if let Some(file) = named {
            settings.add_file(file, true)?;
        } else {
            for directory in directories.into_iter().rev().flatten() {
                if settings.add_file(&directory.join("registries.conf"), false)? {
                    break;
                }
            }
        }
        for directory in directories.into_iter().flatten() {
            for file in additions(&directory.join("registries.conf.d"))? {
                settings.add_file(&file, false)?;
            }
        }
        Ok(settings)
    }

    /// Adds the settings of a file. Returns false if it does not exist.
    fn add_file(&mut self, path: &Path, must_exist: bool) -> Result<bool, SetupError> {
        let unreadable = |cause| SetupError::Read {
            path: path.to_path_buf(),
            cause,
        };
        let mut bytes = Vec::new();
        match File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes)) {
            Err(cause) if cause.kind() == ErrorKind::NotFound && !must_exist => return Ok(false),
            Err(cause) => return Err(unreadable(cause)),
            Ok(_) => {}
        }
        if bytes.len() as u64 > FILE_MAX {
            let cause = format!("it has more than {FILE_MAX} bytes");
            return Err(malformed(path.to_path_buf(), &cause));
        }
        let added = match std::str::from_utf8(&bytes) {
            Ok(text) => self.add(text, path),
            Err(_) => Err("it is not UTF-8".to_owned()),
        };
        added.map_err(|cause| malformed(path.to_path_buf(), &cause))?;
        Ok(true)
    }
}

/// Returns the files `*.conf` of a directory, which need not exist, by their names.
fn additions(directory: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let unreadable = |cause| SetupError::Read {
        path: directory.to_path_buf(),
        cause,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(unreadable(cause)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn malformed(path: PathBuf, cause: &str) -> SetupError {
    // A message of the parser quotes the file.
    let cause = printable(cause.as_bytes());
    SetupError::Settings { path, cause }
}

/// An image to read.
pub(crate) struct Sought<'s> {
    /// The name.
    pub name: &'s ImageName,
    /// The connections. The credentials are for the registry of the name.
    pub options: &'s RegistryOptions,
    /// The image that is written. Its repository is not used as a mirror, and mirrors do not replace it: an
    /// older image of a mirror would otherwise replace a newer one.
    pub target: Option<&'s RemoteImage>,
    /// The verb for messages.
    pub action: &'static str,
}

/// A place, and the options for a connection to it.
pub(crate) struct Attempt {
    pub image: RemoteImage,
    /// If another place follows, requests are not repeated.
    pub options: RegistryOptions,
}

impl Sought<'_> {
    /// Makes an attempt at each place until one succeeds, or fails for another reason than its place.
    ///
    /// # Errors
    ///
    /// The last failure, with mention of the earlier ones.
    pub fn first<T>(&self, mut attempt: impl FnMut(Attempt) -> Result<T>) -> Result<T> {
        if self.options.creds.is_some() && self.name.only().is_none() {
            let name = self.name.to_string();
            return Err(SetupError::CredsForSeveral { name }.into());
        }
        let mut failures = Vec::new();
        let mut places = self.places()?.into_iter().peekable();
        while let Some((named, place)) = places.next() {
            let made = permit(&place, self.action).and_then(|()| {
                let mut options = options_at(&place, named, self.options);
                if places.peek().is_some() {
                    options.retries = 0;
                }
                let image = place.image;
                attempt(Attempt { image, options })
            });
            match made {
                Ok(made) => return Ok(made),
                Err(error) => failures.push(of_place(error)?),
            }
        }
        Err(PlacesError { failures }.into())
    }

    /// Returns the places of all images of the name, each with that image.
    fn places(&self) -> Result<Vec<(&RemoteImage, Place)>> {
        let settings = &self.options.settings;
        let is_target = |image: &RemoteImage| {
            self.target
                .is_some_and(|target| target.has_repository_of(image))
        };
        let mut all = Vec::new();
        for image in self.name.images() {
            if is_target(image) {
                all.push((image, settings.itself(image).map_err(unusable)?));
                continue;
            }
            let mut places = settings.places(image).map_err(unusable)?;
            let location = places.pop();
            places.retain(|mirror| !is_target(&mirror.image));
            all.extend(
                places
                    .into_iter()
                    .chain(location)
                    .map(|place| (image, place)),
            );
        }
        Ok(all)
    }
}

/// Returns the options for a connection to the registry of an image itself, such as one that is written.
///
/// # Errors
///
/// If a file forbids the registry.
pub(crate) fn itself(
    image: &RemoteImage,
    action: &'static str,
    options: &RegistryOptions,
) -> Result<RegistryOptions> {
    let place = options.settings.itself(image).map_err(unusable)?;
    permit(&place, action)?;
    Ok(options_at(&place, image, options))
}

/// Fails if a file forbids a place.
fn permit(place: &Place, action: &'static str) -> Result<()> {
    let Some(file) = place.blocked_by.clone() else {
        return Ok(());
    };
    let fault = RegistryFault::Blocked { file };
    Err(RegistryError {
        action,
        registry: place.image.registry().to_owned(),
        repository: place.image.repository().to_owned(),
        fault,
    }
    .into())
}

/// Returns the options for a connection to a place. `options` are those for the registry of `named`.
fn options_at(place: &Place, named: &RemoteImage, options: &RegistryOptions) -> RegistryOptions {
    let mut options = options.clone();
    // Credentials of one registry never go to another.
    if place.image.registry() != named.registry() {
        options.creds = None;
    }
    options.tls_verify &= !place.is_insecure;
    options
}

/// Returns the failure, if it is one of its place alone.
fn of_place(error: Error) -> Result<RegistryError> {
    match error {
        Error::Remote(error) => match error.downcast::<RegistryError>() {
            Ok(failure) if failure.fault.is_of_place() => Ok(*failure),
            Ok(other) => Err((*other).into()),
            Err(other) => Err(Error::Remote(other)),
        },
        error => Err(error),
    }
}

fn unusable((file, cause): (PathBuf, String)) -> Error {
    malformed(file, &cause).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn search(registry: &str) -> String {
        format!("unqualified-search-registries = ['{registry}']")
    }

    #[test]
    fn files_in_their_order() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        let (system, own) = (path("system"), path("own"));
        let read = |named: Option<&Path>| {
            RegistrySettings::of(named, &system, Some(&own)).map(|found| found.search().join(","))
        };
        assert_eq!(read(None).unwrap(), "");
        write(&path("system/registries.conf"), &search("one.example"));
        assert_eq!(read(None).unwrap(), "one.example");
        write(&path("own/registries.conf"), &search("two.example"));
        assert_eq!(read(None).unwrap(), "two.example");
        write(&path("named"), &search("three.example"));
        assert_eq!(read(Some(&path("named"))).unwrap(), "three.example");
        // Additions: each one replaces the list of those before.
        write(
            &path("own/registries.conf.d/a.conf"),
            &search("own.example"),
        );
        for (name, registry) in [("b.conf", "b.example"), ("a.conf", "a.example")] {
            write(
                &path("system/registries.conf.d").join(name),
                &search(registry),
            );
        }
        write(&path("system/registries.conf.d/z.txt"), "x");
        assert_eq!(read(Some(&path("named"))).unwrap(), "own.example");
        fs::remove_dir_all(path("own/registries.conf.d")).unwrap();
        assert_eq!(read(None).unwrap(), "b.example");
        let missing = read(Some(&path("missing")));
        assert!(matches!(missing, Err(SetupError::Read { .. })));
    }

    #[test]
    fn files_that_cannot_be_used() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("registries.conf");
        for (bytes, cause) in [
            (&b"x"[..], "line 1: "),
            (b"[registries.search]", "version 1"),
            (b"# \xff", "it is not UTF-8"),
            (&vec![b' '; FILE_MAX as usize + 1], "it has more than"),
        ] {
            fs::write(&file, bytes).unwrap();
            let error = RegistrySettings::of(None, scratch.path(), None).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(cause), "{message}");
            assert!(message.contains(file.to_str().unwrap()), "{message}");
            assert!(message.contains("correct the file"), "{message}");
        }
        fs::write(&file, vec![b' '; FILE_MAX as usize]).unwrap();
        RegistrySettings::of(None, scratch.path(), None).unwrap();
    }

    /// The attempts at an image with a mirror, as name, credentials, verification and repeated requests.
    fn attempts(target: Option<&str>, failure: impl Fn() -> RegistryFault) -> Vec<String> {
        let text = r#"
            [[registry]]
            location = "one.example"
            insecure = true
            [[registry.mirror]]
            location = "two.example"
            [[registry.mirror]]
            location = "one.example/mirror"
        "#;
        let mut options = RegistryOptions {
            creds: Some("me:secret".parse().unwrap()),
            ..RegistryOptions::default()
        };
        options.settings.add(text, Path::new("/x")).unwrap();
        let parse = |name: &str| RemoteImage::parse(OsStr::new(name)).unwrap();
        let (name, target) = (parse("docker://one.example/a:1").into(), target.map(parse));
        let sought = Sought {
            name: &name,
            options: &options,
            target: target.as_ref(),
            action: "read",
        };
        let mut seen = Vec::new();
        let result: Result<()> = sought.first(|Attempt { image, options }| {
            seen.push(format!(
                "{} {} {} {}",
                image.name(),
                options.creds.is_some(),
                options.tls_verify,
                options.retries
            ));
            Err(RegistryError {
                action: "read",
                registry: image.registry().to_owned(),
                repository: image.repository().to_owned(),
                fault: failure(),
            }
            .into())
        });
        seen.push(result.unwrap_err().to_string());
        seen
    }

    #[test]
    fn attempts_at_mirrors_and_the_location() {
        let down = || RegistryFault::Connection("down".to_owned());
        let own = "one.example/a:1 true false 5";
        assert_eq!(
            attempts(None, down),
            [
                "two.example/a:1 false true 0",
                "one.example/mirror/a:1 true true 0",
                own,
                "cannot read one.example/a: the connection failed: down; check the host, the port and the \
                 network, and try again; before: two.example/a (the connection failed: down), \
                 one.example/mirror/a (the connection failed: down)",
            ]
        );
        // Damage is no reason for another attempt.
        let wrong = || RegistryFault::ManifestTooLarge { max: 1 };
        assert_eq!(attempts(None, wrong).len(), 2);
        let targets = attempts(Some("docker://one.example/a:2"), down);
        assert_eq!((targets.len(), &*targets[0]), (2, own));
        let targets = attempts(Some("docker://two.example/a:2"), down);
        assert_eq!((targets.len(), &*targets[1]), (3, own));
    }

    #[test]
    fn credentials_need_one_registry() {
        let search = ["one.example", "two.example"].map(str::to_owned);
        let name = ImageName::parse(OsStr::new("docker://a"), &search).unwrap();
        let options = RegistryOptions {
            creds: Some("me:secret".parse().unwrap()),
            ..RegistryOptions::default()
        };
        let sought = Sought {
            name: &name,
            options: &options,
            target: None,
            action: "read",
        };
        let message = sought.first(|_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("'docker://a:latest'"), "{message}");
    }
}
