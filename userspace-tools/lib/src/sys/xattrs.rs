// SPDX-License-Identifier: MIT OR Apache-2.0

//! Extended attributes of the source.

use crate::model::acl;
use crate::model::rules::XattrSelection;
use crate::model::tree::Xattr;
use rustix::fs;
use rustix::io::Errno;
use std::ffi::CString;

/// The extended attributes of the object at `path`, not following it if it is a symbolic link,
/// in byte order of their names.
///
/// Taken are the name spaces that belong to the tree: `user.`, `trusted.`, `security.` and the
/// two POSIX ACLs. Others are views of a filesystem's own (`btrfs.compression`, `system.nfs4_acl`).
/// Attributes that the selection leaves out are not read, because that may not be permitted.
pub(crate) fn read(path: &[u8], selection: &XattrSelection) -> Result<Vec<Xattr>, Errno> {
    let names = grown(|buffer| fs::llistxattr(path, buffer));
    let names = match names {
        Ok(names) => names,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut xattrs = Vec::new();
    let names = names.split(|&byte| byte == 0);
    for name in names.filter(|name| belongs(name) && selection.takes(name)) {
        let Ok(c_name) = CString::new(name) else {
            continue;
        };
        match grown(|buffer| fs::lgetxattr(path, c_name.as_c_str(), buffer)) {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // Removed since, or listed but not to be read in this name space.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Returns true if an attribute belongs to the tree, by its full name.
pub(crate) fn belongs(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security."]
        .iter()
        .any(|space| name.starts_with(space) && name.len() > space.len())
        || name == acl::ACCESS
        || name == acl::DEFAULT
}

/// Calls `get` with a buffer that is large enough: values and lists have at most 64 KiB.
fn grown(mut get: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match get(&mut small) {
        Ok(size) => return Ok(small[..size].to_vec()),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno),
    }
    let mut large = vec![0; 64 << 10];
    let size = get(&mut large)?;
    large.truncate(size);
    Ok(large)
}
