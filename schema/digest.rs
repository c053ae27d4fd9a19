// SPDX-License-Identifier: MIT OR Apache-2.0

//! Digests.

use crate::error::{ErrorKind, Result};
use core::{fmt, str};

/// A SHA-256 digest: of a blob as it is stored, or the fs-verity digest of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; Self::LEN]);

impl Digest {
    /// The length of a digest, in bytes.
    pub const LEN: usize = 32;

    /// The length of a digest's hexadecimal form, in digits.
    pub const HEX_LEN: usize = 64;

    /// Makes a digest of its bytes.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Makes a digest of as many bytes as it has.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DigestLength`] if there are more or fewer.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(ErrorKind::DigestLength.into()),
        }
    }

    /// Reads a digest's hexadecimal form.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::HexDigest`] if the text is not exactly 64 digits, the letters in lower case: a
    /// digest has one spelling.
    pub fn from_hex(hex: &[u8]) -> Result<Self> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
            b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
            _ => None,
        };
        if hex.len() != Self::HEX_LEN {
            return Err(ErrorKind::HexDigest.into());
        }
        let mut bytes = [0; Self::LEN];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let &[high, low] = pair else {
                return Err(ErrorKind::HexDigest.into());
            };
            let (Some(high), Some(low)) = (value(high), value(low)) else {
                return Err(ErrorKind::HexDigest.into());
            };
            *byte = (high << 4) | low;
        }
        Ok(Self(bytes))
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Returns the hexadecimal form in ASCII, which is the name of a blob's file.
    pub fn to_hex(&self) -> [u8; Self::HEX_LEN] {
        const fn digit(value: u8) -> u8 {
            match value {
                0..=9 => b'0'.wrapping_add(value),
                _ => b'a'.wrapping_sub(10).wrapping_add(value),
            }
        }
        let mut hex = [0; Self::HEX_LEN];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            if let [high, low] = pair {
                *high = digit(byte >> 4);
                *low = digit(byte & 15);
            }
        }
        hex
    }
}

impl From<[u8; Self::LEN]> for Digest {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.to_hex();
        f.pad(str::from_utf8(&hex).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
