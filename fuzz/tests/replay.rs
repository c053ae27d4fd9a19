// SPDX-License-Identifier: MIT OR Apache-2.0

//! Calls each target once with every input of its corpus: the archive of what fuzzing found, and
//! the named regressions beside it.

use puzzlefs_fuzz::TARGETS;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

#[test]
fn corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let archive = corpus.join(name).with_extension("tar.xz");
        let archive = File::open(archive).expect("every target has a corpus");
        let mut archive = tar::Archive::new(liblzma::read::XzDecoder::new(archive));
        let mut inputs = Vec::new();
        for member in archive.entries().unwrap() {
            let mut member = member.unwrap();
            let mut data = Vec::new();
            member.read_to_end(&mut data).unwrap();
            inputs.push((member.path().unwrap().into_owned(), data));
        }
        assert!(!inputs.is_empty(), "the archive of {name} is empty");
        let named = corpus.join(name);
        if named.is_dir() {
            for entry in fs::read_dir(named).unwrap() {
                let path = entry.unwrap().path();
                let data = fs::read(&path).unwrap();
                inputs.push((path, data));
            }
        }
        for (input, data) in inputs {
            // Shown where the test fails.
            println!("{name} {}", input.display());
            target(&data);
        }
    }
}
