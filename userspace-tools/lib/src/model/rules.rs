// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rules for the content that a build takes from its source, and for changes to it.

use crate::model::owners::{Owners, Unmapped};
use crate::model::tree::{NodeId, Time, Tree};
use globset::{GlobBuilder, GlobMatcher};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

/// The rules of a build. By default a tree is taken as it is.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The paths to leave out, with everything beneath them.
    pub exclude: Vec<PathPattern>,
    /// The extended attributes to take.
    pub xattrs: XattrSelection,
    /// The change of owners.
    pub owners: Owners,
    /// The latest modification time, in seconds since the epoch: `SOURCE_DATE_EPOCH`. Later times are
    /// replaced by it.
    pub latest_mtime: Option<i64>,
}

impl Rules {
    /// Returns true if a path, relative to the root, is left out.
    pub(crate) fn excludes(&self, path: &[u8], is_directory: bool) -> bool {
        // All patterns are tried, because a pattern that matches nothing is reported.
        let mut excluded = false;
        for pattern in &self.exclude {
            if (is_directory || !pattern.directories_only)
                && pattern.matcher.is_match(OsStr::from_bytes(path))
            {
                pattern.matched.store(true, Relaxed);
                excluded = true;
            }
        }
        excluded
    }

    /// Returns the patterns of paths to leave out that no path has matched.
    pub fn unmatched(&self) -> impl Iterator<Item = &str> {
        let patterns = self.exclude.iter();
        patterns
            .filter(|pattern| !pattern.matched.load(Relaxed))
            .map(|pattern| &*pattern.text)
    }

    /// Changes a tree's nodes as the rules say. `source` is for messages only.
    pub(crate) fn apply(&self, tree: &mut Tree, source: &Path) -> Result<(), RuleError> {
        (0..)
            .take(tree.nodes.len())
            .try_for_each(|at| self.apply_to(tree, at, source))
    }

    /// Changes one node of a tree as the rules say.
    pub(crate) fn apply_to(
        &self,
        tree: &mut Tree,
        at: NodeId,
        source: &Path,
    ) -> Result<(), RuleError> {
        let node = &mut tree.nodes[at as usize];
        if let Some(latest) = self.latest_mtime {
            if (node.mtime.seconds, node.mtime.nanoseconds) > (latest, 0) {
                node.mtime = Time {
                    seconds: latest,
                    nanoseconds: 0,
                };
            }
        }
        node.xattrs.retain(|(name, _)| self.xattrs.takes(name));
        self.owners.apply(node).map_err(|cause| RuleError {
            path: source.join(tree.path(at)),
            cause,
        })
    }
}

/// A rule cannot be applied to a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot change the owner of {}: {cause}", .path.display())]
pub struct RuleError {
    /// The path of the file.
    path: PathBuf,
    /// The cause.
    cause: Unmapped,
}

/// A pattern for paths.
///
/// `*` and `?` match within a name, `**` across names, `[...]` one character of a set, `{a,b}`
/// either; a backslash takes the next character for itself. A pattern with a slash that is not
/// its last character is matched against the path from the root, one without against each name.
/// With a slash at its end it matches directories only.
#[derive(Clone, Debug)]
pub struct PathPattern {
    text: String,
    matcher: GlobMatcher,
    /// A path has matched. Copies share it.
    matched: Arc<AtomicBool>,
    directories_only: bool,
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let directories_only = text.ends_with('/');
        let trimmed = text.trim_end_matches('/');
        let from_root = trimmed.strip_prefix("./").or(trimmed.strip_prefix('/'));
        let pattern = match from_root {
            Some(from_root) => from_root.to_owned(),
            None if trimmed.contains('/') => trimmed.to_owned(),
            None => format!("**/{trimmed}"),
        };
        if trimmed.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        Ok(PathPattern {
            text: text.to_owned(),
            matched: Arc::default(),
            matcher: glob(&pattern, true)?,
            directories_only,
        })
    }
}

/// Selects extended attributes: those whose full names match a pattern, or all if there is none,
/// except those that match a pattern to leave out.
#[derive(Clone, Debug, Default)]
pub struct XattrSelection {
    patterns: Vec<XattrPattern>,
}

impl XattrSelection {
    /// Selects by patterns.
    pub fn new(patterns: Vec<XattrPattern>) -> Self {
        XattrSelection { patterns }
    }

    /// Takes none.
    pub fn none() -> Self {
        let none = XattrPattern::from_str("!*").expect("this is a pattern");
        XattrSelection::new(vec![none])
    }

    pub(crate) fn takes(&self, name: &[u8]) -> bool {
        let name = OsStr::from_bytes(name);
        let matched = |wanted: bool| {
            let patterns = self.patterns.iter();
            let mut patterns = patterns.filter(|pattern| pattern.wanted == wanted);
            patterns.any(|pattern| pattern.matcher.is_match(name))
        };
        let any_wanted = self.patterns.iter().any(|pattern| pattern.wanted);
        (!any_wanted || matched(true)) && !matched(false)
    }
}

/// A pattern for the full names of extended attributes. A pattern after `!` leaves attributes out.
#[derive(Clone, Debug)]
pub struct XattrPattern {
    matcher: GlobMatcher,
    wanted: bool,
}

impl FromStr for XattrPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let left_out = text.strip_prefix('!');
        if left_out.unwrap_or(text).is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        Ok(XattrPattern {
            matcher: glob(left_out.unwrap_or(text), false)?,
            wanted: left_out.is_none(),
        })
    }
}

/// If `by_name`, only `**` matches a slash.
fn glob(pattern: &str, by_name: bool) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(by_name)
        .backslash_escape(true)
        .build();
    Ok(glob
        .map_err(|error| error.kind().to_string())?
        .compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excludes(pattern: &str, path: &str, is_directory: bool) -> bool {
        let rules = Rules {
            exclude: vec![pattern.parse().unwrap()],
            ..Rules::default()
        };
        rules.excludes(path.as_bytes(), is_directory)
    }

    #[test]
    fn path_patterns() {
        for (pattern, path, matches) in [
            ("*.o", "a.o", true),
            ("*.o", "deep/in/a.o", true),
            ("*.o", "a.o/b", false),
            ("/*.o", "a.o", true),
            ("/*.o", "deep/a.o", false),
            ("var/cache", "var/cache", true),
            ("var/cache", "srv/var/cache", false),
            ("var/*", "var/a/b", false),
            ("var/**", "var/a/b", true),
            ("**/tmp/*", "a/tmp/b", true),
            ("[ab]?", "ax", true),
            ("{one,two}", "x/two", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            assert_eq!(excludes(pattern, path, false), matches, "{pattern} {path}");
        }
        assert!(excludes("cache/", "cache", true));
        assert!(!excludes("cache/", "cache", false));
        assert!("a[".parse::<PathPattern>().is_err());
        assert!("/".parse::<PathPattern>().is_err());
        assert!("".parse::<PathPattern>().is_err());
    }

    #[test]
    fn names_that_are_not_utf_8() {
        let rules = Rules {
            exclude: vec!["*.o".parse().unwrap()],
            ..Rules::default()
        };
        assert!(rules.excludes(b"\xff\xfe.o", false));
        assert!(!rules.excludes(b"\xff\xfe", false));
    }

    #[test]
    fn xattr_patterns() {
        let takes = |patterns: &[&str], name: &str| {
            let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap());
            XattrSelection::new(patterns.collect()).takes(name.as_bytes())
        };
        assert!(takes(&[], "user.a"));
        assert!(takes(&["user.*"], "user.a.b"));
        assert!(!takes(&["user.*"], "trusted.a"));
        assert!(takes(&["!security.*"], "user.a"));
        assert!(!takes(&["!security.*"], "security.selinux"));
        assert!(!takes(&["user.*", "!user.a"], "user.a"));
        assert!(!XattrSelection::none().takes(b"user.a/b"));
    }
}
