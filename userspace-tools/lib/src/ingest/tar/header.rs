// SPDX-License-Identifier: MIT OR Apache-2.0

//! Header blocks.

use super::fault::Result;
use crate::error::TarFault;
use std::ops::Range;

/// The size of a block, in bytes.
pub(super) const BLOCK: usize = 512;
pub(super) type Block = [u8; BLOCK];

/// A header block.
pub(super) struct Header<'a>(pub &'a Block);

impl Header<'_> {
    /// Returns true if the checksum is the sum of the bytes, those of the sum itself taken as
    /// spaces. Some programs took the bytes as signed.
    pub fn checksum_matches(&self) -> bool {
        let Ok(wanted) = self.number(148..156) else {
            return false;
        };
        let bytes = || {
            let bytes = self.0.iter().enumerate();
            bytes.map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte })
        };
        let unsigned: u64 = bytes().map(u64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        wanted == unsigned || i64::try_from(wanted) == Ok(signed)
    }

    /// Returns the type of the member.
    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Returns the size of the data that follows. Members that cannot have data may give a size.
    pub fn size(&self) -> Result<u64> {
        match self.kind() {
            b'1'..=b'6' => Ok(0),
            _ => self.number(124..136),
        }
    }

    /// Returns the path of the member.
    pub fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        // GNU's headers have other things there.
        let prefix = match &self.0[257..263] {
            b"ustar\0" if &self.0[508..] == b"tar\0" => until_nul(&self.0[345..476]),
            b"ustar\0" => until_nul(&self.0[345..500]),
            _ => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, name].join(&b'/'),
        }
    }

    /// Returns the target of a link.
    pub fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    /// Returns the major and minor number of a device.
    pub fn device(&self) -> Result<(u32, u32)> {
        let (major, minor) = (self.number(329..337)?, self.number(337..345)?);
        // The widths of Linux.
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(TarFault::Device { major, minor }.into());
        }
        Ok((major as u32, minor as u32))
    }

    /// Adds the offsets and lengths of a sparse file's pieces in a range of the block.
    pub fn sparse_numbers(&self, range: Range<usize>, numbers: &mut Vec<u64>) -> Result<()> {
        for at in range.step_by(24) {
            // The first empty entry ends the map.
            if self.0[at..at + 24].iter().all(|&byte| byte == 0) {
                break;
            }
            numbers.push(self.number(at..at + 12)?);
            numbers.push(self.number(at + 12..at + 24)?);
        }
        Ok(())
    }

    /// Reads a number that is not negative.
    pub fn number(&self, range: Range<usize>) -> Result<u64> {
        match u64::try_from(self.signed(range)?) {
            Ok(number) => Ok(number),
            Err(_) => Err(TarFault::NegativeNumber.into()),
        }
    }

    /// Reads a number in octal digits or, if the first bit is set, in GNU's binary form.
    pub fn signed(&self, range: Range<usize>) -> Result<i64> {
        let field = &self.0[range];
        let number = match field {
            [first, rest @ ..] if first & 0x80 != 0 => {
                // The bit beside the first one is the sign.
                let first = i64::from(((first << 1) as i8) >> 1);
                let bytes = rest.iter();
                bytes.copied().try_fold(first, |number, byte| {
                    number.checked_mul(256)?.checked_add(i64::from(byte))
                })
            }
            field => {
                let text = until_nul(field).trim_ascii();
                text.iter().try_fold(0i64, |number, &digit| match digit {
                    b'0'..=b'7' => number.checked_mul(8)?.checked_add((digit - b'0').into()),
                    _ => None,
                })
            }
        };
        match number {
            Some(number) => Ok(number),
            None => Err(TarFault::HeaderNumber.into()),
        }
    }
}

/// Returns true if a header block begins so.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    let block = bytes.first_chunk::<BLOCK>();
    block.is_some_and(|block| block != &[0; BLOCK] && Header(block).checksum_matches())
}

/// Returns the bytes before the first zero byte.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let number = |field: &[u8]| {
            let mut block = [0; BLOCK];
            block[..field.len()].copy_from_slice(field);
            Header(&block).signed(0..field.len())
        };
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"  644 \0\0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\xff\0\0\0").unwrap(), 0xff00_0000);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(b"0000649\0").is_err());
        assert!(number(&[0xbf; 12]).is_err());
    }
}
