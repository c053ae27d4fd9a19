// SPDX-License-Identifier: MIT OR Apache-2.0

//! The connection to a registry.
//!
//! Callers are ordinary threads. Each request runs on a small runtime while its thread waits, so that a
//! request to stop and the deadline end any wait.

use crate::credentials::{self, UserPassword};
use crate::error::{RegistryError, RegistryFault};
use crate::failure::{innermost, Failure, Remedy};
use crate::reference::RemoteImage;
use crate::settings::RegistrySettings;
use crate::token::{self, Secret};
use crate::{certificates, error::Message};
use oci_client::client::{Certificate, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::token_cache::{RegistryToken, RegistryTokenType};
use oci_client::{Client, Reference, RegistryOperation};
use puzzlefs_lib::threads::lock;
use puzzlefs_lib::{Error, Progress, Result};
use reqwest::redirect::Policy;
use reqwest::{RequestBuilder, Response, Url};
use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// The interval at which a waiting thread looks for a request to stop.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// The pause before the first repeated attempt. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(16);
/// The largest part of a refusal that is read for its message, in bytes.
const REFUSAL_MAX: usize = 64 << 10;
/// The name that requests state.
const USER_AGENT: &str = concat!("puzzlefs/", env!("CARGO_PKG_VERSION"));

/// Options of a connection.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// The user name and password from the command line, for the registry of the name that is given there.
    pub creds: Option<UserPassword>,
    /// A file of credentials, instead of the usual ones.
    pub authfile: Option<PathBuf>,
    /// A directory of CA certificates, instead of the usual ones.
    pub cert_dir: Option<PathBuf>,
    /// Files with further CA certificates.
    pub ca_files: Vec<PathBuf>,
    /// Verify certificates, and never use plain HTTP except on this host.
    pub tls_verify: bool,
    /// Mirrors, and further settings of some registries.
    pub settings: RegistrySettings,
    /// The longest silence of the registry.
    pub timeout: Duration,
    /// The number of further attempts after a failure.
    pub retries: u32,
    /// The number of simultaneous transfers.
    pub jobs: usize,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        RegistryOptions {
            creds: None,
            authfile: None,
            cert_dir: None,
            ca_files: Vec::new(),
            tls_verify: true,
            settings: RegistrySettings::default(),
            timeout: Duration::from_secs(60),
            retries: 5,
            jobs: 6,
        }
    }
}

/// Requests and bytes of a connection. Bytes are those of blobs and manifests, without headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests for blobs and manifests, including repeated ones.
    pub requests: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub requests: AtomicU64,
    pub received: AtomicU64,
    pub sent: AtomicU64,
}

impl Counters {
    /// The bytes and requests so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Relaxed),
            received: self.received.load(Relaxed),
            sent: self.sent.load(Relaxed),
        }
    }
}

/// A connection to the registry of an image.
pub(crate) struct Registry<'p> {
    pub image: RemoteImage,
    pub options: RegistryOptions,
    pub progress: &'p Progress,
    pub counters: Arc<Counters>,
    action: &'static str,
    operation: RegistryOperation,
    runtime: Runtime,
    secret: Secret,
    client: Client,
    /// A client that knows of no credentials, not even that there are none.
    open: Client,
    /// The client for uploads, and for requests whose answers are read in pieces.
    http: reqwest::Client,
    settings: Settings,
    /// The URL of the registry.
    base: Url,
    /// Another repository that a push reads, too.
    also: Mutex<Option<String>>,
    /// The token of the last login.
    token: Mutex<Option<String>>,
}

/// The settings of all clients of a connection.
struct Settings {
    scheme: &'static str,
    tls_verify: bool,
    certificates: Vec<Certificate>,
    timeout: Duration,
}

impl<'p> Registry<'p> {
    /// Connects to a registry, and logs in.
    ///
    /// The connection uses TLS. A registry on this host, and any without verification of certificates, may
    /// speak plain HTTP instead. `action` is the verb for messages: "pull from".
    pub fn connect(
        image: &RemoteImage,
        operation: RegistryOperation,
        action: &'static str,
        options: &RegistryOptions,
        progress: &'p Progress,
    ) -> Result<Self> {
        let secret = credentials::find(image, options.creds.as_ref(), options.authfile.as_deref())?;
        let mut certificates = certificates::find(image.registry(), options.cert_dir.as_deref())?;
        for path in &options.ca_files {
            certificates.push(certificates::read(path)?);
        }
        // The provider can be installed once in a process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fail = |fault| RegistryError {
            action,
            registry: image.registry().to_owned(),
            repository: image.repository().to_owned(),
            fault,
        };
        let may_be_plain = image.is_loopback() || !options.tls_verify;
        let schemes: &[&'static str] = if may_be_plain {
            &["https", "http"]
        } else {
            &["https"]
        };
        let tls = |cause: String| fail(RegistryFault::Tls(cause));
        for scheme in schemes {
            let settings = Settings {
                scheme,
                tls_verify: options.tls_verify,
                certificates: certificates.clone(),
                timeout: options.timeout,
            };
            let registry = Registry {
                image: image.clone(),
                options: options.clone(),
                progress,
                counters: Arc::default(),
                action,
                operation,
                runtime: runtime().map_err(|cause| tls(cause.to_string()))?,
                secret: secret.clone(),
                client: settings.client(image).map_err(tls)?,
                open: settings.client(image).map_err(tls)?,
                http: settings.http(Policy::default()).map_err(tls)?,
                settings,
                base: base(scheme, image).map_err(tls)?,
                also: Mutex::default(),
                token: Mutex::default(),
            };
            match registry.log_in() {
                Ok(()) => return Ok(registry),
                Err(Stop::Failure(failure)) if failure.is_plain && may_be_plain => {}
                Err(stop) => return Err(stop.into_error(&registry)),
            }
        }
        let fault = RegistryFault::Connection("it speaks neither TLS nor HTTP".to_owned());
        Err(fail(fault).into())
    }

    /// The name of the image in the form of the client.
    pub fn reference(&self) -> &Reference {
        self.image.reference()
    }

    /// The client.
    pub fn client(&self) -> &Client {
        let is_open = matches!(self.auth(), RegistryAuth::Anonymous) && lock(&self.token).is_none();
        // The other one would ask the registry before each request whether it wants a token.
        if is_open {
            &self.open
        } else {
            &self.client
        }
    }

    /// The HTTP client, for requests that the client does not have. [`Self::authorised`] adds credentials.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The URL of a path below the repository: "manifests/latest".
    pub fn url(&self, path: &str) -> Result<Url, Stop> {
        let url = self
            .base
            .join(&format!("/v2/{}/{path}", self.image.repository()));
        url.map_err(|error| self.fail_protocol(error).into())
    }

    /// Adds the credentials to a request for a URL, which can be at another host: that gets none.
    pub fn authorised(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        if url.origin() != self.base.origin() {
            return request;
        }
        match (lock(&self.token).as_deref(), &self.secret) {
            (Some(token), _) => request.bearer_auth(token),
            (None, Secret::Auth(RegistryAuth::Basic(user, password))) => {
                request.basic_auth(user, Some(password))
            }
            (None, _) => request,
        }
    }

    /// Reads the message of a refusal for `what`.
    pub fn refusal(&self, mut answer: Response, what: &str) -> Result<Failure, Stop> {
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Ok(Some(piece)) = self.wait(answer.chunk())? {
            body.extend_from_slice(&piece);
            if body.len() > REFUSAL_MAX {
                body.truncate(REFUSAL_MAX);
                break;
            }
        }
        let text = String::from_utf8_lossy(&body);
        Ok(Failure::of_answer(status, what, &text))
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The credentials of the client, which has tokens for other ones.
    pub fn auth(&self) -> &RegistryAuth {
        match &self.secret {
            Secret::Auth(auth) => auth,
            Secret::Identity(_) => &RegistryAuth::Anonymous,
        }
    }

    /// The bytes and requests so far.
    pub fn traffic(&self) -> Traffic {
        self.counters.traffic()
    }

    /// Counts a request.
    pub fn count_request(&self) {
        self.counters.requests.fetch_add(1, Relaxed);
    }

    /// Makes an error of this registry, whose answer breaks a rule.
    pub fn fail_protocol(&self, cause: impl Display) -> Error {
        self.fail(RegistryFault::Protocol(Message::new(cause.to_string())))
    }

    /// Makes an error of this registry.
    pub fn fail(&self, fault: RegistryFault) -> Error {
        let fault = match (&fault, self.auth()) {
            (RegistryFault::CredentialsNeeded, RegistryAuth::Basic(user, _)) => {
                RegistryFault::Denied {
                    user: user.clone(),
                    message: Message::new(""),
                }
            }
            _ => fault,
        };
        RegistryError {
            action: self.action,
            registry: self.image.registry().to_owned(),
            repository: self.image.repository().to_owned(),
            fault,
        }
        .into()
    }

    /// Waits for a result, at most for the time of `--request-timeout`.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Stop> {
        self.wait_for(self.options.timeout, future)
    }

    /// Waits for a result.
    pub fn wait_for<T>(
        &self,
        timeout: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        self.runtime.block_on(async {
            tokio::pin!(future);
            let deadline = tokio::time::sleep(timeout);
            tokio::pin!(deadline);
            loop {
                tokio::select! {
                    biased;
                    result = &mut future => return Ok(result),
                    () = &mut deadline => {
                        let seconds = timeout.as_secs();
                        let fault = RegistryFault::Stalled { seconds };
                        return Err(Stop::Failure(Failure::new(Remedy::Retry, fault)));
                    }
                    () = tokio::time::sleep(PATIENCE) => self.progress.check()?,
                }
            }
        })
    }

    /// Makes a request for `what`, again and again if that can help.
    pub fn request<T, F>(&self, what: &str, make: impl Fn() -> F) -> Result<T, Stop>
    where
        F: Future<Output = Result<T, OciDistributionError>>,
    {
        let mut attempts = Attempts::new(self.options.retries);
        loop {
            self.count_request();
            let failure = match self.wait(make()) {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) => Failure::of(error, what),
                Err(Stop::Failure(failure)) => failure,
                Err(stop) => return Err(stop),
            };
            attempts.prepare(self, failure)?;
        }
    }

    /// Reads an answer of at most `max` bytes to a request for a manifest, and the digest that the registry
    /// states. `path` is below the repository: "manifests/latest".
    pub fn read_manifest(&self, path: &str, accept: &str, max: usize) -> Result<Answer, Stop> {
        let mut attempts = Attempts::new(self.options.retries);
        loop {
            self.count_request();
            match self.read_manifest_once(path, accept, max) {
                Ok(answer) => {
                    self.counters
                        .received
                        .fetch_add(answer.body.len() as u64, Relaxed);
                    return Ok(answer);
                }
                Err(Stop::Failure(failure)) => attempts.prepare(self, failure)?,
                Err(stop) => return Err(stop),
            }
        }
    }

    fn read_manifest_once(&self, path: &str, accept: &str, max: usize) -> Result<Answer, Stop> {
        let url = self.url(path)?;
        let request = self.http.get(url.clone());
        let request = self.authorised(request.header(reqwest::header::ACCEPT, accept), &url);
        let what = "such image";
        let failed = |error: reqwest::Error| Stop::Failure(Failure::of_request(&error, what));
        let mut response = self.wait(request.send())?.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(Stop::Failure(Failure::of_status(status.as_u16(), what, "")));
        }
        let too_large = || Failure::new(Remedy::Stop, RegistryFault::ManifestTooLarge { max });
        if response
            .content_length()
            .is_some_and(|len| len > max as u64)
        {
            return Err(too_large().into());
        }
        let digest = response.headers().get("docker-content-digest");
        let digest = digest
            .and_then(|digest| digest.to_str().ok())
            .map(str::to_owned);
        let mut body = Vec::new();
        while let Some(piece) = self.wait(response.chunk())?.map_err(failed)? {
            if body.len() + piece.len() > max {
                return Err(too_large().into());
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { body, digest })
    }

    /// Gets a token, if the registry wants one.
    fn log_in(&self) -> Result<(), Stop> {
        *lock(&self.token) = self.new_token(self.operation)?;
        Ok(())
    }

    /// Replaces the tokens.
    fn renew(&self) -> Result<(), Stop> {
        self.log_in()?;
        // A push looks for blobs with a token for pulls, which the client has got by itself.
        if self.operation == RegistryOperation::Push {
            self.new_token(RegistryOperation::Pull)?;
        }
        Ok(())
    }

    fn new_token(&self, operation: RegistryOperation) -> Result<Option<String>, Stop> {
        let mut attempts = Attempts::new(self.options.retries);
        // A login cannot be renewed by a login.
        attempts.renewed = true;
        loop {
            let failure = match self.wait(self.token_once(operation)) {
                Ok(Ok(token)) => return Ok(token),
                Ok(Err(failure)) | Err(Stop::Failure(failure)) => failure,
                Err(stop) => return Err(stop),
            };
            attempts.prepare(self, failure)?;
        }
    }

    async fn token_once(&self, operation: RegistryOperation) -> Result<Option<String>, Failure> {
        let also = lock(&self.also).clone();
        let also = also.filter(|_| operation == RegistryOperation::Push);
        if let (Secret::Auth(auth), None) = (&self.secret, &also) {
            let login = self.client.auth(self.reference(), auth, operation).await;
            return login.map_err(|error| Failure::of(error, "token"));
        }
        let tls = |cause| Failure::new(Remedy::Stop, RegistryFault::Tls(cause));
        let http = self.settings.http(Policy::none()).map_err(tls)?;
        let actions = match operation {
            RegistryOperation::Push => "pull,push",
            RegistryOperation::Pull => "pull",
        };
        let mut scopes = vec![format!("repository:{}:{actions}", self.image.repository())];
        scopes.extend(also.map(|also| format!("repository:{also}:pull")));
        let token = token::request(&http, &self.base, &scopes, &self.secret).await?;
        // Otherwise the client does not look for tokens.
        let name = self.reference().resolve_registry();
        self.client.store_auth_if_needed(name, self.auth()).await;
        if let Some(access_token) = token.clone() {
            // A token for a push is good for a pull.
            for operation in [operation, RegistryOperation::Pull] {
                let access_token = access_token.clone();
                let token = RegistryTokenType::Bearer(RegistryToken::AccessToken { access_token });
                let tokens = &self.client.tokens;
                tokens.insert(self.reference(), operation, token).await;
            }
        }
        Ok(token)
    }

    /// Has a push read another repository, too. Otherwise its blobs cannot be mounted with tokens.
    pub fn read_also(&self, repository: &Reference) -> Result<()> {
        // Only a token is for certain repositories.
        if lock(&self.token).is_some() && repository.repository() != self.image.repository() {
            *lock(&self.also) = Some(repository.repository().to_owned());
            self.log_in().map_err(|stop| stop.into_error(self))?;
        }
        Ok(())
    }
}

/// An answer to a request for a manifest.
pub(crate) struct Answer {
    /// The bytes.
    pub body: Vec<u8>,
    /// The digest that the registry states.
    pub digest: Option<String>,
}

/// The end of a wait without a result.
pub(crate) enum Stop {
    /// The request failed.
    Failure(Failure),
    /// The command ends with this error.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failure(failure)
    }
}

impl Stop {
    /// Makes an error for the caller of this crate.
    pub fn into_error(self, registry: &Registry<'_>) -> Error {
        match self {
            Stop::Failure(failure) => registry.fail(failure.fault),
            Stop::Error(error) => error,
        }
    }
}

/// The further attempts that are left, and the pauses before them.
pub(crate) struct Backoff {
    left: u32,
    pause: Duration,
}

impl Backoff {
    /// No attempt yet, and so many repeated ones at most.
    pub fn new(retries: u32) -> Self {
        Backoff {
            left: retries,
            pause: FIRST_PAUSE,
        }
    }

    /// Returns the pause before another attempt; `None` if there were too many.
    pub fn next_pause(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let pause = self.pause;
        self.pause = (2 * pause).min(LONGEST_PAUSE);
        Some(pause)
    }
}

/// The attempts of one request.
pub(crate) struct Attempts {
    backoff: Backoff,
    renewed: bool,
}

impl Attempts {
    /// No attempt yet, and so many repeated ones at most.
    pub fn new(retries: u32) -> Self {
        Attempts {
            backoff: Backoff::new(retries),
            renewed: false,
        }
    }

    /// Prepares another attempt after a failure: waits, or gets a new token.
    ///
    /// # Errors
    ///
    /// The failure, if another attempt would not help, or there were too many.
    pub fn prepare(&mut self, registry: &Registry<'_>, failure: Failure) -> Result<(), Stop> {
        let pause = match failure.remedy {
            Remedy::Renew if !self.renewed => {
                self.renewed = true;
                return registry.renew();
            }
            Remedy::Retry => self.backoff.next_pause(),
            _ => None,
        };
        let pause = pause.ok_or(failure)?;
        // The limit of the wait is longer than any pause.
        registry.wait_for(2 * LONGEST_PAUSE, async move {
            tokio::time::sleep(pause).await;
        })
    }
}

impl Settings {
    fn client(&self, image: &RemoteImage) -> Result<Client, String> {
        // The client panics where this one cannot be made: it makes another one without settings, too.
        let without_settings = reqwest::Client::builder().build();
        without_settings.map_err(|error| innermost(&error))?;
        let protocol = match self.scheme {
            "http" => {
                ClientProtocol::HttpsExcept(vec![image.reference().resolve_registry().to_owned()])
            }
            _ => ClientProtocol::Https,
        };
        let proxies = Proxies::of_environment();
        let config = ClientConfig {
            protocol,
            accept_invalid_certificates: !self.tls_verify,
            extra_root_certificates: self.certificates.clone(),
            connect_timeout: Some(self.timeout),
            user_agent: USER_AGENT,
            https_proxy: proxies.https,
            http_proxy: proxies.http,
            no_proxy: proxies.exceptions,
            ..ClientConfig::default()
        };
        Client::try_from(config).map_err(|error| error.to_string())
    }

    fn http(&self, redirects: Policy) -> Result<reqwest::Client, String> {
        let settings = HttpSettings {
            tls_verify: self.tls_verify,
            certificates: self.certificates.clone(),
            timeout: self.timeout,
        };
        settings.client(redirects)
    }
}

/// The settings of clients whose answers are read in pieces.
#[derive(Clone)]
pub(crate) struct HttpSettings {
    pub tls_verify: bool,
    pub certificates: Vec<Certificate>,
    /// The longest time for a connection.
    pub timeout: Duration,
}

impl HttpSettings {
    /// Makes a client. It uses the proxies that the environment names.
    pub fn client(&self, redirects: Policy) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .redirect(redirects)
            .user_agent(USER_AGENT)
            .connect_timeout(self.timeout)
            .danger_accept_invalid_certs(!self.tls_verify);
        let mut certificates = Vec::new();
        for certificate in &self.certificates {
            let found = reqwest::Certificate::from_pem_bundle(&certificate.data);
            certificates.extend(found.map_err(|error| error.to_string())?);
        }
        builder = builder.tls_certs_merge(certificates);
        let proxies = Proxies::of_environment();
        let exceptions = proxies
            .exceptions
            .as_deref()
            .and_then(reqwest::NoProxy::from_string);
        for (address, is_https) in [(proxies.https, true), (proxies.http, false)] {
            let Some(address) = address else { continue };
            let proxy = if is_https {
                reqwest::Proxy::https(address)
            } else {
                reqwest::Proxy::http(address)
            };
            let proxy = proxy.map_err(|error| error.to_string())?;
            builder = builder.proxy(proxy.no_proxy(exceptions.clone()));
        }
        builder.build().map_err(|error| error.to_string())
    }
}

/// The proxies that the environment names.
struct Proxies {
    https: Option<String>,
    http: Option<String>,
    exceptions: Option<String>,
}

impl Proxies {
    fn of_environment() -> Self {
        let of = |upper: &str, lower: &str| {
            let value = std::env::var(lower).or_else(|_| std::env::var(upper)).ok();
            value.filter(|value| !value.is_empty())
        };
        let own = "localhost,127.0.0.0/8,::1";
        let exceptions = match of("NO_PROXY", "no_proxy") {
            Some(names) => format!("{names},{own}"),
            None => own.to_owned(),
        };
        Proxies {
            https: of("HTTPS_PROXY", "https_proxy"),
            // Like other tools, not HTTP_PROXY, which a request to a CGI program can set.
            http: std::env::var("http_proxy")
                .ok()
                .filter(|value| !value.is_empty()),
            exceptions: Some(exceptions),
        }
    }
}

/// The URL of the registry of an image.
fn base(scheme: &str, image: &RemoteImage) -> Result<Url, String> {
    let url = format!("{scheme}://{}", image.reference().resolve_registry());
    Url::parse(&url).map_err(|error| error.to_string())
}

/// Makes a runtime with few threads: verification and files are the work of the callers.
pub(crate) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("network")
        .enable_all()
        .build()
}
