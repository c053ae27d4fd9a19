// SPDX-License-Identifier: MIT OR Apache-2.0

//! Output of the programs on standard output and standard error.
//!
//! `println!` and `eprintln!` panic on a closed pipe and on a full disk, so clippy refuses them in the
//! programs.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

/// Writes a message to standard error, in one line after the program's name. Control characters, which
/// an image or an archive can put into the text, are escaped.
///
/// A failure to write is ignored, because the exit status still reports the result.
pub fn tell(program: &str, what: impl Display) {
    let line = format!("{program}: {}\n", printable(what.to_string().as_bytes()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes text to standard output.
///
/// # Errors
///
/// A closed pipe or a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(unwritable)
}

/// Adds to an error of standard output that it is one.
pub fn unwritable(error: io::Error) -> io::Error {
    let message = format!("standard output: cannot write to it: {error}");
    io::Error::new(error.kind(), message)
}

/// Escapes control characters, and bytes that are not UTF-8, for a terminal.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_move_a_cursor_is_escaped() {
        assert_eq!(printable("größe 1".as_bytes()), "größe 1");
        assert_eq!(printable(b"a\x1b[2J\n\xff"), "a\\u{1b}[2J\\n\\xff");
        assert_eq!(printable("\u{9b}".as_bytes()), "\\u{9b}");
    }
}
