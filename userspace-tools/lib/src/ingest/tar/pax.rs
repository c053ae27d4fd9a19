// SPDX-License-Identifier: MIT OR Apache-2.0

//! The records of PAX headers.

use super::fault::{Fault, Result};
use crate::error::TarFault;
use crate::model::acl;
use crate::model::tree::{Time, Xattr};
use crate::sys::xattrs;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use base64::{alphabet, Engine};
use puzzlefs_schema::{MAX_XATTR_NAME_LEN, MAX_XATTR_VALUE_LEN};
use std::mem;

/// The longest path, and the longest target of a link before it is checked.
pub(super) const PATH_MAX: u64 = 64 << 10;
/// The number of bytes of a malformed time that its error has.
const TIME_SHOWN: usize = 40;

/// The value of a record: `None` if there is no record, `Some(None)` if a record without a value
/// takes back the value of a global header.
type Value<T> = Option<Option<T>>;

/// The records of one or several PAX headers, and GNU's long names.
#[derive(Clone, Default)]
pub(super) struct Pax {
    pub path: Value<Vec<u8>>,
    pub link: Value<Vec<u8>>,
    pub size: Value<u64>,
    pub uid: Value<u64>,
    pub gid: Value<u64>,
    pub mtime: Value<Time>,
    pub xattrs: Vec<Xattr>,
    /// Access control lists as text, of the header that is being read.
    lists: Vec<(&'static [u8], Vec<u8>)>,
    pub sparse: Sparse,
}

/// PAX's sparse files, in the three versions that GNU tar knows.
#[derive(Clone, Default)]
pub(super) struct Sparse {
    pub major: Value<u64>,
    pub minor: Value<u64>,
    pub name: Value<Vec<u8>>,
    pub size: Value<u64>,
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
            return Err(TarFault::PaxHeader.into());
        };
        records = &records[length..];
        pax.take(key, value)?;
    }
    pax.take_lists()
}

impl Pax {
    /// Returns the records of a member: its own, then those of the global headers before it.
    pub fn over(self, global: &Pax) -> Pax {
        let global = global.clone();
        let mut xattrs = self.xattrs;
        for (name, value) in global.xattrs {
            if !xattrs.iter().any(|(known, _)| *known == name) {
                xattrs.push((name, value));
            }
        }
        Pax {
            path: self.path.or(global.path),
            link: self.link.or(global.link),
            size: self.size.or(global.size),
            uid: self.uid.or(global.uid),
            gid: self.gid.or(global.gid),
            mtime: self.mtime.or(global.mtime),
            xattrs,
            lists: Vec::new(),
            sparse: Sparse {
                major: self.sparse.major.or(global.sparse.major),
                minor: self.sparse.minor.or(global.sparse.minor),
                name: self.sparse.name.or(global.sparse.name),
                size: self.sparse.size.or(global.sparse.size),
                map: self.sparse.map.or(global.sparse.map),
            },
        }
    }

    /// About the memory that the records take, in bytes.
    pub fn memory(&self) -> u64 {
        let name = |name: &Value<Vec<u8>>| name.iter().flatten().map(Vec::len).sum::<usize>();
        let xattrs = self.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| size_of::<Xattr>() + name.len() + value.len());
        let map = self.sparse.map.as_ref().map_or(0, Vec::len) * size_of::<u64>();
        let names = name(&self.path) + name(&self.link) + name(&self.sparse.name);
        (names + xattrs.sum::<usize>() + map) as u64
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || match value {
            [] => Ok(None),
            value => decimal(value).map(Some),
        };
        let name = || match value {
            value if value.len() as u64 > PATH_MAX => Err(TarFault::NameTooLong),
            [] => Ok(None),
            value => Ok(Some(value.to_vec())),
        };
        match key {
            b"path" => self.path = Some(name()?),
            b"linkpath" => self.link = Some(name()?),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" if value.is_empty() => self.mtime = Some(None),
            b"mtime" => self.mtime = Some(Some(time(value)?)),
            b"GNU.sparse.major" => self.sparse.major = Some(number()?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(number()?),
            b"GNU.sparse.name" => self.sparse.name = Some(name()?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(number()?),
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
            // GNU tar writes the value without its terminating zero byte.
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
            return Err(TarFault::Xattr.into());
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
            let value = acl::from_text(&text).map_err(TarFault::from)?;
            self.take_xattr(name, &value)?;
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        if !xattrs::belongs(name) {
            return Ok(());
        }
        if name.len() > MAX_XATTR_NAME_LEN || name.contains(&0) || value.len() > MAX_XATTR_VALUE_LEN
        {
            return Err(TarFault::XattrTooLarge.into());
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// Decodes bytes of which some are written as `%41`.
fn from_percent(text: &[u8]) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = percent_encoding::percent_decode(text).collect();
    // The decoder keeps a malformed sequence. A well-formed one is shortened by two bytes.
    let sequences = text.iter().filter(|&&byte| byte == b'%').count();
    (bytes.len() + 2 * sequences == text.len()).then_some(bytes)
}

/// Decodes base64, with or without the padding at its end.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    // The bits of padding may have any value.
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        NO_PAD.with_decode_allow_trailing_bits(true),
    );
    let text = text.trim_ascii_end();
    let digits = text.iter().rposition(|&byte| byte != b'=');
    let digits = &text[..digits.map_or(0, |last| last + 1)];
    ENGINE.decode(digits).ok()
}

/// Reads a number in decimal digits.
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
        None => Err(TarFault::PaxNumber.into()),
    }
}

/// Reads seconds since the epoch: `-1.25`. POSIX has decimals only; Python's tarfile also writes
/// exponents, `1e-05`. Digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Result<Time> {
    let wrong = || Fault::from(TarFault::Time(text[..text.len().min(TIME_SHOWN)].to_vec()));
    let (negative, number) = match text.strip_prefix(b"-") {
        Some(number) => (true, number),
        None => (false, text),
    };
    let at = |wanted: &[u8]| number.iter().position(|byte| wanted.contains(byte));
    let mantissa_end = at(b"eE").unwrap_or(number.len());
    let exponent = match number.get(mantissa_end + 1..) {
        Some(exponent) => exponent_of(exponent).ok_or_else(wrong)?,
        None => 0,
    };
    let mantissa = &number[..mantissa_end];
    let point = at(b".").unwrap_or(mantissa_end).min(mantissa_end);
    let (whole, fraction) = (&mantissa[..point], mantissa.get(point + 1..));
    let digits: Vec<u8> = [whole, fraction.unwrap_or_default()].concat();
    if whole.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    // The digit of the power of ten `-place` of a number that has its point after `places` digits.
    let places = whole.len() as i64 + exponent;
    let digit = |place: i64| {
        let digit = usize::try_from(place).ok().and_then(|at| digits.get(at));
        digit.map_or(0, |digit| digit - b'0')
    };
    let far = || Fault::from(TarFault::TimeRange);
    let mut seconds = 0i64;
    for place in 0..places {
        let next = seconds.checked_mul(10);
        let next = next.and_then(|seconds| seconds.checked_add(digit(place).into()));
        seconds = next.ok_or_else(far)?;
    }
    let mut nanoseconds = (places..places + 9).fold(0, |nanoseconds: u32, place| {
        nanoseconds * 10 + u32::from(digit(place))
    });
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

/// Reads a decimal exponent: `-05`, `+16`.
fn exponent_of(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    // No float has a larger one.
    let exponent = decimal(digits).ok().filter(|exponent| *exponent < 1000)?;
    Some(sign * exponent as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::AclFault;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn times() {
        let time = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("12").unwrap(), (12, 0));
        assert_eq!(time("12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time("-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time("1.0000000019").unwrap(), (1, 1));
        for wrong in [
            "",
            ".",
            "1.x",
            "x",
            "99999999999999999999",
            "--1",
            "+5",
            " 5",
            "5 ",
            "1.0000000000x",
            ".5",
        ] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    /// As Python writes a float.
    #[test]
    fn times_with_exponents() {
        let time = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("1e3").unwrap(), (1000, 0));
        assert_eq!(time("1.5E+3").unwrap(), (1500, 0));
        assert_eq!(time("1e-05").unwrap(), (0, 10_000));
        assert_eq!(time("-1e-05").unwrap(), (-1, 999_990_000));
        assert_eq!(time("123.25e-1").unwrap(), (12, 325_000_000));
        assert_eq!(time("1e+16").unwrap(), (10_000_000_000_000_000, 0));
        assert_eq!(time("1e-300").unwrap(), (0, 0));
        assert_eq!(time("0e999").unwrap(), (0, 0));
        for wrong in [
            "1e", "1e+", "e3", "1e3.5", "1e1000", "1e30", "1e--1", "nan", "inf",
        ] {
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
        let Err(Fault::Malformed(malformed)) = parse(text, &mut Pax::default()) else {
            panic!("a name is no number");
        };
        let wanted = TarFault::Acl(AclFault::NoNumber("joe".to_owned()));
        assert_eq!(malformed.fault, wanted);
        let what = malformed.to_string();
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
        assert_eq!(pax.uid, Some(Some(123)));
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

    /// A record, with the length that counts its own digits.
    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length.to_string().len() + rest != length {
            length = length.to_string().len() + rest;
        }
        [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
    }

    fn parsed(records: &[(&str, &str)]) -> Result<Pax> {
        let mut pax = Pax::default();
        let records = records
            .iter()
            .map(|(key, value)| record(key.as_bytes(), value.as_bytes()));
        parse(&records.collect::<Vec<_>>().concat(), &mut pax)?;
        Ok(pax)
    }

    #[test]
    fn records_have_their_fields() {
        let pax = parsed(&[
            ("path", "a"),
            ("path", "b=c\n"),
            ("linkpath", "target"),
            ("size", "18446744073709551615"),
            ("uid", "0"),
            ("gid", ""),
            ("mtime", "1.5"),
            ("comment", "ignored"),
            ("RHT.security.selinux", "label"),
            ("LIBARCHIVE.xattr.user.a%3Db", "YWJj"),
        ])
        .unwrap();
        assert_eq!(
            pax.path,
            Some(Some(b"b=c\n".to_vec())),
            "the last one counts"
        );
        assert_eq!(pax.link, Some(Some(b"target".to_vec())));
        assert_eq!(
            (pax.size, pax.uid, pax.gid),
            (Some(Some(u64::MAX)), Some(Some(0)), Some(None))
        );
        let mtime = pax.mtime.unwrap().unwrap();
        assert_eq!((mtime.seconds, mtime.nanoseconds), (1, 500_000_000));
        let label = (b"security.selinux".to_vec(), b"label\0".to_vec());
        assert_eq!(pax.xattrs, [label, (b"user.a=b".to_vec(), b"abc".to_vec())]);
    }

    #[test]
    fn wrong_values_are_refused() {
        let long = "n".repeat(PATH_MAX as usize + 1);
        let value = "v".repeat(MAX_XATTR_VALUE_LEN + 1);
        for wrong in [
            ("size", "18446744073709551616"),
            ("uid", "-1"),
            ("gid", "0x1"),
            ("mtime", "noon"),
            ("path", &long),
            ("GNU.sparse.map", "1,,2"),
            ("GNU.sparse.offset", ""),
            ("SCHILY.xattr.user.a", &value),
            ("LIBARCHIVE.xattr.user.a", "?"),
            ("LIBARCHIVE.xattr.user.%", "YWJj"),
        ] {
            assert!(parsed(&[wrong]).is_err(), "{}", wrong.0);
        }
        // Attributes of no tree are left out, as large as they may be.
        assert!(parsed(&[("SCHILY.xattr.other.a", &value)])
            .unwrap()
            .xattrs
            .is_empty());
    }

    #[test]
    fn sparse_maps_come_in_two_ways() {
        let map = |records: &[(&str, &str)]| parsed(records).unwrap().sparse.map;
        assert_eq!(
            map(&[("GNU.sparse.map", "0,1,512,3")]),
            Some(vec![0, 1, 512, 3])
        );
        let pairs = [("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "1")];
        assert_eq!(map(&pairs), Some(vec![0, 1]));
        assert_eq!(map(&[("GNU.sparse.numblocks", "0")]), Some(vec![]));
        assert_eq!(map(&[("size", "1")]), None);
    }

    #[test]
    fn a_member_comes_before_global_headers() {
        let global = [
            ("path", "global"),
            ("uid", "1"),
            ("gid", "2"),
            ("SCHILY.xattr.user.a", "global"),
            ("SCHILY.xattr.user.b", "global"),
        ];
        let own = [("path", "own"), ("uid", ""), ("SCHILY.xattr.user.a", "own")];
        let pax = parsed(&own).unwrap().over(&parsed(&global).unwrap());
        assert_eq!(pax.path, Some(Some(b"own".to_vec())));
        assert_eq!(
            (pax.uid, pax.gid),
            (Some(None), Some(Some(2))),
            "an empty value takes back"
        );
        let values: Vec<_> = pax.xattrs.iter().map(|(_, value)| &value[..]).collect();
        assert_eq!(values, [b"own".as_slice(), b"global"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn any_record_is_read_as_it_was_written(
            name in "[a-z][^\0=]{0,40}",
            value in vec(any::<u8>(), 0..200),
            path in vec(any::<u8>(), 1..200),
        ) {
            let key = format!("SCHILY.xattr.user.{name}");
            let records = [record(key.as_bytes(), &value), record(b"path", &path)].concat();
            let mut pax = Pax::default();
            prop_assert!(parse(&records, &mut pax).is_ok());
            prop_assert_eq!(pax.xattrs, [(format!("user.{name}").into_bytes(), value.clone())]);
            prop_assert_eq!(pax.path, Some(Some(path)));
            // A header that is cut short within a record is damaged.
            let first = record(key.as_bytes(), &value).len();
            for end in (1..records.len()).filter(|end| *end != first) {
                prop_assert!(parse(&records[..end], &mut Pax::default()).is_err());
            }
        }

        #[test]
        fn any_bytes_end_in_a_result(bytes in vec(any::<u8>(), 0..300), key in "[ -~]{0,20}") {
            let _ = parse(&bytes, &mut Pax::default());
            let _ = parse(&record(key.as_bytes(), &bytes), &mut Pax::default());
            let _ = time(&bytes);
        }

        #[test]
        fn times_round_trip(seconds in -1_000_000_000i64..1_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            let text = match seconds {
                // As a magnitude, because nanoseconds count forward.
                ..0 if nanoseconds > 0 => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
                _ => format!("{seconds}.{nanoseconds:09}"),
            };
            let time = time(text.as_bytes()).ok().map(|time| (time.seconds, time.nanoseconds));
            prop_assert_eq!(time, Some((seconds, nanoseconds)), "{}", text);
        }
    }
}
