// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is told to whoever runs a program of ours.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

/// Tells something on standard error, in one line after the program's name. What an image or an
/// archive has put into the text cannot move a cursor.
///
/// Where nobody can be told, on a full disk or a closed pipe, that is no reason to panic, as
/// `eprintln!` does: the exit status still says what became of the work.
pub fn tell(program: &str, what: impl Display) {
    let line = format!("{program}: {}\n", printable(what.to_string().as_bytes()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Text that a terminal only prints: control characters, and what is no text, are escaped.
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
