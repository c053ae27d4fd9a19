// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waiting with a deadline, and pausing a command at a chosen point.
//!
//! No test sleeps for a guessed time: it waits for a condition, or pauses the command where the
//! condition holds.

use rustix::process::{kill_process, Pid, Signal, WaitId, WaitIdOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// The deadline of every wait. Only a failing test waits this long, so it suits a machine that is many
/// times slower than usual.
const DEADLINE: Duration = Duration::from_secs(240);
const INTERVAL: Duration = Duration::from_millis(2);

/// Waits until a condition holds, and fails with `what` if it does not.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    if let Err(TimedOut) = wait_within(DEADLINE, &mut condition) {
        panic!("not within {} s: {what}", DEADLINE.as_secs());
    }
}

#[derive(Debug)]
pub struct TimedOut;

/// Looks at a condition at least once, and again and again until the deadline.
pub fn wait_within(
    deadline: Duration,
    condition: &mut dyn FnMut() -> bool,
) -> Result<(), TimedOut> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > deadline {
            return Err(TimedOut);
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Runs a command to its end, and kills it at the deadline.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(piped.stdin(Stdio::null()).spawn().unwrap())
}

/// Waits for the end of a process, and returns what it wrote to its pipes. Kills it at the deadline.
#[track_caller]
pub fn finish(child: Child) -> Output {
    let id = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || ended.send(child.wait_with_output().unwrap()));
        match end.recv_timeout(DEADLINE) {
            Ok(output) => output,
            Err(RecvTimeoutError::Disconnected) => panic!("cannot wait for a process"),
            Err(RecvTimeoutError::Timeout) => {
                let _ = kill_process(id, Signal::KILL);
                let output = end.recv().unwrap();
                panic!(
                    "a process did not end within {} s: {output:?}",
                    DEADLINE.as_secs()
                );
            }
        }
    })
}

/// Bytes that a process passed through read and write calls.
pub struct Transferred {
    pub read: u64,
    pub written: u64,
}

/// Runs a command to its end, and counts the bytes that it reads and writes. The command must write
/// less to its standard output and error than a pipe holds.
#[track_caller]
pub fn output_and_bytes(command: &mut Command) -> (Output, Transferred) {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.stdin(Stdio::null()).spawn().unwrap();
    let id = WaitId::Pid(Pid::from_child(&child));
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    wait_until("the command ends", || {
        rustix::process::waitid(id.clone(), ended)
            .unwrap()
            .is_some()
    });
    // The counters stay readable until `finish` reaps the process.
    let counters = std::fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    let counter = |name: &str| {
        let value = counters.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    };
    let transferred = Transferred {
        read: counter("rchar:"),
        written: counter("wchar:"),
    };
    (finish(child), transferred)
}

/// Returns true if a process waits for a lock that another process holds.
pub fn waits_for_a_lock(child: &Child) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let id = child.id().to_string();
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("->") && words.nth(3) == Some(&*id)
    })
}

/// A socket that a command connects to when it reaches a point; see `pause` in the library.
pub struct Pause {
    listener: UnixListener,
    wanted: String,
    // Removed when the test ends.
    _directory: tempfile::TempDir,
}

/// A paused command. Dropping it lets the command go on.
pub struct Paused {
    _connection: UnixStream,
    pub point: String,
}

impl Paused {
    /// Sends a signal to the paused command, and lets it go on once it has handled the signal.
    #[track_caller]
    pub fn interrupt(self, child: &Child, signal: Signal) {
        kill_process(Pid::from_child(child), signal).unwrap();
        wait_until("the signal is handled", || has_handled_signals(child));
    }
}

/// Returns true if no signal waits for a process, and all of its threads sleep, none of them in a handler.
fn has_handled_signals(child: &Child) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    threads.into_iter().all(|thread| {
        // A thread may end meanwhile.
        let status = std::fs::read_to_string(thread.unwrap().path().join("status"));
        status.is_ok_and(|status| {
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name));
                value.unwrap_or_default().trim()
            };
            let is_pending = |name| field(name).bytes().any(|digit| digit != b'0');
            field("State:").starts_with('S') && !is_pending("SigPnd:") && !is_pending("ShdPnd:")
        })
    })
}

impl Pause {
    /// A pause where the command first reaches a point.
    pub fn at(point: &str) -> Self {
        Self::nth(point, 1)
    }

    /// A pause where the command reaches a point for the `number`th time.
    pub fn nth(point: &str, number: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        Pause {
            listener,
            wanted: format!("{point}:{number}:{}", socket.display()),
            _directory: directory,
        }
    }

    /// Lets a command of another user pause here.
    pub fn for_everybody(self) -> Self {
        let socket = self.listener.local_addr().unwrap();
        for path in [self._directory.path(), socket.as_pathname().unwrap()] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
        }
        self
    }

    /// Starts a command that is to pause.
    pub fn spawn(&self, command: &mut Command) -> Child {
        let command = command.env("PUZZLEFS_TEST_PAUSE", &self.wanted);
        command.spawn().unwrap()
    }

    /// Waits until the command has paused. Returns `None` if it ends without reaching the point.
    #[track_caller]
    pub fn reached(&self, child: &mut Child) -> Option<Paused> {
        let mut accepted = None;
        wait_until(&format!("{} is reached", self.wanted), || {
            // In this order: a command that pauses and then ends is found paused.
            let ended = child.try_wait().unwrap().is_some();
            match self.listener.accept() {
                Ok((connection, _)) => accepted = Some(connection),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            ended || accepted.is_some()
        });
        let connection = accepted?;
        connection.set_nonblocking(false).unwrap();
        connection.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut point = String::new();
        let read = BufReader::new((&connection).take(100)).read_line(&mut point);
        read.unwrap();
        Some(Paused {
            _connection: connection,
            point: point.trim_end().to_owned(),
        })
    }

    /// Runs a command, and does something while it is paused.
    #[track_caller]
    pub fn during(&self, command: &mut Command, act: impl FnOnce()) -> Output {
        let mut child = self.spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let paused = self.reached(&mut child);
        let Some(paused) = paused else {
            panic!("{} was not reached: {:?}", self.wanted, finish(child));
        };
        act();
        drop(paused);
        finish(child)
    }
}
