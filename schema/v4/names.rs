// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of directory entries and of extended attributes, and targets of symbolic links.

use crate::limits::{MAX_NAME_LEN, MAX_SYMLINK_LEN, MAX_XATTR_NAME_LEN};

/// Bytes in a word.
const WORD: usize = 8;

/// Returns true if a directory entry can have the name.
pub(super) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_NAME_LEN
        && !contains(name, b'/')
        && !contains(name, 0)
}

/// Returns true if a symbolic link can have the target.
pub(super) fn is_target(target: &[u8]) -> bool {
    (1..=MAX_SYMLINK_LEN).contains(&target.len()) && !contains(target, 0)
}

/// Returns true if an extended attribute can have the name: a namespace, a dot, and more.
pub(super) fn is_attribute_name(name: &[u8]) -> bool {
    let dot = name.iter().position(|&byte| byte == b'.');
    name.len() <= MAX_XATTR_NAME_LEN
        && dot.is_some_and(|dot| dot > 0 && dot.saturating_add(1) < name.len())
        && !contains(name, 0)
}

/// Returns true if `bytes` contains `byte`. Compares eight bytes at a time.
fn contains(bytes: &[u8], byte: u8) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; WORD]);
    const HIGH: u64 = u64::from_le_bytes([0x80; WORD]);
    let wanted = u64::from_le_bytes([byte; WORD]);

    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk() {
        // Of the bytes that are now 0, the lowest borrows, and so gets its high bit.
        let word = u64::from_le_bytes(*word) ^ wanted;
        if word.wrapping_sub(ONES) & !word & HIGH != 0 {
            return true;
        }
        rest = after;
    }
    rest.contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        assert!(is_name(b"a") && is_name(b"...") && is_name(&[0xff; 255]));
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'a'; 256]] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn targets() {
        assert!(is_target(b"/") && is_target(&[b'a'; 4095]));
        assert!(!is_target(b"") && !is_target(&[b'a'; 4096]) && !is_target(b"a\0"));
    }

    #[test]
    fn attribute_names() {
        assert!(is_attribute_name(b"user.a") && is_attribute_name(b"user.."));
        for bad in [&b""[..], b"user", b"user.", b".a", b"user.\0", b"."] {
            assert!(!is_attribute_name(bad), "{bad:?}");
        }
        let long = [&b"user."[..], &[b'a'; 251]].concat();
        assert!(!is_attribute_name(&long) && long.len() == 256);
    }

    proptest! {
        #[test]
        fn bytes_are_found(bytes: Vec<u8>, byte: u8) {
            prop_assert_eq!(contains(&bytes, byte), bytes.contains(&byte));
            prop_assert_eq!(contains(&bytes, 0), bytes.contains(&0));
        }
    }
}
