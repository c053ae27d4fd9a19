// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parts of an image that a target refuses.
//!
//! An extraction goes on after a refusal. So a refusal is counted by its kind, and only the first
//! few of each kind keep their paths: an image can have millions of files.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The number of paths that are kept for each kind of refusal.
const SHOWN: usize = 3;

/// A kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// The owner of an inode, because this user lacks the privilege to set it.
    OwnerPrivilege,
    /// Extended attributes of an inode, because this user lacks the privilege to set them.
    XattrPrivilege,
    /// The owner of an inode.
    Owner,
    /// Extended attributes of an inode.
    Xattr,
    /// An access control list of an inode.
    Acl,
    /// The permissions of an inode.
    Permissions,
    /// The modification time of an inode.
    Time,
    /// A hard link. The name is a copy instead.
    Link,
    /// A regular file: its name, its size, or its contents.
    File,
    /// A directory with everything beneath it.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device.
    Device,
    /// A named pipe or a socket.
    Special,
}

impl RefusalKind {
    /// The name of the kind in the output for programs.
    pub fn name(self) -> &'static str {
        match self {
            RefusalKind::OwnerPrivilege => "owner-privilege",
            RefusalKind::XattrPrivilege => "xattr-privilege",
            RefusalKind::Owner => "owner",
            RefusalKind::Xattr => "xattr",
            RefusalKind::Acl => "acl",
            RefusalKind::Permissions => "permissions",
            RefusalKind::Time => "time",
            RefusalKind::Link => "link",
            RefusalKind::File => "file",
            RefusalKind::Directory => "directory",
            RefusalKind::Symlink => "symlink",
            RefusalKind::Device => "device",
            RefusalKind::Special => "special",
        }
    }

    /// Returns true if every extraction by an ordinary user has to expect this refusal. It is then
    /// reported, but the extraction counts as complete.
    pub fn is_expected(self) -> bool {
        matches!(
            self,
            RefusalKind::OwnerPrivilege | RefusalKind::XattrPrivilege
        )
    }
}

/// All refusals of one kind.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// The number of inodes or names that are concerned.
    pub count: u64,
    /// The first of them: path and cause.
    pub first: Vec<(PathBuf, String)>,
}

/// All refusals of an extraction.
#[derive(Clone, Debug, Default)]
pub struct Refusals(BTreeMap<RefusalKind, Refusal>);

impl Refusals {
    /// Counts a refusal.
    pub(super) fn add(
        &mut self,
        kind: RefusalKind,
        path: impl FnOnce() -> PathBuf,
        cause: impl FnOnce() -> String,
    ) {
        let refusal = self.0.entry(kind).or_default();
        refusal.count += 1;
        if refusal.first.len() < SHOWN {
            refusal.first.push((path(), cause()));
        }
    }

    /// The number of refusals of a kind.
    pub fn count(&self, kind: RefusalKind) -> u64 {
        self.0.get(&kind).map_or(0, |refusal| refusal.count)
    }

    /// The refusals, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (RefusalKind, &Refusal)> {
        self.0.iter().map(|(kind, refusal)| (*kind, refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_and_keeps_the_first_paths() {
        let mut refusals = Refusals::default();
        for number in 0..10 {
            refusals.add(
                RefusalKind::Xattr,
                || PathBuf::from(format!("{number}")),
                || "no".to_owned(),
            );
        }
        refusals.add(RefusalKind::Link, PathBuf::new, String::new);
        assert_eq!(refusals.count(RefusalKind::Xattr), 10);
        assert_eq!(refusals.count(RefusalKind::Owner), 0);
        let all: Vec<_> = refusals.iter().collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].1.first.len(), SHOWN);
        assert_eq!(all[0].1.first[2], (PathBuf::from("2"), "no".to_owned()));
    }
}
