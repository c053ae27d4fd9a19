// SPDX-License-Identifier: MIT OR Apache-2.0

//! The device `/dev/puzzlefs`, by which the kernel module requests chunks that a store lacks.
//!
//! A program opens the device and attaches it to a store. It then takes requests, puts the chunks into the
//! store, and answers. Readers look each chunk up again and verify it.
//!
//! | record | fields, little-endian |
//! | --- | --- |
//! | request, 48 bytes | number 8, digest 32, stored length 4 (0 if unknown), flags 4 (1: a reader waits) |
//! | answer, 16 bytes | number 8, errno 4 (0: the chunk is there), zero 4 |

use super::call;
use super::TYPE;
use crate::error::{Error, FetchError, Result};
use crate::model::digest::Digest;
use crate::store::oci_layout::Store;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The path of the device.
pub const DEVICE: &str = "/dev/puzzlefs";

const REQUEST_LEN: usize = 48;
/// The flag of a request that a reader waits for.
const AWAITED: u32 = 1;
/// The most requests that one read takes.
const TAKEN_MAX: usize = 256;
/// The most answers that one write gives. The kernel accepts 64 KiB.
const ANSWERED_MAX: usize = 1024;

/// A request for a chunk that a store lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRequest {
    /// The number that the answer has.
    pub id: u64,
    /// The digest of the chunk.
    pub digest: Digest,
    /// The number of stored bytes; 0 if it is unknown.
    pub stored_len: u32,
    /// True if a reader waits for the chunk.
    pub is_awaited: bool,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkAnswer {
    /// The number of the request.
    pub id: u64,
    /// The cause if the chunk cannot be had; `None` if it is in the store.
    pub errno: Option<Errno>,
}

/// A queue of requests.
pub trait ChunkRequests: Send + Sync {
    /// Waits for requests, and returns at least one. Returns none if there will be no more.
    ///
    /// # Errors
    ///
    /// If requests cannot be read.
    fn take(&self) -> Result<Vec<ChunkRequest>>;

    /// Answers requests.
    ///
    /// # Errors
    ///
    /// If the answers cannot be written.
    fn answer(&self, answers: &[ChunkAnswer]) -> Result<()>;
}

/// The open device.
#[derive(Debug)]
pub struct FetchDevice {
    path: PathBuf,
    file: File,
}

impl FetchDevice {
    /// Opens the device at a path, which is [`DEVICE`] unless a test has another one. Loads the module if
    /// the device does not exist.
    ///
    /// # Errors
    ///
    /// If the device does not exist or the caller lacks the privilege.
    pub fn open(path: &Path) -> Result<Self> {
        #[cfg(feature = "test-hooks")]
        let open = || test_device::open(path);
        #[cfg(not(feature = "test-hooks"))]
        let open = || File::options().read(true).write(true).open(path);
        let missing = |cause: &io::Error| cause.kind() == ErrorKind::NotFound;
        let opened = match open() {
            Err(cause) if missing(&cause) => {
                let modprobe = call::load_module(TYPE);
                match open() {
                    Err(cause) if missing(&cause) => {
                        let path = path.to_path_buf();
                        return Err(FetchError::NoDevice { path, modprobe }.into());
                    }
                    opened => opened,
                }
            }
            opened => opened,
        };
        let file = opened.map_err(|cause| match cause.kind() {
            ErrorKind::PermissionDenied => FetchError::DeviceDenied {
                path: path.to_path_buf(),
            }
            .into(),
            _ => Error::io(path, "open")(cause),
        })?;
        let path = path.to_path_buf();
        Ok(FetchDevice { path, file })
    }

    /// Attaches the device to a store, whose requests it then takes.
    ///
    /// # Errors
    ///
    /// If the kernel cannot open the store.
    pub fn attach(&self, store: &Store) -> Result<()> {
        let path = super::absolute(store)?;
        let attached = (&self.file).write_all(path.as_os_str().as_bytes());
        attached.map_err(|cause| FetchError::Attach { store: path, cause }.into())
    }
}

impl ChunkRequests for FetchDevice {
    fn take(&self) -> Result<Vec<ChunkRequest>> {
        let mut bytes = [0; REQUEST_LEN * TAKEN_MAX];
        loop {
            match (&self.file).read(&mut bytes) {
                Ok(len) => return parse(&self.path, bytes.get(..len).unwrap_or_default()),
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) => return Err(Error::io(&self.path, "read requests from")(cause)),
            }
        }
    }

    fn answer(&self, answers: &[ChunkAnswer]) -> Result<()> {
        for answers in answers.chunks(ANSWERED_MAX) {
            let bytes: Vec<u8> = answers.iter().flat_map(ChunkAnswer::to_bytes).collect();
            let written = (&self.file).write_all(&bytes);
            written.map_err(Error::io(&self.path, "write answers to"))?;
        }
        Ok(())
    }
}

impl ChunkRequest {
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (stored_len, rest) = rest.split_first_chunk()?;
        let (flags, _) = rest.split_first_chunk()?;
        Some(ChunkRequest {
            id: u64::from_le_bytes(*id),
            digest: Digest(*digest),
            stored_len: u32::from_le_bytes(*stored_len),
            is_awaited: u32::from_le_bytes(*flags) & AWAITED != 0,
        })
    }
}

impl ChunkAnswer {
    fn to_bytes(self: &ChunkAnswer) -> [u8; 16] {
        let errno = self.errno.map_or(0, Errno::raw_os_error);
        let mut bytes = [0; 16];
        let fields = self.id.to_le_bytes().into_iter().chain(errno.to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }
}

/// Parses the requests that one read has given.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<ChunkRequest>> {
    let records = bytes.chunks_exact(REQUEST_LEN);
    if !records.remainder().is_empty() {
        let (path, found) = (path.to_path_buf(), bytes.len());
        return Err(FetchError::DeviceRecords { path, found }.into());
    }
    Ok(records.filter_map(ChunkRequest::of_bytes).collect())
}

/// A device that a test stands for, by a socket that keeps records apart.
#[cfg(feature = "test-hooks")]
mod test_device {
    use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::FileTypeExt;
    use std::path::Path;

    pub(super) fn open(path: &Path) -> io::Result<File> {
        if !fs::metadata(path)?.file_type().is_socket() {
            return File::options().read(true).write(true).open(path);
        }
        let socket = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
        net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(File::from(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    /// A device whose other end is a socket.
    fn device() -> (FetchDevice, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let path = PathBuf::from("/dev/test");
        let file = File::from(OwnedFd::from(ours));
        (FetchDevice { path, file }, theirs)
    }

    fn record(id: u64, digest: &Digest, len: u32, flags: u32) -> Vec<u8> {
        let mut record = id.to_le_bytes().to_vec();
        record.extend(digest.as_bytes());
        record.extend(len.to_le_bytes());
        record.extend(flags.to_le_bytes());
        record
    }

    #[test]
    fn requests_and_answers() {
        let (device, kernel) = device();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let records = [record(7, &one, 70_000, 1), record(1 << 40, &two, 0, 6)];
        kernel.send(&records.concat()).unwrap();
        let request = |id, digest, stored_len, is_awaited| ChunkRequest {
            id,
            digest,
            stored_len,
            is_awaited,
        };
        let wanted = [
            request(7, one, 70_000, true),
            request(1 << 40, two, 0, false),
        ];
        assert_eq!(device.take().unwrap(), wanted);
        let answer = |id, errno| ChunkAnswer { id, errno };
        let answers = [answer(7, None), answer(1 << 40, Some(Errno::NOSPC))];
        device.answer(&answers).unwrap();
        let mut bytes = [0; 100];
        assert_eq!(kernel.recv(&mut bytes).unwrap(), 32);
        assert_eq!(
            bytes[..16],
            [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            bytes[16..32],
            [0, 0, 0, 0, 0, 1, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn records_of_another_length_are_an_error() {
        let (device, kernel) = device();
        for len in [1, 47, 49, 95] {
            kernel.send(&vec![0; len]).unwrap();
            let error = device.take().unwrap_err().to_string();
            assert!(error.contains(&format!("{len} bytes")), "{error}");
        }
        kernel.send(&[]).unwrap();
        assert_eq!(device.take().unwrap(), []);
    }

    #[test]
    fn the_path_of_the_store_attaches() {
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::create(&scratch.path().join("store")).unwrap();
        let (device, kernel) = device();
        device.attach(&store).unwrap();
        let mut bytes = [0; 4096];
        let len = kernel.recv(&mut bytes).unwrap();
        let path = store.path().canonicalize().unwrap();
        assert_eq!(&bytes[..len], path.as_os_str().as_bytes());
    }

    #[test]
    fn a_missing_device_names_the_module() {
        let error = FetchDevice::open(Path::new("/nonexistent/puzzlefs")).unwrap_err();
        assert!(error.to_string().contains("modprobe puzzlefs"), "{error}");
    }
}
