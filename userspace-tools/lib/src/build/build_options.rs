// SPDX-License-Identifier: MIT OR Apache-2.0

//! Options of a build.

use crate::build::layout::Layout;
use crate::error::Result;
use crate::image::config::ConfigOptions;
use crate::image::seekable::Compression;
use crate::model::reference::Selector;
use crate::model::rules::Rules;
use crate::model::start_order::StartOrder;
use crate::model::version::Format;
use crate::store::oci_layout::Store;

/// The image whose chunks a build uses instead of compressing equal contents again, in format 4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ParentChoice {
    /// The image of the tag that is set, if it exists.
    #[default]
    Tagged,
    /// This image of the store, which must exist.
    Image(Selector),
    /// No image.
    None,
}

/// The start-up order of an image, whose ranges come first in its packs, in format 4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OrderChoice {
    /// The image has none.
    #[default]
    None,
    /// The order of the parent, if there is one.
    Parent,
    /// This one.
    Given(StartOrder),
}

/// Options of a build.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The tag to put the image under.
    pub tag: String,
    /// The version of the image format.
    pub format: Format,
    /// Store all chunks in new packs, even if the store has them. Only for format 4.
    pub fresh: bool,
    /// The parent image. A fresh build has none. Only for format 4.
    pub parent: ParentChoice,
    /// The start-up order. Only for format 4.
    pub order: OrderChoice,
    /// The number of threads; the image does not depend on it.
    pub jobs: usize,
    /// Leave mount points beneath the source directory empty.
    pub one_file_system: bool,
    /// Leave out files that cannot be read, and the contents of such directories.
    pub skip_unreadable: bool,
    /// The number of times that a file that changes while it is read is read again.
    pub retry_changed: u32,
    /// Paths that are left out, and metadata that is changed.
    pub rules: Rules,
    /// The tag of an image of the store to build on. Equal parts are taken from there.
    pub base: Option<String>,
    /// Make a layer of each layer of a container image.
    pub keep_layers: bool,
    /// Read an archive to the end of its file, beyond zero blocks.
    pub ignore_zeros: bool,
    /// Settings for the image's configuration.
    pub config: ConfigOptions,
    /// The sizes of chunks and packs.
    pub layout: Layout,
    /// The compression of blobs, if any.
    pub compression: Option<Compression>,
    /// Read blobs that the store has already, and replace damaged ones.
    pub check: bool,
}

impl BuildOptions {
    /// Returns the parent image, if there is one. A fresh build has none.
    pub(crate) fn parent_image(&self, store: &Store) -> Result<Option<Selector>> {
        Ok(match &self.parent {
            _ if self.fresh => None,
            ParentChoice::None => None,
            ParentChoice::Image(selector) => Some(selector.clone()),
            ParentChoice::Tagged => {
                let index = store.known_index()?;
                let tagged = index.find(&self.tag);
                tagged.map(|_| Selector::Tag(self.tag.clone()))
            }
        })
    }

    /// Returns the defaults of `puzzlefs build`, with one thread.
    pub fn new(tag: &str) -> Self {
        BuildOptions {
            tag: tag.to_owned(),
            format: Format::default(),
            fresh: false,
            parent: ParentChoice::default(),
            order: OrderChoice::default(),
            jobs: 1,
            one_file_system: false,
            skip_unreadable: false,
            retry_changed: 0,
            rules: Rules::default(),
            base: None,
            keep_layers: false,
            ignore_zeros: false,
            config: ConfigOptions::default(),
            layout: Layout::packed(true),
            compression: Some(Compression::default()),
            check: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image that is built without options is the one that the format's documentation describes.
    #[test]
    fn defaults() {
        let options = BuildOptions::new("a tag");
        assert_eq!((&*options.tag, options.jobs), ("a tag", 1));
        assert_eq!(options.layout, Layout::packed_of_average(128 << 10));
        assert_eq!(options.compression.map(|c| c.level), Some(3));
        assert!(options.base.is_none());
        assert!(options.config.is_empty() && options.rules.exclude.is_empty());
        assert_eq!(options.retry_changed, 0);
        assert!(!options.one_file_system && !options.skip_unreadable && !options.keep_layers);
        assert!(!options.ignore_zeros && !options.check && !options.fresh);
        assert_eq!(
            (options.format, options.order),
            (Format::V4, OrderChoice::None)
        );
    }
}
