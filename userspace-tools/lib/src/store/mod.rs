// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store: an OCI image layout on disk.
//!
//! ```text
//! store/
//! ├── oci-layout            the version of the layout
//! ├── index.json            manifests, with their tags
//! ├── blobs/sha256/<digest> manifests, configurations, metadata and data blobs
//! └── .puzzlefs/            of the tools alone; readers need nothing in it
//!     ├── gc.lock           between builders and `gc`
//!     ├── index.lock        between writers of the index
//!     ├── *.new             a file that is being replaced
//!     └── staging-*/        blobs of one builder, not yet visible
//! ```
//!
//! # Locks
//!
//! See `locks`. Other tools do not know them; `index` notices an index that another tool replaced.
//!
//! # Staging
//!
//! A builder writes blobs into a directory of its own, makes them durable with one `syncfs`, and renames
//! them. A blob with its final name is complete, also after a power failure. See `staging`.
//!
//! # Garbage collection
//!
//! `ops::gc` keeps everything that `graph` finds from the index, and images that are mounted. It holds
//! `gc.lock` alone, so that no builder relies on a blob that it removes.
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `graph` | everything that an index refers to |
//! | `staging` | writes blobs |
//! | `tags` | sets and removes tags |
//! | `index` | changes the index |
//! | `oci_layout` | opens a store, reads its files |
//! | `replace` | replaces files of a store |
//! | `locks` | the locks of a store |

pub(crate) mod graph;
pub(crate) mod index;
pub(crate) mod locks;
pub(crate) mod oci_layout;
pub(crate) mod replace;
pub(crate) mod staging;
pub(crate) mod tags;
