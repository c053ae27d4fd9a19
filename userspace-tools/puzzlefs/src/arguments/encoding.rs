// SPDX-License-Identifier: MIT OR Apache-2.0

//! The encoding of an image: layers, chunks and frames.

use clap::Args;
use puzzlefs_lib::layout::{Layout, CHUNK_AVG_MAX};
use puzzlefs_lib::seekable::{Compression, FRAME_SIZE_MAX};

/// The encoding of an image.
#[derive(Debug, Args)]
pub struct EncodingArgs {
    /// Build on the image of this tag in the same store
    ///
    /// The image gets one more layer, with the differences.
    #[arg(long, value_name = "TAG")]
    pub base: Option<String>,
    /// Compress with zstd, level 1 to 19 [default without LEVEL: 3]
    #[arg(
        short = 'z',
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3",
        value_parser = clap::value_parser!(i32).range(1..=19)
    )]
    compress: Option<i32>,
    /// Set the minimum content of a frame, 4K to 256K [default: 128K]
    ///
    /// A frame is the unit of decompression. SIZE is a power of two.
    #[arg(long, value_name = "SIZE", requires = "compress", value_parser = frame_size)]
    frame_size: Option<usize>,
    /// Set the average size of a chunk, 4K to 256K [default: 128K]
    ///
    /// A chunk is the unit of sharing. SIZE is a power of two.
    #[arg(long, value_name = "SIZE", value_parser = chunk_size)]
    chunk_size: Option<usize>,
}

impl EncodingArgs {
    /// Returns the sizes of chunks.
    pub fn layout(&self) -> Layout {
        self.chunk_size
            .map_or_else(Layout::default, Layout::of_average)
    }

    /// Returns the compression; `None` if blobs are stored as they are.
    pub fn compression(&self) -> Option<Compression> {
        let default = Compression::default();
        self.compress.map(|level| Compression {
            level,
            frame_size: self.frame_size.unwrap_or(default.frame_size),
        })
    }
}

fn frame_size(text: &str) -> Result<usize, String> {
    size(text, SIZE_MIN, FRAME_SIZE_MAX)
}

fn chunk_size(text: &str) -> Result<usize, String> {
    size(text, SIZE_MIN, CHUNK_AVG_MAX)
}

/// Reads a size in bytes, a power of two: `4096`, `64K`, `1M`.
fn size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 20),
            None => (text, 0),
        },
    };
    digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|size| size.is_power_of_two() && (least..=most).contains(size))
        .ok_or_else(|| {
            let (least, most) = (least >> 10, most >> 10);
            format!("a power of two from {least}K to {most}K is expected")
        })
}

/// The smallest frame and the smallest average of chunks.
const SIZE_MIN: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, wanted) in [
            ("4096", Some(4096)),
            ("4K", Some(4096)),
            ("64k", Some(64 << 10)),
            ("256K", Some(256 << 10)),
            ("1M", None),
            ("2K", None),
            ("5K", None),
            ("", None),
            ("K", None),
            ("-4K", None),
            ("18446744073709551615M", None),
        ] {
            assert_eq!(frame_size(text).ok(), wanted, "{text}");
            assert_eq!(chunk_size(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn help_states_ranges_and_defaults() {
        let command = EncodingArgs::augment_args(clap::Command::new("test"));
        let help = |id: &str| {
            let argument = command.get_arguments().find(|a| a.get_id() == id);
            argument.unwrap().get_help().unwrap().to_string()
        };
        let (compression, layout) = (Compression::default(), Layout::default());
        for (id, most, default) in [
            ("frame_size", FRAME_SIZE_MAX, compression.frame_size),
            ("chunk_size", CHUNK_AVG_MAX, layout.chunk_avg),
        ] {
            let [least, most, default] = [SIZE_MIN, most, default].map(|size| size >> 10);
            let wanted = format!("{least}K to {most}K [default: {default}K]");
            assert!(help(id).ends_with(&wanted), "{}", help(id));
        }
        let wanted = format!("[default without LEVEL: {}]", compression.level);
        assert!(help("compress").ends_with(&wanted));
    }
}
