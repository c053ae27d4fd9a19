// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store: an OCI image layout on disk.
//!
//! # Layout
//!
//! ```text
//! store/
//! ├── oci-layout             version of the layout
//! ├── index.json             manifests, with their tags
//! ├── blobs/
//! │   └── sha256/
//! │       └── <digest>       manifest, configuration, metadata or data: named by its SHA-256
//! └── .puzzlefs/             private to these tools; the kernel reads the chunk index
//!     ├── gc.lock            between builders and garbage collection
//!     ├── fetch-XX.lock      between fetches of one image
//!     ├── fetcher.lock       of the process that serves the kernel's requests for missing chunks
//!     ├── chunks.lock        between writers of the chunk index
//!     ├── index.lock         between writers of the index
//!     ├── index.json.new     new index while it replaces the old one
//!     ├── oci-layout.new     the same while a store is created
//!     ├── chunks/            chunk index: places of the chunks of images of format 4
//!     │   ├── catalogue      packs and tables
//!     │   └── <number>       table
//!     ├── fetcher.sock       of the same process, for commands that hand images over
//!     ├── fetches/           the images that a fetcher brings
//!     │   └── <key>          source and options
//!     ├── imports/           the images that container images of registries became
//!     │   └── <key>          manifest
//!     └── staging-XXXXXX/    blobs of one builder, which no reader sees
//!         └── <digest>
//! ```
//!
//! `index.json` leads to manifests, and a manifest leads to its configuration and layers. The first
//! layer of a PuzzleFS image is its metadata blob, the others are its data blobs. Other formats may be
//! in the same store. [`graph`] follows all of them.
//!
//! The directories of blobs and `.puzzlefs` are opened once, without following symbolic links. Blobs are
//! opened by name in the open directory, and only regular files are accepted.
//!
//! # Locks
//!
//! All are flock(2) locks, so the kernel releases them when a process dies. A process that takes several
//! takes them in the order of this table.
//!
//! | lock | shared | exclusive | protects |
//! | --- | --- | --- | --- |
//! | `fetcher.lock` | | the fetcher | requests from a second fetcher, which does not know the chunks |
//! | `gc.lock` | builders, copies, new tags | `gc` | a blob that a builder has found or put, and that no tag names yet |
//! | `fetch-XX.lock` | | fetches of images whose digests begin with XX | data that another process is fetching |
//! | `chunks.lock` | | writers of the chunk index | the chunk index between its read and its replacement |
//! | `index.lock` | | writers of the index | `index.json` between its read and its replacement |
//! | `staging-XXXXXX` | | its builder | the directory, which other builders remove as stale once it is unlocked |
//!
//! Readers take no lock. They see the old index or the new one, because a new index replaces the old one
//! by rename. Other tools do not know the locks. [`replace`] exchanges the new index with the old one
//! and compares the result, so a change by another tool is noticed and kept.
//!
//! # Staging
//!
//! 1. A builder writes blobs into its directory, on the filesystem of the store.
//! 2. [`Staging::commit`](staging::Staging::commit) makes them durable with one `syncfs`, and renames
//!    them into `blobs/sha256`. So a blob with its final name is complete, also after a power failure.
//! 3. The builder replaces the index. The tag names the new image only now.
//!
//! Two builders of one blob cannot disturb each other: the first rename counts, and the second builder
//! drops its copy. After a crash, the next builder or `gc` removes the staging directory.
//!
//! # Garbage collection
//!
//! `ops::gc` is mark and sweep. The roots are all entries of `index.json` and all images that are
//! mounted from this store. If any root cannot be read, nothing is removed. The collection holds
//! `gc.lock` exclusively and makes the index durable before it removes the first blob. It therefore
//! removes no blob that a builder relies on, and none that an older index, after a power failure, names.
//!
//! # Modules
//!
//! Each module uses only those below it.
//!
//! | module | content |
//! | --- | --- |
//! | `graph` | everything that an index refers to |
//! | `tags` | sets and removes tags |
//! | `imports` | the container images that were imported |
//! | `fetches` | the images that a fetcher brings |
//! | `chunks` | packs, loose chunks, and their index |
//! | `staging` | writes blobs |
//! | `index` | changes the index |
//! | `oci_layout` | opens a store, reads its files |
//! | `replace` | replaces files of a store |
//! | `locks` | the locks of a store |

pub(crate) mod chunks;
pub(crate) mod fetches;
pub(crate) mod graph;
pub(crate) mod imports;
pub(crate) mod index;
pub(crate) mod locks;
pub(crate) mod oci_layout;
pub(crate) mod replace;
pub(crate) mod staging;
pub(crate) mod tags;
