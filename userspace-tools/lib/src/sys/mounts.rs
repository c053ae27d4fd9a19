// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of mounts, `/proc/self/mountinfo`, as proc_pid_mountinfo(5) has it.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The identity of a mount. Numbers are reused, so it is exact while its filesystem exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountId {
    /// The number that no other mount has at the same time.
    mount: u32,
    /// The major and minor number of the filesystem.
    device: (u32, u32),
}

impl MountId {
    /// Returns true if the table of mounts has the mount.
    pub fn exists(&self) -> bool {
        Mount::all().iter().any(|mount| mount.id == *self)
    }
}

impl fmt::Display for MountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.mount, self.device.0, self.device.1)
    }
}

impl FromStr for MountId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten().ok_or(());
        let mount = number()?;
        let device = (number()?, number()?);
        Ok(MountId { mount, device })
    }
}

/// A mount of this mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The numbers of the mount and of its filesystem.
    pub id: MountId,
    /// The mount point.
    pub directory: PathBuf,
    /// The type of its file system, with the subtype: `fuse.puzzlefs`.
    pub fs_type: String,
    /// The source.
    pub source: OsString,
    /// The attributes of the mount: `ro,nosuid`.
    attributes: Vec<u8>,
    /// The options of the file system.
    options: Vec<u8>,
}

impl Mount {
    /// Returns all mounts, a mount before those on top of it. Empty without `/proc`.
    pub fn all() -> Vec<Self> {
        Self::parse_table(&std::fs::read("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Returns the mounts of a table. Leaves out malformed lines.
    pub fn parse_table(table: &[u8]) -> Vec<Self> {
        let lines = table.split(|&byte| byte == b'\n');
        lines.filter_map(Self::parse).collect()
    }

    /// The uppermost mount on a directory, which is given as the table has it: absolute, without
    /// symbolic links.
    pub fn on(directory: &Path) -> Option<Self> {
        let mut mounts = Self::all().into_iter().rev();
        mounts.find(|mount| mount.directory == directory)
    }

    /// The value of an option of the file system.
    pub fn option(&self, name: &str) -> Option<OsString> {
        let mut options = self.options.split(|&byte| byte == b',');
        let value = options.find_map(|option| {
            let rest = option.strip_prefix(name.as_bytes())?;
            rest.strip_prefix(b"=")
        });
        value.map(unescaped)
    }

    /// Returns true if the filesystem has an option without a value.
    pub fn has_option(&self, name: &str) -> bool {
        has(&self.options, name)
    }

    /// Returns true if the mount has an attribute.
    pub fn has_attribute(&self, name: &str) -> bool {
        has(&self.attributes, name)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let number = std::str::from_utf8(fields.next()?).ok()?;
        let device = std::str::from_utf8(fields.nth(1)?).ok()?;
        let id = format!("{number}:{device}").parse().ok()?;
        let directory = fields.nth(1)?;
        let attributes = fields.next()?.to_vec();
        fields.find(|field| *field == b"-")?;
        Some(Mount {
            id,
            directory: PathBuf::from(unescaped(directory)),
            fs_type: String::from_utf8_lossy(fields.next()?).into_owned(),
            source: unescaped(fields.next()?),
            attributes,
            options: fields.next()?.to_vec(),
        })
    }
}

/// Returns true if a word is in a list.
fn has(list: &[u8], word: &str) -> bool {
    let mut words = list.split(|&byte| byte == b',');
    words.any(|found| found == word.as_bytes())
}

/// Decodes a field, in which the kernel writes some bytes as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                rest = tail;
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = [
            br"36 35 0:30 / /mnt/a\040b\134 ro,nodev shared:1 master:2 - ".as_slice(),
            br"fuse.puzzlefs /srv/c\011d@x ro,rootfs=ab,x=a\040b,verify=none",
        ]
        .concat();
        let line = line.as_slice();
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.id.to_string(), "36:0:30");
        assert_eq!("36:0:30".parse(), Ok(mount.id));
        assert!("36:0".parse::<MountId>().is_err() && "".parse::<MountId>().is_err());
        assert_eq!(mount.directory, Path::new("/mnt/a b\\"));
        assert_eq!(mount.fs_type, "fuse.puzzlefs");
        assert_eq!(mount.source, "/srv/c\td@x");
        assert_eq!(mount.option("rootfs"), Some("ab".into()));
        assert_eq!(mount.option("x"), Some("a b".into()));
        assert_eq!(mount.option("root"), None);
        assert_eq!(mount.option("ro"), None);
        assert!(mount.has_option("ro") && !mount.has_option("nodev"));
        assert!(mount.has_attribute("nodev") && !mount.has_attribute("no"));
        for line in [
            &b""[..],
            b"36 35 0:30 / /mnt ro",
            b"36 35 0:30 / /mnt ro - ext4",
        ] {
            assert_eq!(Mount::parse(line), None);
        }
        assert_eq!(unescaped(br"\0\400\1a\"), OsString::from(r"\0\400\1a\"));
    }

    #[test]
    fn the_table_of_this_process() {
        assert!(Mount::on(Path::new("/proc")).is_some_and(|mount| mount.fs_type == "proc"));
        assert!(Mount::on(Path::new("/proc")).is_some_and(|mount| mount.id.exists()));
        assert_eq!(Mount::on(Path::new("/no/such")), None);
    }
}
