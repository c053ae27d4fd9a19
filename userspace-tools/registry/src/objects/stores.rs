// SPDX-License-Identifier: MIT OR Apache-2.0

//! The backends, with the settings that their environment variables have.

use super::error::ObjectFault;
use super::http::Connector;
use super::name::{Backend, ObjectImage};
use crate::certificates;
use crate::client::{HttpSettings, RegistryOptions};
use crate::error::Message;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::{ObjectStore, RetryConfig};
use puzzlefs_lib::Result;
use reqwest::Url;
use std::env;
use std::path::Path;
use std::sync::Arc;

/// A store, by both of its interfaces.
pub(super) struct Stores {
    pub objects: Arc<dyn ObjectStore>,
    /// Absent if the store takes an object in parts in one connection only.
    pub parts: Option<Arc<dyn MultipartStore>>,
}

/// Opens the store of an image. Makes no request.
pub(super) fn open(
    image: &ObjectImage,
    options: &RegistryOptions,
) -> Result<Result<Stores, ObjectFault>> {
    let backend = image.backend();
    let given = [
        (
            "--creds",
            options.creds.is_some() && backend != Backend::Http,
        ),
        ("--authfile", options.authfile.is_some()),
    ];
    if let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
        return Ok(Err(ObjectFault::Option { option, backend }));
    }
    let endpoint = endpoint(image);
    let host = endpoint.as_ref().and_then(host);
    let certificates = match (&host, &options.cert_dir) {
        (Some(host), directory) => certificates::find(host, directory.as_deref())?,
        (None, Some(directory)) => certificates::find("", Some(directory))?,
        (None, None) => Vec::new(),
    };
    let settings = HttpSettings {
        tls_verify: options.tls_verify,
        certificates,
        timeout: options.timeout,
    };
    let may_be_plain = !options.tls_verify || is_set(backend);
    let connector = Connector::new(settings, backend, options, may_be_plain);
    let made = make(image, connector);
    Ok(made.map_err(|error| match backend {
        // The directory cannot be found.
        Backend::File => ObjectFault::NotFound,
        _ => ObjectFault::Settings(Message::new(error.to_string())),
    }))
}

fn make(image: &ObjectImage, connector: Connector) -> object_store::Result<Stores> {
    // Attempts are repeated by `Connection`.
    let retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let address = image.address();
    Ok(match image.backend() {
        Backend::S3 => {
            let builder = AmazonS3Builder::from_env().with_url(address);
            of(builder
                .with_retry(retry)
                .with_http_connector(connector)
                .build()?)
        }
        Backend::Gcs => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(address);
            of(builder
                .with_retry(retry)
                .with_http_connector(connector)
                .build()?)
        }
        Backend::Azure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(address);
            of(builder
                .with_retry(retry)
                .with_http_connector(connector)
                .build()?)
        }
        Backend::Http => {
            let builder = HttpBuilder::new().with_url(address).with_retry(retry);
            Stores {
                objects: Arc::new(builder.with_http_connector(connector).build()?),
                parts: None,
            }
        }
        Backend::File => {
            let path = address.strip_prefix("file://").unwrap_or(address);
            let store = LocalFileSystem::new_with_prefix(Path::new(path))?;
            Stores {
                objects: Arc::new(store.with_fsync(true)),
                parts: None,
            }
        }
    })
}

fn of<S: ObjectStore + MultipartStore>(store: S) -> Stores {
    let store = Arc::new(store);
    Stores {
        objects: Arc::clone(&store) as Arc<dyn ObjectStore>,
        parts: Some(store),
    }
}

/// Returns the address of the server, if the name or the environment has it.
fn endpoint(image: &ObjectImage) -> Option<Url> {
    let text = match image.backend() {
        Backend::S3 => {
            let builder = AmazonS3Builder::from_env();
            let of = |key| builder.get_config_value(&key);
            of(AmazonS3ConfigKey::S3Endpoint).or_else(|| of(AmazonS3ConfigKey::Endpoint))
        }
        Backend::Gcs => {
            GoogleCloudStorageBuilder::from_env().get_config_value(&GoogleConfigKey::BaseUrl)
        }
        Backend::Azure => {
            MicrosoftAzureBuilder::from_env().get_config_value(&AzureConfigKey::Endpoint)
        }
        Backend::Http => Some(image.address().to_owned()),
        Backend::File => None,
    };
    Url::parse(&text?).ok()
}

/// Returns the host of an address, with its port if that was given.
fn host(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// Returns true if a variable of the backend permits plain HTTP.
fn is_set(backend: Backend) -> bool {
    let name = match backend {
        Backend::S3 => "AWS_ALLOW_HTTP",
        Backend::Azure => "AZURE_ALLOW_HTTP",
        _ => return false,
    };
    env::var(name)
        .is_ok_and(|value| matches!(&*value.to_ascii_lowercase(), "true" | "1" | "on" | "yes"))
}
