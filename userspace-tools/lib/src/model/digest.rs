// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sha256 digest that names a blob, and its hexadecimal form.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// A sha256 digest: of a blob's bytes as stored, or (where said so) its fs-verity digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// The raw bytes, as the metadata holds them.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Sixty-four lower-case hexadecimal digits: the name of the blob's file.
    pub fn to_hex(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(DIGITS[usize::from(byte >> 4)].into());
            hex.push(DIGITS[usize::from(byte & 15)].into());
        }
        hex
    }

    /// Reads the sixty-four lower-case digits that [`Digest::to_hex`] writes.
    ///
    /// Upper case is refused, as the OCI specification does: a digest has one spelling.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != 64 {
            return None;
        }
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = (value(pair[0])? << 4) | value(pair[1])?;
        }
        Some(Digest(bytes))
    }

    /// The OCI spelling, `sha256:<hex>`.
    pub fn to_oci(self) -> String {
        format!("sha256:{}", self.to_hex())
    }

    /// Reads the OCI spelling.
    pub fn from_oci(text: &str) -> Option<Self> {
        Self::from_hex(text.strip_prefix("sha256:")?.as_bytes())
    }
}

impl From<Digest> for puzzlefs_schema::Digest {
    fn from(digest: Digest) -> Self {
        Self::new(digest.0)
    }
}

impl From<puzzlefs_schema::Digest> for Digest {
    fn from(digest: puzzlefs_schema::Digest) -> Self {
        Digest(*digest.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ();

    fn from_str(hex: &str) -> Result<Self, ()> {
        Self::from_hex(hex.as_bytes()).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip() {
        let digest = Digest::of(b"{}");
        assert_eq!(
            digest.to_hex(),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(Digest::from_hex(digest.to_hex().as_bytes()), Some(digest));
        assert_eq!(Digest::from_oci(&digest.to_oci()), Some(digest));
    }

    #[test]
    fn other_spellings_are_refused() {
        let hex = Digest::of(b"").to_hex();
        assert_eq!(Digest::from_hex(hex.to_uppercase().as_bytes()), None);
        assert_eq!(Digest::from_hex(&hex.as_bytes()[1..]), None);
        assert_eq!(Digest::from_hex(format!("{hex}0").as_bytes()), None);
        assert_eq!(Digest::from_hex(hex.replace('e', "g").as_bytes()), None);
        assert_eq!(Digest::from_oci(&hex), None);
        assert_eq!(Digest::from_oci(&format!("sha512:{hex}")), None);
    }
}
