// SPDX-License-Identifier: MIT OR Apache-2.0

//! The names of extended attributes that overlayfs claims.
//!
//! An overlay hides each attribute `trusted.overlay.X` of its layers and acts on it. It shows
//! `trusted.overlay.overlay.X` of a layer as `trusted.overlay.X`. So an image that holds such
//! attributes of its own appears unchanged in an overlay if its lower layer escapes the names in this
//! way.

use crate::limits::MAX_XATTR_NAME_LEN;

/// The prefix of the names that overlayfs claims.
const CLAIMED: &[u8] = b"trusted.overlay.";
/// The escape: it stands behind the prefix.
const ESCAPE: &[u8] = b"overlay.";

/// Returns true if overlayfs claims the attributes of this name.
pub fn is_claimed(name: &[u8]) -> bool {
    name.starts_with(CLAIMED)
}

/// Returns true if the escaped form of a name is a name of an attribute, too.
pub fn can_escape(name: &[u8]) -> bool {
    !is_claimed(name) || name.len().saturating_add(ESCAPE.len()) <= MAX_XATTR_NAME_LEN
}

/// Returns the escaped form of a name, in the three parts that it consists of. A name that overlayfs
/// does not claim is its own escaped form.
pub fn escape(name: &[u8]) -> [&[u8]; 3] {
    match name.strip_prefix(CLAIMED) {
        Some(rest) => [CLAIMED, ESCAPE, rest],
        None => [name, b"", b""],
    }
}

/// Returns the name of which this is the escaped form, in two parts, or `None` if it is the escaped
/// form of no name.
pub fn unescape(name: &[u8]) -> Option<[&[u8]; 2]> {
    match name.strip_prefix(CLAIMED) {
        Some(rest) => Some([CLAIMED, rest.strip_prefix(ESCAPE)?]),
        None => Some([name, b""]),
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_back() {
        for (name, escaped) in [
            ("user.a", "user.a"),
            ("user.overlay.opaque", "user.overlay.opaque"),
            ("trusted.overlay", "trusted.overlay"),
            ("trusted.overlays", "trusted.overlays"),
            ("trusted.overlay.opaque", "trusted.overlay.overlay.opaque"),
            (
                "trusted.overlay.overlay.x",
                "trusted.overlay.overlay.overlay.x",
            ),
        ] {
            assert_eq!(escape(name.as_bytes()).concat(), escaped.as_bytes());
            let back = unescape(escaped.as_bytes()).map(|parts| parts.concat());
            assert_eq!(back, Some(name.as_bytes().to_vec()));
        }
        assert_eq!(unescape(b"trusted.overlay.opaque"), None);
        assert_eq!(unescape(b"trusted.overlay."), None);
    }

    #[test]
    fn a_long_name_has_no_escaped_form() {
        let name = |length: usize| [CLAIMED, &vec![b'x'; length - CLAIMED.len()]].concat();
        assert!(can_escape(&name(MAX_XATTR_NAME_LEN - ESCAPE.len())));
        assert!(!can_escape(&name(MAX_XATTR_NAME_LEN - ESCAPE.len() + 1)));
        assert!(can_escape(&vec![b'x'; MAX_XATTR_NAME_LEN]));
    }
}
