// SPDX-License-Identifier: MIT OR Apache-2.0

//! The records of a PAX extended header: everything of a member that the fields of a ustar header
//! have no room for.

/// The records of one member, in the order in which they were added.
#[derive(Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    /// A path is not UTF-8.
    binary: bool,
}

impl Records {
    /// Adds a record: its length in decimal digits, a space, `KEY=VALUE`, and the end of the line.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        append(&mut self.bytes, key, value);
    }

    /// Puts a path into the field of a header, and adds a record if the field cannot hold it. A path
    /// that fits and is not UTF-8 has no record, because records are UTF-8 by default.
    pub fn text(&mut self, key: &[u8], text: &[u8], field: &mut [u8; 100]) {
        copy(text, field);
        let is_utf8 = std::str::from_utf8(text).is_ok();
        if text.len() > field.len() || (is_utf8 && !text.is_ascii()) {
            self.binary |= !is_utf8;
            self.add(key, text);
        }
    }

    /// Returns a number for the field of a header, and adds a record if it is larger than the field
    /// can hold.
    pub fn number(&mut self, key: &[u8], number: u64, max: u64) -> u64 {
        if number <= max {
            return number;
        }
        self.add(key, number.to_string().as_bytes());
        0
    }

    /// Returns the seconds of a time for the field of a header, and adds a record if the field cannot
    /// hold the time.
    pub fn time(&mut self, seconds: i64, nanoseconds: u32) -> u64 {
        const MAX: u64 = 0o77_777_777_777;
        let whole = u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds <= MAX);
        match whole {
            Some(whole) if nanoseconds == 0 => whole,
            _ => {
                self.add(b"mtime", decimal(seconds, nanoseconds).as_bytes());
                whole.unwrap_or(0)
            }
        }
    }

    /// The contents of the extended header, if there is anything.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        if self.bytes.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        if self.binary {
            append(&mut bytes, b"hdrcharset", b"BINARY");
        }
        bytes.extend(self.bytes);
        Some(bytes)
    }
}

fn append(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The space, the equals sign and the end of the line.
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    bytes.extend_from_slice(format!("{length} ").as_bytes());
    bytes.extend_from_slice(key);
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// The number of decimal digits of a number.
fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Puts text into a field, as much as fits. The rest of the field stays zero.
pub(super) fn copy(text: &[u8], field: &mut [u8; 100]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// A time as a decimal number of seconds. The nanoseconds of the time count forward, also before the
/// epoch.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    const SECOND: i128 = 1_000_000_000;
    let total = i128::from(seconds) * SECOND + i128::from(nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    let second = SECOND.unsigned_abs();
    let (whole, fraction) = (total / second, total % second);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for length in 0..2000 {
            let mut records = Records::default();
            records.add(b"key", &vec![b'v'; length]);
            let bytes = records.into_bytes().unwrap();
            let text = String::from_utf8(bytes.clone()).unwrap();
            let (counted, rest) = text.split_once(' ').unwrap();
            assert_eq!(counted.parse(), Ok(bytes.len()));
            assert_eq!(rest.strip_prefix("key=").unwrap().len(), length + 1);
        }
    }

    #[test]
    fn fields_that_suffice_have_no_record() {
        let mut records = Records::default();
        let mut field = [0; 100];
        records.text(b"path", &[b'x'; 100], &mut field);
        records.text(b"path", b"\xff", &mut field);
        assert_eq!(records.number(b"size", 7, 7), 7);
        assert_eq!(records.time(5, 0), 5);
        assert_eq!(records.into_bytes(), None);
        let mut records = Records::default();
        assert_eq!(records.number(b"size", 8, 7), 0);
        records.text(b"path", "ä".as_bytes(), &mut field);
        assert_eq!(
            records.into_bytes().unwrap(),
            "9 size=8\n11 path=ä\n".as_bytes()
        );
        let mut records = Records::default();
        records.text(b"path", &[0xff; 101], &mut field);
        let bytes = records.into_bytes().unwrap();
        assert!(bytes.starts_with(b"21 hdrcharset=BINARY\n111 path=\xff"));
    }

    #[test]
    fn times() {
        for (seconds, nanoseconds, wanted) in [
            (0, 1, "0.000000001"),
            (5, 500_000_000, "5.5"),
            (-1, 0, "-1"),
            (-1, 999_999_999, "-0.000000001"),
            (-2, 500_000_000, "-1.5"),
            (i64::MIN, 0, "-9223372036854775808"),
            (i64::MAX, 999_999_999, "9223372036854775807.999999999"),
        ] {
            assert_eq!(decimal(seconds, nanoseconds), wanted);
        }
        let mut records = Records::default();
        assert_eq!(records.time(-1, 0), 0);
        assert_eq!(records.time(0o77_777_777_777, 0), 0o77_777_777_777);
        assert_eq!(records.time(0o100_000_000_000, 0), 0);
    }
}
