// SPDX-License-Identifier: MIT OR Apache-2.0

//! The encoding of an image: layers, chunks and frames.

use clap::Args;
use puzzlefs_lib::builder::{Format, OrderChoice, ParentChoice};
use puzzlefs_lib::error::Error;
use puzzlefs_lib::layout::{Layout, CHUNK_AVG_MAX};
use puzzlefs_lib::seekable::{Compression, FRAME_SIZE_MAX};
use puzzlefs_lib::start_order::StartOrder;
use puzzlefs_lib::{Digest, Selector};
use std::path::{Path, PathBuf};

/// The encoding of an image.
#[derive(Debug, Args)]
pub struct EncodingArgs {
    /// Version of the image format, 3 or 4 [default: 4]
    ///
    /// Format 4 stores chunks in packs. Format 3 stores each chunk as a blob, as the reference
    /// implementation reads it.
    #[arg(long, value_name = "VERSION", value_parser = format, default_value = "4",
          hide_default_value = true)]
    pub format: Format,
    /// Store all chunks in new packs, even if the store has them
    ///
    /// The same tree and options then give the same packs in every store. For format 4.
    #[arg(long)]
    pub fresh: bool,
    /// Reuse chunks of this image of the store [default: the image of the tag]
    ///
    /// IMAGE is a tag, sha256:DIGEST or 'none'. Contents that IMAGE has at the same place are
    /// compared instead of compressed. The root is the same without it. For format 4.
    #[arg(long, value_name = "IMAGE", value_parser = parent, conflicts_with = "fresh")]
    parent: Option<ParentChoice>,
    /// Put the ranges of the start-up order in FILE first in packs
    ///
    /// 'puzzlefs record' writes FILE. The image keeps it, for 'mount -o prefetch'. With 'parent', it is
    /// the order of the parent. The root is the same without it. For format 4.
    #[arg(long, value_name = "FILE|parent")]
    order: Option<PathBuf>,
    /// Build on the image of this tag in the same store
    ///
    /// The image gets one more layer, with the differences. For format 3.
    #[arg(long, value_name = "TAG")]
    pub base: Option<String>,
    /// Compress with zstd, level 1 to 19; 0 stores raw data [default without LEVEL: 3]
    ///
    /// Without this option, format 3 stores raw data, and format 4 compresses at level 3.
    #[arg(
        short = 'z',
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3",
        value_parser = clap::value_parser!(i32).range(0..=19)
    )]
    compress: Option<i32>,
    /// Set the minimum content of a frame, 4K to 256K [default: 128K]
    ///
    /// A frame is the unit of decompression. SIZE is a power of two. For format 3.
    #[arg(long, value_name = "SIZE", requires = "compress", value_parser = frame_size)]
    frame_size: Option<usize>,
    /// Set the average size of a chunk, 4K to 256K [default: 128K]
    ///
    /// A chunk is the unit of sharing. SIZE is a power of two. In format 4, the default for raw
    /// data is 32K.
    #[arg(long, value_name = "SIZE", value_parser = chunk_size)]
    chunk_size: Option<usize>,
}

impl EncodingArgs {
    /// Fails for options that the format does not have.
    pub fn check(&self) -> Result<(), Error> {
        let what = match self.format {
            Format::V3 if self.fresh => "--fresh is for --format 4",
            Format::V3 if self.parent.is_some() => "--parent is for --format 4",
            Format::V3 if self.order.is_some() => {
                "--order is for --format 4; format 3 has no packs"
            }
            Format::V4 if self.frame_size.is_some() => {
                "--frame-size is for --format 3; in format 4, each chunk is one frame"
            }
            Format::V4 if self.base.is_some() => {
                "--base is for --format 3; images of format 4 have no layers"
            }
            Format::V3 | Format::V4 => return Ok(()),
        };
        Err(Error::Usage(what.to_owned()))
    }

    /// Returns the parent image.
    pub fn parent(&self) -> ParentChoice {
        self.parent.clone().unwrap_or_default()
    }

    /// Returns the start-up order, which is read.
    pub fn order(&self) -> Result<OrderChoice, Error> {
        Ok(match &self.order {
            None => OrderChoice::None,
            Some(name) if name == Path::new("parent") => OrderChoice::Parent,
            Some(path) => OrderChoice::Given(StartOrder::read(path)?),
        })
    }

    /// Returns the sizes of chunks.
    pub fn layout(&self) -> Layout {
        match (self.chunk_size, self.format) {
            (Some(average), Format::V3) => Layout::of_average(average),
            (Some(average), Format::V4) => Layout::packed_of_average(average),
            (None, Format::V3) => Layout::default(),
            (None, Format::V4) => Layout::packed(self.compression().is_some()),
        }
    }

    /// Returns the compression; `None` if blobs are stored as they are.
    pub fn compression(&self) -> Option<Compression> {
        let default = Compression::default();
        let level = match (self.compress, self.format) {
            (Some(level), _) => level,
            (None, Format::V3) => 0,
            (None, Format::V4) => default.level,
        };
        (level > 0).then(|| Compression {
            level,
            frame_size: self.frame_size.unwrap_or(default.frame_size),
        })
    }
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "3" => Ok(Format::V3),
        "4" => Ok(Format::V4),
        _ => Err("there are the versions 3 and 4".to_owned()),
    }
}

fn parent(text: &str) -> Result<ParentChoice, String> {
    if text == "none" {
        return Ok(ParentChoice::None);
    }
    let selector = if text.starts_with("sha256:") {
        let digest = Digest::from_oci(text);
        Selector::Manifest(digest.ok_or("a digest is 64 lower-case hexadecimal digits")?)
    } else {
        Selector::Tag(text.to_owned())
    };
    Ok(ParentChoice::Image(selector))
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
