// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs record`.
//!
//! This process serves the image over FUSE, and a copy of it, started with `--inside`, enters the root
//! directory and runs the command.

use crate::arguments::{ImageArg, QuietArg};
use crate::output::{say, Output};
use crate::{format, interrupt};
use anyhow::{Context, Result};
use clap::Args;
use puzzlefs_fuse::{Image, Trace};
use puzzlefs_lib::complete;
use puzzlefs_lib::config::Run;
use puzzlefs_lib::error::SystemError;
use puzzlefs_lib::mount::{self, sandbox, Options, Upper, Writable};
use puzzlefs_lib::start_order::StartOrder;
use puzzlefs_lib::tree::AnyRoot;
use puzzlefs_lib::{Error, ImageRef, Progress, Store};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Record which ranges of files a command reads when it starts
///
/// COMMAND runs as root in a chroot of the image, with /proc, /sys and /dev, with changes in memory, and with
/// processes of its own. It keeps all privileges and the network of this host, so the image must be trusted.
/// The kernel module is not necessary.
///
/// The order lists each range at its first read. 'puzzlefs repack --order' and 'puzzlefs build --order' put
/// these ranges first in the packs of an image, and 'puzzlefs mount -o prefetch' reads them ahead.
#[derive(Debug, Args)]
pub struct RecordArgs {
    #[command(flatten)]
    image: ImageArg,
    /// Write the order to FILE [default: standard output]
    ///
    /// Without this option and --repack, the standard output of COMMAND goes to standard error.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Repack the image with the order, as 'puzzlefs repack --order' does
    #[arg(long)]
    repack: bool,
    /// End COMMAND and its processes after SECONDS, 1 to 86400 [default: wait for its end]
    ///
    /// An interruption by SIGINT or SIGTERM does the same. The order is complete until then.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86400))]
    timeout: Option<u32>,
    /// Run COMMAND in DIRECTORY [default: as the image's configuration has it]
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<PathBuf>,
    #[command(flatten)]
    quiet: QuietArg,
    /// Be the first process in this root directory
    #[arg(long, hide = true, value_name = "DIR")]
    inside: Option<PathBuf>,
    /// Program and its arguments [default: entry point and command of the image]
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// The environment of a command for which the image has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The time between two looks at a command that runs.
const PERIOD: Duration = Duration::from_millis(20);

/// Records a command.
pub fn run(arguments: &RecordArgs) -> Result<()> {
    if let Some(root) = &arguments.inside {
        return run_inside(root, arguments);
    }
    let image = ImageRef::parse(&arguments.image.image)?;
    // Before the store is opened: files cannot be renamed from a mount of one namespace to one of another.
    sandbox::enter_namespace()?;
    let (path, root) = mount::find(&image)?;
    let store = Store::open(&path)?;
    let settings = settings(&store, &root)?;
    let progress = interrupt::stoppable()?;
    let (recorded, status) = record(arguments, &path, &root, &settings, &progress)?;
    match &arguments.output {
        Some(file) => fs::write(file, recorded.to_text()).map_err(|cause| SystemError::Call {
            path: file.clone(),
            action: "write",
            cause,
        })?,
        None if arguments.repack => {}
        None => {
            let mut out = Output::new();
            out.write_all(&recorded.to_text())?;
            out.flush()?;
        }
    }
    if let Some(status) = status.filter(|status| !status.success()) {
        let repacked = if arguments.repack {
            "; the image was not repacked"
        } else {
            ""
        };
        anyhow::bail!("the command has ended with {status}{repacked}");
    }
    if arguments.repack {
        // An interruption has ended the command only.
        let progress = Progress::default();
        complete::repack(&store, &image.selector, Some(&recorded), &progress)?;
    }
    if !arguments.quiet.quiet {
        say(summary(&recorded));
    }
    Ok(())
}

/// Returns the settings of the image's configuration for containers.
fn settings(store: &Store, root: &AnyRoot) -> Result<Run> {
    let digest = root.manifest_digest();
    let manifest = store.manifest(digest)?.0;
    let config = store.configuration_of(digest, &manifest)?;
    Ok(config.map(|config| config.config).unwrap_or_default())
}

/// Runs the command on the image, and returns the order. There is no exit status if this process has ended
/// the command.
fn record(
    arguments: &RecordArgs,
    store: &Path,
    root: &AnyRoot,
    settings: &Run,
    progress: &Progress,
) -> Result<(StartOrder, Option<ExitStatus>)> {
    let directory = TempDir::new().context("cannot make a mount point")?;
    let mut options = Options::parse(&[])?;
    if mount::needs_escape(store, root)? {
        options.escape_overlay();
    }
    let attributes = options.attributes;
    let overlay = Writable::prepare(directory.path(), &Upper::Memory)?;
    let mut name = store.as_os_str().to_owned();
    name.push("@");
    name.push(root.manifest_digest().to_oci());
    let image = Image::open(&ImageRef::parse(&name)?, &overlay.lower(), options)?;
    let trace = Trace::default();
    let server = image.mount_traced(Some(trace.clone()), |error| say(error))?;
    thread::spawn(move || server.serve());
    let name = mount::source_name(store, root.manifest_digest());
    overlay.finish(&name, attributes, progress)?;
    let command = command(arguments, directory.path(), settings)?;
    let child = sandbox::spawn(command).context("cannot start the command")?;
    let status = wait(child, arguments.timeout, progress)?;
    let order = trace.order();
    mount::unmount(directory.path(), true)?;
    Ok((without_mount_points(&order), status))
}

/// Returns the command that starts a copy of this program in the root directory.
fn command(arguments: &RecordArgs, root: &Path, settings: &Run) -> Result<Command> {
    let mut words: Vec<OsString> = arguments.command.clone();
    if words.is_empty() {
        let configured = settings.entrypoint.iter().chain(&settings.cmd);
        words.extend(configured.map(OsString::from));
    }
    if words.is_empty() {
        let what = "give a command after '--': the image's configuration has none";
        return Err(Error::Usage(what.to_owned()).into());
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(["record", "--inside"]).arg(root);
    let configured = settings.working_dir.as_ref().map(PathBuf::from);
    if let Some(workdir) = arguments
        .workdir
        .clone()
        .or(configured.filter(|dir| !dir.as_os_str().is_empty()))
    {
        command.arg("--workdir").arg(workdir);
    }
    command.arg(&arguments.image.image).arg("--").args(words);
    command.env_clear().env("PATH", PATH).env("HOME", "/root");
    command.envs(std::env::var_os("TERM").map(|term| ("TERM", term)));
    command.envs(
        settings
            .env
            .iter()
            .filter_map(|variable| variable.split_once('=')),
    );
    if arguments.output.is_none() && !arguments.repack {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned();
        command.stdout(Stdio::from(stderr.context("standard error")?));
    }
    Ok(command)
}

/// Waits for the end of the command, or ends it when it is time. Returns its status in the first case.
fn wait(mut child: Child, timeout: Option<u32>, progress: &Progress) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    let timeout = timeout.map(|seconds| Duration::from_secs(seconds.into()));
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the command")? {
            // A signal of the terminal was for the command, too.
            return Ok((!is_interrupted(progress)).then_some(status));
        }
        if is_interrupted(progress) || timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            child.kill().context("cannot end the command")?;
            child.wait().context("cannot wait for the command")?;
            return Ok(None);
        }
        thread::sleep(PERIOD);
    }
}

fn is_interrupted(progress: &Progress) -> bool {
    progress.check().is_err()
}

/// Returns an order without the mount points that this program has looked up.
fn without_mount_points(order: &StartOrder) -> StartOrder {
    let ranges = order.ranges().iter();
    let ranges = ranges.filter(|range| {
        let is_mount_point = [&b"/proc"[..], b"/sys", b"/dev"].contains(&range.path());
        range.length > 0 || !is_mount_point
    });
    StartOrder::of(ranges.cloned().collect())
}

fn summary(order: &StartOrder) -> String {
    let ranges = order.ranges().iter().filter(|range| range.length > 0);
    let files: HashSet<&[u8]> = ranges.clone().map(|range| range.path()).collect();
    let bytes = ranges
        .clone()
        .fold(0u64, |sum, range| sum.saturating_add(range.length));
    format!(
        "recorded {} in {} of {}",
        format::bytes(bytes),
        format::count(ranges.count() as u64, "range", "ranges"),
        format::count(files.len() as u64, "file", "files"),
    )
}

/// Runs the command in the root directory, and ends with its exit status.
fn run_inside(root: &Path, arguments: &RecordArgs) -> Result<()> {
    sandbox::enter_root(root)?;
    let Some((program, words)) = arguments.command.split_first() else {
        return Err(Error::Usage("a command is missing".to_owned()).into());
    };
    let directory = arguments.workdir.as_deref().unwrap_or(Path::new("/"));
    let status = Command::new(program)
        .args(words)
        .current_dir(Path::new("/").join(directory))
        .status();
    let status = status.with_context(|| format!("cannot run {}", program.to_string_lossy()))?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    std::process::exit(code);
}
