// SPDX-License-Identifier: MIT OR Apache-2.0

//! Walks a path through a tree that is not on the host: of an image, or of an archive.
//!
//! The walk never leaves the tree. `..` of the root is the root, and a symbolic link leads to another
//! place of the tree.

use std::borrow::Cow;

/// The largest number of symbolic links in one walk, as in the kernel.
const LINKS_MAX: usize = 40;

/// The treatment of a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// It is followed, as `stat` does.
    Follow,
    /// The path means the link, as for `lstat`; unless a `/` comes after it.
    Keep,
}

/// A walk through a tree whose nodes are named by `N`.
pub(crate) struct PathWalk<'n, N> {
    root: N,
    /// The names that follow, the next one last.
    ahead: Vec<Cow<'n, [u8]>>,
    /// The directories from the root to here, without the root.
    trail: Vec<N>,
    /// The number of symbolic links that were followed.
    links: usize,
}

/// The node under a name in a directory.
pub(crate) enum Step<'n, N> {
    /// No node has the name.
    Missing,
    /// A directory, which the walk enters.
    Directory(N),
    /// A symbolic link with this target, which the walk follows.
    Link(Cow<'n, [u8]>),
    /// Any other node, or a link that is not followed.
    Other(N),
}

/// The end of a walk, or its interruption by a name that it cannot enter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop<'n, N> {
    /// The path ends in this directory.
    Directory(N),
    /// A name does not exist in [`PathWalk::here`].
    Missing(Cow<'n, [u8]>),
    /// A node under this name is not a directory. The path ends here if [`PathWalk::is_done`].
    Other(N, Cow<'n, [u8]>),
    /// The walk has followed too many symbolic links.
    TooManyLinks,
}

impl<'n, N: Copy> PathWalk<'n, N> {
    /// Begins a walk at the root of a tree. Empty names are skipped.
    pub fn new(root: N, names: impl DoubleEndedIterator<Item = &'n [u8]>) -> Self {
        PathWalk {
            root,
            ahead: names.rev().map(Cow::Borrowed).collect(),
            trail: Vec::new(),
            links: 0,
        }
    }

    /// Returns the directory that the walk is in.
    pub fn here(&self) -> N {
        self.trail.last().copied().unwrap_or(self.root)
    }

    /// Returns true if no name follows.
    pub fn is_done(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Enters a directory, which was made for a missing name.
    pub fn enter(&mut self, directory: N) {
        self.trail.push(directory);
    }

    /// Goes on until the path ends or a name cannot be entered. `look_up` finds a name in a directory,
    /// and is given whether the name is the last one.
    pub fn advance<E>(
        &mut self,
        mut look_up: impl FnMut(N, &[u8], bool) -> Result<Step<'n, N>, E>,
    ) -> Result<Stop<'n, N>, E> {
        while let Some(name) = self.ahead.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    self.trail.pop();
                    continue;
                }
                _ => {}
            }
            match look_up(self.here(), &name, self.is_done())? {
                Step::Missing => return Ok(Stop::Missing(name)),
                Step::Directory(directory) => self.trail.push(directory),
                Step::Other(node) => return Ok(Stop::Other(node, name)),
                Step::Link(_) if self.links == LINKS_MAX => return Ok(Stop::TooManyLinks),
                Step::Link(target) => self.follow(target),
            }
        }
        Ok(Stop::Directory(self.here()))
    }

    fn follow(&mut self, target: Cow<'n, [u8]>) {
        self.links += 1;
        if target.starts_with(b"/") {
            self.trail.clear();
        }
        let is_slash = |byte: &u8| *byte == b'/';
        match target {
            Cow::Borrowed(target) => {
                let names = target.rsplit(is_slash);
                self.ahead.extend(names.map(Cow::Borrowed));
            }
            Cow::Owned(target) => {
                let names = target.rsplit(is_slash);
                self.ahead
                    .extend(names.map(|name| Cow::Owned(name.to_vec())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Walks through a tree whose nodes are paths: `/d`, `/d/e` and `/d/f`, of which the last is a file,
    /// and links. A link at the end is kept if `keep`.
    fn walk(path: &str, keep: bool) -> (Stop<'static, &'static str>, bool) {
        const NODES: [(&str, &str, &str); 9] = [
            ("/", "d", "/d"),
            ("/d", "e", "/d/e"),
            ("/d", "f", "file"),
            ("/", "absolute", "->/d/e"),
            ("/d", "root", "->/d/e"),
            ("/d", "up", "->../d/./f"),
            ("/", "out", "->../../../d"),
            ("/", "loop", "->loop"),
            ("/", "broken", "->none"),
        ];
        let path: &'static str = path.to_owned().leak();
        let mut walk = PathWalk::new("/", path.as_bytes().split(|&byte| byte == b'/'));
        let stop = walk.advance(|directory, name, is_last| {
            let node = NODES
                .iter()
                .find(|(parent, own, _)| *parent == directory && own.as_bytes() == name);
            Ok::<_, Infallible>(match node {
                None => Step::Missing,
                Some((_, _, "file")) => Step::Other("file"),
                Some((_, _, to)) => match to.strip_prefix("->") {
                    Some(_) if keep && is_last => Step::Other("link"),
                    Some(target) => Step::Link(Cow::Borrowed(target.as_bytes())),
                    None => Step::Directory(*to),
                },
            })
        });
        let Ok(stop) = stop;
        (stop, walk.is_done())
    }

    #[test]
    fn paths_stay_in_the_tree() {
        for (path, wanted) in [
            ("", "/"),
            ("/", "/"),
            ("..", "/"),
            ("d/../../d/./e//", "/d/e"),
            ("absolute", "/d/e"),
            ("absolute/..", "/d"),
            ("d/root", "/d/e"),
            ("out/e", "/d/e"),
        ] {
            assert_eq!(walk(path, false).0, Stop::Directory(wanted), "{path}");
        }
    }

    #[test]
    fn files_and_links_end_a_walk() {
        let other = |node, name: &'static str| Stop::Other(node, Cow::Borrowed(name.as_bytes()));
        assert_eq!(walk("d/f", false), (other("file", "f"), true));
        assert_eq!(walk("d/up", false), (other("file", "f"), true));
        assert_eq!(walk("d/f/", false), (other("file", "f"), false));
        assert_eq!(walk("absolute", true), (other("link", "absolute"), true));
        // A slash behind a link means its target.
        assert_eq!(walk("absolute/", true).0, Stop::Directory("/d/e"));
    }

    #[test]
    fn loops_and_missing_names_are_found() {
        assert_eq!(walk("loop", false).0, Stop::TooManyLinks);
        let missing = |name: &'static str| Stop::Missing(Cow::Borrowed(name.as_bytes()));
        assert_eq!(walk("broken", false), (missing("none"), true));
        assert_eq!(walk("d/none/e", false), (missing("none"), false));
    }
}
