// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extended attributes.

use super::message::{element, Locator, Metadata, Pace, View};
use crate::{
    error::{ErrorKind, Result},
    limits::{MAX_XATTR_NAME_LEN, MAX_XATTR_VALUE_LEN},
    metadata_capnp::xattr,
    overlay,
};
use capnp::struct_list;

/// An extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xattr<'a> {
    /// The full name: a namespace, a dot, and the rest, at most
    /// [`MAX_XATTR_NAME_LEN`](crate::MAX_XATTR_NAME_LEN) bytes, none of them NUL.
    pub name: &'a [u8],
    /// The value, at most [`MAX_XATTR_VALUE_LEN`](crate::MAX_XATTR_VALUE_LEN) bytes.
    pub value: &'a [u8],
}

/// The extended attributes of an inode.
///
/// A name can occur more than once in a malformed image. The first one counts.
#[derive(Clone, Copy, Debug)]
pub struct Xattrs<'a> {
    metadata: Metadata<'a>,
    at: Locator,
    ino: u64,
    len: u32,
}

impl<'a> Xattrs<'a> {
    pub(crate) fn read(metadata: Metadata<'a>, at: Locator, ino: u64) -> Result<Self> {
        let len = metadata.read(|view| Ok(list(view, at)?.len()))?;
        Ok(Self {
            metadata,
            at,
            ino,
            len,
        })
    }

    /// Returns the number of attributes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns true if there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the attributes, in no particular order.
    ///
    /// Cost of each step: the length of the name. An error ends the iteration.
    pub fn iter(&self) -> XattrsIter<'a> {
        XattrsIter {
            xattrs: *self,
            next: 0,
            pace: self.metadata.pace(),
        }
    }

    /// Returns the value of the attribute of a name; `None` if there is none.
    ///
    /// Cost: the total length of the names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::XattrName`] for any name up to the wanted one, [`ErrorKind::XattrValue`] for
    /// the wanted one, and those of the encoding.
    pub fn get(&self, name: &[u8]) -> Result<Option<&'a [u8]>> {
        self.find(|found| found == name)
    }

    /// Returns the value of the attribute whose escaped form, by [`overlay`](crate::overlay), is a
    /// name; `None` if there is none.
    ///
    /// Cost and errors: as [`get`](Self::get).
    pub fn get_escaped(&self, name: &[u8]) -> Result<Option<&'a [u8]>> {
        match overlay::unescape(name) {
            Some(parts) => self.get_parts(parts),
            None => Ok(None),
        }
    }

    /// Returns the value of the attribute of a name that is in two parts, as
    /// [`overlay::unescape`](crate::overlay::unescape) returns it; `None` if there is none.
    ///
    /// Cost and errors: as [`get`](Self::get).
    pub fn get_parts(&self, [head, tail]: [&[u8]; 2]) -> Result<Option<&'a [u8]>> {
        self.find(|found| found.strip_prefix(head) == Some(tail))
    }

    fn find(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Result<Option<&'a [u8]>> {
        let mut pace = self.metadata.pace();
        self.metadata
            .read(|view| {
                for xattr in list(view, self.at)?.iter() {
                    pace.step()?;
                    if is_wanted(checked_name(xattr)?) {
                        return self.metadata.keep(checked_value(xattr)?).map(Some);
                    }
                }
                Ok(None)
            })
            .map_err(|e| e.of(self.ino))
    }

    fn at(&self, index: u32) -> Result<Xattr<'a>> {
        self.metadata
            .read(|view| {
                let xattr = element(list(view, self.at)?, index)?;
                Ok(Xattr {
                    name: self.metadata.keep(checked_name(xattr)?)?,
                    value: self.metadata.keep(checked_value(xattr)?)?,
                })
            })
            .map_err(|e| e.of(self.ino))
    }
}

impl<'a> IntoIterator for Xattrs<'a> {
    type Item = Result<Xattr<'a>>;
    type IntoIter = XattrsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The extended attributes of an inode; see [`Xattrs::iter`].
#[derive(Clone, Debug)]
pub struct XattrsIter<'a> {
    xattrs: Xattrs<'a>,
    next: u32,
    pace: Pace,
}

impl<'a> Iterator for XattrsIter<'a> {
    type Item = Result<Xattr<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.xattrs.len {
            return None;
        }
        let item = match self.pace.step() {
            Ok(()) => self.xattrs.at(self.next),
            Err(e) => Err(e.of(self.xattrs.ino)),
        };
        self.next = match item {
            Ok(_) => self.next.saturating_add(1),
            Err(_) => self.xattrs.len,
        };
        Some(item)
    }
}

/// Returns the attributes of the inode at a place.
fn list<'r>(view: &View<'r>, at: Locator) -> Result<struct_list::Reader<'r, xattr::Owned>> {
    view.bounded(view.inode(at)?.get_additional()?.get_xattrs()?)
}

fn checked_name(xattr: xattr::Reader<'_>) -> Result<&[u8]> {
    let name = xattr.get_key()?;
    // A namespace, a dot, and something after it.
    let mut parts = name.splitn(2, |&byte| byte == b'.');
    let named = parts.all(|part| !part.is_empty()) && name.contains(&b'.');
    if !named || name.len() > MAX_XATTR_NAME_LEN || name.contains(&0) {
        return Err(ErrorKind::XattrName.into());
    }
    Ok(name)
}

fn checked_value(xattr: xattr::Reader<'_>) -> Result<&[u8]> {
    let value = xattr.get_val()?;
    if value.len() > MAX_XATTR_VALUE_LEN {
        return Err(ErrorKind::XattrValue.into());
    }
    Ok(value)
}
