// SPDX-License-Identifier: MIT OR Apache-2.0

//! Assembles a tree of members, in any order, with the result of extracting them.
//!
//! A later member replaces an earlier one of its path; directories are merged. A symbolic link in a
//! path is followed inside the tree and never leads out of it. Missing parents are created: owner
//! root, mode 0755, time 0.

use crate::error::TreeFault;
use crate::ingest::tar::{FileData, Member, MemberKind};
use crate::model::limits::{LIST_MAX, MEMBER_COST};
use crate::model::path_walk::{PathWalk, Step, Stop};
use crate::model::rules::Rules;
use crate::model::tree::{Entry, FileState, Kind, Node, NodeId, Origin, Time, Tree, Xattr};
use puzzlefs_schema::{MAX_NAME_LEN, MAX_SYMLINK_LEN};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem;

/// The largest size of the members without their contents, in bytes.
pub(crate) const METADATA_MAX: u64 = 4 << 30;

/// The largest size of holes in all files, in bytes, because each MiB takes an extent.
const HOLES_MAX: u64 = 8 << 40;

/// The index of a slot.
type SlotId = u32;

/// The slot of the root.
const ROOT: SlotId = 0;

/// A tree that members are added to.
#[derive(Clone)]
pub(crate) struct Assembly {
    slots: Vec<Slot>,
    metadata: u64,
    holes: u64,
}

/// An inode. It is ignored if no directory has it any longer.
#[derive(Clone)]
struct Slot {
    content: Content,
    permissions: u16,
    uid: u32,
    gid: u32,
    mtime: Time,
    xattrs: Vec<Xattr>,
}

#[derive(Clone)]
enum Content {
    Directory(BTreeMap<Box<[u8]>, SlotId>),
    Other(Kind),
}

/// An error is the cause that a member cannot be added to the tree.
type Result<T> = std::result::Result<T, TreeFault>;

impl Slot {
    /// A directory without a member.
    fn implied() -> Self {
        Slot {
            content: Content::Directory(BTreeMap::new()),
            permissions: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        }
    }

    fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }

    /// Returns its node; the entries of a directory are filled in later.
    fn node(&mut self, first_name: (NodeId, u32)) -> Node {
        let kind = match &mut self.content {
            Content::Directory(_) => Kind::Directory(Vec::new()),
            Content::Other(kind) => mem::replace(kind, Kind::Fifo),
        };
        Node {
            kind,
            permissions: self.permissions,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            nlink: 1,
            xattrs: mem::take(&mut self.xattrs),
            first_name,
        }
    }
}

impl Assembly {
    /// A tree with only the root.
    pub fn new() -> Self {
        Assembly {
            slots: vec![Slot::implied()],
            metadata: 0,
            holes: 0,
        }
    }

    /// Adds a member to the tree.
    pub fn insert(&mut self, member: Member) -> Result<()> {
        let names = names(&member.path)?;
        let xattrs = member.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| (name.len() + value.len()) as u64);
        self.spend(xattrs.sum())?;
        let content = match member.kind {
            MemberKind::HardLink(target) => return self.link(&names, &target),
            MemberKind::Directory => Content::Directory(BTreeMap::new()),
            kind => Content::Other(self.kind(kind)?),
        };
        let mut slot = Slot {
            content,
            permissions: member.permissions,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs: member.xattrs,
        };
        let known = match names.split_last() {
            None if !slot.is_directory() => {
                return Err(TreeFault::RootNotADirectory);
            }
            None => 0,
            Some((name, parents)) => {
                let parent = self.make_directories(parents)?;
                match self.child(parent, name) {
                    Some(id) if slot.is_directory() && self.slot(id).is_directory() => id,
                    _ => {
                        let id = self.add(slot)?;
                        return self.set_child(parent, name, id);
                    }
                }
            }
        };
        // An existing directory keeps its entries.
        let place = &mut self.slots[known as usize];
        mem::swap(&mut slot.content, &mut place.content);
        *place = slot;
        Ok(())
    }

    /// Removes a path with everything beneath it, if it exists.
    pub fn remove(&mut self, path: &[u8]) -> Result<()> {
        let names = names(path)?;
        let Some((name, parents)) = names.split_last() else {
            return Err(TreeFault::RootRemoved);
        };
        if let Some(parent) = self.resolve(parents, false)? {
            self.children(parent)?.remove(*name);
        }
        Ok(())
    }

    /// Removes everything beneath a directory, if it exists.
    pub fn clear(&mut self, path: &[u8]) -> Result<()> {
        if let Some(directory) = self.resolve(&names(path)?, false)? {
            self.children(directory)?.clear();
        }
        Ok(())
    }

    /// Returns the tree, its inodes numbered as by the walk of a directory.
    pub fn finish(mut self, rules: &Rules) -> Tree {
        let mut tree = Tree::default();
        // The node of each slot that has one.
        let mut nodes: Vec<Option<NodeId>> = vec![None; self.slots.len()];
        tree.nodes.push(self.slots[0].node((0, 0)));
        // Directories without their entries yet, the next one last.
        let mut pending: Vec<(NodeId, SlotId)> = vec![(0, 0)];
        while let Some((directory, slot)) = pending.pop() {
            let mut entries = Vec::new();
            let mut subdirectories = Vec::new();
            for (name, slot) in self.kept_children(slot, &tree, directory, rules) {
                // One that has no node yet gets the next.
                let known = &mut nodes[slot as usize];
                let node = *known.get_or_insert(tree.nodes.len() as NodeId);
                if let Some(node) = tree.nodes.get_mut(node as usize) {
                    node.nlink += 1;
                } else {
                    let slot_ref = &mut self.slots[slot as usize];
                    if slot_ref.is_directory() {
                        subdirectories.push((node, slot));
                    }
                    let first_name = (directory, entries.len() as u32);
                    tree.nodes.push(slot_ref.node(first_name));
                }
                entries.push(Entry { name, node });
            }
            let node = &mut tree.nodes[directory as usize];
            node.kind = Kind::Directory(entries);
            node.nlink = 2 + subdirectories.len() as u32;
            pending.extend(subdirectories.into_iter().rev());
        }
        tree
    }

    /// Takes the children of a directory that the rules keep, in byte order of their names.
    fn kept_children(
        &mut self,
        slot: SlotId,
        tree: &Tree,
        directory: NodeId,
        rules: &Rules,
    ) -> Vec<(Box<[u8]>, SlotId)> {
        let Content::Directory(children) = &mut self.slots[slot as usize].content else {
            return Vec::new();
        };
        let children = mem::take(children).into_iter();
        if rules.exclude.is_empty() {
            return children.collect();
        }
        let mut path = tree.names(directory).join(&b'/');
        if !path.is_empty() {
            path.push(b'/');
        }
        let length = path.len();
        let kept = children.filter(|(name, slot)| {
            path.truncate(length);
            path.extend_from_slice(name);
            !rules.excludes(&path, self.slot(*slot).is_directory())
        });
        kept.collect()
    }

    /// Gives the inode at `target` another name.
    fn link(&mut self, names: &[&[u8]], target: &[u8]) -> Result<()> {
        let target_names = self::names(target)?;
        let missing = || TreeFault::NoLinkTarget(target.to_vec());
        let (target_name, target_parents) = target_names.split_last().ok_or_else(missing)?;
        let found = self.resolve(target_parents, false)?;
        let id = found.and_then(|parent| self.child(parent, target_name));
        let id = id.ok_or_else(missing)?;
        if self.slot(id).is_directory() {
            return Err(TreeFault::LinkToDirectory(target.to_vec()));
        }
        let Some((name, parents)) = names.split_last() else {
            return Err(TreeFault::RootNotADirectory);
        };
        let parent = self.make_directories(parents)?;
        self.set_child(parent, name, id)
    }

    /// Returns the kind of a node for a member that is neither a directory nor a hard link.
    fn kind(&mut self, kind: MemberKind) -> Result<Kind> {
        Ok(match kind {
            MemberKind::File(FileData { size, pieces }) => {
                self.spend(mem::size_of_val(&pieces[..]) as u64)?;
                let stored: u64 = pieces.iter().map(|piece| piece.length).sum();
                self.holes = self.holes.saturating_add(size.saturating_sub(stored));
                if self.holes > HOLES_MAX {
                    return Err(TreeFault::TooManyHoles);
                }
                Kind::File(FileState {
                    size,
                    origin: Origin::Archive(pieces.into_boxed_slice()),
                })
            }
            MemberKind::Symlink(target) => {
                if target.is_empty() || target.len() > MAX_SYMLINK_LEN || target.contains(&0) {
                    return Err(TreeFault::SymlinkTarget);
                }
                self.spend(target.len() as u64)?;
                Kind::Symlink(target)
            }
            MemberKind::CharDevice(major, minor) => Kind::CharDevice(major, minor),
            MemberKind::BlockDevice(major, minor) => Kind::BlockDevice(major, minor),
            MemberKind::Fifo => Kind::Fifo,
            MemberKind::Socket => Kind::Socket,
            MemberKind::Directory | MemberKind::HardLink(_) => {
                return Err(TreeFault::Type);
            }
        })
    }

    fn make_directories(&mut self, names: &[&[u8]]) -> Result<SlotId> {
        let made = self.resolve(names, true)?;
        made.ok_or(TreeFault::NoParent)
    }

    /// Finds the directory of a path from the root. Creates missing directories if `make` is set.
    fn resolve(&mut self, names: &[&[u8]], make: bool) -> Result<Option<SlotId>> {
        let mut walk = PathWalk::new(ROOT, names.iter().copied());
        loop {
            match self.advance(&mut walk)? {
                Stop::Directory(id) => return Ok(Some(id)),
                Stop::Missing(name) if make => {
                    check_name(&name)?;
                    let id = self.add(Slot::implied())?;
                    self.set_child(walk.here(), &name, id)?;
                    walk.enter(id);
                }
                Stop::Other(_, name) if make => {
                    return Err(TreeFault::NotADirectory(name.into_owned()));
                }
                Stop::Missing(_) | Stop::Other(..) | Stop::TooManyLinks => return Ok(None),
            }
        }
    }

    /// Returns true if a hard link to this path can be made.
    pub fn has(&mut self, path: &[u8]) -> bool {
        let Ok(names) = names(path) else {
            return false;
        };
        let Some((name, parents)) = names.split_last() else {
            return false;
        };
        let parent = self.resolve(parents, false);
        parent.is_ok_and(|parent| parent.is_some_and(|id| self.child(id, name).is_some()))
    }

    /// Finds the regular file of a path. Symbolic links are followed, also the last one, and do not
    /// lead out of the tree. Returns `None` if there is no such file.
    pub fn file(&self, path: &[u8]) -> Result<Option<&FileState>> {
        let mut walk = PathWalk::new(ROOT, path.split(|&byte| byte == b'/'));
        match self.advance(&mut walk)? {
            Stop::Other(id, _) if walk.is_done() => match &self.slot(id).content {
                Content::Other(Kind::File(state)) => Ok(Some(state)),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Goes on until the path ends or a name cannot be entered.
    fn advance<'n>(&self, walk: &mut PathWalk<'n, SlotId>) -> Result<Stop<'n, SlotId>> {
        let stop = walk.advance(|directory, name, _| {
            let Some(id) = self.child(directory, name) else {
                return Ok::<_, TreeFault>(Step::Missing);
            };
            Ok(match &self.slot(id).content {
                Content::Directory(_) => Step::Directory(id),
                Content::Other(Kind::Symlink(target)) => Step::Link(Cow::Owned(target.to_vec())),
                Content::Other(_) => Step::Other(id),
            })
        })?;
        match stop {
            Stop::TooManyLinks => Err(TreeFault::TooManyLinks),
            stop => Ok(stop),
        }
    }

    fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id as usize]
    }

    fn child(&self, directory: SlotId, name: &[u8]) -> Option<SlotId> {
        match &self.slot(directory).content {
            Content::Directory(children) => children.get(name).copied(),
            Content::Other(_) => None,
        }
    }

    fn children(&mut self, directory: SlotId) -> Result<&mut BTreeMap<Box<[u8]>, SlotId>> {
        match &mut self.slots[directory as usize].content {
            Content::Directory(children) => Ok(children),
            Content::Other(_) => Err(TreeFault::ParentNotADirectory),
        }
    }

    fn set_child(&mut self, directory: SlotId, name: &[u8], id: SlotId) -> Result<()> {
        self.spend(MEMBER_COST + name.len() as u64)?;
        self.children(directory)?.insert(name.into(), id);
        Ok(())
    }

    fn add(&mut self, slot: Slot) -> Result<SlotId> {
        if self.slots.len() >= LIST_MAX {
            return Err(TreeFault::TooManyInodes);
        }
        self.slots.push(slot);
        Ok(self.slots.len() as SlotId - 1)
    }

    /// Counts memory that members take.
    fn spend(&mut self, bytes: u64) -> Result<()> {
        self.metadata = self.metadata.saturating_add(bytes);
        if self.metadata > METADATA_MAX {
            Err(TreeFault::TooMuchMetadata)
        } else {
            Ok(())
        }
    }
}

/// Returns the names of a path, which is relative to the root with or without a slash in front.
fn names(path: &[u8]) -> Result<Vec<&[u8]>> {
    let names = path.split(|&byte| byte == b'/');
    let names: Vec<&[u8]> = names.filter(|&name| name != b"" && name != b".").collect();
    names.iter().try_for_each(|name| check_name(name))?;
    Ok(names)
}

fn check_name(name: &[u8]) -> Result<()> {
    if name == b".." {
        return Err(TreeFault::DotDot);
    }
    if name.len() > MAX_NAME_LEN {
        return Err(TreeFault::NameTooLong);
    }
    if name.contains(&0) {
        return Err(TreeFault::ZeroByte);
    }
    Ok(())
}
