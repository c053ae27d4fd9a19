// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of a tree that goes into an image, and changes on the way.

use clap::Args;
use puzzlefs_lib::owners::{IdMap, IdRange, Owners};
use puzzlefs_lib::rules::{PathPattern, Rules, XattrPattern, XattrSelection};
use puzzlefs_lib::Error;

/// The part of a tree that goes into an image.
#[derive(Debug, Args)]
pub struct RuleArgs {
    /// Leave out matching paths and everything below them (repeatable)
    ///
    /// '*.o' matches names anywhere, '/var/cache/*' paths from the root, 'tmp/' directories only.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<PathPattern>,
    /// Give everything to one user and group
    #[arg(long, value_name = "UID:GID", value_parser = owner, conflicts_with_all = ["uid_map", "gid_map"])]
    owner: Option<(u32, u32)>,
    /// Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)
    #[arg(long, value_name = "FROM:TO:COUNT")]
    uid_map: Vec<IdRange>,
    /// Map group IDs in the same way
    #[arg(long, value_name = "FROM:TO:COUNT")]
    gid_map: Vec<IdRange>,
    /// Lower modification times to at most this, in seconds since 1970
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SOURCE_DATE_EPOCH",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_parser = seconds
    )]
    source_date_epoch: Option<i64>,
    /// Keep only matching extended attributes, drop those matching '!PATTERN' (repeatable)
    #[arg(long, value_name = "PATTERN")]
    xattrs: Vec<XattrPattern>,
    /// Keep no extended attributes
    #[arg(long, conflicts_with = "xattrs")]
    no_xattrs: bool,
}

impl RuleArgs {
    /// Returns the rules that these options make.
    pub fn rules(&self) -> puzzlefs_lib::Result<Rules> {
        let owners = match self.owner {
            Some((uid, gid)) => Owners::All(uid, gid),
            None => Owners::Mapped(
                id_map("--uid-map", &self.uid_map)?,
                id_map("--gid-map", &self.gid_map)?,
            ),
        };
        let xattrs = if self.no_xattrs {
            XattrSelection::none()
        } else {
            XattrSelection::new(self.xattrs.clone())
        };
        Ok(Rules {
            exclude: self.exclude.clone(),
            xattrs,
            owners,
            latest_mtime: self.source_date_epoch,
        })
    }
}

fn id_map(option: &str, ranges: &[IdRange]) -> puzzlefs_lib::Result<IdMap> {
    IdMap::new(ranges.to_vec()).map_err(|what| Error::Usage(format!("{option}: {what}")))
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    text.split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)))
        .filter(|&(uid, gid)| uid != u32::MAX && gid != u32::MAX)
        .ok_or_else(|| "UID:GID is expected, two numbers up to 4294967294".to_owned())
}

fn seconds(text: &str) -> Result<i64, String> {
    let wanted = "a number of seconds since 1970 is expected, here or in SOURCE_DATE_EPOCH";
    text.parse().map_err(|_| wanted.to_owned())
}
