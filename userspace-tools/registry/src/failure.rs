// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failed requests: the cause for a message, and the way on.

use crate::error::{Message, RegistryFault};
use oci_client::errors::{DigestError, OciDistributionError, OciEnvelope, OciErrorCode};
use std::error::Error as StdError;
use std::io;

/// The way on after a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Another attempt after a pause can succeed.
    Retry,
    /// Another attempt with a new token can succeed.
    Renew,
    /// Another attempt fails, too.
    Stop,
}

/// A failed request.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The way on.
    pub remedy: Remedy,
    /// The cause for a message. For [`Remedy::Renew`], the caller knows whether there were credentials.
    pub fault: RegistryFault,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The server does not speak TLS.
    pub is_plain: bool,
}

impl Failure {
    /// A failure without an answer of the registry.
    pub fn new(remedy: Remedy, fault: RegistryFault) -> Self {
        Failure {
            remedy,
            fault,
            status: None,
            is_plain: false,
        }
    }

    /// A broken connection.
    pub fn connection(cause: impl Into<String>) -> Self {
        Self::new(Remedy::Retry, RegistryFault::Connection(cause.into()))
    }

    /// A server that does not speak TLS.
    fn plain() -> Self {
        let fault = RegistryFault::Connection("the server does not speak TLS".to_owned());
        Failure {
            is_plain: true,
            ..Self::new(Remedy::Stop, fault)
        }
    }

    /// An answer with this status. `what` was asked for.
    pub fn of_status(status: u16, what: &str, message: &str) -> Self {
        let text = Message::appended(message);
        let (remedy, fault) = match status {
            401 => (Remedy::Renew, RegistryFault::CredentialsNeeded),
            404 => (
                Remedy::Stop,
                RegistryFault::NotFound {
                    what: what.to_owned(),
                    message: text,
                },
            ),
            429 => (Remedy::Retry, RegistryFault::TooManyRequests),
            408 | 500 | 502..=504 => (
                Remedy::Retry,
                RegistryFault::Status {
                    status,
                    message: text,
                },
            ),
            _ => (
                Remedy::Stop,
                RegistryFault::Status {
                    status,
                    message: text,
                },
            ),
        };
        Failure {
            status: Some(status),
            ..Self::new(remedy, fault)
        }
    }

    /// An answer with this status and this body.
    pub fn of_answer(status: u16, what: &str, body: &str) -> Self {
        // The specification's form of messages, if it is one.
        match serde_json::from_str::<OciEnvelope>(body) {
            Ok(envelope) => Self::of_status(status, what, &joined(&envelope)),
            Err(_) => Self::of_status(status, what, body),
        }
    }

    /// An error of the client for a request for `what`.
    pub fn of(error: OciDistributionError, what: &str) -> Self {
        let protocol = |cause: String| {
            let fault = RegistryFault::Protocol(Message::new(cause));
            Self::new(Remedy::Stop, fault)
        };
        match error {
            OciDistributionError::UnauthorizedError { .. } => Self::of_status(401, what, ""),
            OciDistributionError::ServerError { code, message, .. } => {
                Self::of_answer(code, what, &message)
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                Self::of_status(status_of(&envelope), what, &joined(&envelope))
            }
            OciDistributionError::AuthenticationFailure(reason) => {
                let text = match serde_json::from_str::<OciEnvelope>(&reason) {
                    Ok(envelope) => joined(&envelope),
                    Err(_) => reason,
                };
                let fault = RegistryFault::Token(Message::appended(text));
                Self::new(Remedy::Stop, fault)
            }
            OciDistributionError::RequestError(error) => Self::of_request(&error, what),
            OciDistributionError::IoError(error) => Self::of_stream(&error),
            other => protocol(other.to_string()),
        }
    }

    /// A failed request for `what`.
    pub fn of_request(error: &reqwest::Error, what: &str) -> Self {
        if let Some(status) = error.status() {
            return Self::of_status(status.as_u16(), what, "");
        }
        let cause = innermost(error);
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(cause)) => {
                let fault = RegistryFault::Certificate(cause.to_string());
                return Self::new(Remedy::Stop, fault);
            }
            Some(rustls::Error::InvalidMessage(_)) => return Self::plain(),
            None if error.is_connect() && ends_early(error) => return Self::plain(),
            Some(_) | None => {}
        }
        if error.is_redirect() || error.is_builder() {
            return Self::new(Remedy::Stop, RegistryFault::Protocol(Message::new(cause)));
        }
        Self::connection(cause)
    }

    /// A failure in the middle of an answer.
    pub fn of_stream(error: &io::Error) -> Self {
        let inner = error.get_ref();
        if let Some(digest) = inner.and_then(|inner| inner.downcast_ref::<DigestError>()) {
            let fault = RegistryFault::Protocol(Message::new(digest.to_string()));
            return Self::new(Remedy::Stop, fault);
        }
        Self::connection(innermost(error))
    }
}

/// The messages of a registry in one line.
fn joined(envelope: &OciEnvelope) -> String {
    let messages: Vec<&str> = envelope.errors.iter().map(|e| &e.message[..]).collect();
    messages.join(", ")
}

/// The status that belongs to the codes of a registry's errors, which come without one.
fn status_of(envelope: &OciEnvelope) -> u16 {
    let status = |code: &OciErrorCode| match code {
        OciErrorCode::Unauthorized => 401,
        OciErrorCode::Denied => 403,
        OciErrorCode::Toomanyrequests => 429,
        OciErrorCode::BlobUnknown
        | OciErrorCode::ManifestUnknown
        | OciErrorCode::NameUnknown
        | OciErrorCode::NotFound => 404,
        _ => 400,
    };
    envelope
        .errors
        .first()
        .map_or(400, |error| status(&error.code))
}

/// The last cause of a chain, which says what failed.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = cause(last) {
        last = next;
    }
    last.to_string()
}

/// The error of the TLS library in a chain of causes.
fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}

/// Returns true if a server has closed the connection during the handshake.
fn ends_early(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::UnexpectedEof) {
            return true;
        }
        next = cause(error);
    }
    false
}

/// The cause of an error. `source` of an I/O error skips the error that it wraps.
pub(crate) fn cause<'e>(
    error: &'e (dyn StdError + 'static),
) -> Option<&'e (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().map(io::Error::get_ref) {
        Some(Some(inner)) => Some(inner),
        _ => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_is_retried_and_refusals_are_not() {
        for (status, remedy) in [
            (401, Remedy::Renew),
            (403, Remedy::Stop),
            (404, Remedy::Stop),
            (429, Remedy::Retry),
            (500, Remedy::Retry),
            (501, Remedy::Stop),
            (503, Remedy::Retry),
        ] {
            assert_eq!(
                Failure::of_status(status, "image", "").remedy,
                remedy,
                "{status}"
            );
        }
    }

    #[test]
    fn messages_of_registries_are_shown() {
        let message = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#;
        let error = |code, text: &str| OciDistributionError::ServerError {
            code,
            url: String::new(),
            message: text.to_owned(),
        };
        let failure = Failure::of(error(404, message), "blob");
        assert_eq!(
            failure.fault.to_string(),
            "the registry has no blob: slow down; check the name and the tag"
        );
        let hostile = format!("\u{1b}[2J{}", "x".repeat(10_000));
        let failure = Failure::of(error(500, &hostile), "blob");
        let shown = failure.fault.to_string();
        assert!(shown.len() < 400 && !shown.contains('\u{1b}'), "{shown}");
        let envelope = serde_json::from_str(message).unwrap();
        let error = OciDistributionError::RegistryError {
            envelope,
            url: String::new(),
        };
        assert_eq!(Failure::of(error, "blob").remedy, Remedy::Retry);
    }

    #[test]
    fn the_tls_library_states_the_cause() {
        let invalid = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::other(invalid));
        assert!(matches!(
            tls_error(&error),
            Some(rustls::Error::InvalidCertificate(_))
        ));
        assert!(innermost(&error).contains("UnknownIssuer"));
    }
}
