// SPDX-License-Identifier: MIT OR Apache-2.0

//! Arguments of commands that talk to a registry.

use anyhow::Context;
use clap::Args;
use puzzlefs_lib::fetch::{Completion, FetchRecord};
use puzzlefs_lib::platform::Platform;
use puzzlefs_registry::{RegistryOptions, RegistrySettings, UserPassword};
use std::env;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// The form of the names of images in registries and object stores, in the help.
pub const FORM: &str = "docker://HOST/NAME:TAG|s3://BUCKET/PREFIX:TAG";

/// The access to a registry.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// Log in with this user name and password; other users of this host can see the command line
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "authfile")]
    creds: Option<UserPassword>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The connections to a registry, without secrets.
#[derive(Clone, Debug, Args)]
pub struct ConnectionArgs {
    /// Read the credentials from FILE [default: the files of 'podman login' and 'docker login']
    ///
    /// The first of these files with an entry for the registry counts: $REGISTRY_AUTH_FILE,
    /// $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json, ~/.docker/config.json.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Trust the CA certificates *.crt in DIR, too [default: certs.d/HOST:PORT of Podman and Docker]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Verify certificates; with 'false', accept any, and plain HTTP
    ///
    /// A registry on this host (localhost, 127.0.0.0/8) may speak plain HTTP in any case.
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    tls_verify: bool,
    /// Give up a request after N seconds without an answer, 1 to 3600
    #[arg(
        long,
        value_name = "N",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    request_timeout: u64,
    /// Repeat a failed request up to N times, 0 to 20, after pauses of 0.5 s to 16 s
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(0..=20)
    )]
    retries: u32,
    /// Transfer N blobs or ranges at once, 1 to 64
    #[arg(
        long,
        value_name = "N",
        default_value_t = 6,
        value_parser = clap::value_parser!(u8).range(1..=64)
    )]
    transfers: u8,
}

impl RegistryArgs {
    /// Returns the options of a connection, with the settings of `registries.conf`.
    pub fn options(&self) -> anyhow::Result<RegistryOptions> {
        let settings = RegistrySettings::read().map_err(puzzlefs_lib::Error::from)?;
        let connection = &self.connection;
        Ok(RegistryOptions {
            creds: self.creds.clone(),
            authfile: connection.authfile.clone(),
            cert_dir: connection.cert_dir.clone(),
            tls_verify: connection.tls_verify,
            settings,
            timeout: Duration::from_secs(connection.request_timeout),
            retries: connection.retries,
            jobs: connection.transfers.into(),
            ..RegistryOptions::default()
        })
    }

    /// Returns true if the command line has a user name and a password.
    pub fn has_creds(&self) -> bool {
        self.creds.is_some()
    }

    /// Returns the connection, without secrets.
    pub fn connection(&self) -> &ConnectionArgs {
        &self.connection
    }
}

/// Returns the options of the connection that a record has, with the settings of `registries.conf`. The
/// values have the limits of the arguments.
pub fn recorded_options(record: &FetchRecord) -> puzzlefs_lib::Result<RegistryOptions> {
    Ok(RegistryOptions {
        authfile: record.authfile.clone(),
        cert_dir: record.cert_dir.clone(),
        tls_verify: record.tls_verify,
        settings: RegistrySettings::read().map_err(puzzlefs_lib::Error::from)?,
        timeout: Duration::from_secs(record.request_timeout.clamp(1, 3600)),
        retries: record.retries.min(20),
        jobs: record.transfers.clamp(1, 64).into(),
        ..RegistryOptions::default()
    })
}

impl ConnectionArgs {
    /// Returns the record of an image that is fetched by this connection. Paths become absolute, because
    /// another process uses them.
    pub fn record(
        &self,
        image: String,
        tag: String,
        platform: Option<Platform>,
        complete: Completion,
        limit_rate: Option<NonZeroU64>,
    ) -> anyhow::Result<FetchRecord> {
        let absolute = |path: Option<PathBuf>| {
            let absolute = path.map(std::path::absolute).transpose();
            absolute.context("cannot find the working directory")
        };
        let variable = || env::var_os("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty());
        let authfile = self.authfile.clone();
        Ok(FetchRecord {
            image,
            tag,
            manifest: None,
            platform,
            complete,
            authfile: absolute(authfile.or_else(|| variable().map(PathBuf::from)))?,
            cert_dir: absolute(self.cert_dir.clone())?,
            tls_verify: self.tls_verify,
            request_timeout: self.request_timeout,
            retries: self.retries,
            transfers: self.transfers,
            limit_rate,
        })
    }

    /// Returns the words of a command line with these arguments.
    pub fn words(&self) -> Vec<OsString> {
        let mut words = vec![
            format!("--tls-verify={}", self.tls_verify).into(),
            format!("--request-timeout={}", self.request_timeout).into(),
            format!("--retries={}", self.retries).into(),
            format!("--transfers={}", self.transfers).into(),
        ];
        for (name, path) in [
            ("--authfile", &self.authfile),
            ("--cert-dir", &self.cert_dir),
        ] {
            if let Some(path) = path {
                let mut word = OsString::from(name);
                word.push("=");
                word.push(path);
                words.push(word);
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    #[test]
    fn the_words_stand_for_the_arguments() {
        for line in [
            &["x"][..],
            &[
                "x",
                "--authfile=/a b",
                "--cert-dir=-c",
                "--tls-verify=false",
            ],
            &["x", "--request-timeout=7", "--retries=0", "--transfers=64"],
        ] {
            let given = Line::parse_from(line).connection;
            let name = [OsString::from("x")];
            let again = Line::parse_from(name.into_iter().chain(given.words())).connection;
            assert_eq!(format!("{given:?}"), format!("{again:?}"));
        }
    }
}
