// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of an image: the program that its containers run, and labels.

use super::PLATFORM;
use clap::Args;
use puzzlefs_lib::config::ConfigOptions;
use puzzlefs_lib::json;
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::Error;
use std::path::PathBuf;

/// The configuration of an image.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration of the image")]
pub struct ConfigArgs {
    /// Start from this file, in OCI's JSON [default: that of the base]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name this platform [default: that of FILE, or this machine's]
    #[arg(long, value_name = PLATFORM)]
    platform: Option<Platform>,
    /// Run this program (repeat per word, or a JSON array)
    ///
    /// Drops the command of the original configuration, unless --cmd is given.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Pass these arguments to it (repeat per word, or a JSON array)
    ///
    /// If there is no entry point, the first word is the program.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Set a variable of the environment (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    env: Vec<(String, String)>,
    /// Set a label (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    label: Vec<(String, String)>,
    /// Run as this user, by name or number
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Start in this directory, an absolute path
    #[arg(long, value_name = "DIRECTORY", value_parser = absolute)]
    workdir: Option<String>,
}

impl ConfigArgs {
    /// Reads the original configuration and applies the options to it.
    pub fn options(&self) -> anyhow::Result<ConfigOptions> {
        let mut options = ConfigOptions {
            original: None,
            platform: self.platform.clone(),
            entrypoint: words("--entrypoint", &self.entrypoint)?,
            cmd: words("--cmd", &self.cmd)?,
            env: self.env.clone(),
            labels: self.label.clone(),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
        };
        if let Some(path) = &self.config {
            options.read_original(path)?;
        }
        Ok(options)
    }
}

/// Returns the words of a command, given one by one or all in a JSON array; `None` without any.
fn words(option: &str, given: &[String]) -> puzzlefs_lib::Result<Option<Vec<String>>> {
    match given {
        [] => Ok(None),
        [array] if array.starts_with('[') => {
            let words = json::parse(array.as_bytes(), "a list of words");
            words
                .map(Some)
                .map_err(|cause| Error::Usage(format!("{option} {array}: {cause}")))
        }
        words => Ok(Some(words.to_vec())),
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected".to_owned()),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("an absolute path is expected".to_owned())
    }
}
