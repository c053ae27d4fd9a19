// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs list`.

use crate::arguments::StoreArg;
use crate::format;
use crate::output::{say, Output};
use anyhow::bail;
use clap::Args;
use puzzlefs_lib::message::printable;
use puzzlefs_lib::oci::{self, Descriptor};
use puzzlefs_lib::{Digest, Store};
use serde::Serialize;
use std::io::Write;

/// List the images of a store
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    store: StoreArg,
    /// Print one JSON object per image on standard output
    #[arg(long)]
    json: bool,
}

/// An image, as `--json` prints it. Fields are added, never renamed.
#[derive(Serialize)]
struct Listed<'a> {
    tag: Option<&'a str>,
    manifest_digest: &'a str,
    media_type: &'a str,
    /// True for a PuzzleFS image; absent if its manifest cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    puzzlefs: Option<bool>,
    /// The bytes of all its blobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Lists the images of a store, in the order of the index.
pub fn run(arguments: &ListArgs) -> anyhow::Result<()> {
    let store = arguments.store.open()?;
    let index = store.index()?;
    let images: Vec<_> = index.manifests.iter().map(|m| listed(&store, m)).collect();
    let mut out = Output::new();
    if arguments.json {
        for image in &images {
            out.json(image)?;
        }
    } else {
        table(&images, &mut out)?;
    }
    out.flush()?;
    let unreadable = images.iter().filter(|image| image.error.is_some()).count();
    if unreadable > 0 {
        let images = format::count(unreadable as u64, "image", "images");
        bail!("{images} cannot be read; run 'puzzlefs verify' for details");
    }
    Ok(())
}

fn listed<'a>(store: &Store, manifest: &'a Descriptor) -> Listed<'a> {
    let mut listed = Listed {
        tag: manifest.tag(),
        manifest_digest: &manifest.digest,
        media_type: &manifest.media_type,
        puzzlefs: None,
        bytes: None,
        created: manifest.annotations.get(oci::CREATED).map(String::as_str),
        error: None,
    };
    // Images of a nested index, such as one of several platforms, are not counted.
    if manifest.media_type != oci::MANIFEST {
        listed.puzzlefs = Some(false);
        return listed;
    }
    let Some(digest) = Digest::from_oci(&manifest.digest) else {
        listed.error = Some("its digest is not a sha256 digest".to_owned());
        return listed;
    };
    match store.manifest(&digest) {
        Ok((image, _)) => {
            let blobs = image.layers.iter().chain([&image.config, manifest]);
            listed.bytes = Some(blobs.fold(0, |sum, blob| blob.size.saturating_add(sum)));
            listed.puzzlefs = Some(image.is_puzzlefs());
        }
        Err(error) => listed.error = Some(error.to_string()),
    }
    listed
}

fn table(images: &[Listed<'_>], out: &mut Output) -> anyhow::Result<()> {
    // Another tool may have written any bytes.
    let text = |text: &str| printable(text.as_bytes());
    let tags = images
        .iter()
        .map(|image| image.tag.map_or("-".to_owned(), text));
    let tags: Vec<_> = tags.collect();
    let width = tags.iter().map(|tag| tag.chars().count()).max();
    let width = width.unwrap_or_default();
    for (image, tag) in images.iter().zip(&tags) {
        let size = image.bytes.map_or("-".to_owned(), format::bytes);
        let digest = text(image.manifest_digest);
        write!(out, "{tag:width$}  {size:>10}  {digest}")?;
        if let Some(created) = image.created {
            write!(out, "  {}", text(created))?;
        }
        if image.puzzlefs == Some(false) {
            write!(out, "  (not a PuzzleFS image)")?;
        }
        writeln!(out)?;
        if let Some(error) = &image.error {
            say(format_args!("{tag}: {error}"));
        }
    }
    Ok(())
}
