// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line.

use crate::cat::CatArgs;
use crate::copy::CopyArgs;
use crate::diff::DiffArgs;
use crate::du::DuArgs;
use crate::enable_verity::EnableVerityArgs;
use crate::export::ExportArgs;
use crate::gc::GcArgs;
use crate::list::ListArgs;
use crate::ls::LsArgs;
use crate::manual::{CompletionsArgs, ManArgs};
use crate::mount::MountArgs;
use crate::tag::{TagArgs, UntagArgs};
use crate::umount::UmountArgs;
use crate::verify::VerifyArgs;
use clap::{Args, Parser, Subcommand};
use puzzlefs_lib::config::ConfigOptions;
use puzzlefs_lib::json;
use puzzlefs_lib::layout::CHUNK_AVG_MAX;
use puzzlefs_lib::mount::{Cause, Failure};
use puzzlefs_lib::owners::{IdMap, IdRange, Owners};
use puzzlefs_lib::platform::Platform;
use puzzlefs_lib::rules::{PathPattern, Rules, XattrPattern, XattrSelection};
use puzzlefs_lib::seekable::FRAME_SIZE_MAX;
use std::ffi::OsString;
use std::path::PathBuf;

/// Builds and inspects PuzzleFS images: container root filesystems cut into shared chunks.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Images are named <oci-dir>:<tag> or <oci-dir>@sha256:<manifest digest>.
In fstab, one is mounted by: <oci-dir>:<tag> <directory> puzzlefs nofail 0 0

Exit status: 0 done; 1 failed; 2 wrong usage; 3 the tree changed while it was read, try again;
130 interrupted; 141 nobody reads the output. Unless it is 0, or a message says otherwise, no tag
was set."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image of a directory tree or a tar archive
    Build(BuildArgs),
    /// Import a container image, of OCI or Docker
    Import(ImportArgs),
    /// Extract an image, or a part of it, into a directory
    Extract(ExtractArgs),
    /// Export an image as a tar archive or as an ordinary OCI image
    Export(ExportArgs),
    /// Mount an image, read-only or writable, by the kernel module or over FUSE
    Mount(MountArgs),
    /// Unmount an image
    Umount(UmountArgs),
    /// Show what an image is, or a file in it
    Inspect(InspectArgs),
    /// List files in an image
    Ls(LsArgs),
    /// Write files of an image to standard output
    Cat(CatArgs),
    /// List the images of a store
    #[command(visible_alias = "images")]
    List(ListArgs),
    /// Give an image one more tag
    Tag(TagArgs),
    /// Take a tag away
    Untag(UntagArgs),
    /// Copy an image to another store: only what is missing there
    Copy(CopyArgs),
    /// Show what the images of a store cost, and what they share
    Du(DuArgs),
    /// Show in what two images differ
    Diff(DiffArgs),
    /// Remove the blobs of a store that no image needs
    Gc(GcArgs),
    /// Check an image or a whole store, and tell every fault
    Verify(VerifyArgs),
    /// Enable fs-verity on the blobs of an image or a whole store
    EnableVerity(EnableVerityArgs),
    /// Print the digest of an image's metadata blob, the kernel's 'rootfs=' option
    Resolve(ResolveArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Write manual pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
}

/// `puzzlefs build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// A directory, or a tar archive, compressed or not; '-' reads standard input
    ///
    /// Archives are plain or compressed with gzip, zstd, xz or bzip2.
    #[arg(value_name = "DIRECTORY|TAR|-")]
    pub source: PathBuf,
    /// The store, made if there is none, and the tag to set
    #[arg(value_name = "OCI-DIR:TAG")]
    pub image: OsString,
    /// Leave mount points beneath the directory empty
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
    /// Read an archive past zero blocks, to the end of its file
    ///
    /// This reads concatenated archives, and archives whose end is not marked.
    #[arg(long)]
    pub ignore_zeros: bool,
    /// Leave out what cannot be read, and report it
    ///
    /// This leaves out files, and the contents of directories.
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Read what changes up to N times more [default: 0]
    ///
    /// This reads a file again that changes while it is read, and walks the tree again if files
    /// disappear.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub retry_changed: Option<u32>,
    /// What is left out or changed
    #[command(flatten)]
    pub rules: RuleArgs,
    /// How the image is made
    #[command(flatten)]
    pub output: OutputArgs,
    /// What containers of the image run: the last, because its heading holds for what follows
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// What containers of an image run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration of the image")]
pub struct ConfigArgs {
    /// Start from this file, in OCI's JSON [default: that of the base]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name this platform [default: that of FILE, or this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Run this program (repeat per word, or a JSON array)
    ///
    /// The command that the configuration had is dropped, unless --cmd is given.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,
    /// Pass these arguments to it (repeat per word, or a JSON array)
    ///
    /// If there is no entry point, the first word is the program.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    /// Set a variable of the environment (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub env: Vec<(String, String)>,
    /// Set a label (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub label: Vec<(String, String)>,
    /// Run as this user, by name or number
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Start in this directory, an absolute path
    #[arg(long, value_name = "DIRECTORY", value_parser = absolute)]
    pub workdir: Option<String>,
}

impl ConfigArgs {
    /// The configuration that these options make.
    ///
    /// # Errors
    ///
    /// Why it cannot be made.
    pub fn options(&self) -> anyhow::Result<ConfigOptions> {
        let mut options = ConfigOptions {
            original: None,
            platform: self.platform.clone(),
            entrypoint: words("--entrypoint", &self.entrypoint)?,
            cmd: words("--cmd", &self.cmd)?,
            env: self.env.clone(),
            labels: self.label.clone(),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
        };
        if let Some(path) = &self.config {
            options.read_original(path)?;
        }
        Ok(options)
    }
}

/// The words of a command, each given for itself or all in a JSON array; none if none was given.
fn words(option: &str, given: &[String]) -> Result<Option<Vec<String>>, Failure> {
    match given {
        [] => Ok(None),
        [array] if array.starts_with('[') => {
            let words = json::parse(array.as_bytes(), "a list of words");
            words.map(Some).map_err(|what| Failure {
                cause: Cause::Usage,
                message: format!("{option} {array}: {what}"),
            })
        }
        words => Ok(Some(words.to_vec())),
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected".to_owned()),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("an absolute path is expected".to_owned()),
    }
}

/// `puzzlefs import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// An OCI image layout, a directory or an archive, or an archive of 'docker save', and which
    /// image of it; '-' is an archive on the standard input
    #[arg(value_name = "IMAGE[:NAME]")]
    pub source: OsString,
    /// The store, made if there is none, and the tag to set
    #[arg(value_name = "OCI-DIR:TAG")]
    pub image: OsString,
    /// The platform to take, such as 'linux/arm64' [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Keep the image's layers, rather than make one of them
    #[arg(long)]
    pub layers: bool,
    /// What is left out or changed
    #[command(flatten)]
    pub rules: RuleArgs,
    /// How the image is made
    #[command(flatten)]
    pub output: OutputArgs,
}

/// How an image is made, and what is said of it.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Build on the image of this tag in the same store
    ///
    /// The image gets one more layer, of what differs.
    #[arg(long, value_name = "TAG")]
    pub base: Option<String>,
    /// Threads to use [default: one per processor]
    ///
    /// The image does not depend on their number.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Compress with zstd, at level 3 if none is given (1 to 19)
    #[arg(
        short = 'z',
        long,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "3",
        value_parser = clap::value_parser!(i32).range(1..=19)
    )]
    pub compress: Option<i32>,
    /// Minimum content of a frame, 4K to 256K [default: 128K]
    ///
    /// A frame is the unit of decompression.
    #[arg(long, value_name = "SIZE", requires = "compress", value_parser = frame_size)]
    pub frame_size: Option<usize>,
    /// Average size of a chunk, 4K to 256K [default: 128K]
    ///
    /// A chunk is the unit of sharing.
    #[arg(long, value_name = "SIZE", value_parser = chunk_size)]
    pub chunk_size: Option<usize>,
    /// Read blobs that the store already has, and replace damaged ones
    #[arg(long)]
    pub check: bool,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// What of a source goes into an image.
#[derive(Debug, Args)]
pub struct RuleArgs {
    /// Leave out what matches and all below it (repeatable)
    ///
    /// '*.o' matches names anywhere, '/var/cache/*' paths from the root, 'tmp/' directories only.
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<PathPattern>,
    /// Give everything to one user and group
    #[arg(long, value_name = "UID:GID", value_parser = owner, conflicts_with_all = ["uid_map", "gid_map"])]
    pub owner: Option<(u32, u32)>,
    /// Map user IDs FROM..FROM+COUNT to TO.. (repeatable; every ID must be covered)
    #[arg(long, value_name = "FROM:TO:COUNT")]
    pub uid_map: Vec<IdRange>,
    /// Map group IDs in the same way
    #[arg(long, value_name = "FROM:TO:COUNT")]
    pub gid_map: Vec<IdRange>,
    /// Make no modification time later than this, in seconds since 1970
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SOURCE_DATE_EPOCH",
        hide_env_values = true,
        allow_hyphen_values = true,
        value_parser = seconds
    )]
    pub source_date_epoch: Option<i64>,
    /// Take matching attributes only, after '!' all others (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub xattrs: Vec<XattrPattern>,
    /// Take no extended attributes
    #[arg(long, conflicts_with = "xattrs")]
    pub no_xattrs: bool,
}

impl RuleArgs {
    /// The rules that these options make.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn rules(&self) -> Result<Rules, Failure> {
        let owners = match self.owner {
            Some((uid, gid)) => Owners::All(uid, gid),
            None => Owners::Mapped(
                id_map("--uid-map", &self.uid_map)?,
                id_map("--gid-map", &self.gid_map)?,
            ),
        };
        let xattrs = match self.no_xattrs {
            true => XattrSelection::none(),
            false => XattrSelection::new(self.xattrs.clone()),
        };
        Ok(Rules {
            exclude: self.exclude.clone(),
            xattrs,
            owners,
            latest_mtime: self.source_date_epoch,
        })
    }
}

fn id_map(option: &str, ranges: &[IdRange]) -> Result<IdMap, Failure> {
    IdMap::new(ranges.to_vec()).map_err(|what| Failure {
        cause: Cause::Usage,
        message: format!("{option}: {what}"),
    })
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

fn frame_size(text: &str) -> Result<usize, String> {
    size(text, 4 << 10, FRAME_SIZE_MAX)
}

fn chunk_size(text: &str) -> Result<usize, String> {
    size(text, 4 << 10, CHUNK_AVG_MAX)
}

/// A size in bytes, in powers of two: `4096`, `64K`, `1M`.
fn size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 20),
            None => (text, 0),
        },
    };
    digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|size| size.is_power_of_two() && (least..=most).contains(size))
        .ok_or_else(|| {
            let (least, most) = (least >> 10, most >> 10);
            format!("a power of two from {least}K to {most}K is expected")
        })
}

/// `puzzlefs extract`.
#[derive(Debug, Args)]
#[command(after_help = "\
If PATH names a directory, its contents go into DIRECTORY. Any other file is put into DIRECTORY under
its own name. Symbolic links on the way are followed within the image; a link at the end is extracted.
If the text as a whole names an image of an existing store, there is no PATH. Otherwise PATH begins
after the first ':' that follows such an image.

Root gets everything as it is in the image. An ordinary user owns the extracted files, and gets no
devices and no attributes that only root may set. If the filesystem refuses an attribute, a link, a
name or a file, the extraction goes on; each kind of refusal is reported once, with a count and the
first paths. A hard link that is refused becomes a copy. Only a full filesystem, an unreadable image or
an interruption ends the extraction early; the files made by then stay.

Exit status: 0 everything was extracted, except for owners and attributes that take root; 1 something
else was refused, or the extraction ended early; 2 wrong usage; 130 interrupted.")]
pub struct ExtractArgs {
    /// The image, and the part of it to extract [default: all of it]
    #[arg(value_name = "IMAGE[:PATH]")]
    pub image: OsString,
    /// The directory to extract into: empty, or not existing yet
    pub directory: PathBuf,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// `puzzlefs inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
    /// A file in it: its inode, extended attributes and extents
    pub path: Option<OsString>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// `puzzlefs resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: OsString,
}
