// SPDX-License-Identifier: MIT OR Apache-2.0

//! containerd's settings of registries: `DIRECTORY/HOST/hosts.toml`. containerd's `config_path` names the
//! directory.
//!
//! | key | effect |
//! | --- | --- |
//! | `server` | the registry, instead of the host in the image's name |
//! | `[host."URL"]` | a mirror, which is tried before the server, in the order of the file |
//! | `capabilities` | a mirror without `pull` is skipped |
//! | `ca` | files with certificates of CAs |
//! | `skip_verify` | accept any certificate |
//! | `override_path` | the path of the URL, `/v2` or below it, is used as it is |
//! | `header.authorization` | a user name and a password, `Basic ...` |
//!
//! Other keys are ignored, except that mirrors with `client` certificates or other kinds of authorization are
//! skipped. Without `hosts.toml`, the certificates `*.crt` of the directory are used.

use anyhow::{anyhow, bail, Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD};
use puzzlefs_registry::UserPassword;
use serde::de::IgnoredAny;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The largest file of settings read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// A registry that may have an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host, with the port if one is given.
    pub host: String,
    /// The beginning of the names of repositories, empty or with `/` at the end.
    pub prefix: String,
    /// Verify certificates, and never use plain HTTP except on this host.
    pub tls_verify: bool,
    /// Files with certificates of CAs.
    pub certificates: Vec<PathBuf>,
    /// The user name and the password.
    pub credentials: Option<UserPassword>,
}

#[derive(Deserialize)]
struct Document {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Spanned<Settings>>,
    #[serde(flatten)]
    own: Settings,
}

#[derive(Default, Deserialize)]
struct Settings {
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    ca: OneOrMore,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    client: Option<IgnoredAny>,
    #[serde(default)]
    header: BTreeMap<String, OneOrMore>,
}

/// A text or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        OneOrMore::More(Vec::new())
    }
}

impl OneOrMore {
    fn texts(&self) -> &[String] {
        match self {
            OneOrMore::One(text) => std::slice::from_ref(text),
            OneOrMore::More(texts) => texts,
        }
    }
}

/// Returns the registries that images of a host are pulled from, in their order.
///
/// # Errors
///
/// If the settings of the host cannot be read.
pub fn endpoints(directory: &Path, host: &str) -> Result<Vec<Endpoint>> {
    if host.is_empty() || host.starts_with('.') || host.contains('/') {
        bail!("'{host}' is not the host of a registry");
    }
    let mut names = vec![host.to_owned(), "_default".to_owned()];
    if let Some((name, port)) = host.rsplit_once(':') {
        names.insert(0, format!("{name}_{port}_"));
    }
    for name in names {
        let directory = directory.join(name);
        let file = directory.join("hosts.toml");
        if let Some(text) = read(&file)? {
            return parse(&text, host, &directory)
                .with_context(|| format!("{}: cannot use the settings", file.display()));
        }
        let certificates = certificates(&directory)?;
        if !certificates.is_empty() {
            let own = Endpoint::of(host);
            return Ok(vec![Endpoint {
                certificates,
                ..own
            }]);
        }
    }
    Ok(vec![Endpoint::of(host)])
}

impl Endpoint {
    fn of(host: &str) -> Self {
        Endpoint {
            host: host.to_owned(),
            prefix: String::new(),
            tls_verify: true,
            certificates: Vec::new(),
            credentials: None,
        }
    }

    /// Makes an endpoint of a URL.
    fn new(url: &str, settings: &Settings, directory: &Path) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let is_plain = match scheme {
            "https" => false,
            "http" => true,
            _ => bail!("'{url}' is not the URL of a registry"),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let prefix = match (path, settings.override_path) {
            ("" | "v2", _) => String::new(),
            (path, true) if path.starts_with("v2/") => format!("{}/", &path[3..]),
            _ => bail!("the path of '{url}' is not below /v2"),
        };
        if settings.client.is_some() {
            bail!("'{url}' needs a client certificate");
        }
        let paths = settings.ca.texts().iter();
        Ok(Endpoint {
            host: host.to_owned(),
            prefix,
            tls_verify: !settings.skip_verify && !is_plain,
            certificates: paths.map(|path| directory.join(path)).collect(),
            credentials: settings.credentials(url)?,
        })
    }
}

impl Settings {
    fn credentials(&self, url: &str) -> Result<Option<UserPassword>> {
        let mut headers = self.header.iter();
        let found = headers.find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let Some(value) = found.and_then(|(_, value)| value.texts().first()) else {
            return Ok(None);
        };
        let unusable =
            || anyhow!("the authorization for '{url}' is not a user name and a password");
        let (kind, text) = value.trim().split_once(' ').ok_or_else(unusable)?;
        if !kind.eq_ignore_ascii_case("basic") {
            return Err(unusable());
        }
        let bytes = BASE64_STANDARD
            .decode(text.trim())
            .map_err(|_| unusable())?;
        let text = String::from_utf8(bytes).map_err(|_| unusable())?;
        text.parse().map(Some).map_err(|_| unusable())
    }
}

fn parse(text: &str, host: &str, directory: &Path) -> Result<Vec<Endpoint>> {
    let document: Document =
        toml::from_str(text).map_err(|error| anyhow!("{}", error.message()))?;
    let mut mirrors: Vec<_> = document.host.iter().collect();
    mirrors.sort_by_key(|(_, settings)| settings.span().start);
    let server = document
        .server
        .as_deref()
        .filter(|server| !server.is_empty());
    let mut found = Vec::new();
    let mut unusable = None;
    for (url, settings) in mirrors {
        let settings = settings.get_ref();
        let can_pull = |names: &Vec<String>| names.iter().any(|name| name == "pull");
        if settings.capabilities.as_ref().is_none_or(can_pull) {
            match Endpoint::new(url, settings, directory) {
                Ok(endpoint) => found.push(endpoint),
                Err(error) => unusable = Some(error),
            }
        }
    }
    match Endpoint::new(server.unwrap_or(host), &document.own, directory) {
        Ok(endpoint) => found.push(endpoint),
        Err(error) => unusable = Some(error),
    }
    match (found.is_empty(), unusable) {
        (true, Some(error)) => Err(error),
        _ => Ok(found),
    }
}

/// Reads a file, which need not exist.
fn read(path: &Path) -> Result<Option<String>> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => {
            read.with_context(|| path.display().to_string())?;
            Ok(Some(text))
        }
    }
}

/// Returns the files `*.crt` of a directory, which need not exist.
fn certificates(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| directory.display().to_string())?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str) -> Endpoint {
        Endpoint::of(host)
    }

    #[test]
    fn without_settings_it_is_the_host() {
        let scratch = tempfile::tempdir().unwrap();
        let found = endpoints(scratch.path(), "a.example:5000").unwrap();
        assert_eq!(found, [endpoint("a.example:5000")]);
        for wrong in ["", "..", "a/b"] {
            assert!(endpoints(scratch.path(), wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn directories_in_their_order() {
        let scratch = tempfile::tempdir().unwrap();
        let hosts = || {
            let found = endpoints(scratch.path(), "a.example:5000").unwrap();
            found
                .into_iter()
                .map(|found| found.host)
                .collect::<Vec<_>>()
        };
        for name in ["_default", "a.example:5000", "a.example_5000_"] {
            let directory = scratch.path().join(name);
            fs::create_dir(&directory).unwrap();
            let server = format!("server = 'https://{}.example'", name.len());
            fs::write(directory.join("hosts.toml"), server).unwrap();
            assert_eq!(hosts(), [format!("{}.example", name.len())]);
        }
        // Docker's form.
        let directory = scratch.path().join("b.example");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("ca.crt"), "").unwrap();
        fs::write(directory.join("client.key"), "").unwrap();
        let found = endpoints(scratch.path(), "b.example").unwrap();
        assert_eq!(found[0].certificates, [directory.join("ca.crt")]);
    }

    #[test]
    fn settings_of_mirrors() {
        let text = r#"
            server = "https://own.example/v2"
            ca = "/etc/own.pem"
            unknown = 1
            [host."https://z.example"]
              capabilities = ["pull", "resolve"]
              ca = ["one.crt", "/two.crt"]
              dial_timeout = "1s"
            [host."http://y.example:5000/v2/team/cache/"]
              override_path = true
              [host."http://y.example:5000/v2/team/cache/".header]
                Authorization = ["Basic bWU6c2VjcmV0"]
            [host."https://x.example"]
              skip_verify = true
            [host."https://push.example"]
              capabilities = ["push"]
            [host."https://path.example/other"]
            [host."https://certificate.example"]
              client = "/etc/client.pem"
            [host."https://token.example".header]
              authorization = "Bearer x"
        "#;
        let found = parse(text, "a.example", Path::new("/d")).unwrap();
        let wanted = [
            Endpoint {
                certificates: vec!["/d/one.crt".into(), "/two.crt".into()],
                ..endpoint("z.example")
            },
            Endpoint {
                prefix: "team/cache/".to_owned(),
                tls_verify: false,
                credentials: Some("me:secret".parse().unwrap()),
                ..endpoint("y.example:5000")
            },
            Endpoint {
                tls_verify: false,
                ..endpoint("x.example")
            },
            Endpoint {
                certificates: vec!["/etc/own.pem".into()],
                ..endpoint("own.example")
            },
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn settings_that_cannot_be_used() {
        for text in [
            "server = ",
            "server = 'ftp://a.example'",
            "server = 'https://a.example/path'",
            "client = 'x'",
        ] {
            assert!(parse(text, "a.example", Path::new("/d")).is_err(), "{text}");
        }
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("a.example");
        fs::create_dir_all(directory.join("hosts.toml")).unwrap();
        let error = endpoints(scratch.path(), "a.example").unwrap_err();
        assert!(format!("{error:#}").contains("hosts.toml"), "{error:#}");
    }
}
