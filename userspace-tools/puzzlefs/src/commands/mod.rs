// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands, one module each: its arguments, its `run` and its report.
//!
//! To add a command, add its module, its variant of [`Command`] and its line in [`Command::run`].

mod build;
mod cat;
mod complete;
mod completions;
#[cfg(feature = "registry")]
mod convert;
mod copy;
mod diff;
mod du;
mod enable_verity;
mod export;
mod extract;
#[cfg(feature = "registry")]
mod fetch;
mod gc;
mod import;
mod inspect;
mod list;
mod ls;
mod man;
mod mount;
#[cfg(feature = "registry")]
mod publish;
#[cfg(feature = "registry")]
mod pull;
#[cfg(feature = "registry")]
mod push;
mod record;
mod reindex;
mod resolve;
mod status;
mod tag;
mod umount;
mod untag;
mod verify;

use clap::{Parser, Subcommand};

/// Build, mount and inspect PuzzleFS images: container root filesystems cut into shared chunks
#[derive(Debug, Parser)]
#[command(
    name = "puzzlefs",
    version,
    max_term_width = 100,
    after_help = "\
An image is named STORE:TAG or STORE@sha256:DIGEST. STORE is a directory in OCI image layout.
Exit status: 0 done; 1 failed; 2 wrong usage; 3 tree changed; 130 interrupted; 141 output closed."
)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    Build(build::BuildArgs),
    Import(import::ImportArgs),
    #[cfg(feature = "registry")]
    Convert(convert::ConvertArgs),
    Extract(extract::ExtractArgs),
    Export(export::ExportArgs),
    Mount(mount::MountArgs),
    Umount(umount::UmountArgs),
    Record(record::RecordArgs),
    Inspect(inspect::InspectArgs),
    Ls(ls::LsArgs),
    Cat(cat::CatArgs),
    #[command(visible_alias = "images")]
    List(list::ListArgs),
    Tag(tag::TagArgs),
    Untag(untag::UntagArgs),
    Copy(copy::CopyArgs),
    #[cfg(feature = "registry")]
    Push(push::PushArgs),
    #[cfg(feature = "registry")]
    Pull(pull::PullArgs),
    #[cfg(feature = "registry")]
    Fetch(fetch::FetchArgs),
    Status(status::StatusArgs),
    Du(du::DuArgs),
    Diff(diff::DiffArgs),
    Gc(gc::GcArgs),
    Repack(complete::RepackArgs),
    Complete(complete::CompleteArgs),
    Verify(verify::VerifyArgs),
    Reindex(reindex::ReindexArgs),
    EnableVerity(enable_verity::EnableVerityArgs),
    Resolve(resolve::ResolveArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
}

impl Command {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Command::Build(arguments) => build::run(arguments),
            Command::Import(arguments) => import::run(arguments),
            #[cfg(feature = "registry")]
            Command::Convert(arguments) => convert::run(arguments),
            Command::Extract(arguments) => extract::run(arguments),
            Command::Export(arguments) => export::run(arguments),
            Command::Mount(arguments) => mount::run(arguments),
            Command::Umount(arguments) => umount::run(arguments),
            Command::Record(arguments) => record::run(arguments),
            Command::Inspect(arguments) => inspect::run(arguments),
            Command::Ls(arguments) => ls::run(arguments),
            Command::Cat(arguments) => cat::run(arguments),
            Command::List(arguments) => list::run(arguments),
            Command::Tag(arguments) => tag::run(arguments),
            Command::Untag(arguments) => untag::run(arguments),
            Command::Copy(arguments) => copy::run(arguments),
            #[cfg(feature = "registry")]
            Command::Push(arguments) => push::run(arguments),
            #[cfg(feature = "registry")]
            Command::Pull(arguments) => pull::run(arguments),
            #[cfg(feature = "registry")]
            Command::Fetch(arguments) => fetch::run(arguments),
            Command::Status(arguments) => status::run(arguments),
            Command::Du(arguments) => du::run(arguments),
            Command::Diff(arguments) => diff::run(arguments),
            Command::Gc(arguments) => gc::run(arguments),
            Command::Repack(arguments) => complete::run_repack(arguments),
            Command::Complete(arguments) => complete::run(arguments),
            Command::Verify(arguments) => verify::run(arguments),
            Command::Reindex(arguments) => reindex::run(arguments),
            Command::EnableVerity(arguments) => enable_verity::run(arguments),
            Command::Resolve(arguments) => resolve::run(arguments),
            Command::Completions(arguments) => completions::run(arguments),
            Command::Man(arguments) => man::run(arguments),
        }
    }

    /// Returns the state that an interruption leaves, for the message about it.
    pub fn interrupted_state(&self) -> &'static str {
        match self {
            Command::Build(_) | Command::Import(_) | Command::Copy(_) => "nothing was tagged",
            #[cfg(feature = "registry")]
            Command::Convert(_) | Command::Push(_) => "nothing was tagged",
            #[cfg(feature = "registry")]
            Command::Pull(_) => "nothing was tagged; another pull fetches the rest",
            #[cfg(feature = "registry")]
            Command::Fetch(_) => "not all data has arrived; another fetch serves the rest",
            Command::Extract(_) => "the files extracted so far remain",
            Command::Export(_) => "nothing was exported",
            _ => "the result is incomplete",
        }
    }
}
