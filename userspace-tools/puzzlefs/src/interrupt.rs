// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interruption of long commands by signals.

use anyhow::Context;
use puzzlefs_lib::Progress;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// Returns the progress of work that SIGINT, SIGTERM and SIGHUP end soon. A SIGHUP that was ignored
/// when the program started, as nohup(1) does, stays ignored. A second signal ends the program at once.
pub fn stoppable() -> anyhow::Result<Progress> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    for signal in signals {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("cannot handle signals")?;
    }
    Ok(Progress::new(stop))
}

/// Returns true if the parent process made this program ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| (mask >> (signal - 1)) & 1 != 0)
}
