// SPDX-License-Identifier: MIT OR Apache-2.0

//! The documents at the top of a layout: `oci-layout`, and `index.json`, which is replaced only if nobody
//! else has replaced it meanwhile.

use super::connection::{Connection, Stop};
use super::error::ObjectFault;
use crate::error::Message;
use object_store::{PutMode, PutPayload, UpdateVersion};
use puzzlefs_lib::oci::{Descriptor, Index, LAYOUT, LAYOUT_VERSION};
use puzzlefs_lib::{json, Result};
use serde::Deserialize;
use std::time::Duration;

/// The largest index and manifest that are accepted, in bytes.
pub(super) const DOCUMENT_MAX: u64 = 16 << 20;
/// The largest `oci-layout` that is accepted, in bytes.
const LAYOUT_MAX: u64 = 64 << 10;
/// The most attempts to replace an index.
const REPLACEMENTS: u32 = 30;
/// The pause after the first failed replacement. Later ones are longer.
const PAUSE: Duration = Duration::from_millis(50);
/// The names of the documents.
const INDEX_JSON: &str = "index.json";
const OCI_LAYOUT: &str = "oci-layout";

/// `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// The index of a layout, as it was read.
struct Read {
    index: Index,
    bytes: Vec<u8>,
    version: UpdateVersion,
}

impl Connection<'_> {
    fn index(&self) -> Result<Option<Read>> {
        let read = self.read_small(INDEX_JSON, DOCUMENT_MAX);
        let Some(small) = read.map_err(|stop| self.stopped(INDEX_JSON, stop))? else {
            return Ok(None);
        };
        let index: Index = json::parse(&small.bytes, "an OCI image index")
            .map_err(|cause| self.fail(INDEX_JSON, ObjectFault::Malformed(cause)))?;
        if let Some(cause) = index.unknown() {
            return Err(self.fail(INDEX_JSON, ObjectFault::UnknownIndex(cause)));
        }
        Ok(Some(Read {
            index,
            bytes: small.bytes,
            version: small.version,
        }))
    }

    /// Returns the index; an empty one if there is none.
    pub(super) fn entries(&self) -> Result<Index> {
        Ok(self.index()?.map(|read| read.index).unwrap_or_default())
    }

    /// Finds the image under a tag. Returns it with the index.
    pub(super) fn tagged(&self, tag: &str) -> Result<(Descriptor, Index)> {
        let read = self.index()?;
        let Some(Read { index, .. }) = read else {
            return Err(self.fail(INDEX_JSON, ObjectFault::NotFound));
        };
        let Some(image) = index.find(tag).cloned() else {
            let (tag, tags) = (tag.to_owned(), index.tags());
            return Err(self.fail(INDEX_JSON, ObjectFault::NoTag { tag, tags }));
        };
        Ok((image, index))
    }

    /// Fails if an image cannot be added to the layout. There need not be one.
    pub(super) fn check_layout(&self) -> Result<()> {
        self.index()?;
        let read = self.read_small(OCI_LAYOUT, LAYOUT_MAX);
        let Some(small) = read.map_err(|stop| self.stopped(OCI_LAYOUT, stop))? else {
            return Ok(());
        };
        let layout: Layout = json::parse(&small.bytes, "the version of an OCI image layout")
            .map_err(|cause| self.fail(OCI_LAYOUT, ObjectFault::Malformed(cause)))?;
        let version = layout.image_layout_version;
        if version != LAYOUT_VERSION {
            let fault = ObjectFault::UnknownLayout(Message::new(version));
            return Err(self.fail(OCI_LAYOUT, fault));
        }
        Ok(())
    }

    /// Writes `oci-layout`, unless it exists.
    pub(super) fn write_layout(&self) -> Result<()> {
        let write = || match self.size(OCI_LAYOUT)? {
            Some(_) => Ok(()),
            None => self.put(OCI_LAYOUT, &PutPayload::from(LAYOUT), &PutMode::Overwrite),
        };
        write().map_err(|stop| self.stopped(OCI_LAYOUT, stop))
    }

    /// Changes the index by a function, which runs again if another writer replaces the index meanwhile.
    pub(super) fn change_index(&self, change: impl Fn(&mut Index)) -> Result<()> {
        let fail = |fault| self.fail(INDEX_JSON, fault);
        for attempt in 0..REPLACEMENTS {
            self.progress.check()?;
            let read = self.index()?;
            let (mut index, mode, before) = match read {
                Some(Read {
                    index,
                    bytes,
                    version,
                }) => (index, PutMode::Update(version), Some(bytes)),
                None => (Index::default(), PutMode::Create, None),
            };
            change(&mut index);
            let bytes = serde_json::to_vec(&index)
                .map_err(|error| fail(ObjectFault::Protocol(Message::new(error.to_string()))))?;
            if before.as_ref() == Some(&bytes) {
                return Ok(());
            }
            if bytes.len() as u64 > DOCUMENT_MAX {
                return Err(fail(ObjectFault::TooLarge { max: DOCUMENT_MAX }));
            }
            let payload = PutPayload::from(bytes);
            let put = match self.put(INDEX_JSON, &payload, &mode) {
                // The store replaces objects without a condition.
                Err(Stop::Fault(ObjectFault::Unsupported(_))) => {
                    self.put(INDEX_JSON, &payload, &PutMode::Overwrite)
                }
                put => put,
            };
            match put {
                Ok(()) => return Ok(()),
                Err(Stop::Fault(ObjectFault::Contended)) => {
                    // Writers that were in step are not, afterwards.
                    let skew = Duration::from_millis(u64::from(std::process::id() % 50));
                    self.pause(PAUSE * (attempt + 1) + skew)?;
                }
                Err(Stop::Fault(ObjectFault::Status { status: 501, .. })) => {
                    return Err(fail(ObjectFault::Unconditional));
                }
                Err(stop) => return Err(self.stopped(INDEX_JSON, stop)),
            }
        }
        Err(fail(ObjectFault::Contended))
    }
}
