// SPDX-License-Identifier: MIT OR Apache-2.0

//! Chunks of format 4: from content to stored bytes, and back.
//!
//! A chunk is stored raw, or as one zstd frame if that is smaller. The same content, level and release of
//! zstd give the same stored bytes, whose SHA-256 names the chunk.

use crate::model::digest::Digest;
use puzzlefs_schema::v4::{ChunkError, ChunkRef, Encoding, MAX_CHUNK_CONTENT};
use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::sync::{Mutex, PoisonError};
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

/// A failure to encode a chunk.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The content has a length that no chunk has.
    #[error("cannot encode a chunk of {length} bytes: {cause}")]
    Length {
        /// The length of the content in bytes.
        length: usize,
        /// The violated rule.
        cause: ChunkError,
    },
    /// zstd failed.
    #[error("cannot compress a chunk: {0}")]
    Compress(io::Error),
}

/// The reason that stored bytes are not the chunk that a reference names.
#[derive(Debug, thiserror::Error)]
pub enum ChunkFault {
    /// Their number is not the stored length.
    #[error("it has {found} stored bytes instead of {expected}")]
    StoredLength {
        /// The stored length that the reference states.
        expected: u32,
        /// The number of stored bytes.
        found: usize,
    },
    /// Their SHA-256 is not the digest.
    #[error("the SHA-256 of its stored bytes is {found}")]
    Digest {
        /// The SHA-256 of the stored bytes.
        found: Digest,
    },
    /// They are not a zstd frame that a chunk can have.
    #[error("{0}")]
    Frame(ChunkError),
    /// Bytes follow the zstd frame.
    #[error("{bytes} bytes follow its zstd frame")]
    Trailing {
        /// The number of bytes after the frame.
        bytes: usize,
    },
    /// zstd cannot decompress the frame.
    #[error("its zstd frame cannot be decompressed: {0}")]
    Decompress(io::Error),
    /// The frame has less content than the reference states.
    #[error("its zstd frame has {found} bytes of content instead of {expected}")]
    ContentLength {
        /// The content length that the reference states.
        expected: u32,
        /// The number of bytes that the frame has.
        found: usize,
    },
}

/// An encoded chunk.
#[derive(Clone, Debug)]
pub(crate) struct EncodedChunk<'c> {
    pub chunk: ChunkRef,
    /// The content itself if the chunk is raw.
    pub stored: Cow<'c, [u8]>,
}

/// Encodes chunks, for any number of threads.
pub(crate) struct ChunkEncoder {
    /// The level of zstd; none to store all chunks raw.
    level: Option<i32>,
    /// Compressors that no thread uses at the moment.
    idle: Mutex<Vec<Compressor<'static>>>,
}

impl ChunkEncoder {
    /// An encoder that compresses at a level of zstd, or stores all chunks raw.
    pub fn new(level: Option<i32>) -> Self {
        ChunkEncoder {
            level,
            idle: Mutex::default(),
        }
    }

    /// Describes the compression, if there is one. Encoders of one description give the same bytes.
    pub fn compression(&self) -> Option<String> {
        let level = self.level?;
        Some(format!(
            "zstd {} level {level}",
            zstd_safe::version_string()
        ))
    }

    /// Encodes a chunk with this content, which is 1 byte to [`MAX_CHUNK_CONTENT`].
    pub fn encode<'c>(&self, content: &'c [u8]) -> Result<EncodedChunk<'c>, EncodeError> {
        self.encode_hashed(content, None)
    }

    /// Does the same if the SHA-256 of the content may be known.
    pub fn encode_hashed<'c>(
        &self,
        content: &'c [u8],
        digest: Option<&Digest>,
    ) -> Result<EncodedChunk<'c>, EncodeError> {
        let refused = |cause| EncodeError::Length {
            length: content.len(),
            cause,
        };
        let content_len = u32::try_from(content.len())
            .ok()
            .filter(|len| (1..=MAX_CHUNK_CONTENT).contains(len))
            .ok_or(refused(ChunkError::DataLength))?;
        let compressed = self.level.map(|level| self.compress(level, content));
        let compressed = compressed.transpose().map_err(EncodeError::Compress)?;
        let stored = match compressed.filter(|frame| frame.len() < content.len()) {
            Some(frame) => Cow::Owned(frame),
            None => Cow::Borrowed(content),
        };
        let digest = match (&stored, digest) {
            (Cow::Borrowed(_), Some(digest)) => *digest,
            _ => Digest::of(&stored),
        };
        // No stored form is longer than its content.
        let chunk = ChunkRef::new(digest.into(), stored.len() as u32, content_len);
        let chunk = chunk.map_err(refused)?;
        Ok(EncodedChunk { chunk, stored })
    }

    /// Returns the content as one zstd frame, which states the size of its content and has neither a
    /// checksum nor a dictionary.
    fn compress(&self, level: i32, content: &[u8]) -> io::Result<Vec<u8>> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut compressor = match taken {
            Some(compressor) => compressor,
            None => Compressor::new(level)?,
        };
        let frame = compressor.compress(content)?;
        idle().push(compressor);
        Ok(frame)
    }
}

thread_local! {
    /// The decompressor of this thread, after the first use.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decodes a chunk into `content`, whose earlier bytes are replaced.
///
/// The stored bytes are verified before they are decompressed. At most the content length is allocated.
/// After an error `content` is empty.
pub(crate) fn decode(
    chunk: &ChunkRef,
    stored: &[u8],
    content: &mut Vec<u8>,
) -> Result<(), ChunkFault> {
    content.clear();
    check_stored(chunk, stored)?;
    match chunk.encoding() {
        Encoding::Raw => content.extend_from_slice(stored),
        Encoding::Zstd => {
            decompress(chunk, stored, content).inspect_err(|_| content.clear())?;
        }
    }
    Ok(())
}

/// Checks that these are the stored bytes of a chunk, by their number and their digest.
pub(crate) fn check_stored(chunk: &ChunkRef, stored: &[u8]) -> Result<(), ChunkFault> {
    if stored.len() != chunk.stored_len() as usize {
        return Err(ChunkFault::StoredLength {
            expected: chunk.stored_len(),
            found: stored.len(),
        });
    }
    let found = Digest::of(stored);
    if found != Digest::from(*chunk.digest()) {
        return Err(ChunkFault::Digest { found });
    }
    Ok(())
}

fn decompress(chunk: &ChunkRef, stored: &[u8], content: &mut Vec<u8>) -> Result<(), ChunkFault> {
    chunk.check_frame(stored).map_err(ChunkFault::Frame)?;
    let frame = zstd_safe::find_frame_compressed_size(stored)
        .map_err(|code| io::Error::other(zstd_safe::get_error_name(code)))
        .map_err(ChunkFault::Decompress)?;
    // zstd would decompress a second frame too.
    if frame != stored.len() {
        return Err(ChunkFault::Trailing {
            bytes: stored.len() - frame,
        });
    }
    content.resize(chunk.content_len() as usize, 0);
    let found = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            None => decompressor.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(stored, &mut content[..])
    });
    let found = found.map_err(ChunkFault::Decompress)?;
    if found != content.len() {
        return Err(ChunkFault::ContentLength {
            expected: chunk.content_len(),
            found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn text(size: usize) -> Vec<u8> {
        (0..size as u32)
            .flat_map(|number| (number / 7).to_string().into_bytes())
            .take(size)
            .collect()
    }

    /// Returns a reference to a chunk whatever its bytes are.
    fn named(stored: &[u8], content_len: u32) -> ChunkRef {
        ChunkRef::new(Digest::of(stored).into(), stored.len() as u32, content_len).unwrap()
    }

    fn fault(chunk: &ChunkRef, stored: &[u8]) -> ChunkFault {
        let mut content = vec![7; 9];
        let fault = decode(chunk, stored, &mut content).unwrap_err();
        assert!(content.is_empty());
        fault
    }

    #[test]
    fn text_becomes_one_frame() {
        let content = text(100_000);
        let encoded = ChunkEncoder::new(Some(3)).encode(&content).unwrap();
        let (chunk, stored) = (encoded.chunk, &encoded.stored);
        assert_eq!(chunk.encoding(), Encoding::Zstd);
        assert_eq!(chunk.content_len(), 100_000);
        assert_eq!(chunk.stored_len() as usize, stored.len());
        assert_eq!(chunk.check_frame(stored), Ok(()));
        let mut decoded = vec![7; 9];
        decode(&chunk, stored, &mut decoded).unwrap();
        assert!(decoded == content);
    }

    #[test]
    fn content_that_does_not_shrink_is_raw() {
        let encode = |level, content: &[u8]| {
            let encoded = ChunkEncoder::new(level).encode(content).unwrap();
            assert_eq!(encoded.chunk, named(content, content.len() as u32));
            assert!(matches!(encoded.stored, Cow::Borrowed(_)));
        };
        encode(Some(3), b"aaaa");
        encode(Some(19), Digest::of(b"noise").as_bytes());
        encode(None, &text(100_000));
    }

    #[test]
    fn lengths_have_limits() {
        let encoder = ChunkEncoder::new(Some(1));
        let most = MAX_CHUNK_CONTENT as usize;
        assert!(encoder.encode(&vec![1; most]).is_ok());
        for length in [0, most + 1] {
            let error = encoder.encode(&vec![1; length]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot encode a chunk of {length} bytes: \
                     the content length of a data chunk is not 1 to 1048576"
                )
            );
        }
    }

    /// An encoder that has compressed other contents gives the same bytes as a new one.
    #[test]
    fn earlier_chunks_do_not_matter() {
        let used = ChunkEncoder::new(Some(3));
        for size in [1 << 20, 5000, 300_000] {
            used.encode(&text(size)).unwrap();
        }
        let content = text(40_000);
        let new = ChunkEncoder::new(Some(3)).encode(&content).unwrap();
        assert_eq!(used.encode(&content).unwrap().chunk, new.chunk);
    }

    #[test]
    fn other_bytes_are_refused() {
        let content = text(5000);
        let encoded = ChunkEncoder::new(Some(3)).encode(&content).unwrap();
        let mut stored = encoded.stored.into_owned();
        let length = fault(&encoded.chunk, &stored[1..]);
        assert!(
            matches!(length, ChunkFault::StoredLength { found, .. } if found + 1 == stored.len())
        );
        stored[20] ^= 1;
        let digest = fault(&encoded.chunk, &stored);
        assert!(matches!(digest, ChunkFault::Digest { found } if found == Digest::of(&stored)));
    }

    #[test]
    fn frames_of_other_builders_keep_the_rules() {
        let content = text(5000);
        let frame = ChunkEncoder::new(Some(3)).encode(&content).unwrap().stored;
        assert!(matches!(
            fault(&named(&frame, 5001), &frame),
            ChunkFault::Frame(ChunkError::ContentSize)
        ));
        assert!(matches!(
            fault(&named(&content, 5001), &content),
            ChunkFault::Frame(ChunkError::NotAFrame)
        ));
        let twice = [&*frame, &*frame].concat();
        assert!(matches!(
            fault(&named(&twice, 5000), &twice),
            ChunkFault::Trailing { bytes } if bytes == frame.len()
        ));
        let mut cut = frame.to_vec();
        cut.truncate(frame.len() - 1);
        assert!(matches!(
            fault(&named(&cut, 5000), &cut),
            ChunkFault::Decompress(_)
        ));
        let mut checksum = Compressor::new(3).unwrap();
        checksum.include_checksum(true).unwrap();
        let checksum = checksum.compress(&content).unwrap();
        assert!(matches!(
            fault(&named(&checksum, 5000), &checksum),
            ChunkFault::Frame(ChunkError::Checksum)
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn what_was_encoded_is_decoded(
            seed in vec(any::<u8>(), 1..300),
            size in 1usize..50_000,
            level in prop_oneof![Just(None), (1i32..8).prop_map(Some)],
        ) {
            let content: Vec<u8> = seed.iter().copied().cycle().take(size).collect();
            let encoded = ChunkEncoder::new(level).encode(&content).unwrap();
            let mut decoded = Vec::new();
            decode(&encoded.chunk, &encoded.stored, &mut decoded).unwrap();
            prop_assert_eq!(decoded, content);
        }

        /// Damage behind a digest that fits it gives an error or the stated length.
        #[test]
        fn hostile_frames_are_bounded(at in 0usize..400, byte: u8) {
            let content = text(5000);
            let mut stored = ChunkEncoder::new(Some(3)).encode(&content).unwrap().stored.into_owned();
            let at = at % stored.len();
            stored[at] = byte;
            let mut decoded = Vec::new();
            match decode(&named(&stored, 5000), &stored, &mut decoded) {
                Ok(()) => prop_assert_eq!(decoded.len(), 5000),
                Err(_) => prop_assert!(decoded.is_empty()),
            }
            prop_assert!(decoded.capacity() <= 5000);
        }
    }
}
