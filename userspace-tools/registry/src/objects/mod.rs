// SPDX-License-Identifier: MIT OR Apache-2.0

//! Images in object stores and on servers of files.
//!
//! At an address is an OCI image layout, as in a directory: any tool that copies directories can make it or
//! take it. The crate `object_store` speaks the protocols. What a pull adds to a store is verified by
//! `puzzlefs-lib`.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | this one | pulls images |
//! | `publish` | the places of a publication |
//! | `push` | pushes images |
//! | `source` | reads manifests and ranges of blobs |
//! | `layout` | reads `index.json`, and replaces it |
//! | `connection` | requests, repeated attempts, deadlines |
//! | `failure` | failed requests, and the way on |
//! | `stores` | the backends, and their settings |
//! | `http` | HTTP clients for the backends |
//! | `error` | failures |
//! | `name` | names of images |

mod connection;
mod error;
mod failure;
mod http;
mod layout;
mod name;
mod publish;
mod push;
mod source;
mod stores;

use crate::pull::{PullOptions, Pulled};
use puzzlefs_lib::{Progress, Result, Store};

pub use self::error::{ObjectError, ObjectFault};
pub use self::name::ObjectImage;
pub use self::push::push;

pub(crate) use self::publish::{ObjectDestination, ObjectOrigin};
pub(crate) use self::source::ObjectSource;

/// The verb for messages.
const ACTION: &str = "pull from";

/// Pulls an image from a layout in an object store into a store, and sets the tag. A container image is
/// imported.
///
/// # Errors
///
/// As for [`crate::pull`].
pub fn pull(
    image: &ObjectImage,
    to: &Store,
    options: &PullOptions,
    progress: &Progress,
) -> Result<Pulled> {
    let (source, document, _) = ObjectSource::open(image, ACTION, &options.connection, progress)?;
    let obtained = options.obtain(&source, &document, to, progress)?;
    Ok(Pulled {
        obtained,
        image: image.to_string(),
        source: source.digest(),
        traffic: source.connection.traffic(),
    })
}
