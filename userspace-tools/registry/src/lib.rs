// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pushes PuzzleFS images to container registries and object stores, and pulls them and container images.
//!
//! The crate follows the OCI distribution specification 1.1 by `oci-client`. What a pull adds to a store
//! is verified by `puzzlefs-lib`, because registries and networks are untrusted.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `lazy` | fetches chunks of PuzzleFS images on demand |
//! | `publish` | publishes PuzzleFS images next to container images, at places of both kinds |
//! | `name` | names of images at places of both kinds |
//! | [`objects`] | images in object stores and on servers of files |
//! | `publisher` | publishes from one place to another |
//! | `push` | pushes images |
//! | `pull` | pulls images |
//! | `upload` | uploads blobs, and resumes uploads |
//! | `places` | files of settings; mirrors, and the attempts at them |
//! | `client` | the connection: requests, repeated attempts, deadlines, tokens |
//! | `token` | access tokens for identity tokens, and for several repositories |
//! | `failure` | failed requests, and the way on |
//! | `credentials` | user names and passwords |
//! | `certificates` | certificates of private CAs |
//! | `settings` | the format of `registries.conf` |
//! | `reference` | names of images in registries |
//! | `error` | failures |

mod certificates;
mod client;
mod credentials;
mod error;
mod failure;
mod lazy;
mod name;
pub mod objects;
mod places;
mod publish;
mod publisher;
mod pull;
mod push;
mod reference;
mod settings;
mod token;
mod upload;

pub use client::{RegistryOptions, Traffic};
pub use credentials::UserPassword;
pub use error::{Message, PlacesError, PublishFault, RegistryError, RegistryFault, SetupError};
pub use lazy::{fetch, FetchingOptions};
pub use name::RemoteName;
pub use publish::publish;
pub use publisher::{PublishOptions, Published, Variant};
pub use pull::{pull, PullOptions, Pulled};
pub use push::{push, Pushed};
pub use reference::{ImageName, RemoteImage};
pub use settings::RegistrySettings;
