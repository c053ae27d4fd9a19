// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every input of the corpus, once: what fuzzing found interesting, and what it found wrong.

use puzzlefs_fuzz::TARGETS;
use std::path::Path;

#[test]
fn corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let directory = corpus.join(name);
        let entries = std::fs::read_dir(&directory).expect("every target has a corpus");
        let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", directory.display());
        for input in &inputs {
            // Shown where the test fails.
            println!("{}", input.display());
            target(&std::fs::read(input).unwrap());
        }
    }
}
