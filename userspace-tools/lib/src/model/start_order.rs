// SPDX-License-Identifier: MIT OR Apache-2.0

//! Start-up orders: the ranges of files that a program reads when it starts, in the order of the first
//! read.
//!
//! An order is a text of lines. `Documentation/image-format.md` describes it.
//!
//! It comes with an image or from a person, so its size and its paths are checked before anything uses it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fmt::Write as _;

/// The largest text of an order, in bytes.
pub(crate) const ORDER_MAX: u64 = 4 << 20;
/// The largest number of ranges of an order.
const RANGES_MAX: usize = 1 << 16;
/// The longest path in bytes, as for a system call.
const PATH_MAX: usize = 4095;
/// The longest name in bytes.
const NAME_MAX: usize = 255;
/// The length of the range of a whole file, of any size.
const WHOLE: u64 = u64::MAX;

/// A start-up order.
///
/// # Invariants
///
/// It has at most 65,536 ranges, and its text has at most 4 MiB. Each path begins with `/`, has at most 4,095
/// bytes, and its names are not empty, `.` or `..`, and have no NUL and at most 255 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartOrder {
    ranges: Vec<FileRange>,
}

/// A range of a file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    path: Vec<u8>,
    /// The first byte.
    pub offset: u64,
    /// The number of bytes. 0 stands for the inode alone. The range can be longer than the file.
    pub length: u64,
}

impl FileRange {
    /// A range of the file with an absolute path.
    pub fn new(path: Vec<u8>, offset: u64, length: u64) -> Result<Self, OrderFault> {
        check_path(&path)?;
        if i64::try_from(offset).is_err() {
            return Err(OrderFault::Number);
        }
        Ok(FileRange {
            path,
            offset,
            length,
        })
    }

    /// The range of a whole file.
    fn whole(path: Vec<u8>) -> Result<Self, OrderFault> {
        Self::new(path, 0, WHOLE)
    }

    /// The absolute path.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The names of the path; none for the root.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let names = self.path.split(|&byte| byte == b'/');
        names.filter(|name| !name.is_empty())
    }

    /// The first byte behind the range.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Reads a line that is neither empty nor a comment.
    fn parse(line: &[u8]) -> Result<Self, OrderFault> {
        if line.starts_with(b"/") {
            return Self::whole(unescape(line)?);
        }
        let mut fields = line.splitn(3, |&byte| byte == b' ');
        let mut number = || {
            let text = fields
                .next()
                .and_then(|text| std::str::from_utf8(text).ok());
            let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let number = digits.and_then(|digits| digits.parse().ok());
            number.ok_or(OrderFault::Line)
        };
        let (offset, length) = (number()?, number()?);
        let path = fields.next().ok_or(OrderFault::Line)?;
        Self::new(unescape(path)?, offset, length)
    }

    fn write(&self, text: &mut String) {
        if self.offset > 0 || self.length != WHOLE {
            // Writing to a string cannot fail.
            let _ = write!(text, "{} {} ", self.offset, self.length);
        }
        escape(&self.path, text);
        text.push('\n');
    }
}

impl StartOrder {
    /// Reads the text of an order. Empty lines and lines that begin with `#` are left out.
    ///
    /// # Errors
    ///
    /// The first fault, and the number of its line; 0 if the text is too large.
    pub fn parse(text: &[u8]) -> Result<Self, (usize, OrderFault)> {
        if text.len() as u64 > ORDER_MAX {
            return Err((0, OrderFault::TooLarge));
        }
        let mut ranges = Vec::new();
        for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if ranges.len() == RANGES_MAX {
                return Err((number, OrderFault::TooMany));
            }
            ranges.push(FileRange::parse(line).map_err(|fault| (number, fault))?);
        }
        Ok(Self::of(ranges))
    }

    /// An order of these ranges. Bytes of an earlier range are left out, and so are inodes alone that other
    /// ranges lead to or through. Ranges beyond the limits of an order are left out, too.
    ///
    /// The time does not depend on the sizes of files.
    pub fn of(ranges: Vec<FileRange>) -> Self {
        let is_implied = implied(&ranges);
        let mut order = StartOrder::default();
        let mut seen: HashMap<Vec<u8>, BTreeMap<u64, u64>> = HashMap::new();
        for (range, is_implied) in ranges.into_iter().zip(is_implied) {
            if is_implied {
                continue;
            }
            let is_new = !seen.contains_key(&range.path);
            let known = seen.entry(range.path.clone()).or_default();
            if range.length > 0 {
                for (start, end) in cover(known, range.offset, range.end()) {
                    order.push_piece(&range.path, start, end);
                }
            } else if is_new {
                order.ranges.push(range);
            }
        }
        order.truncate();
        order
    }

    /// Adds a piece of a file. It continues the last range if it follows that.
    fn push_piece(&mut self, path: &[u8], start: u64, end: u64) {
        match self.ranges.last_mut() {
            Some(last) if last.length > 0 && last.path == path && last.end() == start => {
                last.length = end - last.offset;
            }
            _ => self.ranges.push(FileRange {
                path: path.to_vec(),
                offset: start,
                length: end - start,
            }),
        }
    }

    /// Removes the last ranges if there are too many.
    fn truncate(&mut self) {
        self.ranges.truncate(RANGES_MAX);
        let (mut text, mut bytes) = (String::new(), 0);
        let kept = self.ranges.iter().take_while(|range| {
            text.clear();
            range.write(&mut text);
            bytes += text.len() as u64;
            bytes <= ORDER_MAX
        });
        let kept = kept.count();
        self.ranges.truncate(kept);
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[FileRange] {
        &self.ranges
    }

    /// Returns the text of the order, without comments.
    pub fn to_text(&self) -> Vec<u8> {
        let mut text = String::new();
        for range in &self.ranges {
            range.write(&mut text);
        }
        text.into_bytes()
    }
}

/// Returns for each range whether it is an inode alone that other ranges lead to or through.
fn implied(ranges: &[FileRange]) -> Vec<bool> {
    let mut paths: Vec<&[u8]> = ranges.iter().map(|range| &range.path[..]).collect();
    paths.sort_unstable();
    let with_bytes = ranges.iter().filter(|range| range.length > 0);
    let with_bytes: HashSet<&[u8]> = with_bytes.map(|range| &range.path[..]).collect();
    let leads_on = |path: &[u8]| {
        let beneath = if path == b"/" {
            path.to_vec()
        } else {
            [path, b"/"].concat()
        };
        let from = paths.partition_point(|other| **other <= beneath[..]);
        paths
            .get(from)
            .is_some_and(|other| other.starts_with(&beneath))
    };
    let is_implied = ranges.iter().map(|FileRange { path, length, .. }| {
        *length == 0 && (with_bytes.contains(&path[..]) || leads_on(path))
    });
    is_implied.collect()
}

/// Adds a range to disjoint ranges, each with its end under its start. Returns the parts that were missing.
fn cover(known: &mut BTreeMap<u64, u64>, start: u64, end: u64) -> Vec<(u64, u64)> {
    let (mut first, mut last, mut at) = (start, end, start);
    if let Some((&before, &before_end)) = known.range(..start).next_back() {
        if before_end >= start {
            (first, last, at) = (before, end.max(before_end), before_end);
        }
    }
    let mut pieces = Vec::new();
    while let Some((&next, &next_end)) = known.range(start..=end).next() {
        if next > at {
            pieces.push((at, next));
        }
        at = at.max(next_end);
        last = last.max(next_end);
        known.remove(&next);
    }
    if at < end {
        pieces.push((at, end));
    }
    known.insert(first, last);
    pieces
}

fn check_path(path: &[u8]) -> Result<(), OrderFault> {
    let Some(names) = path.strip_prefix(b"/") else {
        return Err(OrderFault::Relative);
    };
    if path.len() > PATH_MAX {
        return Err(OrderFault::LongPath);
    }
    if names.is_empty() {
        return Ok(());
    }
    for name in names.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." | b".." => return Err(OrderFault::Name),
            _ if name.contains(&0) => return Err(OrderFault::Name),
            _ if name.len() > NAME_MAX => return Err(OrderFault::LongPath),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a path as text: `\\` for a backslash, `\xHH` for bytes that are not UTF-8 or of a control
/// character.
fn escape(path: &[u8], text: &mut String) {
    let hex = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    };
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                _ if character.is_control() => {
                    hex(text, character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => text.push(character),
            }
        }
        hex(text, chunk.invalid());
    }
}

/// Reads a path that [`escape`] has written. Other bytes stand for themselves.
fn unescape(text: &[u8]) -> Result<Vec<u8>, OrderFault> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                rest = tail;
                b'\\'
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                rest = tail;
                let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(OrderFault::Escape);
                (digit(*high)? * 16 + digit(*low)?) as u8
            }
            (b'\\', _) => return Err(OrderFault::Escape),
            (byte, _) => *byte,
        };
        path.push(byte);
    }
    Ok(path)
}

/// A fault of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderFault {
    /// The text is too large.
    TooLarge,
    /// There are too many ranges.
    TooMany,
    /// The line is neither a path nor offset, length and path.
    Line,
    /// A number is too large.
    Number,
    /// The path does not begin with `/`.
    Relative,
    /// The path or a name in it is too long.
    LongPath,
    /// A name is empty, `.` or `..`, or has a NUL.
    Name,
    /// A backslash is followed by something else than `\` or `xHH`.
    Escape,
}

impl fmt::Display for OrderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderFault::TooLarge => write!(f, "it has more than {} MiB", ORDER_MAX >> 20),
            OrderFault::TooMany => write!(f, "there are more than {RANGES_MAX} ranges"),
            OrderFault::Line => f.write_str("neither a path nor 'OFFSET LENGTH PATH'"),
            OrderFault::Number => f.write_str("the offset is too large for a file"),
            OrderFault::Relative => f.write_str("the path does not begin with '/'"),
            OrderFault::LongPath => {
                write!(
                    f,
                    "a path has at most {PATH_MAX} bytes, and a name {NAME_MAX}"
                )
            }
            OrderFault::Name => f.write_str("a name is empty, '.' or '..', or has a NUL"),
            OrderFault::Escape => f.write_str("a backslash without '\\' or 'xHH' behind it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn range(path: &str, offset: u64, length: u64) -> FileRange {
        FileRange::new(path.into(), offset, length).unwrap()
    }

    #[test]
    fn a_text_is_read() {
        let text =
            b"# by hand\n\n0 4096 /usr/bin/a b\n8192 100 /x\\x0a\\\\\\xff\n/whole\n5 0 /link\n";
        let order = StartOrder::parse(text).unwrap();
        let wanted = [
            range("/usr/bin/a b", 0, 4096),
            FileRange::new(b"/x\n\\\xff".to_vec(), 8192, 100).unwrap(),
            range("/whole", 0, u64::MAX),
            range("/link", 5, 0),
        ];
        assert_eq!(order.ranges(), wanted);
        assert_eq!(order.ranges()[0].names().count(), 3);
        assert_eq!(range("/", 0, 0).names().count(), 0);
        let comments = text.strip_prefix(b"# by hand\n\n").unwrap();
        assert_eq!(order.to_text(), comments);
    }

    #[test]
    fn hostile_texts_are_refused() {
        let fault = |text: &[u8]| StartOrder::parse(text).unwrap_err();
        for (text, wanted) in [
            (&b"usr/bin"[..], OrderFault::Line),
            (b"1 2", OrderFault::Line),
            (b"1 2 ", OrderFault::Relative),
            (b"1 2 usr", OrderFault::Relative),
            (b"-1 2 /usr", OrderFault::Line),
            (b"+1 2 /usr", OrderFault::Line),
            (b"1  2 /usr", OrderFault::Line),
            (b"18446744073709551616 1 /usr", OrderFault::Line),
            (b"9223372036854775808 1 /usr", OrderFault::Number),
            (b"/usr/../etc/shadow", OrderFault::Name),
            (b"0 1 /..", OrderFault::Name),
            (b"/./usr", OrderFault::Name),
            (b"//usr", OrderFault::Name),
            (b"/usr/", OrderFault::Name),
            (b"/usr\0", OrderFault::Name),
            (b"/usr\\x00", OrderFault::Name),
            (b"/usr\\x2f..", OrderFault::Name),
            (b"/usr\\n", OrderFault::Escape),
            (b"/usr\\x1", OrderFault::Escape),
            (b"/usr\\x+1", OrderFault::Escape),
            (b"/usr\\", OrderFault::Escape),
        ] {
            let text = [b"/first\n", text].concat();
            assert_eq!(fault(&text), (2, wanted), "{}", text.escape_ascii());
        }
        let long = format!("/{}", "n".repeat(NAME_MAX + 1));
        assert_eq!(fault(long.as_bytes()), (1, OrderFault::LongPath));
        let long = "/n".repeat(PATH_MAX / 2 + 1);
        assert_eq!(fault(long.as_bytes()), (1, OrderFault::LongPath));
        assert!(StartOrder::parse(b"").is_ok_and(|order| order.ranges().is_empty()));
        let many = "/n\n".repeat(RANGES_MAX + 1);
        assert_eq!(
            fault(many.as_bytes()),
            (RANGES_MAX + 1, OrderFault::TooMany)
        );
        assert!(StartOrder::parse(&many.as_bytes()[3..]).is_ok());
        let large = vec![b'\n'; ORDER_MAX as usize + 1];
        assert_eq!(fault(&large), (0, OrderFault::TooLarge));
    }

    #[test]
    fn reads_become_ranges() {
        let order = StartOrder::of(vec![
            range("/bin", 0, 0),
            range("/bin/a", 0, 0),
            range("/bin/a", 4096, 4096),
            range("/bin/a", 8192, 4096),
            range("/lib/b", 0, 100),
            range("/bin/a", 0, 16384),
            range("/bin/a", 4096, 100),
            range("/link", 0, 0),
            range("/link", 0, 0),
            range("/", 0, 0),
        ]);
        let wanted = [
            range("/bin/a", 4096, 8192),
            range("/lib/b", 0, 100),
            range("/bin/a", 0, 4096),
            range("/bin/a", 12288, 4096),
            range("/link", 0, 0),
        ];
        assert_eq!(order.ranges(), wanted);
    }

    #[test]
    fn too_many_ranges_are_left_out() {
        let ranges = (0..RANGES_MAX as u64 + 10).map(|number| range("/f", number * 2, 1));
        let order = StartOrder::of(ranges.collect());
        assert_eq!(order.ranges().len(), RANGES_MAX);
        let long = "/n".repeat(PATH_MAX / 2);
        let ranges = (0..2000).map(|number| range(&long, number * 2, 1));
        let order = StartOrder::of(ranges.collect());
        assert!(order.ranges().len() > 1000);
        assert_eq!(StartOrder::parse(&order.to_text()), Ok(order));
    }

    proptest! {
        #[test]
        fn texts_come_back(
            ranges in vec((vec(vec(1u8.., 1..6), 1..4), any::<u64>(), any::<u64>()), 0..9),
        ) {
            let ranges = ranges.into_iter().filter_map(|(names, offset, length)| {
                let path = names.iter().flat_map(|name| [b"/", &name[..]].concat()).collect();
                FileRange::new(path, offset, length).ok()
            });
            let order = StartOrder::of(ranges.collect());
            prop_assert_eq!(StartOrder::parse(&order.to_text()), Ok(order));
        }

        #[test]
        fn any_text_is_read_or_refused(text in vec(any::<u8>(), 0..200)) {
            if let Ok(order) = StartOrder::parse(&text) {
                prop_assert_eq!(StartOrder::parse(&order.to_text()), Ok(order));
            }
        }

        /// Each byte is in the order once, at its first read.
        #[test]
        fn each_byte_comes_once(reads in vec((0u64..60, 1u64..20), 0..30)) {
            let order = StartOrder::of(
                reads.iter().map(|&(at, length)| range("/f", at, length)).collect(),
            );
            let bytes = |ranges: &[FileRange]| -> Vec<u64> {
                ranges.iter().flat_map(|range| range.offset..range.end()).collect()
            };
            let mut wanted: Vec<u64> = Vec::new();
            for (at, length) in reads {
                wanted.extend((at..at + length).filter(|byte| !wanted.contains(byte)).collect::<Vec<_>>());
            }
            prop_assert_eq!(bytes(order.ranges()), wanted);
        }
    }
}
