// SPDX-License-Identifier: MIT OR Apache-2.0

//! Help, completions and manual pages have every command.

use crate::common::*;
use std::fs;

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = says(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    commands
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

#[test]
fn help_fits_a_screen() {
    let help = says(&["--help"]);
    assert!(help.lines().count() <= 42, "{help}");
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    for command in commands().iter().filter(|command| *command != "help") {
        let help = says(&[command, "-h"]);
        assert!(help.lines().count() <= 50, "{help}");
    }
}

#[test]
fn every_command_is_completed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = says(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
    assert_eq!(run(&["completions", "none"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_page() {
    let scratch = tempfile::tempdir().unwrap();
    let pages = scratch.path().join("man");
    says(&["man", pages.to_str().unwrap()]);
    let main = fs::read_to_string(pages.join("puzzlefs.1")).unwrap();
    let mut wanted = vec!["puzzlefs.1".to_owned()];
    for command in commands().into_iter().filter(|command| command != "help") {
        let name = format!("puzzlefs-{command}");
        let page = fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
        assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
        assert!(!page.contains(".SH EXTRA"), "{page}");
        // Hyphens are escaped there.
        let escaped = name.replace('-', "\\-");
        assert!(main.contains(&format!("{escaped}(1)")), "{command}: {main}");
        wanted.push(format!("{name}.1"));
    }
    assert!(main.contains("Exit status: 0 done; 1 failed;"), "{main}");
    for page in ["puzzlefs.1", "puzzlefs-build.1", "puzzlefs-copy.1"] {
        let page = fs::read_to_string(pages.join(page)).unwrap();
        assert!(page.contains(".SH EXAMPLES\n.nf\npuzzlefs "), "{page}");
    }
    wanted.sort();
    let found = fs::read_dir(&pages).unwrap();
    let mut found: Vec<_> = found
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, wanted);
}
