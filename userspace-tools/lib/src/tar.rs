// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads tar archives: ustar, PAX (POSIX.1-2001), GNU, and what came before.
//!
//! An archive may be hostile: sizes and counts are checked before anything is allocated by them,
//! and nothing here writes. Why not the `tar` crate: it ends a PAX record at the first newline,
//! and so loses binary extended attributes, and it does not know PAX's sparse files.

use crate::acl;
use crate::assembly::MEMBER_COST;
use crate::tree::{Time, Xattr};
use crate::xattrs;
use puzzlefs_schema::{MAX_FILE_SIZE, MAX_XATTR_NAME_LEN, MAX_XATTR_VALUE_LEN};
use std::io::{self, Read};

const BLOCK: usize = 512;
type Block = [u8; BLOCK];

/// The most bytes of one PAX header: several attributes of the largest size fit.
const PAX_MAX: u64 = 8 << 20;
/// And of one for all members that follow: it is copied for each.
const GLOBAL_MAX: u64 = 64 << 10;
/// The longest path, and the longest target of a link on its way to being checked.
pub(crate) const PATH_MAX: u64 = 64 << 10;
/// The most pieces of a sparse file.
const PIECES_MAX: u64 = 16 << 20;

/// Why an archive cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading it failed.
    Io(io::Error),
    /// It says something that it must not.
    Malformed(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Malformed("it is truncated".to_owned()),
            _ => Fault::Io(error),
        }
    }
}

type Result<T> = std::result::Result<T, Fault>;

fn malformed<T>(what: impl Into<String>) -> Result<T> {
    Err(Fault::Malformed(what.into()))
}

/// Where an archive comes from.
pub(crate) trait Input: Read + Sized {
    /// Passes over so many bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        match skipped == bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A member of an archive.
#[derive(Debug)]
pub(crate) struct Member {
    /// As it stands there.
    pub path: Vec<u8>,
    pub kind: MemberKind,
    pub permissions: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Those that belong to a tree, in byte order of their names.
    pub xattrs: Vec<Xattr>,
}

impl Member {
    /// About the memory that it takes, in bytes.
    pub fn memory(&self) -> u64 {
        let xattrs = self.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| name.len() + value.len());
        let kind = match &self.kind {
            MemberKind::File(data) => size_of_val(&data.pieces[..]),
            MemberKind::HardLink(target) | MemberKind::Symlink(target) => target.len(),
            _ => 0,
        };
        MEMBER_COST + (self.path.len() + xattrs.sum::<usize>() + kind) as u64
    }
}

#[derive(Debug)]
pub(crate) enum MemberKind {
    File(FileData),
    /// Another name of the member of this path.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Directory,
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// A regular file, perhaps sparse.
#[derive(Debug, Default)]
pub(crate) struct FileData {
    pub size: u64,
    /// What of it is in the archive, ascending; the rest is zeros.
    pub pieces: Vec<Piece>,
}

impl FileData {
    /// Says where the data of the member was put: it begins there.
    pub fn move_to(&mut self, offset: u64) {
        for piece in &mut self.pieces {
            piece.offset += offset;
        }
    }
}

/// A range of a file, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where in the file it begins.
    pub at: u64,
    pub length: u64,
    /// Where it begins in the data of its member; later, in the file that holds the contents.
    pub offset: u64,
}

/// Reads the members of an archive in their order.
pub(crate) struct Reader<I> {
    input: I,
    position: u64,
    /// Of the current member's data, what was not read yet, and what fills its last block.
    data: u64,
    padding: u64,
    /// The records of PAX headers for all members that follow.
    global: Pax,
    members: u64,
}

/// What PAX records and GNU's long names say about the next member.
#[derive(Clone, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Vec<Xattr>,
    sparse: Sparse,
}

/// PAX's sparse files, in the three versions that GNU tar knows.
#[derive(Clone, Default)]
struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    /// Of versions 0.0 and 0.1: offset, length, offset, length and so on.
    map: Option<Vec<u64>>,
}

impl<I: Input> Reader<I> {
    pub fn new(input: I) -> Self {
        Reader {
            input,
            position: 0,
            data: 0,
            padding: 0,
            global: Pax::default(),
            members: 0,
        }
    }

    /// Where in the archive the current member's data is.
    pub fn data_position(&self) -> u64 {
        self.position
    }

    /// The archive, to be read otherwise.
    pub fn into_input(self) -> I {
        self.input
    }

    /// The next member. What is left of the last one's data is passed over.
    ///
    /// None at the end, which has to be marked: an archive without the mark may be truncated.
    pub fn next(&mut self) -> Result<Option<Member>> {
        let mut pax = self.global.clone();
        loop {
            self.skip(self.data + self.padding)?;
            (self.data, self.padding) = (0, 0);
            let block = self.block()?;
            if block == [0; BLOCK] {
                self.finish()?;
                return Ok(None);
            }
            let header = Header(&block);
            if !header.checksum_matches() {
                return match self.members {
                    0 => malformed(
                        "neither a directory nor a tar archive, or damaged at its beginning",
                    ),
                    _ => malformed(format!(
                        "the header before byte {} is damaged",
                        self.position
                    )),
                };
            }
            self.members += 1;
            let size = header.size()?;
            match header.kind() {
                b'x' | b'X' => {
                    let records = self.small_data(size, PAX_MAX, "a PAX header")?;
                    parse_pax(&records, &mut pax)?;
                }
                b'g' => {
                    let records = self.small_data(size, GLOBAL_MAX, "a global PAX header")?;
                    let mut global = self.global.clone();
                    parse_pax(&records, &mut global)?;
                    self.global = global;
                    pax = self.global.clone();
                }
                b'L' => pax.path = Some(self.long_name(size)?),
                b'K' => pax.link = Some(self.long_name(size)?),
                // The name of the volume.
                b'V' => self.expect_data(size)?,
                _ => return self.member(&header, size, pax).map(Some),
            }
        }
    }

    /// Reads some of the current member's data; nothing where it ends.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = self.data.min(buffer.len() as u64) as usize;
        self.fill(&mut buffer[..length])?;
        self.data -= length as u64;
        Ok(length)
    }

    fn member(&mut self, header: &Header<'_>, size: u64, pax: Pax) -> Result<Member> {
        let path = pax.sparse.name.clone().or(pax.path.clone());
        let path = path.unwrap_or_else(|| header.path());
        let link = pax.link.clone().unwrap_or_else(|| header.link());
        let fail = |fault| match fault {
            Fault::Malformed(what) => {
                Fault::Malformed(format!("{}: {what}", String::from_utf8_lossy(&path)))
            }
            fault => fault,
        };
        let size = pax.size.unwrap_or(size);
        let kind = match header.kind() {
            // Before POSIX, a directory was known by the slash.
            0 if path.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' => MemberKind::File(self.file_data(size, &pax).map_err(fail)?),
            b'S' => MemberKind::File(self.gnu_sparse(header, size).map_err(fail)?),
            b'1' => MemberKind::HardLink(link),
            b'2' => MemberKind::Symlink(link),
            b'3' | b'4' => {
                let (major, minor) = header.device().map_err(fail)?;
                match header.kind() {
                    b'3' => MemberKind::CharDevice(major, minor),
                    _ => MemberKind::BlockDevice(major, minor),
                }
            }
            b'5' => MemberKind::Directory,
            // A directory, and GNU's list of what was in it.
            b'D' => {
                self.expect_data(size).map_err(fail)?;
                MemberKind::Directory
            }
            b'6' => MemberKind::Fifo,
            b'M' => {
                return malformed(format!(
                    "{}: begins in another volume; join the volumes first",
                    String::from_utf8_lossy(&path)
                ))
            }
            kind => {
                return malformed(format!(
                    "{}: of a type that is not known, '{}'",
                    String::from_utf8_lossy(&path),
                    kind.escape_ascii()
                ))
            }
        };
        let mut member = Member {
            kind,
            permissions: (header.number(100..108).map_err(fail)? & 0o7777) as u16,
            uid: id(pax.uid, header.number(108..116)).map_err(fail)?,
            gid: id(pax.gid, header.number(116..124)).map_err(fail)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Time {
                    seconds: header.signed(136..148).map_err(fail)?,
                    nanoseconds: 0,
                },
            },
            xattrs: pax.xattrs,
            path,
        };
        member.xattrs.sort();
        Ok(member)
    }

    /// The data of a regular file, by the PAX records before it.
    fn file_data(&mut self, size: u64, pax: &Pax) -> Result<FileData> {
        self.expect_data(size)?;
        let sparse = &pax.sparse;
        let numbers = match (sparse.major, sparse.minor, &sparse.map) {
            (Some(1), Some(0), _) => self.sparse_map()?,
            (None | Some(0), None | Some(0 | 1), Some(map)) => map.clone(),
            (None, None, None) => {
                let pieces = match size {
                    0 => Vec::new(),
                    length => vec![Piece {
                        at: 0,
                        length,
                        offset: 0,
                    }],
                };
                return Ok(FileData { size, pieces });
            }
            _ => return malformed("sparse, of a version that is not known"),
        };
        let Some(real_size) = sparse.size else {
            return malformed("sparse, without its size");
        };
        sparse_file(real_size, &numbers, self.data)
    }

    /// The map at the beginning of a sparse file's data, version 1.0: numbers, each in a line of
    /// its own, the first one being how many pieces there are; then padding.
    fn sparse_map(&mut self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut digits = Vec::new();
        let mut block = [0; BLOCK];
        loop {
            if self.read(&mut block)? != BLOCK {
                return malformed("sparse, with an unfinished map");
            }
            for &byte in &block {
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return malformed("sparse, with a malformed map");
                    }
                    continue;
                }
                let number = decimal(&digits)?;
                digits.clear();
                match wanted {
                    None if number > PIECES_MAX => return malformed("sparse, in too many pieces"),
                    None => wanted = Some(2 * number),
                    Some(_) => numbers.push(number),
                }
                if wanted == Some(numbers.len() as u64) {
                    return Ok(numbers);
                }
            }
        }
    }

    /// GNU's own sparse files: the map is in the header and in blocks after it.
    fn gnu_sparse(&mut self, header: &Header<'_>, size: u64) -> Result<FileData> {
        let mut numbers = Vec::new();
        header.sparse_numbers(386..482, &mut numbers)?;
        let mut more = header.0[482] != 0;
        while more {
            let block = self.block()?;
            Header(&block).sparse_numbers(0..504, &mut numbers)?;
            more = block[504] != 0;
            if numbers.len() as u64 / 2 > PIECES_MAX {
                return malformed("sparse, in too many pieces");
            }
        }
        self.expect_data(size)?;
        sparse_file(header.number(483..495)?, &numbers, size)
    }

    /// Notes that so much data follows.
    fn expect_data(&mut self, size: u64) -> Result<()> {
        if size > MAX_FILE_SIZE {
            return malformed("larger than a file can be");
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Reads data of which little is expected.
    fn small_data(&mut self, size: u64, max: u64, what: &str) -> Result<Vec<u8>> {
        if size > max {
            return malformed(format!("{what} of {size} bytes; {max} are allowed"));
        }
        self.expect_data(size)?;
        let mut bytes = vec![0; size as usize];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let bytes = self.small_data(size, PATH_MAX, "a name")?;
        Ok(until_nul(&bytes).to_vec())
    }

    fn block(&mut self) -> Result<Block> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer)?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.input.skip(bytes)?;
        self.position += bytes;
        Ok(())
    }

    /// Reads what is behind the end, so that whoever writes it sees it taken, and a checksum of
    /// the compression there is looked at.
    fn finish(&mut self) -> Result<()> {
        io::copy(&mut self.input, &mut io::sink())?;
        Ok(())
    }
}

/// A user or group id.
fn id(pax: Option<u64>, header: Result<u64>) -> Result<u32> {
    let id = match pax {
        Some(id) => id,
        None => header?,
    };
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => malformed(format!("{id} is no user's or group's number")),
    }
}

/// A sparse file of the pieces that `numbers` give, offsets and lengths in turn, of which `stored`
/// bytes are in the archive.
fn sparse_file(size: u64, numbers: &[u64], stored: u64) -> Result<FileData> {
    let mut pieces = Vec::new();
    let (mut end, mut offset) = (0, 0u64);
    for pair in numbers.chunks(2) {
        let &[at, length] = pair else {
            return malformed("sparse, with half a piece");
        };
        if at < end {
            return malformed("sparse, with pieces that overlap or are out of order");
        }
        end = match at.checked_add(length) {
            Some(end) if end <= size => end,
            _ => return malformed("sparse, with a piece beyond its end"),
        };
        if length > 0 {
            pieces.push(Piece { at, length, offset });
        }
        offset += length;
    }
    if offset != stored {
        return malformed("sparse, with more or less data than its pieces have");
    }
    if size > MAX_FILE_SIZE {
        return malformed("larger than a file can be");
    }
    Ok(FileData { size, pieces })
}

/// Takes the records of a PAX header: `LENGTH KEY=VALUE\n`, the length being the record's.
fn parse_pax(mut records: &[u8], pax: &mut Pax) -> Result<()> {
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
    Ok(())
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
            b"SCHILY.acl.access" => self.take_acl(b"system.posix_acl_access", value)?,
            b"SCHILY.acl.default" => self.take_acl(b"system.posix_acl_default", value)?,
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.take_xattr(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// Takes an access control list in the form of text, unless it came as an attribute too.
    fn take_acl(&mut self, name: &[u8], text: &[u8]) -> Result<()> {
        if self.xattrs.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        match acl::from_text(text) {
            Ok(value) => self.take_xattr(name, &value),
            Err(what) => malformed(what),
        }
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

/// A header block.
struct Header<'a>(&'a Block);

impl Header<'_> {
    /// The sum of the bytes, those of the sum itself taken as spaces; some tars took them as
    /// signed.
    fn checksum_matches(&self) -> bool {
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

    fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The data that follows; members that cannot have any may still give a size.
    fn size(&self) -> Result<u64> {
        match self.kind() {
            b'1'..=b'6' => Ok(0),
            _ => self.number(124..136),
        }
    }

    fn path(&self) -> Vec<u8> {
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

    fn link(&self) -> Vec<u8> {
        until_nul(&self.0[157..257]).to_vec()
    }

    fn device(&self) -> Result<(u32, u32)> {
        let (major, minor) = (self.number(329..337)?, self.number(337..345)?);
        // What a device number of Linux holds.
        if major >= 1 << 12 || minor >= 1 << 20 {
            return malformed(format!("{major}:{minor} is no device's number"));
        }
        Ok((major as u32, minor as u32))
    }

    fn sparse_numbers(&self, range: std::ops::Range<usize>, numbers: &mut Vec<u64>) -> Result<()> {
        for at in range.step_by(24) {
            // The first one that is not filled ends the map.
            if self.0[at..at + 24].iter().all(|&byte| byte == 0) {
                break;
            }
            numbers.push(self.number(at..at + 12)?);
            numbers.push(self.number(at + 12..at + 24)?);
        }
        Ok(())
    }

    fn number(&self, range: std::ops::Range<usize>) -> Result<u64> {
        match u64::try_from(self.signed(range)?) {
            Ok(number) => Ok(number),
            Err(_) => malformed("a header has a negative number"),
        }
    }

    /// A number in octal digits or, where the first bit is set, GNU's binary form.
    fn signed(&self, range: std::ops::Range<usize>) -> Result<i64> {
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
            None => malformed("a header has a malformed number"),
        }
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

fn decimal(text: &[u8]) -> Result<u64> {
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

    impl Input for &[u8] {}

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

    #[test]
    fn a_record_may_hold_anything() {
        let mut pax = Pax::default();
        let records = b"29 SCHILY.xattr.user.a=\n\0=\n x\n11 uid=123\n";
        parse_pax(records, &mut pax).unwrap();
        assert_eq!(
            pax.xattrs,
            [(b"user.a".to_vec(), b"\n\0=\n x".to_vec())][..]
        );
        assert_eq!(pax.uid, Some(123));
        for end in 1..records.len() {
            let _ = parse_pax(&records[..end], &mut Pax::default());
        }
        for wrong in [
            &b"5 a=\n"[..],
            b"999 a=b\n",
            b"6 a=bc",
            b"0 \n",
            b"x",
            b"7 ab c\n",
        ] {
            let result = parse_pax(wrong, &mut Pax::default());
            assert!(result.is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn sparse_maps_are_checked() {
        let pieces = |size, numbers: &[u64], stored| sparse_file(size, numbers, stored).is_ok();
        assert!(pieces(10, &[0, 1, 5, 5], 6));
        assert!(pieces(10, &[5, 1, 10, 0], 1));
        assert!(pieces(10, &[], 0));
        assert!(!pieces(10, &[0, 1, 5, 5], 5));
        assert!(!pieces(10, &[5, 1, 0, 1], 2));
        assert!(!pieces(10, &[0, 2, 1, 1], 3));
        assert!(!pieces(10, &[9, 2], 2));
        assert!(!pieces(10, &[u64::MAX, 2], 2));
        assert!(!pieces(10, &[1], 0));
        assert!(!pieces(u64::MAX, &[], 0));
    }

    #[test]
    fn noise_is_refused() {
        for seed in 0..64u8 {
            let noise: Vec<u8> = (0..4096u32)
                .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
                .collect();
            assert!(Reader::new(&noise[..]).next().is_err());
        }
        assert!(Reader::new(&b""[..]).next().is_err());
    }
}
