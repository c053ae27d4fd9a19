// SPDX-License-Identifier: MIT OR Apache-2.0

//! POSIX access control lists: from the text that archives have to the kernel's attribute.

/// The attribute of a file's own list.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of the list that new files of a directory inherit.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The version of the attribute's form.
const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
pub(crate) const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
pub(crate) const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// The length of an entry in bytes: tag, permissions, id.
const ENTRY: usize = 8;
/// The id of an entry that is for no user or group of its own.
const NO_ID: u32 = u32::MAX;

/// The attribute of a list such as `user::rw-,user:joe:r--:1000,group::r--,mask::r--,other::---`:
/// the number of a user or group comes last, or in the place of the name.
pub(crate) fn from_text(text: &[u8]) -> Result<Vec<u8>, AclFault> {
    let text = std::str::from_utf8(text).map_err(|_| AclFault::NotUtf8)?;
    let mut entries = Vec::new();
    for line in text.split([',', '\n']) {
        // What is effective after the mask is said behind the entry.
        let entry = line.split('#').next().unwrap_or_default().trim();
        if !entry.is_empty() {
            entries.push(entry_of(entry)?);
        }
    }
    // As the kernel has them: by tag, then by id.
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(value)
}

/// The text of a list, with numbers of users and groups in the place of names: the form that archives
/// have.
///
/// None if the value is not such an attribute.
pub(crate) fn to_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY != 0 {
        return None;
    }
    let mut texts = Vec::new();
    for entry in entries.chunks_exact(ENTRY) {
        let [tag_low, tag_high, bits_low, bits_high, id @ ..] = entry else {
            return None;
        };
        let bits = u16::from_le_bytes([*bits_low, *bits_high]);
        let id = u32::from_le_bytes(id.try_into().ok()?);
        let tag = match u16::from_le_bytes([*tag_low, *tag_high]) {
            USER_OBJ => "user:".to_owned(),
            USER => format!("user:{id}"),
            GROUP_OBJ => "group:".to_owned(),
            GROUP => format!("group:{id}"),
            MASK => "mask:".to_owned(),
            OTHER => "other:".to_owned(),
            _ => return None,
        };
        let letter = |bit: u16, letter| if bits & bit != 0 { letter } else { '-' };
        let (read, write, execute) = (letter(4, 'r'), letter(2, 'w'), letter(1, 'x'));
        texts.push(format!("{tag}:{read}{write}{execute}"));
    }
    Some(texts.join(","))
}

/// Converts the attribute of a file's own list as the kernel does: to the nine mode bits of the list,
/// and true if the list says more than they do. Otherwise the kernel stores no list.
///
/// None if the value is not such an attribute.
pub(crate) fn mode(value: &[u8]) -> Option<(u16, bool)> {
    let list = List::of(value)?;
    let group = list.mask.unwrap_or(list.group);
    Some(((list.owner << 6) | (group << 3) | list.other, list.more))
}

/// The nine bits that let nobody do more than a file's own list does, where it cannot be set: those
/// of the group are not the mask, which is for others too.
///
/// None if the value is not such an attribute.
pub(crate) fn mode_without(value: &[u8]) -> Option<u16> {
    let list = List::of(value)?;
    let group = list.group & list.mask.unwrap_or(list.group);
    Some((list.owner << 6) | (group << 3) | list.other)
}

/// The permissions that a list has for those whom the mode knows, too.
struct List {
    owner: u16,
    group: u16,
    mask: Option<u16>,
    other: u16,
    /// Returns true if it says more than the nine bits of a mode.
    more: bool,
}

impl List {
    fn of(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_first_chunk()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
            return None;
        }
        let (mut owner, mut group, mut mask, mut other) = (None, None, None, None);
        let mut more = false;
        for entry in entries.chunks_exact(8) {
            let half = |at| u16::from_le_bytes([entry[at], entry[at + 1]]);
            let permissions = half(2) & 7;
            match half(0) {
                USER_OBJ => owner = Some(permissions),
                GROUP_OBJ => group = Some(permissions),
                OTHER => other = Some(permissions),
                MASK => {
                    mask = Some(permissions);
                    more = true;
                }
                USER | GROUP => more = true,
                _ => return None,
            }
        }
        Some(List {
            owner: owner?,
            group: group?,
            mask,
            other: other?,
            more,
        })
    }
}

/// The tag, the id and the permissions of one entry.
fn entry_of(entry: &str) -> Result<(u16, u32, u16), AclFault> {
    let malformed = || AclFault::Entry(entry.to_owned());
    let mut fields = entry.split(':');
    let mut field = || fields.next().map(str::trim);
    let (tag, name, permissions) = (field(), field(), field());
    let (Some(tag), Some(name), Some(permissions)) = (tag, name, permissions) else {
        return Err(malformed());
    };
    let number = field().unwrap_or(name);
    let tag = match (tag, name) {
        ("user" | "u", "") => USER_OBJ,
        ("user" | "u", _) => USER,
        ("group" | "g", "") => GROUP_OBJ,
        ("group" | "g", _) => GROUP,
        ("mask" | "m", "") => MASK,
        ("other" | "o", "") => OTHER,
        _ => return Err(malformed()),
    };
    let id = match tag {
        USER | GROUP => number
            .parse()
            .map_err(|_| AclFault::NoNumber(name.to_owned()))?,
        _ => NO_ID,
    };
    let mut bits = 0;
    for letter in permissions.chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return Err(malformed()),
        };
    }
    Ok((tag, id, bits))
}

/// The cause that the text of an access control list cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclFault {
    /// The text is not UTF-8.
    #[error("an access control list is damaged")]
    NotUtf8,
    /// This entry is malformed.
    #[error("an access control list has the malformed entry '{0}'")]
    Entry(String),
    /// An entry has the name of a user or group, without the number. Holds the name.
    #[error(
        "an access control list names '{0}' without its number; \
         make the archive by tar --xattrs --xattrs-include='*' without --acls"
    )]
    NoNumber(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let value =
            from_text(b"user::rw-,group::r--,user:joe:r-x:77,mask::r--,other::---").unwrap();
        let wanted = [
            &[2, 0, 0, 0][..],
            &[1, 0, 6, 0, 255, 255, 255, 255],
            &[2, 0, 5, 0, 77, 0, 0, 0],
            &[4, 0, 4, 0, 255, 255, 255, 255],
            &[16, 0, 4, 0, 255, 255, 255, 255],
            &[32, 0, 0, 0, 255, 255, 255, 255],
        ];
        assert_eq!(value, wanted.concat());
        let lines = b"user::rw-\ngroup::r--\nuser:77:r-x\t#effective:r--\nmask::r--\nother::---\n";
        assert_eq!(from_text(lines).unwrap(), value);
        let text = "user::rw-,user:77:r-x,group::r--,mask::r--,other::---";
        assert_eq!(to_text(&value).as_deref(), Some(text));
        assert_eq!(
            to_text(&value[..20]).as_deref(),
            Some("user::rw-,user:77:r-x")
        );
        // The mask is what `ls -l` shows for the group.
        assert_eq!(mode(&value), Some((0o640, true)));
        let wide = from_text(b"user::rw-,group::r--,user:77:rwx,mask::rwx,other::---").unwrap();
        assert_eq!(mode(&wide), Some((0o670, true)));
        assert_eq!(mode_without(&wide), Some(0o640));
        let narrow = from_text(b"user::rw-,group::rw-,user:77:r--,mask::r--,other::---").unwrap();
        assert_eq!(mode_without(&narrow), Some(0o640));
        let plain = from_text(b"user::rwx,group::r-x,other::--x").unwrap();
        assert_eq!(mode(&plain), Some((0o751, false)));
        for wrong in [&b""[..], b"\x02", b"\x03\0\0\0", &value[..21], &value[..20]] {
            assert_eq!(mode(wrong), None);
            assert!(wrong.len() == 20 || to_text(wrong).is_none());
        }
        for wrong in [
            "user:joe:r--",
            "user",
            "user:1:q",
            "x::r",
            "mask:1:r",
            "\u{0}",
        ] {
            assert!(from_text(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
