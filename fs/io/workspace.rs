// SPDX-License-Identifier: GPL-2.0

//! Workspaces: what readers need to read blobs, and take turns in using.

use crate::vfs::prelude::*;
use crate::{
    base::fault::Fault,
    base::registry::InUse,
    base::statistics::Statistics,
    codec::frame_cache::{FrameCache, ShrinkableFrames},
    ports::{
        sha256::{Digest as _, Sha256},
        zstd_safe::DCtx,
    },
    store::blob::{Blob, Range, MAX_STORED, MAX_WHOLE},
    vfs::{
        backing::{FileRead, ReadBuffer, Version},
        Shrink, WaitQueue, WorkQueue,
    },
};
use core::mem::ManuallyDrop;
use kernel::{
    cpu, impl_has_work, new_mutex, new_work,
    page::PAGE_SIZE,
    static_lock_class,
    sync::{
        lock::{mutex::MutexBackend, Guard},
        Arc, Mutex,
    },
    workqueue::{Work, WorkItem},
};
use puzzlefs_schema::Digest;

/// The largest number of workspaces of a store.
const MAX_WORKSPACES: usize = 16;

/// How many parts of blobs are kept of what was read.
const MAX_PARTS: usize = 16;

/// What was read of blobs last, as they are stored.
pub(crate) struct Stored {
    /// How much of a blob can be read to it, in bytes.
    room: usize,
    buffer: ReadBuffer,
    /// What is in the buffer. Never grows beyond its capacity, which is [`MAX_PARTS`].
    parts: KVec<StoredPart>,
    /// Where in the buffer nothing is.
    free: usize,
}

/// A part of a blob, from a place in the buffer on.
///
/// As long as it was not verified it is good if the file is not changed.
struct StoredPart {
    blob: u64,
    version: Version,
    range: Range,
    at: usize,
    /// That it is all of the blob of this digest.
    verified: Option<Digest>,
}

impl StoredPart {
    /// Where the part is in the buffer.
    fn place(&self) -> core::ops::Range<usize> {
        self.at..self.at.saturating_add(self.range.len as usize)
    }
}

impl Stored {
    /// Nothing yet, and room for so many bytes.
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self {
            room,
            buffer: ReadBuffer::new(room)?,
            parts: KVec::with_capacity(MAX_PARTS, GFP_KERNEL)?,
            free: 0,
        })
    }

    /// Whether some of the blob is there.
    fn holds(&self, wanted: &Blob) -> bool {
        self.parts.iter().any(|part| part.blob == wanted.id())
    }

    /// Where in the buffer a part of a blob is, if it is.
    fn find(&self, blob: &Blob, version: Version, wanted: Range) -> Option<usize> {
        self.parts
            .iter()
            .filter(|part| part.blob == blob.id() && part.version == version)
            .find_map(|part| Some(part.at + part.range.place_of(wanted)?))
    }

    /// All of the blob of a digest, if it is there and was verified.
    pub(crate) fn verified(&self, wanted: &Digest) -> Option<&[u8]> {
        let mut parts = self.parts.iter();
        let part = parts.find(|part| part.verified.as_ref() == Some(wanted))?;
        self.buffer.get(part.place())
    }

    /// How much of a blob can be read to it, in bytes.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Says so if a task left reads behind.
    ///
    /// # Errors
    ///
    /// [`EINTR`]: the task is being killed.
    fn check_settled(&self) -> Result {
        if self.buffer.is_in_flight() {
            Err(EINTR)
        } else {
            Ok(())
        }
    }

    /// Waits until reads have ended that a task left behind; nothing holds then.
    fn settle(&mut self) {
        self.buffer.settle();
        self.clear();
    }

    /// Forgets everything.
    fn clear(&mut self) {
        self.parts.clear();
        self.free = 0;
    }

    /// Makes room for so many bytes of a blob, at the cost of all that is there if need be; gives
    /// where.
    fn make_room(&mut self, len: usize) -> usize {
        if self.parts.len() >= MAX_PARTS || !self.buffer.has_room(self.free, len) {
            self.clear();
        }
        self.free
    }

    /// Keeps what was read of a blob.
    fn keep(&mut self, blob: &Blob, version: Version, range: Range, at: usize) {
        let part = StoredPart {
            blob: blob.id(),
            version,
            range,
            at,
            verified: None,
        };
        self.free = ReadBuffer::next_place(part.place().end);
        if self.parts.push_within_capacity(part).is_err() {
            self.clear();
        }
    }

    /// A part of a blob: what is there, or else read.
    ///
    /// With `more`, all of a small blob is read at once, unless the filesystem below keeps it.
    pub(crate) fn read(
        &mut self,
        blob: &Blob,
        statistics: &Statistics,
        wanted: Range,
        more: bool,
    ) -> Result<&[u8], Fault> {
        self.check_settled()?;
        let version = blob.file().version();
        let at = match self.find(blob, version, wanted) {
            Some(at) => at,
            None => {
                let size = version.size();
                let range = if more && size <= MAX_WHOLE && blob.file().is_read_past_cache() {
                    Range {
                        offset: 0,
                        len: size,
                    }
                } else {
                    wanted
                };
                let place = range.place_of(wanted).ok_or(Fault::TooShort)?;
                match self.read_range(blob, statistics, version, range) {
                    // What is unreadable may be what nobody has asked for.
                    Err(fault @ Fault::Error(_))
                        if range.len > wanted.len && fault.passing().is_none() =>
                    {
                        self.read_range(blob, statistics, version, wanted)?.start
                    }
                    read => read?.start + place,
                }
            }
        };
        self.buffer
            .get(at..at.saturating_add(wanted.len as usize))
            .ok_or(Fault::TooShort)
    }

    /// Reads all of a blob, if it is not there, and checks its digest.
    pub(crate) fn read_verified(
        &mut self,
        blob: &Blob,
        statistics: &Statistics,
        digest: &Digest,
    ) -> Result<(), Fault> {
        self.check_settled()?;
        let version = blob.file().version();
        let all = Range {
            offset: 0,
            len: version.size(),
        };
        let place = match self.find(blob, version, all) {
            Some(at) => at..at.saturating_add(all.len as usize),
            None => self.read_range(blob, statistics, version, all)?,
        };
        let mut hash = Sha256::new();
        hash.update(self.buffer.get(place.clone()).ok_or(Fault::TooShort)?);
        statistics.bytes_hashed.add(all.len);
        if hash.finalize()[..] != digest.as_bytes()[..] {
            // It is not read again otherwise.
            self.clear();
            return Err(Fault::Digest);
        }
        let mut parts = self.parts.iter_mut();
        if let Some(part) = parts.find(|part| part.place() == place) {
            part.verified = Some(*digest);
        }
        Ok(())
    }

    /// Reads a part of a blob to some place in the buffer.
    fn read_range(
        &mut self,
        blob: &Blob,
        statistics: &Statistics,
        version: Version,
        range: Range,
    ) -> Result<core::ops::Range<usize>, Fault> {
        let len = usize::try_from(range.len)
            .ok()
            .filter(|len| *len <= self.room)
            .ok_or(Fault::TooLarge)?;
        let at = self.make_room(len);
        let place = blob
            .file()
            .read_to(&mut self.buffer, at, range.offset, len)?;
        if place.len() < len {
            return Err(Fault::TooShort);
        }
        statistics.bytes_read.add(range.len);
        self.keep(blob, version, range, place.start);
        Ok(place)
    }

    /// The reads that it takes to have these parts of blobs.
    fn missing<'a>(
        &self,
        parts: &[Option<(&'a Blob, Version, Range)>; FileRead::MAX],
    ) -> [Option<FileRead<'a>>; FileRead::MAX] {
        let mut reads = [const { None }; FileRead::MAX];
        for (read, part) in reads.iter_mut().zip(parts) {
            let Some((blob, version, range)) = *part else {
                continue;
            };
            if self.find(blob, version, range).is_none() {
                *read = Some(FileRead::new(blob.file(), range.offset, range.len as usize));
            }
        }
        reads
    }

    /// Reads parts of blobs, as many as there is room for and all at once, past the page cache of
    /// the filesystem below. What cannot be read so is left to be read when it is needed.
    fn read_together<'a>(
        &mut self,
        statistics: &Statistics,
        wanted: impl Iterator<Item = (&'a Blob, Range)>,
    ) {
        let mut parts = [const { None::<(&Blob, Version, Range)> }; FileRead::MAX];
        let mut count = 0;
        for (blob, range) in wanted.filter(|(_, range)| range.len <= MAX_STORED as u64) {
            // Files that are in one blob follow each other.
            let again = parts.iter().flatten().any(|(other, _, earlier)| {
                other.id() == blob.id() && earlier.place_of(range).is_some()
            });
            if let Some(part) = parts.get_mut(count).filter(|_| !again) {
                *part = Some((blob, blob.file().version(), range));
                count += 1;
            }
        }
        let mut reads = self.missing(&parts);
        let needed = reads.iter().flatten().map(FileRead::room).sum();
        let added = reads.iter().flatten().count();
        if self.parts.len() + added > MAX_PARTS || !self.buffer.has_room(self.free, needed) {
            // What was there has to be read again, too.
            self.clear();
            reads = self.missing(&parts);
        }
        self.buffer.read_together(self.free, &mut reads);
        for (part, read) in parts.iter().zip(&reads) {
            let place = read.as_ref().and_then(FileRead::place);
            if let (Some((blob, version, range)), Some(place)) = (part, place) {
                statistics.bytes_read.add(range.len);
                self.keep(blob, *version, *range, place.start);
            }
        }
    }
}

/// What a reader needs to read blobs, to decompress and to verify.
///
/// It keeps what it read last, for a reader that comes for more of it.
pub(crate) struct Workspace {
    pub(crate) context: DCtx,
    pub(crate) stored: Stored,
}

impl Workspace {
    fn new() -> Result<Self> {
        Ok(Self {
            context: DCtx::try_create()?,
            stored: Stored::new(MAX_STORED)?,
        })
    }

    /// Reads parts of blobs that are wanted next, as they are stored, as many as there is room for
    /// and all at once. An error will show when they are used.
    pub(crate) fn read_together<'a>(
        &mut self,
        statistics: &Statistics,
        wanted: impl Iterator<Item = (&'a Blob, Range)>,
    ) {
        self.stored.read_together(statistics, wanted);
    }
}

/// A workspace with all that it takes to return it to its store from a work queue.
#[pin_data]
struct Seat {
    workspace: Workspace,
    /// Set while the seat is on its way back; whoever drops a seat need not look for one.
    home: ManuallyDrop<Option<Arc<Workspaces>>>,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Seat { self.work }
}

impl Seat {
    fn new() -> Result<Pin<KBox<Self>>> {
        let workspace = Workspace::new()?;
        KBox::pin_init(
            pin_init!(Self {
                workspace,
                home: ManuallyDrop::new(None),
                work <- new_work!("puzzlefs_workspace"),
            }),
            GFP_KERNEL,
        )
    }

    fn workspace(self: &mut Pin<KBox<Self>>) -> &mut Workspace {
        self.as_mut().project().workspace
    }
}

/// Brings back a workspace to which a killed task left reads behind.
impl WorkItem for Seat {
    type Pointer = Pin<KBox<Self>>;

    fn run(mut this: Self::Pointer) {
        this.workspace().stored.settle();
        if let Some(home) = this.as_mut().project().home.take() {
            home.put(Some(this), None);
        }
    }
}

/// What a workspace is wanted for: before all, to read this blob.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) blob: &'a Blob,
    /// Whether all of the blob will be read to it.
    pub(crate) whole: bool,
}

impl Wanted<'_> {
    /// The number of the blob, if all of it will be read.
    fn whole(self) -> Option<u64> {
        self.whole.then_some(self.blob.id())
    }
}

/// How many readers of a store there can be at once: two for each processor, for one may wait for a
/// disk, up to a limit.
pub(crate) fn readers() -> usize {
    (2 * cpu::nr_cpu_ids() as usize).clamp(1, MAX_WORKSPACES)
}

/// Where the workspaces are.
struct Places {
    /// Those that nobody uses; the one that was used last is at the end. Has room for all.
    free: KVec<Pin<KBox<Seat>>>,
    /// How many there are, used or not, and how many are being made; at most [`readers`].
    count: usize,
    /// How many there are, used or not. Never 0: the first one is the store's reserve.
    made: usize,
    /// The blobs that are being read as a whole to those that are lent.
    reading: [Option<u64>; MAX_WORKSPACES],
}

type LockedPlaces<'a> = Guard<'a, Places, MutexBackend>;

/// What became of a request for a workspace.
enum Request {
    Lent(Pin<KBox<Seat>>),
    /// There may be one more, which is to be made.
    ToMake,
    /// The blob is being read to one that is lent.
    Reading,
    NoneFree,
}

impl Places {
    /// Takes a workspace: if possible, one that holds what is wanted, otherwise, unless somebody is
    /// about to have it, the one that has not been used for the longest time.
    fn take(&mut self, wanted: Wanted<'_>) -> Request {
        let mut free = self.free.iter();
        let holding = free.position(|seat| seat.workspace.stored.holds(wanted.blob));
        let whole = wanted.whole();
        if holding.is_none() && whole.is_some() && self.reading.contains(&whole) {
            return Request::Reading;
        }
        let request = match self.free.remove(holding.unwrap_or(0)) {
            Ok(seat) => Request::Lent(seat),
            Err(_) if self.count < readers() => {
                self.count += 1;
                Request::ToMake
            }
            Err(_) => return Request::NoneFree,
        };
        // There are no more workspaces than places.
        if let Some(place) = self.reading.iter_mut().find(|place| place.is_none()) {
            *place = whole;
        }
        request
    }

    /// Takes a workspace that nobody uses out of service, unless it is the last.
    fn retire(&mut self) -> Option<Pin<KBox<Seat>>> {
        if self.made <= 1 {
            return None;
        }
        let retired = self.free.remove(0).ok()?;
        self.made -= 1;
        self.count -= 1;
        Some(retired)
    }

    /// Returns the last workspace, if nobody uses it and it holds something of a blob.
    fn last_with_contents(&mut self) -> Option<&mut Workspace> {
        let last = self.free.first_mut().filter(|_| self.made == 1)?;
        Some(last.workspace()).filter(|workspace| !workspace.stored.parts.is_empty())
    }

    /// Notes that nobody reads to a lent workspace any more.
    fn end_reading(&mut self, whole: Option<u64>) {
        if let Some(place) = self.reading.iter_mut().find(|place| **place == whole) {
            *place = None;
        }
    }

    /// Takes a workspace back, or none where none could be made.
    fn put(&mut self, seat: Option<Pin<KBox<Seat>>>) {
        match seat {
            // There is room: it was taken from there, or counted.
            Some(seat) => {
                let _ = self.free.push_within_capacity(seat);
            }
            None => self.count = self.count.saturating_sub(1),
        }
    }
}

/// The workspaces of a store. The first is made with it and stays, so that its blobs can be read
/// however little memory there is. More are made as they are needed and given back under memory
/// pressure. Readers wait for one to become free if there are enough of them, or no memory for one.
/// A store whose disk does not answer keeps its own, and none of another's.
///
/// Who wants a small blob that another is reading waits until that one is done, and has it read.
#[pin_data]
pub(crate) struct Workspaces {
    #[pin]
    places: Mutex<Places>,
    /// Told to one of those who wait for any workspace.
    #[pin]
    returned: WaitQueue,
    /// Told to all who wait for a blob.
    #[pin]
    was_read: WaitQueue,
    frames: InUse<ShrinkableFrames>,
}

impl Workspaces {
    pub(crate) fn new(frames: InUse<ShrinkableFrames>) -> Result<Arc<Self>> {
        let mut free = KVec::with_capacity(readers(), GFP_KERNEL)?;
        free.push(Seat::new()?, GFP_KERNEL)?;
        let places = Places {
            free,
            count: 1,
            made: 1,
            reading: [None; MAX_WORKSPACES],
        };
        Arc::pin_init(
            pin_init!(Self {
                frames,
                places <- new_mutex!(places, "puzzlefs_workspaces"),
                returned <- WaitQueue::new(c"puzzlefs_workspaces", static_lock_class!()),
                was_read <- WaitQueue::new(c"puzzlefs_blob_read", static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    /// The frames that were decompressed last.
    pub(crate) fn frames(&self) -> &FrameCache {
        self.frames.cache()
    }

    /// Takes a workspace back, or none where none could be made, and wakes those who wait for one.
    ///
    /// `wanted` is the purpose that it was lent for, if that has not ended before.
    fn put(&self, seat: Option<Pin<KBox<Seat>>>, wanted: Option<Wanted<'_>>) {
        let mut places = self.places.lock();
        if let Some(wanted) = wanted {
            places.end_reading(wanted.whole());
        }
        places.put(seat);
        // One that could not be made is none: those that wait for any wait for those that there
        // are.
        let tell = !places.free.is_empty();
        drop(places);
        if wanted.is_some_and(|wanted| wanted.whole) {
            self.was_read.wake_all();
        }
        if tell {
            self.returned.wake_one();
        }
    }

    /// Takes back a workspace after its use; `queue` does so later if reads to it are under way
    /// because the task is being killed.
    fn give_back(
        self: &Arc<Self>,
        queue: &WorkQueue,
        mut seat: Pin<KBox<Seat>>,
        wanted: Wanted<'_>,
    ) {
        if seat.workspace().stored.check_settled().is_ok() {
            return self.put(Some(seat), Some(wanted));
        }
        // It still counts, so that killed tasks take no more memory than others.
        self.places.lock().end_reading(wanted.whole());
        if wanted.whole {
            self.was_read.wake_all();
        }
        **seat.as_mut().project().home = Some(self.clone());
        queue.enqueue(seat);
    }

    /// Waits to be told; what is waited for is to be looked at again then.
    fn wait<'a>(&'a self, told: &WaitQueue, places: LockedPlaces<'a>) -> Result<LockedPlaces<'a>> {
        told.wait_killable(|| drop(places))?;
        Ok(self.places.lock())
    }

    /// Waits to be told that a workspace may be free.
    fn wait_for_any<'a>(&'a self, places: LockedPlaces<'a>) -> Result<LockedPlaces<'a>> {
        self.wait(&self.returned, places).inspect_err(|_| {
            // What this one was told of is not lost.
            self.returned.wake_one();
        })
    }

    /// Lends a workspace, when there is one; with `now`, none if there is none now and nobody reads
    /// the blob.
    ///
    /// # Errors
    ///
    /// [`EINTR`] if the task is killed while it waits.
    pub(crate) fn with<R>(
        self: &Arc<Self>,
        returns: &WorkQueue,
        wanted: Wanted<'_>,
        now: bool,
        work: impl FnOnce(Option<&mut Workspace>) -> R,
    ) -> Result<R> {
        let mut places = self.places.lock();
        let mut seat = loop {
            match places.take(wanted) {
                Request::Lent(seat) => {
                    drop(places);
                    break seat;
                }
                Request::ToMake => {
                    drop(places);
                    match Seat::new() {
                        Ok(seat) => {
                            self.places.lock().made += 1;
                            break seat;
                        }
                        // There is the reserve, which somebody else uses now.
                        Err(_) => {
                            self.put(None, Some(wanted));
                            if now {
                                return Ok(work(None));
                            }
                            places = self.places.lock();
                            if places.free.is_empty() {
                                places = self.wait_for_any(places)?;
                            }
                        }
                    }
                }
                Request::Reading => {
                    // What this one was told of may be for another.
                    self.returned.wake_one();
                    places = self.wait(&self.was_read, places)?;
                }
                Request::NoneFree if now => {
                    drop(places);
                    return Ok(work(None));
                }
                Request::NoneFree => places = self.wait_for_any(places)?,
            }
        };
        let result = work(Some(seat.workspace()));
        self.give_back(returns, seat, wanted);
        Ok(result)
    }
}

/// How much memory a workspace has, in pages.
const PAGES: usize = MAX_STORED / PAGE_SIZE;

/// The memory of workspaces that nobody uses can be had, in pages. The last one keeps its memory,
/// but forgets what it holds of blobs, which counts as one page.
impl Shrink for Workspaces {
    fn count(&self) -> usize {
        let mut places = self.places.lock();
        let unused = places.free.len().min(places.made.saturating_sub(1));
        let to_forget = usize::from(places.last_with_contents().is_some());
        unused.saturating_mul(PAGES) + to_forget
    }

    fn shrink(&self, pages: usize) -> usize {
        let mut freed = 0;
        while freed < pages {
            let retired = self.places.lock().retire();
            if retired.is_none() {
                if let Some(last) = self.places.lock().last_with_contents() {
                    last.stored.clear();
                    freed += 1;
                }
                break;
            }
            freed += PAGES;
        }
        freed
    }
}
