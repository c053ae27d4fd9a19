// SPDX-License-Identifier: MIT OR Apache-2.0

//! Owners of files in an image.

use crate::model::acl;
use crate::model::tree::Node;
use std::str::FromStr;

/// The change of owners from a source to an image.
#[derive(Clone, Debug, Default)]
pub enum Owners {
    /// As they are.
    #[default]
    Kept,
    /// All the same: user and group.
    All(u32, u32),
    /// By maps of users and of groups, in capabilities and access control lists too.
    Mapped(IdMap, IdMap),
}

/// A map of ranges of IDs. Without ranges, IDs stay as they are.
#[derive(Clone, Debug, Default)]
pub struct IdMap(Vec<IdRange>);

/// `FROM:TO:COUNT`: maps the `COUNT` IDs from `FROM` on to those from `TO` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    from: u32,
    to: u32,
    count: u32,
}

impl FromStr for IdRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
        let Some(&[from, to, count]) = numbers.as_deref() else {
            return Err("FROM:TO:COUNT is expected, three numbers".to_owned());
        };
        // The last number of all is no id: it says "none" where one is expected.
        let ends = [from, to].map(|start| start.checked_add(count));
        if count == 0 || ends.contains(&None) {
            return Err("the range is empty or goes beyond 4294967294".to_owned());
        }
        Ok(IdRange { from, to, count })
    }
}

/// An ID is in none of the ranges of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {option} has {what} {id}; '{option} {id}:{id}:1' keeps it as it is")]
pub struct Unmapped {
    /// "user" or "group".
    what: &'static str,
    /// The option that has the ranges.
    option: &'static str,
    id: u32,
}

impl IdMap {
    /// A map by these ranges.
    ///
    /// # Errors
    ///
    /// If two ranges have an ID in common. The error is the cause.
    pub fn new(mut ranges: Vec<IdRange>) -> Result<Self, String> {
        ranges.sort_by_key(|range| range.from);
        for pair in ranges.windows(2) {
            if let [before, after] = pair {
                if after.from - before.from < before.count {
                    return Err(format!("{} is in two ranges", after.from));
                }
            }
        }
        Ok(IdMap(ranges))
    }

    /// Maps an ID. None if no range has it.
    fn map(&self, id: u32) -> Option<u32> {
        if self.0.is_empty() {
            return Some(id);
        }
        let ranges = self.0.iter();
        let mut mapped = ranges.filter_map(|range| {
            let offset = id.checked_sub(range.from)?;
            (offset < range.count).then_some(range.to + offset)
        });
        mapped.next()
    }

    fn mapped(&self, what: &'static str, option: &'static str, id: u32) -> Result<u32, Unmapped> {
        self.map(id).ok_or(Unmapped { what, option, id })
    }
}

impl Owners {
    /// Changes the owners of a node.
    ///
    /// # Errors
    ///
    /// If a map does not contain an ID of the node.
    pub(crate) fn apply(&self, node: &mut Node) -> Result<(), Unmapped> {
        match self {
            Owners::Kept => {}
            Owners::All(uid, gid) => (node.uid, node.gid) = (*uid, *gid),
            Owners::Mapped(users, groups) => {
                let user = |uid| users.mapped("user", "--uid-map", uid);
                let group = |gid| groups.mapped("group", "--gid-map", gid);
                node.uid = user(node.uid)?;
                node.gid = group(node.gid)?;
                for (name, value) in &mut node.xattrs {
                    match &name[..] {
                        acl::ACCESS | acl::DEFAULT => {
                            map_acl(value, user, group)?;
                        }
                        b"security.capability" => map_capability(value, user)?,
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

/// Maps the ids of a POSIX ACL in the form of the kernel's attribute: a version, then entries of
/// 16-bit tag, 16-bit permissions and 32-bit id, all little-endian. Another form stays as it is.
fn map_acl(
    value: &mut [u8],
    user: impl Fn(u32) -> Result<u32, Unmapped>,
    group: impl Fn(u32) -> Result<u32, Unmapped>,
) -> Result<(), Unmapped> {
    const NAMED_USER: [u8; 2] = acl::USER.to_le_bytes();
    const NAMED_GROUP: [u8; 2] = acl::GROUP.to_le_bytes();
    let Some((version, entries)) = value.split_first_chunk_mut() else {
        return Ok(());
    };
    if u32::from_le_bytes(*version) != 2 {
        return Ok(());
    }
    for entry in entries.chunks_exact_mut(8) {
        let &mut [t0, t1, _, _, ref mut id @ ..] = entry else {
            continue;
        };
        let Some(id) = id.first_chunk_mut() else {
            continue;
        };
        let number = u32::from_le_bytes(*id);
        *id = match [t0, t1] {
            NAMED_USER => user(number)?.to_le_bytes(),
            NAMED_GROUP => group(number)?.to_le_bytes(),
            _ => continue,
        };
    }
    Ok(())
}

/// Maps the root user that a file capability of version 3 is for. For the real root it becomes
/// one of version 2, as the kernel has it.
fn map_capability(
    value: &mut Vec<u8>,
    user: impl Fn(u32) -> Result<u32, Unmapped>,
) -> Result<(), Unmapped> {
    const VERSION_3_SIZE: usize = 24;
    const VERSION_2_SIZE: usize = 20;
    if value.len() != VERSION_3_SIZE || value[3] != 3 {
        return Ok(());
    }
    let (rest, root) = value.split_at_mut(VERSION_2_SIZE);
    let Some(root) = root.first_chunk_mut() else {
        return Ok(());
    };
    let mapped = user(u32::from_le_bytes(*root))?;
    *root = mapped.to_le_bytes();
    if mapped == 0 {
        rest[3] = 2;
        value.truncate(VERSION_2_SIZE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert!("0:100000:65536".parse::<IdRange>().is_ok());
        for wrong in [
            "",
            "1:2",
            "1:2:3:4",
            "a:0:1",
            "0:0:0",
            "0:4294967295:1",
            "-1:0:1",
        ] {
            assert!(wrong.parse::<IdRange>().is_err(), "{wrong}");
        }
        let ranges = ["100000:0:1000", "5:5:1"].map(|text| text.parse().unwrap());
        let map = IdMap::new(ranges.to_vec()).unwrap();
        assert_eq!(map.map(100_000), Some(0));
        assert_eq!(map.map(100_999), Some(999));
        assert_eq!(map.map(101_000), None);
        assert_eq!(map.map(5), Some(5));
        assert_eq!(map.map(4), None);
        assert_eq!(IdMap::default().map(4), Some(4));
    }

    #[test]
    fn ids_in_lists_and_capabilities() {
        let add = |id: u32| Ok(id - 100);
        let mut acl = vec![2, 0, 0, 0];
        acl.extend([1, 0, 6, 0, 255, 255, 255, 255]);
        acl.extend([2, 0, 4, 0, 101, 0, 0, 0]);
        acl.extend([8, 0, 4, 0, 102, 0, 0, 0]);
        map_acl(&mut acl, add, |gid| Ok(gid + 1)).unwrap();
        assert_eq!(acl[8..12], [255; 4]);
        assert_eq!((acl[16], acl[24]), (1, 103));
        let mut capability = vec![1; 24];
        capability[3] = 3;
        capability[20..].copy_from_slice(&[100, 0, 0, 0]);
        map_capability(&mut capability, add).unwrap();
        assert_eq!((capability.len(), capability[0], capability[3]), (20, 1, 2));
        for length in 0..24 {
            map_acl(&mut vec![2; length], add, add).unwrap();
            map_capability(&mut vec![3; length], add).unwrap();
        }
    }
}
