// SPDX-License-Identifier: MIT OR Apache-2.0

//! Problems with the tree that an image is built from.
//!
//! A builder that meets a problem looks at the rest of the tree, so that one run reports all of them.

use crate::error::{Error, Result};
use std::fmt;
use std::path::PathBuf;

/// The number of problems that are kept with their messages.
const SHOWN: usize = 10;

/// The remedy for a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// There is none.
    None,
    /// The tree can be walked again, because it has changed since.
    Walk,
    /// This path, from the root of the tree, can be left out, because it cannot be read.
    LeaveOut(PathBuf),
}

/// Problems, of which the first are known in full.
#[derive(Debug, Default)]
pub struct Problems {
    first: Vec<Error>,
    count: u64,
    without_remedy: u64,
    walk_again: bool,
    unreadable: Vec<PathBuf>,
}

impl Problems {
    /// The first problems.
    pub fn first(&self) -> &[Error] {
        &self.first
    }

    /// The number of problems beyond the first.
    pub fn rest(&self) -> u64 {
        self.count.saturating_sub(self.first.len() as u64)
    }

    /// Returns true if the tree changed while it was read, and nothing else is known to be wrong.
    pub fn are_changes(&self) -> bool {
        self.first.iter().all(Error::is_change)
    }

    /// Takes note of a problem. An interruption is none: it is returned.
    pub(crate) fn add(&mut self, error: Error, remedy: Remedy) -> Result<()> {
        if matches!(error, Error::Interrupted) {
            return Err(error);
        }
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(error);
        }
        match remedy {
            Remedy::None => self.without_remedy += 1,
            Remedy::Walk => self.walk_again = true,
            Remedy::LeaveOut(path) => self.unreadable.push(path),
        }
        Ok(())
    }

    /// Takes note of an error of a step that found one, or several.
    pub(crate) fn of(error: Error) -> Result<Self> {
        match error {
            Error::Problems(problems) => Ok(*problems),
            error if error.is_change() => {
                let mut problems = Problems::default();
                problems.add(error, Remedy::Walk)?;
                Ok(problems)
            }
            error => Err(error),
        }
    }

    /// Returns true if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns true if every problem has a remedy of those that are allowed.
    pub(crate) fn can_be_solved(&self, by_walking: bool, by_leaving_out: bool) -> bool {
        self.without_remedy == 0
            && (by_walking || !self.walk_again)
            && (by_leaving_out || self.unreadable.is_empty())
    }

    /// Returns true if the tree has to be walked again for another reason than unreadable files.
    pub(crate) fn has_changes(&self) -> bool {
        self.walk_again
    }

    /// The paths, from the root of the tree, that can be left out, and the first causes.
    pub(crate) fn into_unreadable(self) -> (Vec<PathBuf>, Vec<Error>) {
        (self.unreadable, self.first)
    }

    /// The error that reports the problems. One problem is its own error.
    pub(crate) fn into_error(mut self) -> Error {
        match (self.count, self.first.pop()) {
            (1, Some(error)) => error,
            (_, last) => {
                self.first.extend(last);
                Error::Problems(Box::new(self))
            }
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.first.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        match self.rest() {
            0 => Ok(()),
            rest => write!(f, "; and {rest} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StoreError;

    fn error(number: u32) -> Error {
        let path = format!("file {number}").into();
        StoreError::Missing { path }.into()
    }

    #[test]
    fn the_first_are_kept_and_the_rest_counted() {
        let mut problems = Problems::default();
        for number in 0..25 {
            problems.add(error(number), Remedy::None).unwrap();
        }
        assert_eq!((problems.first().len(), problems.rest()), (SHOWN, 15));
        let last = "cannot use file 9: the blob is missing; and 15 more";
        assert!(problems.to_string().ends_with(last));
        assert!(problems.add(Error::Interrupted, Remedy::None).is_err());
        let mut one = Problems::default();
        one.add(error(1), Remedy::None).unwrap();
        let wanted = "cannot use file 1: the blob is missing";
        assert_eq!(one.into_error().to_string(), wanted);
    }

    #[test]
    fn each_remedy_has_to_be_allowed() {
        let mut problems = Problems::default();
        assert!(problems.is_empty() && problems.can_be_solved(false, false));
        problems
            .add(error(1), Remedy::LeaveOut("x".into()))
            .unwrap();
        assert!(!problems.can_be_solved(true, false) && problems.can_be_solved(false, true));
        problems.add(error(2), Remedy::Walk).unwrap();
        assert!(!problems.can_be_solved(false, true) && problems.can_be_solved(true, true));
        problems.add(error(3), Remedy::None).unwrap();
        assert!(!problems.can_be_solved(true, true));
    }
}
