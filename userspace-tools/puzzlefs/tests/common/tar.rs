// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes tar archives member by member, also those that no program would write.

/// A header block with its checksum.
pub fn header(name: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &str| {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000007\0");
    put(116, "0000010\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000144\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A member of any type with contents.
pub fn member(name: &str, kind: u8, contents: &[u8]) -> Vec<u8> {
    let mut member = header(name, kind, contents.len() as u64, "");
    member.extend_from_slice(contents);
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

pub fn file(name: &str, contents: &[u8]) -> Vec<u8> {
    member(name, b'0', contents)
}

pub fn hard_link(name: &str, target: &str) -> Vec<u8> {
    header(name, b'1', 0, target)
}

pub fn symlink(name: &str, target: &str) -> Vec<u8> {
    header(name, b'2', 0, target)
}

/// A PAX header for the next member.
pub fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    member("pax", b'x', &pax_records(records))
}

/// A PAX header for all members that follow.
pub fn global_pax(records: &[(&str, &str)]) -> Vec<u8> {
    member("global", b'g', &pax_records(records))
}

fn pax_records(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (body..)
            .find(|length| length - length.to_string().len() == body)
            .unwrap();
        text.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    text
}

/// The members and the two blocks that mark the end.
pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
