// SPDX-License-Identifier: MIT OR Apache-2.0

//! The records of PAX headers.

use super::{malformed, Result, PATH_MAX};
use crate::acl;
use crate::tree::{Time, Xattr};
use crate::xattrs;
use puzzlefs_schema::{MAX_XATTR_NAME_LEN, MAX_XATTR_VALUE_LEN};
use std::mem;

/// What PAX records and GNU's long names say about the next member.
#[derive(Clone, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: Vec<Xattr>,
    /// Access control lists as text, of the header that is being read.
    lists: Vec<(&'static [u8], Vec<u8>)>,
    pub sparse: Sparse,
}

/// PAX's sparse files, in the three versions that GNU tar knows.
#[derive(Clone, Default)]
pub(super) struct Sparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    /// Of versions 0.0 and 0.1: offset, length, offset, length and so on.
    pub map: Option<Vec<u64>>,
}

/// Takes the records of a PAX header: `LENGTH KEY=VALUE\n`, the length being the record's.
pub(super) fn parse(mut records: &[u8], pax: &mut Pax) -> Result<()> {
    while !records.is_empty() {
        let record = records.iter().position(|&byte| byte == b' ');
        let record = record.and_then(|space| {
            let length = decimal(&records[..space]).ok()?;
            let record = records.get(..usize::try_from(length).ok()?)?;
            let line = record.get(space + 1..)?.strip_suffix(b"\n")?;
            let equals = line.iter().position(|&byte| byte == b'=')?;
            Some((record.len(), &line[..equals], &line[equals + 1..]))
        });
        let Some((length, key, value)) = record else {
            return malformed("a PAX header is damaged");
        };
        records = &records[length..];
        pax.take(key, value)?;
    }
    pax.take_lists()
}

impl Pax {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // No value takes back what a header for all members said.
        let number = || match value {
            [] => Ok(None),
            value => decimal(value).map(Some),
        };
        let name = || match value {
            value if value.len() as u64 > PATH_MAX => malformed("a name is too long"),
            [] => Ok(None),
            value => Ok(Some(value.to_vec())),
        };
        match key {
            b"path" => self.path = name()?,
            b"linkpath" => self.link = name()?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.name" => self.sparse.name = name()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number()?,
            b"GNU.sparse.map" => {
                let numbers = value.split(|&byte| byte == b',').map(decimal);
                self.sparse.map = Some(numbers.collect::<Result<_>>()?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let number = decimal(value)?;
                self.sparse.map.get_or_insert_default().push(number);
            }
            // A file without any data has none of the two above.
            b"GNU.sparse.numblocks" => {
                self.sparse.map.get_or_insert_default();
            }
            b"SCHILY.acl.access" => self.lists.push((acl::ACCESS, value.to_vec())),
            b"SCHILY.acl.default" => self.lists.push((acl::DEFAULT, value.to_vec())),
            // What GNU tar has of it, without the zero byte that ends it.
            b"RHT.security.selinux" => {
                self.take_xattr(b"security.selinux", &[value, b"\0"].concat())?;
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.take_xattr(name, value)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    self.take_encoded_xattr(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// Takes an attribute in libarchive's own form, unless it came in the other too.
    fn take_encoded_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let (Some(name), Some(value)) = (from_percent(name), from_base64(value)) else {
            return malformed("an extended attribute is malformed");
        };
        if self.xattrs.iter().any(|(known, _)| *known == name) {
            return Ok(());
        }
        self.take_xattr(&name, &value)
    }

    /// Takes the access control lists in the form of text, unless they came as attributes too: these
    /// have numbers where text may have names.
    fn take_lists(&mut self) -> Result<()> {
        for (name, text) in mem::take(&mut self.lists) {
            // An empty list is none.
            if text.is_empty() || self.xattrs.iter().any(|(known, _)| known == name) {
                continue;
            }
            match acl::from_text(&text) {
                Ok(value) => self.take_xattr(name, &value)?,
                Err(what) => return malformed(what),
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        if !xattrs::belongs(name) {
            return Ok(());
        }
        if name.len() > MAX_XATTR_NAME_LEN || name.contains(&0) || value.len() > MAX_XATTR_VALUE_LEN
        {
            return malformed("an extended attribute is larger than it can be");
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// Bytes of which some are written as `%41`.
fn from_percent(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                let digit = |at: usize| char::from(digits[at]).to_digit(16);
                ((digit(0)? << 4) | digit(1)?) as u8
            }
            byte => byte,
        });
    }
    Some(bytes)
}

/// The bytes of base64, with or without the padding at its end.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let digits = text.iter().rposition(|&byte| byte != b'=');
    let digits = &text[..digits.map_or(0, |last| last + 1)];
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in group {
            let digit = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(digit);
        }
        // Of the bits of an unfinished group, what is not a whole byte is padding.
        let whole = group.len() * 6 / 8;
        let bits = bits << (32 - group.len() * 6);
        bytes.extend_from_slice(bits.to_be_bytes().get(..whole)?);
        if whole == 0 {
            return None;
        }
    }
    Some(bytes)
}

pub(super) fn decimal(text: &[u8]) -> Result<u64> {
    let number = match text {
        [] => None,
        text => text.iter().try_fold(0u64, |number, &digit| match digit {
            b'0'..=b'9' => number.checked_mul(10)?.checked_add((digit - b'0').into()),
            _ => None,
        }),
    };
    match number {
        Some(number) => Ok(number),
        None => malformed("a PAX header has a malformed number"),
    }
}

/// Seconds since the epoch with decimals: `-1.25`. What is finer than nanoseconds is cut off.
fn time(text: &[u8]) -> Result<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let point = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let Ok(mut seconds) = i64::try_from(decimal(whole)?) else {
        return malformed("a time is too far away");
    };
    let mut nanoseconds = 0;
    for at in 0..9 {
        let digit = match fraction.get(at) {
            None => 0,
            Some(digit @ b'0'..=b'9') => digit - b'0',
            Some(_) => return malformed("a PAX header has a malformed time"),
        };
        nanoseconds = nanoseconds * 10 + u32::from(digit);
    }
    if negative {
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    Ok(Time {
        seconds,
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let time = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("12").unwrap(), (12, 0));
        assert_eq!(time("12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time("-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time("1.0000000019").unwrap(), (1, 1));
        for wrong in ["", ".", "1.x", "x", "99999999999999999999", "--1"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_values_of_libarchive() {
        assert_eq!(from_percent(b"user.a%3db%25").unwrap(), b"user.a=b%");
        for wrong in [&b"%"[..], b"a%4", b"%zz"] {
            assert_eq!(from_percent(wrong), None);
        }
        for (text, value) in [
            ("", &b""[..]),
            ("AAEC/w", b"\0\x01\x02\xff"),
            ("AAEC/w==", b"\0\x01\x02\xff"),
            ("MQ", b"1"),
            ("YQpiPWM", b"a\nb=c"),
            ("YWJj", b"abc"),
        ] {
            assert_eq!(from_base64(text.as_bytes()).as_deref(), Some(value));
        }
        for wrong in ["A", "AB-C", "AAAAA", "A=A="] {
            assert_eq!(from_base64(wrong.as_bytes()), None, "{wrong}");
        }
    }

    /// Before or behind the text, where its names are not to be understood.
    #[test]
    fn a_list_as_an_attribute_counts() {
        let text = b"34 SCHILY.acl.access=user:joe:r--\n".as_slice();
        let attribute = b"42 SCHILY.xattr.system.posix_acl_access=x\n".as_slice();
        for records in [[text, attribute], [attribute, text]] {
            let mut pax = Pax::default();
            parse(&records.concat(), &mut pax).unwrap();
            assert_eq!(pax.xattrs, [(acl::ACCESS.to_vec(), b"x".to_vec())][..]);
        }
        let Err(super::super::Fault::Malformed(what)) = parse(text, &mut Pax::default()) else {
            panic!("a name is no number");
        };
        assert!(
            what.contains("'joe'") && what.contains("without --acls"),
            "{what}"
        );
    }

    #[test]
    fn a_record_may_hold_anything() {
        let mut pax = Pax::default();
        let records = b"30 SCHILY.xattr.user.a=\n\0=\n x\n11 uid=123\n";
        parse(records, &mut pax).unwrap();
        assert_eq!(
            pax.xattrs,
            [(b"user.a".to_vec(), b"\n\0=\n x".to_vec())][..]
        );
        assert_eq!(pax.uid, Some(123));
        for end in 1..records.len() {
            let _ = parse(&records[..end], &mut Pax::default());
        }
        for wrong in [
            &b"4 a=\n"[..],
            b"999 a=b\n",
            b"6 a=bc",
            b"0 \n",
            b"x",
            b"7 ab c\n",
        ] {
            let result = parse(wrong, &mut Pax::default());
            assert!(result.is_err(), "{}", wrong.escape_ascii());
        }
    }
}
