// SPDX-License-Identifier: MIT OR Apache-2.0

//! The configuration of a container image: the program that its containers run.
//!
//! An imported image keeps the bytes of its configuration. A built image has the empty
//! configuration, unless options set parts of it.

use crate::error::{Error, ImageError, Result, StoreError};
use crate::model::digest::Digest;
use crate::model::json::{self, ParseError};
use crate::model::oci::{self, or_null, Manifest};
use crate::model::platform::Platform;
use crate::store::oci_layout::{Image, Store};
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest configuration that is read.
pub(crate) const CONFIG_MAX: u64 = 16 << 20;
/// The name of a configuration in messages.
pub(crate) const WHAT: &str = "the configuration of a container image";

/// The parts of a configuration that commands show.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Configuration {
    /// The operating system, the architecture and the variant.
    #[serde(flatten)]
    platform: Option<Platform>,
    /// The time at which the image was made.
    #[serde(default)]
    pub created: Option<String>,
    /// The author of the image.
    #[serde(default)]
    pub author: Option<String>,
    /// The settings of containers.
    #[serde(default, deserialize_with = "or_null")]
    pub config: Run,
    /// The origin of the layers.
    #[serde(default, deserialize_with = "or_null")]
    pub history: Vec<History>,
}

/// The settings of containers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Run {
    /// The user, and perhaps the group.
    pub user: Option<String>,
    /// The ports that it listens on.
    #[serde(deserialize_with = "or_null")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// The environment, `KEY=VALUE`.
    #[serde(deserialize_with = "or_null")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(deserialize_with = "or_null")]
    pub entrypoint: Vec<String>,
    /// Further arguments, or the program if there is no entry point.
    #[serde(deserialize_with = "or_null")]
    pub cmd: Vec<String>,
    /// Directories that are volumes.
    #[serde(deserialize_with = "or_null")]
    pub volumes: BTreeMap<String, Value>,
    /// The working directory.
    pub working_dir: Option<String>,
    /// Labels.
    #[serde(deserialize_with = "or_null")]
    pub labels: BTreeMap<String, String>,
    /// The signal that stops a container.
    pub stop_signal: Option<String>,
}

/// The origin of a layer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct History {
    /// The time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// The author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// A remark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// True if the layer changed no file.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "is_false")]
    pub empty_layer: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Configuration {
    /// Returns the platform, if the configuration names one.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform
            .as_ref()
            .filter(|platform| platform.is_known())
    }
}

impl Store {
    /// Reads the configuration of an image; `None` if it is not one of a container.
    pub fn configuration(&self, image: &Image) -> Result<Option<Configuration>> {
        self.configuration_of(&image.manifest_digest, &image.manifest)
    }

    /// Reads the configuration that a manifest names; `None` if it is not one of a container.
    pub fn configuration_of(
        &self,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<Option<Configuration>> {
        let Some(bytes) = self.configuration_bytes(digest, manifest)? else {
            return Ok(None);
        };
        let config = json::parse(&bytes, WHAT);
        let path = || {
            self.path
                .join("blobs")
                .join(manifest.config.digest.replace(':', "/"))
        };
        config.map(Some).map_err(|cause| {
            let path = path();
            ImageError::Configuration { path, cause }.into()
        })
    }

    fn configuration_bytes(&self, digest: &Digest, manifest: &Manifest) -> Result<Option<Vec<u8>>> {
        let descriptor = &manifest.config;
        if ![oci::CONFIG, oci::DOCKER_CONFIG].contains(&&*descriptor.media_type) {
            return Ok(None);
        }
        let digest = self.digest(descriptor, &self.blob_path(digest))?;
        self.read_blob(&digest, CONFIG_MAX).map(Some)
    }
}

/// Settings for the configuration of a new image.
#[derive(Clone, Debug, Default)]
pub struct ConfigOptions {
    /// A configuration to start from, instead of the one of the base.
    pub original: Option<Map<String, Value>>,
    /// The platform. The default is the original's, or that of this machine.
    pub platform: Option<Platform>,
    /// The program and its first arguments. Without `cmd`, the original's `cmd` is dropped.
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, or the program if there is no entry point.
    pub cmd: Option<Vec<String>>,
    /// Variables of the environment, which replace those of their names.
    pub env: Vec<(String, String)>,
    /// Labels, which replace those of their names.
    pub labels: Vec<(String, String)>,
    /// The user, and perhaps the group.
    pub user: Option<String>,
    /// The working directory.
    pub workdir: Option<String>,
}

impl ConfigOptions {
    /// Reads the configuration to start from.
    pub fn read_original(&mut self, path: &Path) -> Result<()> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(CONFIG_MAX + 1).read_to_end(&mut bytes))
            .map_err(Error::io(path, "read the configuration"))?;
        let path = path.to_path_buf();
        if bytes.len() as u64 > CONFIG_MAX {
            let max = CONFIG_MAX;
            return Err(ImageError::ConfigurationTooLarge { path, max }.into());
        }
        let original = original(&bytes);
        self.original = Some(original.map_err(|cause| ImageError::Configuration { path, cause })?);
        Ok(())
    }

    /// Returns true if there are no settings.
    pub(crate) fn is_empty(&self) -> bool {
        self.original.is_none()
            && self.platform.is_none()
            && self.entrypoint.is_none()
            && self.cmd.is_none()
            && self.env.is_empty()
            && self.labels.is_empty()
            && self.user.is_none()
            && self.workdir.is_none()
    }

    /// Returns the bytes of the configuration of an image with these layers, on a base or not.
    pub(crate) fn configuration(
        &self,
        store: &Store,
        base: Option<&Image>,
        layers: &[&str],
    ) -> Result<Vec<u8>> {
        let original = match (&self.original, base) {
            (Some(original), _) => original.clone(),
            (None, Some(base)) => {
                match store.configuration_bytes(&base.manifest_digest, &base.manifest)? {
                    Some(bytes) => original(&bytes).map_err(|cause| {
                        let path = store.blob_path(&base.manifest_digest);
                        ImageError::Configuration { path, cause }
                    })?,
                    None => Map::new(),
                }
            }
            (None, None) => Map::new(),
        };
        let configuration = Value::Object(self.applied(original, layers));
        let text = serde_json::to_vec(&configuration);
        Ok(text.map_err(|cause| StoreError::NotJson {
            path: store.path.clone(),
            cause,
        })?)
    }

    /// Changes a configuration.
    fn applied(&self, mut config: Map<String, Value>, layers: &[&str]) -> Map<String, Value> {
        self.apply_platform(&mut config);
        self.apply_run(object(&mut config, "config"));
        // The history is that of other layers.
        if let Some(Value::Array(history)) = config.get_mut("history") {
            for entry in history.iter_mut().filter_map(Value::as_object_mut) {
                entry.insert("empty_layer".to_owned(), true.into());
            }
        }
        let rootfs = json!({"type": "layers", "diff_ids": layers});
        config.insert("rootfs".to_owned(), rootfs);
        config
    }

    fn apply_platform(&self, config: &mut Map<String, Value>) {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        for (key, value) in [
            ("architecture", platform.architecture()),
            ("os", platform.os()),
        ] {
            let named = config.get(key).is_some_and(Value::is_string);
            if !named || self.platform.is_some() {
                config.insert(key.to_owned(), value.into());
            }
        }
        if self.platform.is_some() {
            config.remove("variant");
            if let Some(variant) = platform.given_variant() {
                config.insert("variant".to_owned(), variant.into());
            }
        }
    }

    /// Changes the part that says how to run a container.
    fn apply_run(&self, run: &mut Map<String, Value>) {
        if let Some(entrypoint) = &self.entrypoint {
            run.insert("Entrypoint".to_owned(), json!(entrypoint));
            // It has the arguments of another program.
            run.remove("Cmd");
        }
        if let Some(cmd) = &self.cmd {
            run.insert("Cmd".to_owned(), json!(cmd));
        }
        for (key, value) in &self.env {
            set_variable(run, key, value);
        }
        for (key, value) in &self.labels {
            object(run, "Labels").insert(key.clone(), value.as_str().into());
        }
        if let Some(user) = &self.user {
            run.insert("User".to_owned(), user.as_str().into());
        }
        if let Some(workdir) = &self.workdir {
            run.insert("WorkingDir".to_owned(), workdir.as_str().into());
        }
    }
}

/// Sets an environment variable, in its place if there is one.
fn set_variable(run: &mut Map<String, Value>, key: &str, value: &str) {
    let env = run.entry("Env").or_insert_with(|| json!([]));
    if !env.is_array() {
        *env = json!([]);
    }
    let Value::Array(env) = env else {
        return;
    };
    let text = Value::from(format!("{key}={value}"));
    let name = |known: &Value| known.as_str()?.split_once('=').map(|(name, _)| name == key);
    match env.iter_mut().find(|known| name(known) == Some(true)) {
        Some(known) => *known = text,
        None => env.push(text),
    }
}

/// Parses a configuration that was found at a path, and keeps all of it.
pub(crate) fn parse_original(path: PathBuf, bytes: &[u8]) -> Result<Map<String, Value>> {
    let original = original(bytes);
    original.map_err(|cause| ImageError::Configuration { path, cause }.into())
}

/// Parses a configuration, and keeps all of it.
fn original(bytes: &[u8]) -> Result<Map<String, Value>, ParseError> {
    json::parse::<Configuration>(bytes, WHAT)?;
    json::parse(bytes, WHAT)
}

/// Returns the object under a key, and creates it if necessary.
fn object<'m>(map: &'m mut Map<String, Value>, key: &str) -> &'m mut Map<String, Value> {
    let value = map.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it was made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(options: &ConfigOptions, original: Value) -> Value {
        let Value::Object(original) = original else {
            unreachable!()
        };
        Value::Object(options.applied(original, &["sha256:1"]))
    }

    #[test]
    fn options_make_a_configuration() {
        let words = |text: &str| Some(text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let options = ConfigOptions {
            platform: Some("linux/arm/v7".parse().unwrap()),
            entrypoint: words("/bin/server --port"),
            cmd: words("80"),
            env: vec![pair("A", "1=2"), pair("B", ""), pair("A", "3")],
            labels: vec![pair("version", "1")],
            user: Some("1000:1000".to_owned()),
            workdir: Some("/srv".to_owned()),
            original: None,
        };
        assert!(!options.is_empty());
        let wanted = json!({
            "architecture": "arm", "os": "linux", "variant": "v7",
            "config": {
                "Entrypoint": ["/bin/server", "--port"], "Cmd": ["80"], "Env": ["A=3", "B="],
                "Labels": {"version": "1"}, "User": "1000:1000", "WorkingDir": "/srv",
            },
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
        });
        assert_eq!(applied(&options, json!({})), wanted);
    }

    #[test]
    fn what_is_not_changed_is_kept() {
        let original = json!({
            "architecture": "s390x", "os": "linux", "author": "me", "x-own": {"y": 1},
            "config": {
                "Entrypoint": ["/old"], "Cmd": ["old"], "Env": ["PATH=/bin", "B"], "Labels": null,
                "StopSignal": "SIGINT",
            },
            "history": [{"created_by": "sh"}],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:7", "sha256:8"]},
        });
        let options = ConfigOptions {
            entrypoint: Some(vec!["/new".to_owned()]),
            env: vec![("PATH".to_owned(), "/usr/bin".to_owned())],
            labels: vec![("a".to_owned(), "b".to_owned())],
            ..ConfigOptions::default()
        };
        let wanted = json!({
            "architecture": "s390x", "os": "linux", "author": "me", "x-own": {"y": 1},
            "config": {
                "Entrypoint": ["/new"], "Env": ["PATH=/usr/bin", "B"], "Labels": {"a": "b"},
                "StopSignal": "SIGINT",
            },
            "history": [{"created_by": "sh", "empty_layer": true}],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
        });
        assert_eq!(applied(&options, original), wanted);
    }

    #[test]
    fn originals_are_checked() {
        assert!(original(b"{}").is_ok());
        assert!(original(br#"{"config": null, "history": null}"#).is_ok());
        for wrong in [
            "",
            "[]",
            r#"{"config": {"Env": "A=1"}}"#,
            r#"{"config": 1}"#,
        ] {
            let said = original(wrong.as_bytes()).unwrap_err();
            assert!(
                said.to_string()
                    .starts_with("not the configuration of a container image"),
                "{said}"
            );
        }
    }
}
