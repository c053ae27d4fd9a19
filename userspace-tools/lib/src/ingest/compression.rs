// SPDX-License-Identifier: MIT OR Apache-2.0

//! Decompresses archives: gzip, zstd, xz and bzip2.
//!
//! A file may hold several compressed streams, one behind the other: `pigz`, `pzstd`, `xz --block-size`
//! and `cat` write such files. Their contents are one archive. Zeros behind a stream are padding.
//! Anything else there is garbage: it is counted, and the caller reports it.
//!
//! A decoder needs as much memory as the window that the stream asks for, at most 2 GiB.

use crate::error::UnsupportedFormat;
use crate::ingest::tar::is_header;
use crate::model::limits::READ_SIZE;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

/// The size of the start of a file that [`Format::detect`] needs: a tar header.
pub(crate) const START: usize = 512;
/// The longest magic number of a compressed stream.
const MAGIC_MAX: usize = 6;
/// The largest window of a zstd frame, as `zstd --long=31` makes it, in bits.
const WINDOW_LOG_MAX: u32 = if usize::BITS < 64 { 30 } else { 31 };
/// The memory that liblzma may use: a dictionary of 2 GiB and its own tables.
const XZ_MEMORY: u64 = (2 << 30) + (64 << 20);

/// The compression of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Format {
    /// Finds the format by the first [`START`] bytes of a file.
    ///
    /// # Errors
    ///
    /// If the file has another format that is known.
    pub fn detect(start: &[u8]) -> Result<Format, UnsupportedFormat> {
        // The name of the first member of a plain archive may begin with any magic number.
        if is_header(start) {
            return Ok(Format::None);
        }
        let formats = [Format::Gzip, Format::Zstd, Format::Xz, Format::Bzip2];
        if let Some(format) = formats.into_iter().find(|format| format.begins(start)) {
            return Ok(format);
        }
        let compressions: [(&[u8], &str); 5] = [
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"\x1f\x9d", "compress"),
            (b"LZIP", "lzip"),
            (b"\x89LZO", "lzop"),
            (b"\x5d\0\0", "lzma"),
        ];
        if let Some((_, name)) = compressions
            .iter()
            .find(|(magic, _)| start.starts_with(magic))
        {
            return Err(UnsupportedFormat::Compression(name));
        }
        let others: [(&[u8], &str); 10] = [
            (b"PK\x03\x04", "a zip archive"),
            (b"07070", "a cpio archive"),
            (b"\xc7\x71", "a cpio archive"),
            (b"hsqs", "a squashfs filesystem"),
            (b"!<arch>\n", "an ar archive or a Debian package"),
            (b"\xed\xab\xee\xdb", "an RPM package"),
            (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
            (b"QFI\xfb", "a qcow2 disk image"),
            (b"\x7fELF", "an ELF program"),
            (b"{", "JSON"),
        ];
        match others.iter().find(|(magic, _)| start.starts_with(magic)) {
            Some((_, name)) => Err(UnsupportedFormat::NotTar(name)),
            None => Ok(Format::None),
        }
    }

    /// Returns true if a stream of this format may begin so.
    fn begins(self, start: &[u8]) -> bool {
        match self {
            Format::None => false,
            Format::Gzip => start.starts_with(b"\x1f\x8b"),
            // The second is a frame to be skipped, which pzstd begins with.
            Format::Zstd => matches!(
                start,
                [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
            ),
            Format::Xz => start.starts_with(b"\xfd7zXZ\0"),
            Format::Bzip2 => matches!(start, [b'B', b'Z', b'h', b'1'..=b'9', ..]),
        }
    }

    fn decoder<R: BufRead>(self, input: R) -> io::Result<Decoder<R>> {
        Ok(match self {
            Format::None => Decoder::None(input),
            Format::Gzip => Decoder::Gzip(flate2::bufread::GzDecoder::new(input)),
            Format::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Decoder::Zstd(Box::new(decoder))
            }
            Format::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
                Decoder::Xz(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Format::Bzip2 => Decoder::Bzip2(bzip2::bufread::BzDecoder::new(input)),
        })
    }
}

/// The decoder of one stream.
enum Decoder<R: BufRead> {
    None(R),
    Gzip(flate2::bufread::GzDecoder<R>),
    Zstd(Box<zstd::Decoder<'static, R>>),
    Xz(liblzma::bufread::XzDecoder<R>),
    Bzip2(bzip2::bufread::BzDecoder<R>),
}

impl<R: BufRead> Decoder<R> {
    /// Returns the input, behind the stream.
    fn into_input(self) -> R {
        match self {
            Decoder::None(input) => input,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
            Decoder::Xz(decoder) => decoder.into_inner(),
            Decoder::Bzip2(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::None(input) => input.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
            Decoder::Xz(decoder) => decoder.read(buffer),
            Decoder::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

/// The contents of all compressed streams of a file.
pub(crate) struct Decompressed<R: Read> {
    format: Format,
    /// None behind the last stream.
    decoder: Option<Decoder<Peekable<BufReader<R>>>>,
    garbage: Garbage,
}

/// The bytes behind the last compressed stream of a file that are neither a stream nor padding.
#[derive(Clone, Debug, Default)]
pub(crate) struct Garbage(Arc<AtomicU64>);

impl Garbage {
    /// Returns their number; it is complete when the file was read to its end.
    pub fn bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl<R: Read> Decompressed<R> {
    /// Reads a file of which `start` was read already, and counts the garbage behind the streams.
    pub fn new(format: Format, start: Vec<u8>, input: R, garbage: Garbage) -> io::Result<Self> {
        let mut input = Peekable::new(BufReader::with_capacity(READ_SIZE, input));
        input.unread(start);
        Ok(Decompressed {
            format,
            decoder: Some(format.decoder(input)?),
            garbage,
        })
    }

    /// Finds the stream behind the one that has ended, and counts what else is there.
    fn next_stream(&mut self, mut input: Peekable<BufReader<R>>) -> io::Result<()> {
        input.skip_zeros()?;
        if self.format.begins(input.peek(MAGIC_MAX)?) {
            self.decoder = Some(self.format.decoder(input)?);
            return Ok(());
        }
        let garbage = io::copy(&mut input, &mut io::sink())?;
        self.garbage.0.fetch_add(garbage, Relaxed);
        Ok(())
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(decoder) = &mut self.decoder {
            let count = decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if let Some(decoder) = self.decoder.take() {
                self.next_stream(decoder.into_input())?;
            }
        }
        Ok(0)
    }
}

/// Input of which some bytes can be read twice.
struct Peekable<R> {
    /// Bytes that come before the rest of the input, from `at` on.
    unread: Vec<u8>,
    at: usize,
    input: R,
}

impl<R: BufRead> Peekable<R> {
    fn new(input: R) -> Self {
        Peekable {
            unread: Vec::new(),
            at: 0,
            input,
        }
    }

    /// Puts bytes before the rest of the input.
    fn unread(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.unread.get(self.at..).unwrap_or_default());
        (self.unread, self.at) = (bytes, 0);
    }

    /// Returns the next bytes, at most `count`, fewer at the end of the input. They stay unread.
    fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let mut bytes = Vec::new();
        self.by_ref().take(count as u64).read_to_end(&mut bytes)?;
        self.unread(bytes);
        Ok(&self.unread[..self.unread.len().min(count)])
    }

    fn skip_zeros(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.fill_buf()?;
            let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            let done = bytes.is_empty() || zeros < bytes.len();
            self.consume(zeros);
            if done {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Read for Peekable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Peekable<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.unread.get(self.at..) {
            None | Some([]) => self.input.fill_buf(),
            Some(bytes) => Ok(bytes),
        }
    }

    fn consume(&mut self, count: usize) {
        if self.at < self.unread.len() {
            self.at += count;
        } else {
            self.input.consume(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const FORMATS: [Format; 4] = [Format::Gzip, Format::Zstd, Format::Xz, Format::Bzip2];

    fn compressed(format: Format, bytes: &[u8]) -> Vec<u8> {
        match format {
            Format::None => bytes.to_vec(),
            Format::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Format::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Format::Xz => liblzma::encode_all(bytes, 0).unwrap(),
            Format::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    /// Returns the contents of a file, and how much garbage is behind them.
    fn read(file: &[u8], piece: usize) -> io::Result<(Vec<u8>, u64)> {
        let start = file[..file.len().min(START)].to_vec();
        let format = Format::detect(&start).map_err(io::Error::other)?;
        // A pipe gives its bytes in pieces.
        let rest = Pieces(&file[start.len()..], piece);
        let mut input = Decompressed::new(format, start, rest, Garbage::default())?;
        let mut contents = Vec::new();
        input.read_to_end(&mut contents)?;
        Ok((contents, input.garbage.bytes()))
    }

    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.1);
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn streams_padding_and_garbage() {
        let zeros = [0; 1001];
        for format in FORMATS {
            let [one, two, none] = [&b"one"[..], b"two", b""].map(|text| compressed(format, text));
            for piece in [1, 3, 4096] {
                let read = |parts: &[&[u8]]| read(&parts.concat(), piece).unwrap();
                assert_eq!(read(&[&one]), (b"one".to_vec(), 0), "{format:?}");
                assert_eq!(read(&[&one, &none, &two]), (b"onetwo".to_vec(), 0));
                assert_eq!(read(&[&one, &zeros]), (b"one".to_vec(), 0));
                assert_eq!(read(&[&one, &zeros, &two]), (b"onetwo".to_vec(), 0));
                assert_eq!(read(&[&one, b"garbage"]), (b"one".to_vec(), 7));
                assert_eq!(read(&[&one, &zeros, b"xy\0"]), (b"one".to_vec(), 3));
            }
        }
    }

    #[test]
    fn cut_streams_are_errors() {
        for format in FORMATS {
            let file = compressed(format, &b"some words ".repeat(500));
            let two = [&file[..], &file[..]].concat();
            for end in 6..file.len() {
                let error = read(&file[..end], 4096).unwrap_err();
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof,
                    "{format:?} {end}"
                );
                read(&two[..file.len() + end], 4096).unwrap_err();
            }
        }
    }

    /// A changed bit is an error, unless it is one of the few that change nothing.
    #[test]
    fn damage_is_noticed() {
        let text = b"some words ".repeat(500);
        for format in [Format::Gzip, Format::Xz, Format::Bzip2] {
            let file = compressed(format, &text);
            for at in 0..file.len() {
                let mut damaged = file.clone();
                damaged[at] ^= 0x10;
                if let Ok((contents, garbage)) = read(&damaged, 4096) {
                    // Without its magic number it is another file.
                    let plain = contents == damaged;
                    assert!(plain || contents == text && garbage == 0, "{format:?} {at}");
                }
            }
        }
    }

    #[test]
    fn known_and_unknown_formats() {
        assert_eq!(Format::detect(b"plain"), Ok(Format::None));
        assert_eq!(Format::detect(b""), Ok(Format::None));
        assert_eq!(Format::detect(b"BZ"), Ok(Format::None));
        let lzip = UnsupportedFormat::Compression("lzip");
        assert_eq!(Format::detect(b"LZIP\x01"), Err(lzip));
        let zip = UnsupportedFormat::NotTar("a zip archive");
        assert_eq!(Format::detect(b"PK\x03\x04"), Err(zip));
    }
}
