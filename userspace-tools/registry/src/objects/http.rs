// SPDX-License-Identifier: MIT OR Apache-2.0

//! HTTP for the backends of `object_store`: the certificates, proxies and limits of our connections.
//!
//! Requests to object stores carry credentials, so redirects are not followed. The server of plain files gets
//! none but those of `--creds`, and may redirect; another host never gets them.

use super::name::Backend;
use crate::client::{HttpSettings, RegistryOptions};
use crate::credentials::UserPassword;
use http_body_util::{BodyExt, Limited};
use object_store::client::{
    ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind,
    HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use reqwest::header::RANGE;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Body, Method, StatusCode, Url};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

/// The largest answer other than an object, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// The part of a refusal that is read for its message, in bytes.
const REFUSAL_MAX: usize = 16 << 10;
/// The most redirects that a request follows.
const REDIRECTS_MAX: usize = 5;
/// The time for a connection to a service of the cloud that gives credentials.
const METADATA_TIME: Duration = Duration::from_secs(1);
/// The hosts of services that give credentials. They speak plain HTTP.
const METADATA_HOSTS: [&str; 2] = ["metadata.google.internal", "metadata"];

tokio::task_local! {
    /// Counts the signs of life of the request that the task waits for.
    pub(super) static ACTIVITY: Arc<AtomicU64>;
}

/// A server refused a request.
#[derive(Debug, thiserror::Error)]
#[error("status {status}: {message}")]
pub(super) struct Refused {
    pub status: StatusCode,
    pub message: String,
}

/// A server answered a request for a range with the whole object.
#[derive(Debug, thiserror::Error)]
#[error("the server sends whole objects only")]
pub(super) struct Whole;

/// No service gives credentials.
#[derive(Debug, thiserror::Error)]
#[error("no service gives credentials")]
pub(super) struct NoCredentials;

/// Plain HTTP to this host is not permitted.
#[derive(Debug, thiserror::Error)]
#[error("plain HTTP to {0}")]
pub(super) struct PlainHttp(pub String);

/// Makes the clients of a backend.
pub(super) struct Connector {
    settings: HttpSettings,
    backend: Backend,
    may_be_plain: bool,
    creds: Option<UserPassword>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// `may_be_plain` permits plain HTTP to any host.
    pub fn new(
        settings: HttpSettings,
        backend: Backend,
        options: &RegistryOptions,
        may_be_plain: bool,
    ) -> Self {
        Connector {
            settings,
            backend,
            may_be_plain,
            creds: options.creds.clone().filter(|_| backend == Backend::Http),
        }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut settings = self.settings.clone();
        // Only clients for services that give credentials have such a short time.
        let time = options.get_config_value(&ClientConfigKey::ConnectTimeout);
        if time.as_deref() == Some("1s") {
            settings.timeout = settings.timeout.min(METADATA_TIME);
        }
        let may_be_plain = self.may_be_plain;
        let policy = match self.backend {
            Backend::Http => Policy::custom(move |attempt| follow(attempt, may_be_plain)),
            _ => Policy::none(),
        };
        let client = settings
            .client(policy)
            .map_err(|cause| object_store::Error::Generic {
                store: "TLS",
                source: cause.into(),
            })?;
        Ok(HttpClient::new(Service {
            client,
            may_be_plain,
            creds: self.creds.clone(),
        }))
    }
}

/// Decides about a redirect of a server of files. `reqwest` removes the credentials for another host.
fn follow(attempt: Attempt<'_>, may_be_plain: bool) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error("too many redirects");
    }
    let was_plain = attempt
        .previous()
        .last()
        .is_some_and(|url| url.scheme() == "http");
    if attempt.url().scheme() == "https" || may_be_plain || was_plain && is_own(attempt.url()) {
        attempt.follow()
    } else {
        let host = attempt.url().host_str().unwrap_or_default().to_owned();
        attempt.error(PlainHttp(host))
    }
}

/// A client.
struct Service {
    client: reqwest::Client,
    may_be_plain: bool,
    creds: Option<UserPassword>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(failed)?;
        let is_metadata = is_metadata(&url);
        if url.scheme() == "http" && !self.may_be_plain && !is_own(&url) && !is_metadata {
            let host = url.host_str().unwrap_or_default().to_owned();
            return Err(failed(PlainHttp(host)));
        }
        let activity = ACTIVITY.try_with(Arc::clone).unwrap_or_default();
        let is_range = parts.headers.contains_key(RANGE);
        let is_read = parts.method == Method::GET;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(watched(body, Arc::clone(&activity)));
        if let Some((user, password)) = self.creds.as_ref().map(UserPassword::parts) {
            let builder = reqwest::RequestBuilder::from_parts(self.client.clone(), request);
            request = builder
                .basic_auth(user, Some(password))
                .build()
                .map_err(failed)?;
        }
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(_) if is_metadata => return Err(failed(NoCredentials)),
            Err(error) => return Err(failed(error.without_url())),
        };
        activity.fetch_add(1, Relaxed);
        let status = response.status();
        if is_metadata && !status.is_success() {
            return Err(failed(NoCredentials));
        }
        if is_range && status == StatusCode::OK {
            return Err(failed(Whole));
        }
        // `object_store` has errors of its own for the others.
        let is_known = matches!(status.as_u16(), 304 | 404 | 409 | 412);
        if !status.is_success() && !is_known {
            let message = refusal(response).await;
            return Err(failed(Refused { status, message }));
        }
        let (parts, body) = http::Response::<Body>::from(response).into_parts();
        let body = body.map_frame(move |frame| {
            activity.fetch_add(1, Relaxed);
            frame
        });
        let body = if is_read && status.is_success() {
            HttpResponseBody::new(body.map_err(failed))
        } else {
            HttpResponseBody::new(
                Limited::new(body, ANSWER_MAX)
                    .map_err(|e| HttpError::new_boxed(HttpErrorKind::Unknown, e)),
            )
        };
        Ok(HttpResponse::from_parts(parts, body))
    }
}

fn failed(cause: impl std::error::Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, cause)
}

/// Makes a body that counts its pieces when they are sent.
fn watched(body: HttpRequestBody, activity: Arc<AtomicU64>) -> Body {
    match body.as_bytes() {
        Some(bytes) => Body::from(bytes.clone()),
        None => Body::wrap(body.map_frame(move |frame| {
            activity.fetch_add(1, Relaxed);
            frame
        })),
    }
}

/// Reads the message of a refusal: that of an XML document, if it is one.
async fn refusal(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < REFUSAL_MAX {
        match response.chunk().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) | Err(_) => break,
        }
    }
    bytes.truncate(REFUSAL_MAX);
    let text = String::from_utf8_lossy(&bytes);
    let of = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let text = rest.split_once("</")?.0;
        let inner = text
            .strip_prefix("<![CDATA[")
            .and_then(|text| text.strip_suffix("]]>"));
        Some(inner.unwrap_or(text).to_owned())
    };
    match of("Message").or_else(|| of("Code")) {
        Some(message) => message,
        None if text.contains('<') => String::new(),
        None => text.into_owned(),
    }
}

/// Returns true for a host that is this one.
pub(super) fn is_own(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Returns true for a service of a cloud that gives credentials. Its address is valid in one network only.
fn is_metadata(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let is_link_local = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        _ => false,
    };
    is_link_local || METADATA_HOSTS.contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let own = |text: &str| is_own(&Url::parse(text).unwrap());
        assert!(own("http://localhost:80/") && own("http://127.8.0.1/") && own("http://[::1]/"));
        assert!(!own("http://localhost.example/") && !own("http://10.0.0.1/"));
        let metadata = |text: &str| is_metadata(&Url::parse(text).unwrap());
        assert!(
            metadata("http://169.254.169.254/") && metadata("http://metadata.google.internal/")
        );
        assert!(!metadata("http://169.253.0.1/") && !metadata("http://metadata.example/"));
    }
}
