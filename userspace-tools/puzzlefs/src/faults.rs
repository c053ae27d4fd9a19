// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports of the faults of an image or a store.

use crate::format;
use crate::output::Output;
use anyhow::bail;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::verify::Fault;
use serde::Serialize;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

/// The object that `--json` prints of a fault.
#[derive(Serialize)]
pub struct FaultReport<'a> {
    image: Option<&'a str>,
    fault: &'a str,
}

/// Returns the objects that `--json` prints of faults.
pub fn report(faults: &[Fault]) -> Vec<FaultReport<'_>> {
    let faults = faults.iter().map(|fault| FaultReport {
        image: fault.image.as_deref(),
        fault: &fault.what,
    });
    faults.collect()
}

/// Prints faults, one a line.
pub fn print(faults: &[Fault], out: &mut Output) -> anyhow::Result<()> {
    // A fault can quote an image or an index, which may hold control characters.
    let text = |text: &str| printable(text.as_bytes());
    for fault in faults {
        match &fault.image {
            Some(image) => writeln!(out, "{}: {}", text(image), text(&fault.what))?,
            None => writeln!(out, "{}", text(&fault.what))?,
        }
    }
    Ok(())
}

/// Fails if there are faults. `what` is the name of the image or store on the command line.
pub fn fail(faults: &[Fault], what: &OsStr) -> anyhow::Result<()> {
    if !faults.is_empty() {
        let faults = format::count(faults.len() as u64, "fault", "faults");
        bail!("{}: {faults}", Path::new(what).display());
    }
    Ok(())
}
