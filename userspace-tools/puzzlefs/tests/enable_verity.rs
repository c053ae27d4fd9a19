// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs enable-verity` where there is no fs-verity; where there is, a case in a guest tests it.

use crate::common::*;
use std::fs;

#[test]
#[ignore = "needs a tmpfs on /dev/shm"]
fn without_fs_verity_it_says_what_to_do() {
    // A tmpfs never has fs-verity.
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let (tree, store) = (scratch.path().join("tree"), scratch.path().join("store"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), noise(100_000, 1)).unwrap();
    build(&tree, &store, "image", 1);
    for what in [reference(&store, "image"), store.display().to_string()] {
        let output = run(&["enable-verity", "--json", &what]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("put the store on ext4"),
            "{output:?}"
        );
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    let output = run(&["enable-verity", "no/such:"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}
