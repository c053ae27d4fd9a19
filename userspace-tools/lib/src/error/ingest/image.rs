// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults of container images.

use crate::model::json::ParseError;
use crate::model::media::{self, NotImportable};
use crate::model::platform::Platform;
use std::fmt;
use std::path::PathBuf;

/// The cause that a container image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContainerFault {
    /// A build reads a container image of this kind, instead of a tree.
    #[error("it is {0}; give it to 'puzzlefs import'")]
    NotATree(&'static str),
    /// The archive has more members than the limit.
    #[error("more than {max} members; is this a container image?")]
    TooManyMembers {
        /// The limit.
        max: u64,
    },
    /// The sparse files of the archive have more holes than the limit.
    #[error("more than {max} bytes of holes in sparse files")]
    TooManyHoles {
        /// The limit in bytes.
        max: u64,
    },
    /// A document is larger than the limit.
    #[error("{name} has {size} bytes, more than the {max} that are allowed")]
    TooLarge {
        /// The path of the document in the image.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The image has the format `dir:` of skopeo.
    #[error(
        "it is an image in skopeo's format 'dir:'; 'skopeo copy dir:{} oci:DIRECTORY:TAG' converts \
         it, and 'puzzlefs import' reads the result", .path.display())]
    SkopeoDirectory {
        /// The path of the image.
        path: PathBuf,
    },
    /// The image has the format of Docker before 1.10.
    #[error(
        "an image archive of Docker before 1.10, without manifest.json; load it into a newer \
         Docker and save it again"
    )]
    OldDocker,
    /// There are no files of a container image.
    #[error(
        "not a container image: it has neither index.json nor manifest.json; \
         a tar archive of a tree is for 'puzzlefs build'"
    )]
    NotAnImage,
    /// A document cannot be parsed.
    #[error("{name}: {cause}")]
    Document {
        /// The name of the document.
        name: String,
        /// The cause.
        cause: ParseError,
    },
    /// The image has the format of Docker's schema 1.
    #[error("{}", media::SCHEMA1)]
    Schema1,
    /// The document is an artifact of this media type.
    #[error("{}", media::artifact(.0))]
    Artifact(String),
    /// The media types of a manifest are not those of an image that can be imported.
    #[error(transparent)]
    NotImportable(NotImportable),
    /// Indexes are nested too deeply.
    #[error("an index in an index in an index, too deep to be followed")]
    TooDeep,
    /// No image, or several, match the name that was asked for.
    #[error("{}; there is: {}; give one as {}:NAME",
            Asked(.found, .tag), Listed(.names), .source_path.display())]
    Choice {
        /// The number of images that match.
        found: usize,
        /// The name that was asked for.
        tag: Option<String>,
        /// The names of all images.
        names: Vec<String>,
        /// The path of the images on the command line.
        source_path: PathBuf,
    },
    /// No image is for the platform.
    #[error("there is no image for {wanted}; there is: {}; choose with --platform", Listed(.found))]
    NoPlatform {
        /// The platform that was asked for.
        wanted: Platform,
        /// The platforms of all images.
        found: Vec<Platform>,
    },
    /// The configuration of the image is for another platform.
    #[error("the image is for {found}, not for {wanted}")]
    OtherPlatform {
        /// The platform of the configuration.
        found: Platform,
        /// The platform that was asked for.
        wanted: Platform,
    },
    /// The image is for Windows. Holds its platform.
    #[error(
        "the image is for Windows ({0}), whose layers hold no root filesystem of Linux; \
         --platform chooses another image, where there is one"
    )]
    Windows(Platform),
    /// The configuration has no list of layers.
    #[error("the configuration: not {wanted}: it lists no layers")]
    NoLayers {
        /// The document that was expected.
        wanted: &'static str,
    },
    /// The configuration and the manifest disagree about the number of layers.
    #[error("the configuration is of {configuration} layers, the manifest of {manifest}")]
    LayerCount {
        /// The number in the configuration.
        configuration: usize,
        /// The number in the manifest.
        manifest: usize,
    },
    /// A layer is not part of the image, because only its vendor may distribute it.
    #[error(
        "layer {number} is nondistributable ('{media_type}') and not part of the input; download it \
         from {} to {file}", .url.as_deref().unwrap_or("its vendor"))]
    Foreign {
        /// The number of the layer, from 1 on.
        number: usize,
        /// The media type of the layer.
        media_type: String,
        /// The place where the vendor has it.
        url: Option<String>,
        /// The path in the image where it is looked for.
        file: String,
    },
    /// A digest is not one of SHA-256.
    #[error("'{0}' is not a sha256 digest")]
    Digest(String),
    /// A file of this path is missing.
    #[error("{0} is missing")]
    Missing(String),
    /// A file of this path does not match its size or its digest.
    #[error("{0} is damaged: its size or digest is another")]
    Damaged(String),
}

/// The number of images that match a name, in a message.
struct Asked<'a>(&'a usize, &'a Option<String>);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked(0, Some(tag)) => write!(f, "there is no image '{tag}'"),
            Asked(_, Some(tag)) => write!(f, "there is not one image '{tag}'"),
            Asked(_, None) => f.write_str("there is not one image"),
        }
    }
}

/// A list of names in a message.
struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        if self.0.is_empty() {
            return f.write_str("none with a name");
        }
        for (number, name) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            write!(f, "{separator}{name}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, " and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_lists_the_names() {
        let message = |found, tag: Option<&str>, count: usize| {
            let fault = ContainerFault::Choice {
                found,
                tag: tag.map(str::to_owned),
                names: (1..=count).map(|number| format!("n{number}")).collect(),
                source_path: PathBuf::from("images"),
            };
            fault.to_string()
        };
        assert_eq!(
            message(0, Some("v1"), 0),
            "there is no image 'v1'; there is: none with a name; give one as images:NAME"
        );
        assert_eq!(
            message(2, Some("v1"), 2),
            "there is not one image 'v1'; there is: n1, n2; give one as images:NAME"
        );
        let many = message(0, None, 22);
        assert!(
            many.starts_with("there is not one image; there is: n1, n2,"),
            "{many}"
        );
        assert!(many.contains(", n20 and 2 more; give one"), "{many}");
    }
}
