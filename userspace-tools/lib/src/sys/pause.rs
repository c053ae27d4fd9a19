// SPDX-License-Identifier: MIT OR Apache-2.0

//! Points at which a test pauses this process.
//!
//! The feature `test-hooks` compiles the pause in. Only the development dependencies of the command
//! enable it: `cargo test` builds a command with pauses, `cargo build` one without.
//!
//! `PUZZLEFS_TEST_PAUSE=POINT:N:SOCKET` pauses the process when it reaches POINT for the Nth time;
//! the point `any` stands for all of them. The process connects to the Unix socket SOCKET, writes
//! the point's name and a newline, and waits until the test closes the connection.

/// A point at which a process can pause.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point {
    /// A builder has locked its staging directory, which is empty.
    Staging,
    /// The tree to build from is known; no file of it has been read.
    Tree,
    /// A file of the tree has been read, and not compared with its earlier state.
    Read,
    /// A blob has been created in the staging directory, without contents.
    Created,
    /// A blob has been written to the staging directory.
    Written,
    /// A filesystem holding staged blobs has been synced; no blob has its final name.
    Synced,
    /// A blob has its final name.
    Named,
    /// All staged blobs have their final names, durably.
    Committed,
    /// A writer holds the lock of the index, and has read the index.
    Locked,
    /// The new index has been written and synced under its temporary name.
    Replacing,
    /// The new index has its final name, and the directory has not been synced.
    Replaced,
    /// A sweep knows the blobs that no image needs, and has removed none.
    Marked,
    /// A sweep has removed a blob.
    Removed,
    /// A new table of the chunk index is durable, and no catalogue lists it.
    Table,
    /// A new catalogue of the chunk index is durable under its temporary name.
    Catalogue,
    /// The new catalogue has its final name, and the directory has not been synced.
    Catalogued,
    /// A sweep has kept the recipe of a pack that it removes next.
    Recipe,
    /// An extraction has created a file, a directory or a link.
    Extracted,
}

/// Pauses here if a test asks for it.
pub(crate) fn at(point: Point) {
    #[cfg(feature = "test-hooks")]
    hook::at(point);
    #[cfg(not(feature = "test-hooks"))]
    let _ = point;
}

#[cfg(feature = "test-hooks")]
mod hook {
    use super::Point;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::LazyLock;

    struct Wanted {
        /// `None` for all points.
        point: Option<String>,
        number: u64,
        socket: PathBuf,
    }

    static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(|| {
        let wanted = std::env::var("PUZZLEFS_TEST_PAUSE").ok()?;
        let mut words = wanted.splitn(3, ':');
        let mut word = || words.next().expect("POINT:N:SOCKET");
        Some(Wanted {
            point: Some(word().to_owned()).filter(|point| point != "any"),
            number: word().parse().expect("POINT:N:SOCKET"),
            socket: PathBuf::from(word()),
        })
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);

    pub(super) fn at(point: Point) {
        let Some(wanted) = &*WANTED else { return };
        let name = format!("{point:?}").to_lowercase();
        if wanted.point.as_ref().is_some_and(|wanted| *wanted != name)
            || REACHED.fetch_add(1, Relaxed) + 1 != wanted.number
        {
            return;
        }
        // A test that has ended no longer listens: go on.
        let Ok(mut test) = UnixStream::connect(&wanted.socket) else {
            return;
        };
        let _ = writeln!(test, "{name}");
        let _ = test.read(&mut [0]);
    }
}
