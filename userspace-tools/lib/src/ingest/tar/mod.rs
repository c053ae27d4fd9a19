// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads tar archives: ustar, PAX (POSIX.1-2001), GNU, and what came before.
//!
//! An archive may be hostile: sizes and counts are checked before anything is allocated by them,
//! and nothing here writes. Why not the `tar` crate: it ends a PAX record at the first newline,
//! and so loses binary extended attributes, and it does not know PAX's sparse files.

mod header;
mod pax;

use crate::model::acl;
use crate::model::limits::MEMBER_COST;
use crate::model::tree::{Piece, Time, Xattr};
use header::{until_nul, Header};
use pax::{decimal, Pax};
use puzzlefs_schema::MAX_FILE_SIZE;
use std::io::{self, Read};
use std::mem;

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

const TOO_SHORT: &str = "too short for a tar archive: truncated, or none at all";
pub(crate) const NO_END: &str = "it is truncated: its end is not marked";

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
    /// Skips so many bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        match skipped == bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Returns the bytes behind a compressed archive that belong to nothing, once it is read to its
    /// end.
    fn garbage(&self) -> u64 {
        0
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
    /// Makes the mode and the access control list agree, as the kernel does where a list is set:
    /// not every tar writes the mode that `ls` shows, and some write lists that say no more.
    fn settle_acl(&mut self) {
        if matches!(self.kind, MemberKind::Symlink(_)) {
            return;
        }
        let mut xattrs = self.xattrs.iter();
        let at = xattrs.position(|(name, _)| name == acl::ACCESS);
        let mode = at.and_then(|at| Some((at, acl::mode(&self.xattrs[at].1)?)));
        if let Some((at, (bits, more))) = mode {
            self.permissions = self.permissions & 0o7000 | bits;
            if !more {
                self.xattrs.remove(at);
            }
        }
    }

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
    /// The path of the last member.
    name: Vec<u8>,
    /// Whether the end has to be marked.
    marked_end: bool,
    /// Whether members may follow zero blocks.
    ignore_zeros: bool,
    zeros: bool,
    oddities: Oddities,
}

/// What a reader accepts and its caller reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oddities {
    /// The first member of an unknown type, and its type.
    pub unknown: Option<(Vec<u8>, u8)>,
    /// How many members are of unknown types.
    pub unknown_count: u64,
    /// Whether one zero block marks the end, instead of two.
    pub lone_zero: bool,
    /// The bytes behind the end, from the first one on that is not zero.
    pub ignored: u64,
    /// Where these begin.
    pub ignored_at: u64,
    /// Whether they begin with the header of a member.
    pub another: bool,
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
            name: Vec::new(),
            marked_end: true,
            ignore_zeros: false,
            zeros: false,
            oddities: Oddities::default(),
        }
    }

    /// Reads on behind zero blocks, as archives that were concatenated have them: the archive ends
    /// where its file ends.
    pub fn ignoring_zeros(self, ignore_zeros: bool) -> Self {
        Reader {
            ignore_zeros,
            ..self
        }
    }

    /// Reads an archive that may end behind any member, as not all programs mark the end. Whether it
    /// is whole, the caller has to know.
    pub fn of_any_end(input: I) -> Self {
        Reader {
            marked_end: false,
            ..Self::new(input)
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

    /// The next member. What is left of the last one's data is skipped.
    ///
    /// None at the end, which has to be marked: an archive without the mark may be truncated.
    pub fn next(&mut self) -> Result<Option<Member>> {
        let mut pax = Pax::default();
        let mut pax_size = 0;
        let mut damaged = None;
        let members = self.members;
        loop {
            self.skip(self.data).map_err(|fault| self.named(fault))?;
            self.data = 0;
            let padding = mem::take(&mut self.padding);
            match self.skip(padding) {
                // Some programs leave out what fills the last block.
                Err(Fault::Malformed(_)) if self.members == members && self.may_end_here() => {
                    return Ok(None);
                }
                skipped => skipped.map_err(|fault| self.named(fault))?,
            }
            let at = self.position;
            let block = match self.block_or_end()? {
                Some(block) => block,
                None if self.members == members && self.may_end_here() => return Ok(None),
                None if self.members == 0 => return malformed(TOO_SHORT),
                None => return malformed(NO_END),
            };
            if block == [0; BLOCK] {
                if self.ignore_zeros {
                    self.zeros = true;
                    continue;
                }
                self.end()?;
                return Ok(None);
            }
            let header = Header(&block);
            if !header.checksum_matches() {
                return self.damaged_header();
            }
            self.members += 1;
            let path = || match &pax.path {
                Some(Some(path)) => path.clone(),
                _ => header.path(),
            };
            let size = header.size().map_err(|fault| name_fault(&path(), fault))?;
            match header.kind() {
                b'x' | b'X' => {
                    let left = PAX_MAX - pax_size;
                    let records = self.small_data(size, left, "a PAX header")?;
                    pax_size += size;
                    // The member that follows gives the error its name.
                    if let Err(fault) = pax::parse(&records, &mut pax) {
                        damaged.get_or_insert(fault);
                    }
                }
                b'g' => {
                    let what = "a global PAX header";
                    let records = self.small_data(size, GLOBAL_MAX, what)?;
                    self.take_global(&records).map_err(|fault| match fault {
                        Fault::Malformed(why) => {
                            Fault::Malformed(format!("{what}, at byte {at}: {why}"))
                        }
                        fault => fault,
                    })?;
                }
                b'L' => pax.path = Some(Some(self.long_name(size)?)),
                b'K' => pax.link = Some(Some(self.long_name(size)?)),
                // The name of the volume.
                b'V' => self.expect_data(size)?,
                _ => {
                    if let Some(fault) = damaged {
                        return Err(name_fault(&path(), fault));
                    }
                    let pax = pax.over(&self.global);
                    return self.member(&header, size, pax).map(Some);
                }
            }
        }
    }

    /// Returns true if the archive may end where its file ends.
    fn may_end_here(&self) -> bool {
        let ignore_zeros = self.ignore_zeros && (self.zeros || self.members > 0);
        ignore_zeros || !self.marked_end
    }

    /// Takes the records of a PAX header for all members that follow.
    fn take_global(&mut self, records: &[u8]) -> Result<()> {
        let mut global = Pax::default();
        pax::parse(records, &mut global)?;
        let global = global.over(&self.global);
        if global.memory() > 4 * GLOBAL_MAX {
            return malformed("too many records for all members");
        }
        self.global = global;
        Ok(())
    }

    fn damaged_header<T>(&self) -> Result<T> {
        if self.members == 0 {
            return malformed("neither a directory nor a tar archive, or damaged at its beginning");
        }
        let behind = match &self.name[..] {
            b"" => String::new(),
            name => format!(", behind '{}',", String::from_utf8_lossy(name)),
        };
        let at = self.position;
        malformed(format!("the header before byte {at}{behind} is damaged"))
    }

    /// Gives an error in a member's data its name.
    fn named(&self, fault: Fault) -> Fault {
        match self.name[..] {
            [] => fault,
            _ => name_fault(&self.name, fault),
        }
    }

    /// Reads some of the current member's data; nothing where it ends.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let length = self.data.min(buffer.len() as u64) as usize;
        self.fill(&mut buffer[..length])
            .map_err(|fault| self.named(fault))?;
        self.data -= length as u64;
        Ok(length)
    }

    fn member(&mut self, header: &Header<'_>, size: u64, pax: Pax) -> Result<Member> {
        let path = pax.sparse.name.clone().flatten();
        let path = path.or_else(|| pax.path.clone().flatten());
        let path = path.unwrap_or_else(|| header.path());
        let link = pax.link.clone().flatten();
        let link = link.unwrap_or_else(|| header.link());
        self.name.clone_from(&path);
        let fail = |fault| name_fault(&path, fault);
        let size = pax.size.flatten().unwrap_or(size);
        let kind = match header.kind() {
            // Before POSIX, a directory was known by the slash, and some know it by that still.
            0 | b'0' if path.ends_with(b"/") => {
                self.expect_data(size).map_err(fail)?;
                MemberKind::Directory
            }
            0 | b'0' | b'7' => MemberKind::File(self.file_data(size, &pax).map_err(fail)?),
            b'S' => MemberKind::File(self.gnu_sparse(header, size).map_err(fail)?),
            // What a header says is the size of the file, of which nothing follows; a PAX record
            // says that the contents do, which are the other name's, too.
            b'1' => {
                let size = pax.size.flatten().unwrap_or(0);
                self.expect_data(size).map_err(fail)?;
                MemberKind::HardLink(link)
            }
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
            // POSIX has other types read as regular files.
            kind => {
                self.oddities.unknown_count += 1;
                let unknown = &mut self.oddities.unknown;
                unknown.get_or_insert_with(|| (path.clone(), kind));
                MemberKind::File(self.file_data(size, &pax).map_err(fail)?)
            }
        };
        let mode = header.number(100..108).map_err(fail)?;
        let mut member = Member {
            permissions: match kind {
                // As they are in each tree, whatever an archive says.
                MemberKind::Symlink(_) => 0o777,
                _ => (mode & 0o7777) as u16,
            },
            kind,
            uid: id(pax.uid.flatten(), header.number(108..116)).map_err(fail)?,
            gid: id(pax.gid.flatten(), header.number(116..124)).map_err(fail)?,
            mtime: match pax.mtime.flatten() {
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
        member.settle_acl();
        Ok(member)
    }

    /// The data of a regular file, by the PAX records before it.
    fn file_data(&mut self, size: u64, pax: &Pax) -> Result<FileData> {
        self.expect_data(size)?;
        let sparse = &pax.sparse;
        let version = (sparse.major.flatten(), sparse.minor.flatten());
        let numbers = match (version.0, version.1, &sparse.map) {
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
        let Some(real_size) = sparse.size.flatten() else {
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

    /// The next block; none at the end of all.
    fn block_or_end(&mut self) -> Result<Option<Block>> {
        let at = self.position;
        let block = self.partial_block()?;
        match (self.position - at) as usize {
            0 | BLOCK => Ok(block),
            _ if self.members == 0 && !self.zeros => malformed(TOO_SHORT),
            _ => malformed("it is truncated"),
        }
    }

    /// The next block, or its beginning if it is cut short; none at the end of all.
    fn partial_block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK];
        let mut length = 0;
        while length < BLOCK {
            match self.input.read(&mut block[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.position += length as u64;
        Ok((length > 0).then_some(block))
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

    /// Looks for the second of the two zero blocks that mark the end.
    fn end(&mut self) -> Result<()> {
        let at = self.position;
        let Some(block) = self.partial_block()? else {
            self.oddities.lone_zero = true;
            return Ok(());
        };
        let length = (self.position - at) as usize;
        self.oddities.lone_zero = length < BLOCK || block != [0; BLOCK];
        self.ignore(&block[..length], at);
        Ok(())
    }

    /// Reads some of what is behind the end, and says how much; nothing at the end of all. Whoever
    /// writes the archive sees all of it taken, and its compression is checked to its end.
    pub fn read_rest(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let at = self.position;
        let count = loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => break count?,
            }
        };
        self.position += count as u64;
        self.ignore(&buffer[..count], at);
        Ok(count)
    }

    /// Counts bytes behind the end, which begin at this position of the archive.
    fn ignore(&mut self, bytes: &[u8], at: u64) {
        let odd = &mut self.oddities;
        if odd.ignored > 0 {
            odd.ignored += bytes.len() as u64;
        } else if let Some(first) = bytes.iter().position(|&byte| byte != 0) {
            odd.ignored = (bytes.len() - first) as u64;
            odd.ignored_at = at + first as u64;
            odd.another = bytes.get(first..first + BLOCK).is_some_and(is_header);
        }
    }

    /// What was odd in the archive: all of it, once its rest is read.
    pub fn oddities(&self) -> &Oddities {
        &self.oddities
    }

    /// The bytes behind a compressed archive that belong to nothing.
    pub fn garbage(&self) -> u64 {
        self.input.garbage()
    }
}

/// Returns true if a header block begins so.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    let block = bytes.first_chunk::<BLOCK>();
    block.is_some_and(|block| block != &[0; BLOCK] && Header(block).checksum_matches())
}

/// Adds the name of a member to the error that it causes.
fn name_fault(name: &[u8], fault: Fault) -> Fault {
    match fault {
        Fault::Malformed(what) => {
            let name = String::from_utf8_lossy(name);
            // A fault in the data of a member has its name already.
            match what.strip_prefix(&*name) {
                Some(rest) if rest.starts_with(": ") => Fault::Malformed(what),
                _ => Fault::Malformed(format!("{name}: {what}")),
            }
        }
        fault => fault,
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
        _ => malformed(format!("{id} is not a valid user or group ID")),
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

#[cfg(test)]
mod tests {
    use super::*;

    impl Input for &[u8] {}

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
