// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads the members of an archive in their order.

use super::fault::{Fault, Result};
use super::header::{is_header, until_nul, Block, Header, BLOCK};
use super::member::{Member, MemberKind};
use super::pax::{self, Pax, PATH_MAX};
use super::sparse;
use super::stream::{Input, Stream};
use crate::error::{Extension, TarFault, TarPlace};
use crate::model::tree::Time;

/// The largest size of the PAX headers of one member: several attributes of the largest size fit.
const PAX_MAX: u64 = 8 << 20;
/// The largest size of a PAX header for all members that follow: it is copied for each.
const GLOBAL_MAX: u64 = 64 << 10;

/// Reads the members of an archive in their order.
pub(crate) struct Reader<I> {
    stream: Stream<I>,
    /// The records of PAX headers for all members that follow.
    global: Pax,
    /// The number of headers that were read.
    headers: u64,
    /// The path of the last member.
    name: Vec<u8>,
    /// True if the end has to be marked.
    marked_end: bool,
    /// True if members may follow zero blocks.
    ignore_zeros: bool,
    /// True if zero blocks were ignored.
    zeros: bool,
    oddities: Oddities,
}

/// The headers before the one of a member that belong to it.
#[derive(Default)]
struct Extensions {
    pax: Pax,
    /// The sizes of the PAX headers together.
    pax_size: u64,
    /// The first error in a PAX header, which waits for the name of the member.
    damaged: Option<Fault>,
}

/// Deviations that a reader accepts and its caller reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Oddities {
    /// The first member of an unknown type, and its type.
    pub unknown: Option<(Vec<u8>, u8)>,
    /// The number of members of unknown types.
    pub unknown_count: u64,
    /// True if one zero block marks the end, instead of two.
    pub lone_zero: bool,
    /// The bytes behind the end, from the first one on that is not zero.
    pub ignored: u64,
    /// The position of these bytes.
    pub ignored_at: u64,
    /// True if they begin with the header of a member.
    pub another: bool,
}

impl<I: Input> Reader<I> {
    pub fn new(input: I) -> Self {
        Reader {
            stream: Stream::new(input),
            global: Pax::default(),
            headers: 0,
            name: Vec::new(),
            marked_end: true,
            ignore_zeros: false,
            zeros: false,
            oddities: Oddities::default(),
        }
    }

    /// Reads on behind zero blocks, as archives that were concatenated have them: the archive ends
    /// at the end of its file.
    pub fn ignoring_zeros(self, ignore_zeros: bool) -> Self {
        Reader {
            ignore_zeros,
            ..self
        }
    }

    /// Reads an archive that may end behind any member, because not all programs mark the end. The
    /// caller has to know whether it is whole.
    pub fn of_any_end(input: I) -> Self {
        Reader {
            marked_end: false,
            ..Self::new(input)
        }
    }

    /// Returns the position of the current member's data in the archive.
    pub fn data_position(&self) -> u64 {
        self.stream.position
    }

    /// Returns the archive, to be read otherwise.
    pub fn into_input(self) -> I {
        self.stream.input
    }

    /// Reads the next member. The rest of the last one's data is skipped.
    ///
    /// Returns `None` at the end, which has to be marked: an archive without the mark may be
    /// truncated.
    pub fn next(&mut self) -> Result<Option<Member>> {
        let mut extensions = Extensions::default();
        let mut is_first = true;
        while let Some((at, block)) = self.next_header(is_first)? {
            let header = Header(&block);
            if !header.checksum_matches() {
                return Err(self.damaged_header());
            }
            self.headers += 1;
            is_first = false;
            let path = match &extensions.pax.path {
                Some(Some(path)) => path.clone(),
                _ => header.path(),
            };
            let size = header.size().map_err(|fault| fault.of_member(&path))?;
            if !self.take_extension(&header, at, size, &mut extensions)? {
                if let Some(fault) = extensions.damaged {
                    return Err(fault.of_member(&path));
                }
                let pax = extensions.pax.over(&self.global);
                return self.member(&header, size, pax).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads the next header, with its position; none at the end. `is_first` says that no header
    /// was read since the last member: the archive may end here.
    fn next_header(&mut self, is_first: bool) -> Result<Option<(u64, Block)>> {
        let may_end = |reader: &Self| is_first && reader.may_end_here();
        let skipped = self.stream.skip_data();
        skipped.map_err(|fault| self.named(fault))?;
        match self.stream.skip_padding() {
            // Some programs leave out the bytes that fill the last block.
            Err(Fault::Malformed(_)) if may_end(self) => return Ok(None),
            skipped => skipped.map_err(|fault| self.named(fault))?,
        }
        loop {
            let at = self.stream.position;
            let block = match self.block_or_end()? {
                Some(block) => block,
                None if may_end(self) => return Ok(None),
                None if self.headers == 0 => return Err(TarFault::TooShort.into()),
                None => return Err(Fault::NoEnd),
            };
            if block != [0; BLOCK] {
                return Ok(Some((at, block)));
            }
            if !self.ignore_zeros {
                self.end()?;
                return Ok(None);
            }
            self.zeros = true;
        }
    }

    /// Takes a header that describes members behind it. Returns false if it is a member's own.
    fn take_extension(
        &mut self,
        header: &Header<'_>,
        at: u64,
        size: u64,
        extensions: &mut Extensions,
    ) -> Result<bool> {
        match header.kind() {
            b'x' | b'X' => {
                let left = PAX_MAX - extensions.pax_size;
                let records = self.small_data(size, left, Extension::Header)?;
                extensions.pax_size += size;
                // The member that follows gives the error its name.
                if let Err(fault) = pax::parse(&records, &mut extensions.pax) {
                    extensions.damaged.get_or_insert(fault);
                }
            }
            b'g' => {
                let records = self.small_data(size, GLOBAL_MAX, Extension::GlobalHeader)?;
                let taken = self.take_global(&records);
                taken.map_err(|fault| fault.at(TarPlace::GlobalHeader { at }))?;
            }
            b'L' => extensions.pax.path = Some(Some(self.long_name(size)?)),
            b'K' => extensions.pax.link = Some(Some(self.long_name(size)?)),
            // The name of the volume.
            b'V' => self.stream.expect_data(size)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns true if the archive may end at the end of its file.
    fn may_end_here(&self) -> bool {
        let ignore_zeros = self.ignore_zeros && (self.zeros || self.headers > 0);
        ignore_zeros || !self.marked_end
    }

    /// Takes the records of a PAX header for all members that follow.
    fn take_global(&mut self, records: &[u8]) -> Result<()> {
        let mut global = Pax::default();
        pax::parse(records, &mut global)?;
        let global = global.over(&self.global);
        if global.memory() > 4 * GLOBAL_MAX {
            return Err(TarFault::TooManyRecords.into());
        }
        self.global = global;
        Ok(())
    }

    /// Returns the error for a header that was read and does not match its checksum.
    fn damaged_header(&self) -> Fault {
        let fault = match self.headers {
            0 => TarFault::NotTar,
            _ => TarFault::Header {
                end: self.stream.position,
                behind: self.name.clone(),
            },
        };
        fault.into()
    }

    /// Adds the name of the current member to an error in its data.
    fn named(&self, fault: Fault) -> Fault {
        match self.name[..] {
            [] => fault,
            _ => fault.of_member(&self.name),
        }
    }

    /// Reads some of the current member's data; nothing at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.stream.read_data(buffer);
        read.map_err(|fault| self.named(fault))
    }

    /// Makes a member of its header and of the records before it.
    fn member(&mut self, header: &Header<'_>, size: u64, pax: Pax) -> Result<Member> {
        let path = pax.sparse.name.clone().flatten();
        let path = path.or_else(|| pax.path.clone().flatten());
        let path = path.unwrap_or_else(|| header.path());
        self.name.clone_from(&path);
        let size = pax.size.flatten().unwrap_or(size);
        let kind = self.kind(header, size, &path, &pax);
        let member = kind.and_then(|kind| attributes(header, path, kind, pax));
        member.map_err(|fault| fault.of_member(&self.name))
    }

    /// Returns the type of a member, and expects its data next.
    fn kind(
        &mut self,
        header: &Header<'_>,
        size: u64,
        path: &[u8],
        pax: &Pax,
    ) -> Result<MemberKind> {
        let link = || pax.link.clone().flatten().unwrap_or_else(|| header.link());
        Ok(match header.kind() {
            // Before POSIX, a slash marked a directory, and some programs still rely on it.
            0 | b'0' if path.ends_with(b"/") => {
                self.stream.expect_data(size)?;
                MemberKind::Directory
            }
            0 | b'0' | b'7' => MemberKind::File(sparse::file_data(&mut self.stream, size, pax)?),
            b'S' => MemberKind::File(sparse::gnu_file_data(&mut self.stream, header, size)?),
            // A header gives the size of the file, of which nothing follows. A PAX record says that
            // the contents follow, which are those of the other name too.
            b'1' => {
                self.stream.expect_data(pax.size.flatten().unwrap_or(0))?;
                MemberKind::HardLink(link())
            }
            b'2' => MemberKind::Symlink(link()),
            b'3' => {
                let (major, minor) = header.device()?;
                MemberKind::CharDevice(major, minor)
            }
            b'4' => {
                let (major, minor) = header.device()?;
                MemberKind::BlockDevice(major, minor)
            }
            b'5' => MemberKind::Directory,
            // A directory, and GNU's list of its former entries.
            b'D' => {
                self.stream.expect_data(size)?;
                MemberKind::Directory
            }
            b'6' => MemberKind::Fifo,
            b'M' => return Err(TarFault::OtherVolume.into()),
            // POSIX has other types read as regular files.
            kind => {
                self.oddities.unknown_count += 1;
                let unknown = &mut self.oddities.unknown;
                unknown.get_or_insert_with(|| (path.to_vec(), kind));
                MemberKind::File(sparse::file_data(&mut self.stream, size, pax)?)
            }
        })
    }

    /// Reads data of which little is expected.
    fn small_data(&mut self, size: u64, max: u64, extension: Extension) -> Result<Vec<u8>> {
        if size > max {
            return Err(TarFault::ExtensionTooLarge {
                extension,
                size,
                max,
            }
            .into());
        }
        self.stream.expect_data(size)?;
        let mut bytes = vec![0; size as usize];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let bytes = self.small_data(size, PATH_MAX, Extension::LongName)?;
        Ok(until_nul(&bytes).to_vec())
    }

    /// Reads the next block; none at the end of all.
    fn block_or_end(&mut self) -> Result<Option<Block>> {
        let at = self.stream.position;
        let block = self.stream.partial_block()?;
        match (self.stream.position - at) as usize {
            0 | BLOCK => Ok(block),
            _ if self.headers == 0 && !self.zeros => Err(TarFault::TooShort.into()),
            _ => Err(TarFault::Truncated.into()),
        }
    }

    /// Reads the second of the two zero blocks that mark the end.
    fn end(&mut self) -> Result<()> {
        let at = self.stream.position;
        let Some(block) = self.stream.partial_block()? else {
            self.oddities.lone_zero = true;
            return Ok(());
        };
        let length = (self.stream.position - at) as usize;
        self.oddities.lone_zero = length < BLOCK || block != [0; BLOCK];
        self.ignore(&block[..length], at);
        Ok(())
    }

    /// Reads some of the bytes behind the end, and returns their number; 0 at the end of all. The
    /// program that writes the archive is not cut off, and its compression is checked to its end.
    pub fn read_rest(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let at = self.stream.position;
        let count = self.stream.read_some(buffer)?;
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

    /// Returns the deviations of the archive: all of them, once its rest is read.
    pub fn oddities(&self) -> &Oddities {
        &self.oddities
    }

    /// Returns the bytes behind a compressed archive that belong to nothing.
    pub fn garbage(&self) -> u64 {
        self.stream.input.garbage()
    }
}

/// Makes a member of its type and of what its header and its records say.
fn attributes(header: &Header<'_>, path: Vec<u8>, kind: MemberKind, pax: Pax) -> Result<Member> {
    let mode = header.number(100..108)?;
    let mut member = Member {
        permissions: match kind {
            // The only mode of symbolic links in a tree, which some archives do not have.
            MemberKind::Symlink(_) => 0o777,
            _ => (mode & 0o7777) as u16,
        },
        kind,
        uid: id(pax.uid.flatten(), header.number(108..116))?,
        gid: id(pax.gid.flatten(), header.number(116..124))?,
        mtime: match pax.mtime.flatten() {
            Some(mtime) => mtime,
            None => Time {
                seconds: header.signed(136..148)?,
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

/// Returns the ID of a user or group.
fn id(pax: Option<u64>, header: Result<u64>) -> Result<u32> {
    let id = match pax {
        Some(id) => id,
        None => header?,
    };
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(TarFault::Id(id).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Input for &[u8] {}

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
