// SPDX-License-Identifier: MIT OR Apache-2.0

//! `puzzlefs man`: manual pages, generated from the definition of the command line.

use super::Cli;
use anyhow::Context;
use clap::{Args, CommandFactory};
use std::fs;
use std::path::PathBuf;

/// Write manual pages into a directory
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory for the pages, created if it does not exist
    directory: PathBuf,
}

/// Writes `puzzlefs.1` and one page per command, such as `puzzlefs-build.1`.
pub fn run(arguments: &ManArgs) -> anyhow::Result<()> {
    let directory = &arguments.directory;
    let fail = || format!("{}: cannot make it", directory.display());
    fs::create_dir_all(directory).with_context(fail)?;
    let command = Cli::command().disable_help_subcommand(true);
    let fail = || format!("{}: cannot write the pages into it", directory.display());
    let names = command.get_subcommands().filter(|c| !c.is_hide_set());
    let mut names: Vec<String> = names.map(|c| format!("-{}", c.get_name())).collect();
    names.push(String::new());
    clap_mangen::generate_to(command, directory).with_context(fail)?;
    for name in names {
        let path = directory.join(format!("puzzlefs{name}.1"));
        let page = fs::read_to_string(&path).with_context(fail)?;
        fs::write(&path, finished(page, &name)).with_context(fail)?;
    }
    Ok(())
}

/// Adds the parts that the generator leaves out: the name of the section of notes, examples, and exit
/// statuses.
fn finished(page: String, name: &str) -> String {
    let mut page = page.replace(".SH EXTRA\n", ".SH NOTES\n");
    let examples = EXAMPLES.iter().filter(|(command, _)| *command == name);
    for (at, (_, lines)) in examples.enumerate() {
        page.push_str(if at == 0 { ".SH EXAMPLES\n" } else { "" });
        page.push_str(".nf\n");
        page.push_str(&lines.replace('-', "\\-").replace('\'', "\\(aq"));
        page.push_str("\n.fi\n");
    }
    if !name.is_empty() {
        page.push_str(".SH \"EXIT STATUS\"\n0 on success.\n");
        page.push_str(".BR puzzlefs (1)\nlists the others.\n");
    }
    page
}

/// Examples for each page, by its suffix after the program's name.
const EXAMPLES: [(&str, &str); 10] = [
    (
        "",
        "puzzlefs build /srv/roots/debian /srv/images:debian\n\
         puzzlefs mount /srv/images:debian /mnt\n\
         puzzlefs umount /mnt",
    ),
    (
        "-build",
        "puzzlefs build /srv/roots/debian /srv/images:debian\n\
         puzzlefs build --exclude '/var/cache/*' root.tar.zst /srv/images:debian\n\
         ssh host tar -c --format=posix --xattrs -C / --one-file-system . |\n\
         \x20   puzzlefs build - /srv/images:host",
    ),
    (
        "-import",
        "docker save debian:13 | puzzlefs import - /srv/images:debian\n\
         puzzlefs import --platform linux/arm64 layout:13 /srv/images:debian-arm64",
    ),
    (
        "-extract",
        "puzzlefs extract /srv/images:debian /srv/roots/debian",
    ),
    (
        "-mount",
        "puzzlefs mount --verify digest /srv/images:debian /mnt\n\
         puzzlefs mount --writable /srv/images:debian /mnt\n\
         puzzlefs mount --fuse images:debian mnt",
    ),
    (
        "-record",
        "puzzlefs record --repack /srv/images:app -- /usr/bin/app --version\n\
         puzzlefs record --timeout 10 -o app.order /srv/images:app -- /usr/sbin/nginx\n\
         puzzlefs build --order app.order /srv/roots/app /srv/images:app\n\
         puzzlefs mount -o prefetch /srv/images:app /mnt",
    ),
    (
        "-convert",
        "puzzlefs convert --format 4 /srv/images:debian\n\
         puzzlefs convert --format 3 /srv/images:debian /srv/old:debian",
    ),
    (
        "-copy",
        "puzzlefs copy /srv/images:debian /backup/images\n\
         puzzlefs copy --check /backup/images:debian /srv/images",
    ),
    (
        "-verify",
        "puzzlefs verify /srv/images\n\
         puzzlefs verify --json /srv/images:debian | jq -r '.faults[].fault'",
    ),
    ("-gc", "puzzlefs gc --dry-run /srv/images"),
];
