// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line that mount(8) gives to a helper:
//! `mount.puzzlefs <source> <directory> [-sfnv] [-N namespace] [-o options] [-t type]`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// A parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The image, or the store.
    pub source: OsString,
    /// The mount point.
    pub directory: OsString,
    /// The values of all `-o`, in order.
    pub options: Vec<OsString>,
    /// The mount namespace to work in: a process id or a path.
    pub namespace: Option<OsString>,
    /// `-f`: do everything except the mount.
    pub fake: bool,
    /// `-s`: leave out options that the filesystem does not know.
    pub sloppy: bool,
    /// `-v`: print the source and the options.
    pub verbose: bool,
}

/// The request of a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// A mount.
    Mount(Args),
    /// The help.
    Help,
    /// The version.
    Version,
}

impl Request {
    /// Reads a command line without the program's name. Options and the two operands may come in
    /// any order, as getopt takes them.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut args = Args::default();
        let mut operands = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            match bytes {
                b"--help" | b"-h" => return Ok(Request::Help),
                b"--version" | b"-V" => return Ok(Request::Version),
                b"--" => operands.extend(words.by_ref()),
                [b'-', letters @ ..] if !letters.is_empty() => {
                    for (at, letter) in letters.iter().enumerate() {
                        match letter {
                            b'f' => args.fake = true,
                            b's' => args.sloppy = true,
                            b'v' => args.verbose = true,
                            // mount(8) wants no mtab; none is ever written.
                            b'n' => {}
                            b'o' | b't' | b'N' => {
                                let rest = &letters[at + 1..];
                                let value = if rest.is_empty() {
                                    words.next().ok_or_else(|| {
                                        format!("-{} needs a value", char::from(*letter))
                                    })?
                                } else {
                                    OsString::from_vec(rest.to_vec())
                                };
                                args.take_value(*letter, value)?;
                                break;
                            }
                            _ => {
                                return Err(format!("unknown option '{}'", word.to_string_lossy()))
                            }
                        }
                    }
                }
                _ => operands.push(word),
            }
        }
        let [source, directory] = <[OsString; 2]>::try_from(operands)
            .map_err(|_| "give a source and a directory".to_owned())?;
        args.source = source;
        args.directory = directory;
        Ok(Request::Mount(args))
    }
}

impl Args {
    fn take_value(&mut self, letter: u8, value: OsString) -> Result<(), String> {
        match letter {
            b'o' => self.options.push(value),
            b'N' => self.namespace = Some(value),
            // mount(8) passes the type, with a subtype if there is one.
            _ if value == OsStr::new("puzzlefs") => {}
            _ => return Err(format!("cannot mount type '{}'", value.to_string_lossy())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Request, String> {
        Request::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn command_lines() {
        let plain = Args {
            source: "/s:t".into(),
            directory: "/mnt".into(),
            ..Args::default()
        };
        let table: [(&[&str], Args); 4] = [
            (
                &["/s:t", "/mnt"],
                Args {
                    ..Default::default()
                },
            ),
            (
                &["/s:t", "/mnt", "-o", "rw,nosuid", "-o", "x=y"],
                Args {
                    options: vec!["rw,nosuid".into(), "x=y".into()],
                    ..Default::default()
                },
            ),
            (
                &["-sfnv", "/s:t", "-N", "123", "/mnt", "-t", "puzzlefs"],
                Args {
                    sloppy: true,
                    fake: true,
                    verbose: true,
                    namespace: Some("123".into()),
                    ..Default::default()
                },
            ),
            (
                &["-voro", "--", "/s:t", "/mnt"],
                Args {
                    verbose: true,
                    options: vec!["ro".into()],
                    ..Default::default()
                },
            ),
        ];
        for (words, wanted) in table {
            let wanted = Args {
                source: plain.source.clone(),
                directory: plain.directory.clone(),
                ..wanted
            };
            assert_eq!(parse(words), Ok(Request::Mount(wanted)), "{words:?}");
        }
        assert_eq!(parse(&["--help"]), Ok(Request::Help));
        assert_eq!(parse(&["-V"]), Ok(Request::Version));
        for words in [
            &["/s:t"][..],
            &[],
            &["a", "b", "c"],
            &["a", "b", "-o"],
            &["a", "b", "-x"],
            &["a", "b", "-t", "ext4"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
