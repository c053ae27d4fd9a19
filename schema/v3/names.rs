// SPDX-License-Identifier: MIT OR Apache-2.0

//! The names in directories.

use super::framing::WORD;
use crate::{
    error::{ErrorKind, Result},
    limits::MAX_NAME_LEN,
    metadata_capnp::dir_entry,
    steps::step,
};
use capnp::raw;

/// Reads names, for one operation.
///
/// Listing a directory mostly reads names. Cap'n Proto's reader takes some 300 instructions to
/// follow a pointer, because it can lead anywhere. If a name and its entry are in the first
/// segment, this type takes a fifth of that. It leaves all other names, and malformed pointers, to
/// Cap'n Proto.
#[derive(Clone, Copy)]
pub(crate) struct Names<'r> {
    /// The first segment; empty if there is none.
    segment: &'r [u8],
}

impl<'r> Names<'r> {
    pub(crate) fn new(segment: &'r [u8]) -> Self {
        Self { segment }
    }

    /// Returns the name of an entry, unchecked.
    pub(crate) fn raw(self, entry: dir_entry::Reader<'r>) -> Result<&'r [u8]> {
        match self.near(entry) {
            Some(name) => {
                // In tests and fuzzers, Cap'n Proto's reader must agree.
                #[cfg(any(test, feature = "count-steps"))]
                assert_eq!(entry.get_name().ok(), Some(name));
                Ok(name)
            }
            None => Ok(entry.get_name()?),
        }
    }

    /// Returns the name of an entry, and checks it.
    pub(crate) fn checked(self, entry: dir_entry::Reader<'r>) -> Result<&'r [u8]> {
        step();
        let name = self.raw(entry)?;
        if is_name(name) {
            Ok(name)
        } else {
            Err(ErrorKind::Name.into())
        }
    }

    /// Returns the name of an entry, if both are in the segment.
    ///
    /// See <https://capnproto.org/encoding.html>: behind a struct's data stand its pointers, of
    /// which the name is the first. A pointer to a list has, from the lowest bit on, its kind in
    /// two, the distance in words from its own end to the list in 30, the size of an element in
    /// three, and the number of elements in 29.
    fn near(self, entry: dir_entry::Reader<'r>) -> Option<&'r [u8]> {
        const LIST: u64 = 1;
        const BYTES: u64 = 2;

        let data = raw::get_struct_data_section(entry);
        if data.is_empty() || raw::get_struct_pointer_section(entry).is_empty() {
            return None;
        }
        let at = data
            .as_ptr()
            .addr()
            .checked_sub(self.segment.as_ptr().addr())?
            .checked_add(data.len())?;
        let (pointer, _) = self.segment.get(at..)?.split_first_chunk::<WORD>()?;
        let pointer = u64::from_le_bytes(*pointer);
        if pointer & 3 != LIST || (pointer >> 32) & 7 != BYTES {
            return None;
        }
        let distance = (pointer as i32 >> 2) as isize;
        let start = at
            .checked_add(WORD)?
            .checked_add_signed(distance.checked_mul(WORD as isize)?)?;
        let len = (pointer >> 35) as usize;
        self.segment.get(start..start.checked_add(len)?)
    }
}

/// Returns true if a directory can have the name.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME_LEN && !has_separator(name)
}

/// Returns true if any byte is `/` or NUL; compares eight at once.
fn has_separator(name: &[u8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; WORD]);
    const HIGH: u64 = u64::from_le_bytes([0x80; WORD]);
    const SLASHES: u64 = u64::from_le_bytes([b'/'; WORD]);

    // The lowest byte that is zero, if any is, borrows, and so gets a high bit that it had not.
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH != 0;
    let mut rest = name;
    while let Some((word, after)) = rest.split_first_chunk::<WORD>() {
        let word = u64::from_le_bytes(*word);
        if has_zero(word) || has_zero(word ^ SLASHES) {
            return true;
        }
        rest = after;
    }
    rest.iter().any(|&byte| byte == b'/' || byte == 0)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn separators_are_found_wherever_they_are() {
        for len in 0..40 {
            for filling in [1, b'.', b'/' - 1, b'/' + 1, 0x7f, 0x80, 0xff] {
                let mut name = vec![filling; len];
                assert!(!has_separator(&name));
                for at in 0..len {
                    for separator in [0, b'/'] {
                        name[at] = separator;
                        assert!(has_separator(&name), "{name:?}");
                        name[at] = filling;
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn separators(name: Vec<u8>) {
            prop_assert_eq!(has_separator(&name), name.contains(&0) || name.contains(&b'/'));
        }
    }
}
