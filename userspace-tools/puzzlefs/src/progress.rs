// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shows the progress of a command: a bar on a terminal, a line every ten seconds elsewhere.

use crate::format;
use crate::output::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use puzzlefs_lib::Progress;
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The words for the two phases of a command.
#[derive(Clone, Copy)]
pub struct Words {
    /// The first phase: things are counted.
    pub counting: &'static str,
    /// Singular and plural of the things.
    pub things: (&'static str, &'static str),
    /// The second phase: bytes are processed.
    pub doing: &'static str,
    /// The participle for the bytes that are done.
    pub done: &'static str,
}

/// The words for a build.
const BUILD: Words = Words {
    counting: "walking",
    things: ("entry", "entries"),
    doing: "storing",
    done: "stored",
};

/// Runs `work`, a build, while another thread shows its progress on standard error.
pub fn shown<T>(progress: &Progress, quiet: bool, work: impl FnOnce() -> T) -> T {
    shown_as(BUILD, progress, quiet, work)
}

/// Runs `work` while another thread shows its progress on standard error, in these words.
pub fn shown_as<T>(words: Words, progress: &Progress, quiet: bool, work: impl FnOnce() -> T) -> T {
    if quiet {
        return work();
    }
    let terminal = std::io::stderr().is_terminal();
    thread::scope(|scope| {
        let (done, finished) = mpsc::channel::<()>();
        scope.spawn(move || {
            if terminal {
                bar(words, progress, &finished);
            } else {
                lines(words, progress, &finished);
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Waits, and returns true if the work still runs.
fn goes_on(finished: &mpsc::Receiver<()>, wait: Duration) -> bool {
    finished.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
}

fn bar(words: Words, progress: &Progress, finished: &mpsc::Receiver<()>) {
    let style = |template: &str| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    bar.set_style(style(&format!("{{spinner}} {}: {{msg}}", words.counting)));
    let mut reading = false;
    while goes_on(finished, Duration::from_millis(100)) {
        if progress.is_reading() && !reading {
            reading = true;
            bar.set_length(progress.bytes_found());
            let rest = "[{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
            bar.set_style(style(&format!("{{spinner}} {} {rest}", words.doing)));
        }
        if reading {
            bar.set_position(progress.bytes_done());
        } else {
            bar.set_message(format::count(
                progress.entries(),
                words.things.0,
                words.things.1,
            ));
        }
        bar.tick();
    }
    bar.finish_and_clear();
}

fn lines(words: Words, progress: &Progress, finished: &mpsc::Receiver<()>) {
    const EVERY: Duration = Duration::from_secs(10);
    let start = Instant::now();
    while goes_on(finished, EVERY) {
        let things = format::count(progress.entries(), words.things.0, words.things.1);
        let seconds = start.elapsed().as_secs();
        if progress.is_reading() {
            let done = format::bytes(progress.bytes_done());
            let total = format::bytes(progress.bytes_found());
            say(format_args!(
                "{seconds} s: {} {done} of {total} in {things}",
                words.done
            ));
        } else {
            say(format_args!("{seconds} s: {}: {things}", words.counting));
        }
    }
}
