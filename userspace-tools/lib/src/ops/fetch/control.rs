// SPDX-License-Identifier: MIT OR Apache-2.0

//! The socket of a fetcher, `.puzzlefs/fetcher.sock`, by which other processes talk to it.
//!
//! A message is a JSON value in a line. Empty lines say that the sender is still at work. Both ends accept
//! only a peer of root or of their own user. All waits and lengths have limits.
//!
//! The path of a socket has 108 bytes at most, so it is opened beneath the descriptor of its directory.

use super::serve::Claim;
use crate::error::{Error, FetchError, Result, TalkFault};
use crate::store::fetches::FetchRecord;
use crate::store::locks::{lock_path, make_private, open_own, PRIVATE};
use crate::store::oci_layout::Store;
use crate::sys::progress::Progress;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The name of the socket.
const SOCKET: &str = "fetcher.sock";
/// The number of connections that wait until they are accepted.
const BACKLOG: i32 = 16;
/// The longest message, in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// The interval at which a waiting thread looks for a request to stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// The longest time until the end of a line. A peer that is at work sends lines more often.
const SILENCE: Duration = Duration::from_secs(30);
/// The interval of the lines that say that a process is at work.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A message to a fetcher.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetcherRequest {
    /// Serve this image, too.
    Add(Box<FetchRecord>),
    /// Stop serving an image that was not mounted.
    Forget {
        /// The tag.
        tag: String,
        /// The digest of the manifest, as OCI spells it.
        manifest: String,
    },
    /// Report the state.
    Status,
}

/// An answer of a fetcher.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetcherReply {
    /// The image can be mounted, and the fetcher serves it.
    Serves {
        /// The digest of the manifest, as OCI spells it.
        manifest: String,
        /// The number of the process.
        process: u32,
        /// The fetcher did not serve the image before.
        is_new: bool,
    },
    /// The store has all chunks of the image.
    Complete {
        /// The digest of the manifest, as OCI spells it.
        manifest: String,
    },
    /// The image cannot be served.
    Failed {
        /// The message.
        message: String,
    },
    /// The image is no longer served.
    Forgotten,
    /// The state.
    Status(FetcherStatus),
}

/// The state of a fetcher. Fields are added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FetcherStatus {
    /// The number of the process.
    pub process: u32,
    /// The tags of the images that are served.
    pub tags: Vec<String>,
    /// The tags of the images that are being prepared.
    pub preparing: Vec<String>,
    /// The number of requests without an answer.
    pub requests: u64,
    /// The time for which the first of these requests has waited.
    pub longest_wait_seconds: f64,
    /// The number of ranges in transfer.
    pub transfers: u64,
    /// The bytes of chunks that have arrived since the start.
    pub fetched_bytes: u64,
    /// The last failure.
    pub last_error: Option<LastError>,
}

/// The last failure of a fetcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    /// The message.
    pub message: String,
    /// The time since the failure.
    pub seconds_ago: f64,
}

/// The socket of the process that serves a store. Dropping it removes the socket.
pub struct FetcherSocket {
    listener: UnixListener,
    private: OwnedFd,
    path: PathBuf,
}

impl FetcherSocket {
    /// Makes the socket. A socket that exists is one of a dead process, because the caller has the claim.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made.
    pub fn bind(store: &Store, _claim: &Claim) -> Result<Self> {
        let path = lock_path(store.path(), SOCKET);
        let private = make_private(store.path(), &store.root)?;
        let bind = || -> Result<UnixListener, Errno> {
            unlink(&private)?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
            let socket = net::socket_with(unix, stream, flags, None)?;
            // The file of the socket has this mode from the beginning.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            net::bind(&socket, &address(&private)?)?;
            net::listen(&socket, BACKLOG)?;
            Ok(UnixListener::from(socket))
        };
        let listener = bind().map_err(Error::io(&path, "create the socket"))?;
        Ok(FetcherSocket {
            listener,
            private,
            path,
        })
    }

    /// Waits for a connection, for a short time.
    ///
    /// # Errors
    ///
    /// If the socket fails. Refuses a peer of another user.
    pub fn accept(&self) -> Result<Option<Conversation>> {
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: PATIENCE.subsec_nanos().into(),
        };
        let mut ready = [PollFd::new(&self.listener, PollFlags::IN)];
        match poll(&mut ready, Some(&patience)) {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(errno) => return Err(Error::io(&self.path, "wait for")(errno)),
        }
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            // The peer is gone, or a resource is short for a moment.
            Err(_) => return Ok(None),
        };
        let conversation = Conversation::new(stream, self.path.clone());
        Ok(conversation.ok().filter(Conversation::is_of_this_user))
    }
}

impl Drop for FetcherSocket {
    fn drop(&mut self) {
        let _ = unlink(&self.private);
    }
}

/// A connection between a fetcher and another process.
pub struct Conversation {
    stream: UnixStream,
    path: PathBuf,
    /// Bytes after the last message.
    rest: Vec<u8>,
}

impl Conversation {
    /// Connects to the fetcher of a store. Returns `None` if there is none at present.
    ///
    /// # Errors
    ///
    /// If the socket cannot be used, or is one of another user.
    pub fn connect(store: &Store) -> Result<Option<Self>> {
        let path = lock_path(store.path(), SOCKET);
        let directory = store.path().join(PRIVATE);
        let private = match open_own(&store.root, &directory, PRIVATE) {
            Err(error) if error.is_not_found() => return Ok(None),
            private => private?,
        };
        let connect = || -> Result<OwnedFd, Errno> {
            let (unix, stream) = (AddressFamily::UNIX, SocketType::STREAM);
            let socket = net::socket_with(unix, stream, SocketFlags::CLOEXEC, None)?;
            net::connect(&socket, &address(&private)?)?;
            Ok(socket)
        };
        let foreign = || {
            let store = store.path().to_path_buf();
            Error::from(FetchError::ForeignFetcher { store })
        };
        let socket = match connect() {
            Ok(socket) => socket,
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::CONNRESET) => return Ok(None),
            Err(Errno::ACCESS | Errno::PERM) => return Err(foreign()),
            Err(errno) => return Err(Error::io(&path, "connect to")(errno)),
        };
        let conversation = Conversation::new(UnixStream::from(socket), path)?;
        if !conversation.is_of_this_user() {
            return Err(foreign());
        }
        Ok(Some(conversation))
    }

    fn new(stream: UnixStream, path: PathBuf) -> Result<Self> {
        let set = || {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(SILENCE))
        };
        set().map_err(Error::io(&path, "set up"))?;
        let rest = Vec::new();
        Ok(Conversation { stream, path, rest })
    }

    /// Returns true if the peer is a process of this user or of root.
    fn is_of_this_user(&self) -> bool {
        let own = rustix::process::geteuid();
        let peer = net::sockopt::socket_peercred(&self.stream);
        peer.is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// If the peer is gone, or does not read.
    pub fn send(&mut self, message: &impl Serialize) -> Result<()> {
        let line = serde_json::to_vec(message);
        let mut line = line.map_err(Error::io(&self.path, "write to"))?;
        line.push(b'\n');
        let written = self.stream.write_all(&line);
        written.map_err(Error::io(&self.path, "write to"))
    }

    /// Says that this process is still at work.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn send_sign_of_life(&mut self) -> Result<()> {
        let written = self.stream.write_all(b"\n");
        written.map_err(Error::io(&self.path, "write to"))
    }

    /// Waits for a message. Returns `None` if the peer has ended the conversation.
    ///
    /// # Errors
    ///
    /// If the message is too long or malformed, after a long silence of the peer, or after a request to stop.
    pub fn receive<T: DeserializeOwned>(&mut self, progress: &Progress) -> Result<Option<T>> {
        let mut last = Instant::now();
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                last = Instant::now();
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if !line.trim_ascii().is_empty() {
                    let message = serde_json::from_slice(&line);
                    return message
                        .map(Some)
                        .map_err(|_| self.fail(TalkFault::Malformed));
                }
            }
            if self.rest.len() > MESSAGE_MAX {
                return Err(self.fail(TalkFault::TooLong));
            }
            progress.check()?;
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(len) => self.rest.extend(piece.iter().take(len)),
                Err(cause) => match cause.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Ok(None),
                    _ => return Err(Error::io(&self.path, "read from")(cause)),
                },
            }
            if last.elapsed() > SILENCE {
                return Err(self.fail(TalkFault::Silent));
            }
        }
    }

    fn fail(&self, cause: TalkFault) -> Error {
        let path = self.path.clone();
        FetchError::Talk { path, cause }.into()
    }
}

/// Returns the address of the socket beneath the descriptor of its directory.
fn address(private: &OwnedFd) -> Result<SocketAddrUnix, Errno> {
    let path = format!("/proc/self/fd/{}/{SOCKET}", private.as_raw_fd());
    SocketAddrUnix::new(path)
}

fn unlink(private: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::unlinkat(private, SOCKET, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    /// A store whose path is longer than that of a socket may be.
    fn store() -> (tempfile::TempDir, Store) {
        let scratch = tempfile::tempdir().unwrap();
        let long = scratch.path().join("x".repeat(200));
        fs::create_dir(&long).unwrap();
        let store = Store::create(&long.join("store")).unwrap();
        (scratch, store)
    }

    fn accept(socket: &FetcherSocket) -> Conversation {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(conversation) = socket.accept().unwrap() {
                return conversation;
            }
        }
        panic!("no connection");
    }

    #[test]
    fn messages_arrive_in_both_directions() {
        let (_scratch, store) = store();
        let progress = Progress::default();
        assert!(Conversation::connect(&store).unwrap().is_none());
        let claim = Claim::take(&store).unwrap().unwrap();
        let socket = FetcherSocket::bind(&store, &claim).unwrap();
        let path = store.path().join(".puzzlefs/fetcher.sock");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut client = Conversation::connect(&store).unwrap().unwrap();
                client.send(&vec!["x".repeat(100_000)]).unwrap();
                let answer: Option<u32> = client.receive(&progress).unwrap();
                let end: Option<u32> = client.receive(&progress).unwrap();
                (answer, end)
            });
            let mut served = accept(&socket);
            let message: Option<Vec<String>> = served.receive(&progress).unwrap();
            assert_eq!(message.unwrap()[0].len(), 100_000);
            served.send_sign_of_life().unwrap();
            served.send(&7).unwrap();
            drop(served);
            assert_eq!(client.join().unwrap(), (Some(7), None));
        });
        drop(socket);
        assert!(!path.exists());
        assert!(Conversation::connect(&store).unwrap().is_none());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let (_scratch, store) = store();
        let claim = Claim::take(&store).unwrap().unwrap();
        let stale = FetcherSocket::bind(&store, &claim).unwrap();
        // The process dies: nothing removes the socket.
        let path = store.path().join(".puzzlefs/fetcher.sock");
        fs::hard_link(&path, store.path().join("kept")).unwrap();
        drop(stale);
        fs::rename(store.path().join("kept"), &path).unwrap();
        assert!(Conversation::connect(&store).unwrap().is_none());
        let _socket = FetcherSocket::bind(&store, &claim).unwrap();
        assert!(Conversation::connect(&store).unwrap().is_some());
    }

    #[test]
    fn malformed_and_long_messages_are_errors() {
        let progress = Progress::default();
        let receive = |bytes: Vec<u8>| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut ours = Conversation::new(ours, PathBuf::from("/s")).unwrap();
            thread::scope(|scope| {
                // The reader may give up before the end.
                scope.spawn(move || theirs.write_all(&bytes));
                let received = ours.receive::<u32>(&progress);
                drop(ours);
                received
            })
        };
        assert_eq!(receive(b"\n\n5\n".to_vec()).unwrap(), Some(5));
        assert_eq!(receive(b"5".to_vec()).unwrap(), None);
        let error = receive(b"\"five\"\n".to_vec()).unwrap_err().to_string();
        assert!(error.contains("unknown"), "{error}");
        let error = receive(vec![b'x'; MESSAGE_MAX + 10_000]).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[test]
    fn a_request_to_stop_ends_a_wait() {
        use std::sync::atomic::AtomicBool;
        use std::sync::Arc;
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut ours = Conversation::new(ours, PathBuf::from("/s")).unwrap();
        let stopped = Progress::new(Arc::new(AtomicBool::new(true)));
        let received = ours.receive::<u32>(&stopped);
        assert!(matches!(received, Err(Error::Interrupted)));
    }
}
