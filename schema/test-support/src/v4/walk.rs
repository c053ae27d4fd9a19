// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reads everything of a structure of format 4. Checks the cost of each call, what must hold of the
//! result, and that the Cap'n Proto library reads the same. For tests and for fuzzers.

use capnp::message::{Reader, ReaderOptions};
use capnp::serialize::BufferSegments;
use capnp::Word;
use puzzlefs_schema::steps::count;
use puzzlefs_schema::v4::{
    metadata_capnp as schema, Attributes, Block, BlockLayout, BlockListLayout, Bounds, Catalogue,
    Children, ChunkRef, Content, Entries, ExtentData, Extents, Inode, ListElements, ListLayout,
    Lookup, MetadataError, PackFooter, Page, Part, Parts, RootLayout, Start, Value, HOLE,
    LIST_LEVELS, PAGE_LEN,
};
use puzzlefs_schema::Digest;

/// A walk through a message.
pub type Walk = fn(&[u8]) -> Result<(), MetadataError>;

/// Runs a lookup among so many elements, and checks its cost.
fn lookup<T>(elements: u32, operation: impl FnOnce() -> T) -> T {
    let (steps, result) = count(operation);
    let log = u64::from(elements.checked_ilog2().unwrap_or(0)) + 1;
    // A search counts a step for each comparison, and one for the element that is compared.
    assert!(steps <= 2 * log + 5, "{steps} steps among {elements}");
    result
}

/// Checks a message, and the cost of that.
fn check<T>(
    bytes: &[u8],
    check: fn(&[u8]) -> Result<T, MetadataError>,
) -> Result<T, MetadataError> {
    let (steps, result) = count(|| check(bytes));
    let words = bytes.len() as u64 / 8;
    assert!(steps <= 4 * words + 8, "{steps} steps for {words} words");
    result
}

/// Opens a message with the Cap'n Proto library, which wants it at the address of a word.
fn library<T>(
    bytes: &[u8],
    read: impl FnOnce(&Reader<BufferSegments<&[u8]>>) -> capnp::Result<T>,
) -> T {
    let mut words = Word::allocate_zeroed_vec(bytes.len() / 8);
    Word::words_to_bytes_mut(&mut words).copy_from_slice(bytes);
    let options = ReaderOptions {
        traversal_limit_in_words: None,
        nesting_limit: 4,
    };
    BufferSegments::new(Word::words_to_bytes(&words), options)
        .and_then(|segments| read(&Reader::new(segments, options)))
        .expect("the library reads what passed the checks")
}

macro_rules! same_digest {
    ($chunk:expr, $stored:expr) => {
        let words = [
            $stored.get_digest0(),
            $stored.get_digest1(),
            $stored.get_digest2(),
            $stored.get_digest3(),
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!($chunk.digest().as_bytes().as_slice(), bytes);
        assert_eq!($chunk.stored_len(), $stored.get_stored_length());
        assert_eq!($chunk.content_len(), $stored.get_content_length());
    };
}

/// Reads a root.
pub fn walk_root(bytes: &[u8]) -> Result<(), MetadataError> {
    let layout = check(bytes, RootLayout::check)?;
    let children = layout.children(bytes)?;
    assert_eq!(layout.inode_count(), children.total().inodes);
    assert_eq!(layout.position(0), None);
    assert_eq!(layout.position(1), Some(0));
    assert_eq!(layout.position(layout.inode_count() + 1), None);
    walk_children(&children);
    library(bytes, |message| {
        let root: schema::root::Reader<'_> = message.get_root()?;
        assert_eq!(layout.data_size(), root.get_data_size());
        same_children(&children, root.get_children()?);
        Ok(())
    });
    Ok(())
}

/// Reads a block list.
pub fn walk_block_list(bytes: &[u8]) -> Result<(), MetadataError> {
    let layout = check(bytes, BlockListLayout::check)?;
    let children = layout.children(bytes)?;
    walk_children(&children);
    library(bytes, |message| {
        let list: schema::block_list::Reader<'_> = message.get_root()?;
        same_children(&children, list.get_children()?);
        Ok(())
    });
    Ok(())
}

fn walk_children(children: &Children<'_>) {
    let mut starts = vec![Start::default(); children.len() as usize];
    children.fill_starts(&mut starts).unwrap();
    let mut end = Start::default();
    for number in 0..children.len() {
        let child = lookup(1, || children.get(number)).unwrap().unwrap();
        assert_eq!(starts[number as usize], end);
        let (first, last) = (end.inodes, end.inodes + u64::from(child.inodes) - 1);
        for position in [first, last] {
            let found = lookup(children.len(), || children.find_inode(position, &starts));
            assert_eq!(found, children.scan_inode(position));
            let found = found.unwrap();
            assert_eq!((found.child, found.rest), (number, position - first));
            assert_eq!(found.start, end);
        }
        let block = end.blocks + u64::from(child.blocks) - 1;
        let found = lookup(children.len(), || children.find_block(block, &starts));
        assert_eq!(found, children.scan_block(block));
        assert_eq!(found.map(|found| found.child), Some(number));
        end.inodes += u64::from(child.inodes);
        end.blocks += u64::from(child.blocks);
    }
    assert_eq!(children.total(), end);
    assert_eq!(children.get(children.len()), Ok(None));
    for beyond in [end.inodes, u64::MAX] {
        assert_eq!(children.find_inode(beyond, &starts), None);
        assert_eq!(children.scan_inode(beyond), None);
    }
    assert_eq!(children.find_block(end.blocks, &starts), None);
}

fn same_children(
    children: &Children<'_>,
    list: capnp::struct_list::Reader<'_, schema::child::Owned>,
) {
    assert_eq!(children.len(), list.len());
    for (number, stored) in (0..).zip(list) {
        let child = children.get(number).unwrap().unwrap();
        same_digest!(child.chunk, stored);
        assert_eq!(child.inodes, stored.get_inodes());
        assert_eq!(child.blocks, stored.get_blocks());
    }
}

/// The lists of a message, as the library reads them.
#[derive(Clone, Copy)]
struct Lists<'a> {
    entries: capnp::struct_list::Reader<'a, schema::entry::Owned>,
    extents: capnp::struct_list::Reader<'a, schema::extent::Owned>,
    chunks: capnp::struct_list::Reader<'a, schema::chunk::Owned>,
    parts: capnp::struct_list::Reader<'a, schema::part::Owned>,
    bytes: &'a [u8],
}

impl<'a> Lists<'a> {
    fn string(&self, offset: u32, len: u32) -> &'a [u8] {
        &self.bytes[offset as usize..][..len as usize]
    }

    fn same_chunk(&self, chunk: &ChunkRef, number: u32) {
        let stored = self.chunks.get(number);
        same_digest!(chunk, stored);
    }

    /// Compares entries, which are those from `first` on.
    fn entries(&self, entries: &Entries<'_>, first: u32) {
        for position in 0..entries.len() {
            let entry = lookup(1, || entries.get(position)).unwrap().unwrap();
            let stored = self.entries.get(first + position);
            let name = self.string(stored.get_name_offset(), stored.get_name_length().into());
            assert_eq!(entry.name, name);
            assert_eq!(entry.inode_type.code(), stored.get_type());
            assert_eq!(entry.inode.slot, stored.get_slot());
            assert_eq!(entry.inode.distance, stored.get_distance());
            let found = lookup(entries.len(), || entries.find(name));
            assert_eq!(found, Ok(Some((position, entry))));
            // A name that no entry has: there is none between a name and the same with a 0.
            let missing = [name, b"\0"].concat();
            assert_eq!(entries.find(&missing), Ok(None));
        }
        assert_eq!(entries.get(entries.len()), Ok(None));
        assert_eq!(entries.find(b""), Ok(None));
    }

    /// Compares extents, which are those from `first` on. Returns where they begin and end.
    fn extents(&self, extents: &Extents<'_>, first: u32) -> Option<(u64, u64)> {
        let mut bounds: Option<(u64, u64)> = None;
        for position in 0..extents.len() {
            let extent = lookup(1, || extents.get(position)).unwrap().unwrap();
            let stored = self.extents.get(first + position);
            assert_eq!(extent.start, stored.get_offset());
            assert!(extent.start < extent.end);
            match extent.data {
                ExtentData::Hole => assert_eq!(stored.get_chunk(), HOLE),
                ExtentData::Chunk { chunk, offset } => {
                    self.same_chunk(&chunk, stored.get_chunk());
                    assert_eq!(offset, stored.get_chunk_offset());
                    assert!(extent.end - extent.start <= u64::from(chunk.content_len() - offset));
                }
            }
            for offset in [extent.start, extent.end - 1] {
                let found = lookup(extents.len(), || extents.find(offset));
                assert_eq!(found, Ok(Some((position, extent))));
            }
            assert!(bounds.is_none_or(|(_, end)| end == extent.start));
            bounds = Some((bounds.map_or(extent.start, |(start, _)| start), extent.end));
        }
        assert_eq!(extents.get(extents.len()), Ok(None));
        let end = bounds.map_or(0, |(_, end)| end);
        assert_eq!(extents.find(end), Ok(None));
        if let Some(before) = bounds.and_then(|(start, _)| start.checked_sub(1)) {
            assert_eq!(extents.find(before), Ok(None));
        }
        bounds
    }

    /// Compares parts, which are those from `first` on.
    fn parts(&self, parts: &Parts<'_>, first: u32) {
        let mut elements = 0;
        for position in 0..parts.len() {
            let part = lookup(1, || parts.get(position)).unwrap().unwrap();
            let stored = self.parts.get(first + position);
            self.same_chunk(&part.chunk, stored.get_chunk());
            assert_eq!(part.count, stored.get_count());
            let found = match part.bounds {
                Bounds::Names { first, before } => {
                    let name =
                        self.string(stored.get_name_offset(), stored.get_name_length().into());
                    assert_eq!(first, Some(name));
                    assert!(before.is_none_or(|before| name < before));
                    lookup(parts.len(), || parts.find_name(name))
                }
                Bounds::Offsets { start, end } => {
                    assert_eq!(start, stored.get_first_offset());
                    assert!(start < end);
                    let found = lookup(parts.len(), || parts.find_offset(end - 1));
                    assert_eq!(found, Ok(Some((position, part))));
                    lookup(parts.len(), || parts.find_offset(start))
                }
            };
            assert_eq!(found, Ok(Some((position, part))));
            for element in [elements, elements + (part.count - 1)] {
                let found = parts.find_element(element);
                assert_eq!(found, Ok(Some((position, elements, part))));
            }
            elements += part.count;
        }
        assert_eq!(parts.get(parts.len()), Ok(None));
        assert_eq!(parts.find_element(elements), Ok(None));
    }
}

/// Reads a block.
pub fn walk_block(bytes: &[u8]) -> Result<(), MetadataError> {
    let layout = check(bytes, BlockLayout::check)?;
    let block = Block::new(&layout, bytes)?;
    library(bytes, |message| {
        let stored: schema::block::Reader<'_> = message.get_root()?;
        let lists = Lists {
            entries: stored.get_entries()?,
            extents: stored.get_extents()?,
            chunks: stored.get_chunks()?,
            parts: stored.get_parts()?,
            bytes: stored.get_bytes()?,
        };
        let inodes = stored.get_inodes()?;
        assert_eq!(block.len(), inodes.len());
        let (sets, attributes) = (stored.get_sets()?, stored.get_attributes()?);
        for slot in 0..inodes.len().min(1 << 16) {
            let inode = lookup(1, || block.inode(slot as u16)).unwrap();
            same_inode(&inode, inodes.get(slot), &lists);
            let set = inodes.get(slot).get_set();
            let set = set.checked_sub(1).map(|number| sets.get(number));
            let range = set.map_or((0, 0), |set| (set.get_first(), set.get_count()));
            same_attributes(&inode.attributes().unwrap(), attributes, range, &lists);
        }
        Ok(())
    });
    assert!(block.inode(u16::MAX).is_err());
    Ok(())
}

fn same_inode(inode: &Inode<'_>, stored: schema::inode::Reader<'_>, lists: &Lists<'_>) {
    assert_eq!(inode.mode(), stored.get_mode());
    assert_eq!(inode.links(), stored.get_links());
    assert_eq!(inode.uid(), stored.get_uid());
    assert_eq!(inode.gid(), stored.get_gid());
    assert_eq!(inode.mtime().seconds, stored.get_mtime_seconds());
    assert_eq!(inode.mtime().nanoseconds, stored.get_mtime_nanoseconds());
    if let Some(parent) = inode.parent() {
        assert_eq!(parent.distance, stored.get_parent_distance());
        assert_eq!(parent.slot, stored.get_parent_slot());
    }
    let (first, len) = (stored.get_first(), stored.get_count());
    match lookup(1, || inode.content()).unwrap() {
        Content::Directory(entries) => {
            assert_eq!(entries.len(), len);
            lists.entries(&entries, first);
        }
        Content::File(extents) => {
            assert_eq!((extents.len(), inode.size()), (len, stored.get_size()));
            let bounds = lists.extents(&extents, first);
            assert_eq!(bounds.unwrap_or((0, 0)), (0, inode.size()));
        }
        Content::LongDirectory(parts) | Content::LongFile(parts) => {
            assert!(stored.get_long());
            assert_eq!(parts.len(), len);
            lists.parts(&parts, first);
        }
        Content::Symlink(target) => assert_eq!(target, lists.string(first, len)),
        Content::Device { major, minor } => {
            assert_eq!(u64::from((major << 20) | minor), stored.get_size());
        }
        Content::None => (),
    }
}

fn same_attributes(
    attributes: &Attributes<'_>,
    list: capnp::struct_list::Reader<'_, schema::attribute::Owned>,
    (first, len): (u32, u32),
    lists: &Lists<'_>,
) {
    assert_eq!(attributes.len(), len);
    for position in 0..len {
        let attribute = attributes.get(position).unwrap().unwrap();
        let stored = list.get(first + position);
        let name = lists.string(stored.get_name_offset(), stored.get_name_length().into());
        assert_eq!(attribute.name, name);
        match attribute.value {
            Value::Inline(value) => {
                let expected = lists.string(stored.get_value(), stored.get_value_length());
                assert_eq!(value, expected);
            }
            Value::Chunk(chunk) => {
                lists.same_chunk(&chunk, stored.get_value());
                assert_eq!(chunk.content_len(), stored.get_value_length());
            }
        }
        let found = lookup(attributes.len(), || attributes.find(name));
        assert_eq!(found, Ok(Some(attribute.value)));
        let missing = [name, b"\0"].concat();
        assert_eq!(attributes.find(&missing), Ok(None));
    }
    assert_eq!(attributes.get(len), Ok(None));
}

/// Reads a list block, by a reference that has the bounds of its elements.
pub fn walk_list_block(bytes: &[u8]) -> Result<(), MetadataError> {
    let layout = check(bytes, ListLayout::check)?;
    library(bytes, |message| {
        let stored: schema::list_block::Reader<'_> = message.get_root()?;
        let lists = Lists {
            entries: stored.get_entries()?,
            extents: stored.get_extents()?,
            chunks: stored.get_chunks()?,
            parts: stored.get_parts()?,
            bytes: stored.get_bytes()?,
        };
        let below: u32 = lists.parts.iter().map(|part| part.get_count()).sum();
        let starts = lists.extents.iter().map(|extent| extent.get_offset());
        let starts = starts.chain(lists.parts.iter().map(|part| part.get_first_offset()));
        let starts: Vec<u64> = starts.collect();
        let bounds = if stored.get_of() == 4 {
            Bounds::Names {
                first: None,
                before: None,
            }
        } else {
            Bounds::Offsets {
                start: starts.first().copied().unwrap_or(0),
                end: starts.last().map_or(0, |last| last.saturating_add(1)),
            }
        };
        let part = Part {
            chunk: ChunkRef::new(Digest::new([0; 32]), 8, 8).expect("the lengths are valid"),
            count: lists.entries.len() + lists.extents.len() + below,
            bounds,
            level: LIST_LEVELS,
        };
        match count(|| layout.read(bytes, &part)) {
            (steps, Ok(elements)) => {
                assert!(steps <= 10, "{steps} steps");
                match elements {
                    ListElements::Entries(entries) => lists.entries(&entries, 0),
                    ListElements::Extents(extents) => {
                        let Bounds::Offsets { start, end } = bounds else {
                            panic!("extents have offsets");
                        };
                        assert_eq!(lists.extents(&extents, 0), Some((start, end)));
                    }
                    ListElements::Parts(parts) => lists.parts(&parts, 0),
                }
            }
            // The last offset can be the largest number.
            (_, Err(e)) => assert!(starts.contains(&u64::MAX), "{e}"),
        }
        Ok(())
    });
    Ok(())
}

/// Reads a pack.
pub fn walk_pack(pack: &[u8]) {
    let Ok(footer) = PackFooter::parse(pack) else {
        return;
    };
    assert!(pack.ends_with(&footer.to_bytes()));
    let len = pack.len() as u64;
    let Ok(range) = footer.index_range(len) else {
        return;
    };
    assert_eq!(range.end - range.start, footer.index_len());
    let bytes = &pack[range.start as usize..range.end as usize];
    let index = footer.index(bytes).expect("the index has its length");
    let (steps, checked) = count(|| index.check(len));
    assert!(steps <= u64::from(footer.chunks()));
    if checked.is_err() {
        return;
    }
    let mut end = 0;
    let mut records = Vec::new();
    for chunk in index {
        let chunk = chunk.expect("the index was checked");
        assert!(chunk.offset >= end && chunk.offset % u64::from(footer.alignment()) == 0);
        end = chunk.offset + u64::from(chunk.stored_len);
        records.extend(chunk.to_record());
    }
    assert_eq!((end, records.as_slice()), (range.start, bytes));
}

/// Reads a page of a table, whatever its checksum is, for a catalogue of ten packs.
pub fn walk_page(bytes: &[u8]) {
    let stated = bytes
        .first_chunk()
        .map_or(0, |sum| u64::from_le_bytes(*sum));
    let Ok(page) = Page::parse(bytes, |_| stated) else {
        return;
    };
    assert_eq!(bytes.len(), PAGE_LEN);
    let table = puzzlefs_schema::v4::Table {
        number: 1,
        pages: 1,
        records: page.len(),
    };
    let (steps, checked) = count(|| page.check(0, &table, 10));
    assert!(steps <= u64::from(page.len()));
    for record in page.iter() {
        let found = lookup(page.len(), || page.find(&record.digest, 10));
        if checked.is_ok() {
            assert_eq!(found, Ok(Lookup::Found(record.location)));
        }
    }
    assert_eq!(page.get(page.len()), None);
}

/// Reads a catalogue, whatever its checksum is.
pub fn walk_catalogue(bytes: &[u8]) {
    let stated = bytes.get(16..).and_then(|bytes| bytes.first_chunk());
    let stated = stated.map_or(0, |sum| u64::from_le_bytes(*sum));
    let Ok(catalogue) = Catalogue::parse(bytes, |_| stated) else {
        return;
    };
    let tables: Vec<_> = catalogue.tables().collect();
    assert!(tables.is_sorted_by(|a, b| a.number > b.number));
    let lists = catalogue.packs() as usize * 32 + tables.len() * 16;
    assert_eq!(bytes.len(), 32 + lists);
    for number in 0..catalogue.packs() {
        let stored = &bytes[32 + number as usize * 32..][..32];
        let digest = catalogue.pack(number);
        let bytes = digest.map_or([0; 32], |digest| *digest.as_bytes());
        assert_eq!(stored, bytes);
    }
    assert_eq!(catalogue.pack(catalogue.packs()), None);
    for table in tables {
        assert!(table.home_page(&Digest::new([0xff; 32])) < table.pages);
        assert_eq!(table.home_page(&Digest::new([0; 32])), 0);
        let name = table.file_name();
        assert_eq!(name.as_slice(), format!("{:016x}", table.number).as_bytes());
    }
}
