// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failed requests to an object store: the cause for a message, and the way on.

use super::error::ObjectFault;
use super::http::{NoCredentials, PlainHttp, Refused, Whole};
use super::name::Backend;
use crate::error::{Message, RegistryFault};
use crate::failure::{cause, innermost, Failure as HttpFailure, Remedy};
use object_store::Error;
use std::error::Error as StdError;
use std::io;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    /// The way on.
    pub remedy: Remedy,
    /// The cause for a message.
    pub fault: ObjectFault,
}

impl Failure {
    pub fn new(remedy: Remedy, fault: ObjectFault) -> Self {
        Failure { remedy, fault }
    }

    /// A broken connection.
    pub fn connection(cause: impl Into<String>) -> Self {
        Self::new(Remedy::Retry, ObjectFault::Connection(cause.into()))
    }

    /// An error of a store.
    pub fn of(error: &Error, backend: Backend) -> Self {
        let stop = |fault| Self::new(Remedy::Stop, fault);
        match error {
            Error::NotFound { .. } => return stop(ObjectFault::NotFound),
            Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. } => {
                return stop(ObjectFault::Contended);
            }
            Error::NotImplemented { .. } | Error::NotSupported { .. } => {
                return stop(ObjectFault::Unsupported(Message::new(error.to_string())));
            }
            _ => {}
        }
        if let Some(refused) = find::<Refused>(error) {
            return Self::of_refusal(refused, backend);
        }
        if find::<Whole>(error).is_some() {
            return stop(ObjectFault::Unranged);
        }
        if find::<NoCredentials>(error).is_some() {
            return stop(ObjectFault::CredentialsNeeded { backend });
        }
        if let Some(PlainHttp(host)) = find::<PlainHttp>(error) {
            return stop(ObjectFault::PlainHttp { host: host.clone() });
        }
        if let Some(error) = find::<reqwest::Error>(error) {
            return Self::of_http(HttpFailure::of_request(error, ""));
        }
        let text = match find::<io::Error>(error) {
            Some(error) => error.to_string(),
            None => innermost(error),
        };
        stop(ObjectFault::Protocol(Message::new(text)))
    }

    fn of_refusal(refused: &Refused, backend: Backend) -> Self {
        let message = Message::appended(&refused.message);
        let status = refused.status.as_u16();
        match status {
            401 | 403 => Self::new(Remedy::Stop, ObjectFault::Denied { message, backend }),
            416 => Self::new(Remedy::Stop, ObjectFault::Short),
            300..=399 => Self::new(Remedy::Stop, ObjectFault::Redirected),
            429 => Self::new(Remedy::Retry, ObjectFault::TooManyRequests { status }),
            503 if refused.message.contains("reduce your request rate") => {
                Self::new(Remedy::Retry, ObjectFault::TooManyRequests { status })
            }
            408 | 500 | 502..=504 => {
                Self::new(Remedy::Retry, ObjectFault::Status { status, message })
            }
            _ => Self::new(Remedy::Stop, ObjectFault::Status { status, message }),
        }
    }

    /// A failure below HTTP.
    fn of_http(failure: HttpFailure) -> Self {
        let fault = match failure.fault {
            RegistryFault::Connection(cause) => ObjectFault::Connection(cause),
            RegistryFault::Certificate(cause) => ObjectFault::Certificate(cause),
            other => ObjectFault::Protocol(Message::new(other.to_string())),
        };
        Self::new(failure.remedy, fault)
    }
}

/// Returns the error of a type in a chain of causes.
fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::client::{HttpError, HttpErrorKind};
    use reqwest::StatusCode;

    fn failure(status: u16, message: &str) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        let message = message.to_owned();
        let source = HttpError::new(HttpErrorKind::Unknown, Refused { status, message });
        let error = Error::Generic {
            store: "S3",
            source: Box::new(source),
        };
        Failure::of(&error, Backend::S3)
    }

    #[test]
    fn overload_is_retried_and_refusals_are_not() {
        for (status, remedy) in [
            (301, Remedy::Stop),
            (400, Remedy::Stop),
            (403, Remedy::Stop),
            (416, Remedy::Stop),
            (429, Remedy::Retry),
            (500, Remedy::Retry),
            (501, Remedy::Stop),
            (503, Remedy::Retry),
        ] {
            assert_eq!(failure(status, "").remedy, remedy, "{status}");
        }
        let denied = failure(403, "The AWS Access Key Id you provided\u{1b}[2J")
            .fault
            .to_string();
        assert!(
            denied.contains("AWS_ACCESS_KEY_ID") && !denied.contains('\u{1b}'),
            "{denied}"
        );
        let slow = failure(503, "Please reduce your request rate.").fault;
        assert!(matches!(slow, ObjectFault::TooManyRequests { .. }));
    }
}
