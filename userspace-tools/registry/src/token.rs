// SPDX-License-Identifier: MIT OR Apache-2.0

//! Access tokens that the client crate does not get: for identity tokens, which `docker login` stores for
//! some registries, and for several repositories.
//!
//! The exchange is that of the distribution's token specification. A token server on a connection without TLS
//! gets no secrets, unless the registry itself has none.

use crate::error::{Message, RegistryFault};
use crate::failure::{Failure, Remedy};
use http_auth::parser::ChallengeParser;
use oci_client::secrets::RegistryAuth;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;

/// The largest answer of a token server that is read, in bytes.
const ANSWER_MAX: usize = 64 << 10;
/// The name that token servers may log.
const CLIENT_ID: &str = "puzzlefs";

/// The secret that a token server exchanges for an access token.
#[derive(Clone)]
pub(crate) enum Secret {
    /// None, or a user name and a password.
    Auth(RegistryAuth),
    /// An identity token.
    Identity(String),
}

/// The parts of a challenge that name the token server.
struct Challenge {
    realm: Url,
    service: Option<String>,
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
}

/// Gets a token for all `scopes`. Returns `None` if the registry wants none.
///
/// `registry` is the URL of the registry. `http` must not follow redirects, which would carry the secret to
/// other hosts.
pub(crate) async fn request(
    http: &Client,
    registry: &Url,
    scopes: &[String],
    secret: &Secret,
) -> Result<Option<String>, Failure> {
    let protocol = |cause: String| {
        let fault = RegistryFault::Protocol(Message::new(cause));
        Failure::new(Remedy::Stop, fault)
    };
    let version = registry
        .join("/v2/")
        .map_err(|error| protocol(error.to_string()))?;
    let answer = http.get(version).send().await;
    let answer = answer.map_err(|error| Failure::of_request(&error, "token"))?;
    let mut challenges = answer.headers().get_all(WWW_AUTHENTICATE).into_iter();
    let Some(challenge) = challenges.find_map(|value| bearer(value.to_str().ok()?)) else {
        return match secret {
            Secret::Auth(_) => Ok(None),
            Secret::Identity(_) if answer.status().is_success() => Ok(None),
            Secret::Identity(_) => Err(protocol(
                "it names no token server, which an identity token needs".to_owned(),
            )),
        };
    };
    if challenge.realm.scheme() != "https" && registry.scheme() == "https" {
        return Err(protocol("its token server has no TLS".to_owned()));
    }
    let request = with_secret(http, challenge, scopes, secret);
    let answer = request.send().await;
    let mut answer = answer.map_err(|error| Failure::of_request(&error, "token"))?;
    let status = answer.status();
    let mut body = Vec::new();
    loop {
        let piece = answer.chunk().await;
        let Some(piece) = piece.map_err(|error| Failure::of_request(&error, "token"))? else {
            break;
        };
        if body.len() + piece.len() > ANSWER_MAX {
            return Err(protocol(
                "the answer of its token server is too large".to_owned(),
            ));
        }
        body.extend_from_slice(&piece);
    }
    let overload = Failure::of_status(status.as_u16(), "token", "");
    if overload.remedy == Remedy::Retry {
        return Err(overload);
    }
    if !status.is_success() {
        let text = Message::appended(String::from_utf8_lossy(&body));
        return Err(Failure::new(Remedy::Stop, RegistryFault::Token(text)));
    }
    let granted: Granted =
        serde_json::from_slice(&body).map_err(|error| protocol(error.to_string()))?;
    let token = granted.access_token.or(granted.token);
    token
        .map(Some)
        .ok_or_else(|| protocol("its token server gave no token".to_owned()))
}

/// The first challenge that names a token server.
fn bearer(header: &str) -> Option<Challenge> {
    let challenges = ChallengeParser::new(header).map_while(Result::ok);
    let bearer =
        { challenges }.find(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"))?;
    let value = |wanted: &str| {
        let mut params = bearer.params.iter();
        let found = params.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.to_unescaped())
    };
    Some(Challenge {
        realm: Url::parse(&value("realm")?).ok()?,
        service: value("service"),
    })
}

fn with_secret(
    http: &Client,
    challenge: Challenge,
    scopes: &[String],
    secret: &Secret,
) -> RequestBuilder {
    let Challenge { mut realm, service } = challenge;
    let mut fields: Vec<(&str, &str)> = Vec::new();
    if let Some(service) = &service {
        fields.push(("service", service));
    }
    let joined = scopes.join(" ");
    match secret {
        Secret::Identity(token) => {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("scope", &joined),
                ("refresh_token", token),
            ]);
            http.post(realm).form(&fields)
        }
        Secret::Auth(auth) => {
            fields.extend(scopes.iter().map(|scope| ("scope", &scope[..])));
            realm.query_pairs_mut().extend_pairs(fields);
            let request = http.get(realm);
            match auth {
                RegistryAuth::Basic(user, password) => request.basic_auth(user, Some(password)),
                RegistryAuth::Bearer(token) => request.bearer_auth(token),
                RegistryAuth::Anonymous => request,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_name_the_token_server() {
        let found =
            bearer(r#"Bearer realm="https://auth.example/token",service="a \"b\"""#).unwrap();
        assert_eq!(found.realm.as_str(), "https://auth.example/token");
        assert_eq!(found.service.as_deref(), Some("a \"b\""));
        let two = r#"Basic realm="x", Bearer realm="http://localhost/t""#;
        assert!(bearer(two).unwrap().service.is_none());
        for none in [
            "",
            "Basic realm=\"x\"",
            "Bearer service=\"x\"",
            "Bearer realm=\"x\"",
        ] {
            assert!(bearer(none).is_none(), "{none}");
        }
    }
}
