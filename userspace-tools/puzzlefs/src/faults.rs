// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults of a store or an image, as commands that look for all of them tell them.

use crate::format;
use crate::output::Output;
use anyhow::bail;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::verify::Fault;
use serde::Serialize;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

/// What `--json` prints of a fault.
#[derive(Serialize)]
pub struct FaultReport<'a> {
    image: Option<&'a str>,
    fault: &'a str,
}

/// What `--json` prints of faults.
pub fn report(faults: &[Fault]) -> Vec<FaultReport<'_>> {
    let faults = faults.iter().map(|fault| FaultReport {
        image: fault.image.as_deref(),
        fault: &fault.what,
    });
    faults.collect()
}

/// Prints faults, a line each.
pub fn tell(faults: &[Fault], out: &mut Output) -> anyhow::Result<()> {
    // It may have words from an image or an index in it.
    let text = |text: &str| printable(text.as_bytes());
    for fault in faults {
        match &fault.image {
            Some(image) => writeln!(out, "{}: {}", text(image), text(&fault.what))?,
            None => writeln!(out, "{}", text(&fault.what))?,
        }
    }
    Ok(())
}

/// Fails if there are any, of what was named on the command line.
pub fn fail(faults: &[Fault], what: &OsStr) -> anyhow::Result<()> {
    if !faults.is_empty() {
        let faults = format::count(faults.len() as u64, "fault", "faults");
        bail!("{}: {faults}", Path::new(what).display());
    }
    Ok(())
}
