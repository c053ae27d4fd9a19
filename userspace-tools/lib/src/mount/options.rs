// SPDX-License-Identifier: MIT OR Apache-2.0

//! Mount options: those of the mount, those of the filesystem, and those of mount(8).

use crate::error::{MountError, Result};
use crate::model::digest::Digest;
use rustix::mount::{MountAttrFlags, MountFlags};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Mount options, sorted by their receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Attributes of the mount. That of an image is read-only, always.
    pub attributes: MountAttrFlags,
    /// The parameters of the filesystem, in order: names, and values if there are any.
    pub parameters: Vec<(OsString, Option<OsString>)>,
    /// Change a mount that exists.
    pub remount: bool,
    /// `rw` was asked for, or mount(8) put it there: it does so by itself.
    pub read_write: bool,
    /// Read the ranges of the image's start-up order ahead after the mount.
    pub prefetch: bool,
    /// The manifest of the image, if it is known.
    pub(super) manifest: Option<Digest>,
}

/// Options that name an image to the kernel themselves.
const IMAGE: [&str; 3] = ["rootfs", "image_manifest", "oci_root_dir"];

/// Options for mount(8), the init system or writable filesystems. They are ignored.
const IGNORED: [&str; 37] = [
    "defaults",
    "auto",
    "noauto",
    "nouser",
    "nousers",
    "noowner",
    "nogroup",
    "_netdev",
    "nofail",
    "comment",
    "uhelper",
    "helper",
    "silent",
    "loud",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "norelatime",
    "nostrictatime",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "quiet",
    "fsc",
    "nofsc",
    "noswap",
];

/// The attributes that restrict the use of a mount, and their names.
pub(super) const RESTRICTIONS: [(MountAttrFlags, &str); 3] = [
    (MountAttrFlags::MOUNT_ATTR_NOSUID, "nosuid"),
    (MountAttrFlags::MOUNT_ATTR_NODEV, "nodev"),
    (MountAttrFlags::MOUNT_ATTR_NOEXEC, "noexec"),
];

impl Options {
    /// Returns the names of the attributes that restrict the use of the mount, for a mount that is made
    /// of it.
    pub fn restrictions(&self) -> impl Iterator<Item = &'static str> + '_ {
        let set = RESTRICTIONS.iter();
        let set = set.filter(|(flag, _)| self.attributes.contains(*flag));
        set.map(|(_, name)| *name)
    }

    /// Adds the option that escapes the extended attributes that overlayfs claims.
    pub fn escape_overlay(&mut self) {
        self.parameters.push((super::ESCAPE_OVERLAY.into(), None));
    }

    /// Makes options from attributes and parameters.
    pub(super) fn new(
        attributes: MountAttrFlags,
        parameters: Vec<(OsString, Option<OsString>)>,
    ) -> Self {
        Options {
            attributes,
            parameters,
            remount: false,
            read_write: false,
            prefetch: false,
            manifest: None,
        }
    }

    /// Parses the values of `-o`. Of two options that contradict each other, the last one counts.
    pub fn parse(lists: &[OsString]) -> Result<Self> {
        let mut options = Options::new(MountAttrFlags::MOUNT_ATTR_RDONLY, Vec::new());
        for list in lists {
            for option in split(list.as_bytes())? {
                options.take(&option);
            }
        }
        Ok(options)
    }

    fn take(&mut self, option: &[u8]) {
        use MountAttrFlags as Attr;
        const NO_SPECIAL: Attr = Attr::MOUNT_ATTR_NOSUID.union(Attr::MOUNT_ATTR_NODEV);
        let (name, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        };
        let set = |attributes: &mut Attr, flag: Attr| attributes.insert(flag);
        let clear = |attributes: &mut Attr, flag: Attr| attributes.remove(flag);
        let attributes = &mut self.attributes;
        match name {
            b"" => {}
            b"ro" => self.read_write = false,
            b"rw" => self.read_write = true,
            b"remount" => self.remount = true,
            b"prefetch" if value.is_none() => self.prefetch = true,
            b"noprefetch" if value.is_none() => self.prefetch = false,
            b"nosuid" => set(attributes, Attr::MOUNT_ATTR_NOSUID),
            b"suid" => clear(attributes, Attr::MOUNT_ATTR_NOSUID),
            b"nodev" => set(attributes, Attr::MOUNT_ATTR_NODEV),
            b"dev" => clear(attributes, Attr::MOUNT_ATTR_NODEV),
            b"noexec" => set(attributes, Attr::MOUNT_ATTR_NOEXEC),
            b"exec" => clear(attributes, Attr::MOUNT_ATTR_NOEXEC),
            b"nodiratime" => set(attributes, Attr::MOUNT_ATTR_NODIRATIME),
            b"diratime" => clear(attributes, Attr::MOUNT_ATTR_NODIRATIME),
            b"nosymfollow" => set(attributes, Attr::MOUNT_ATTR_NOSYMFOLLOW),
            b"symfollow" => clear(attributes, Attr::MOUNT_ATTR_NOSYMFOLLOW),
            // The access time modes are one field, of which relatime is the zero.
            b"noatime" | b"atime" | b"relatime" | b"strictatime" => {
                attributes.remove(Attr::MOUNT_ATTR__ATIME);
                match name {
                    b"noatime" => attributes.insert(Attr::MOUNT_ATTR_NOATIME),
                    b"strictatime" => attributes.insert(Attr::MOUNT_ATTR_STRICTATIME),
                    _ => {}
                }
            }
            // What mount(8) documents these to imply.
            b"user" | b"users" => set(attributes, NO_SPECIAL | Attr::MOUNT_ATTR_NOEXEC),
            b"owner" | b"group" => set(attributes, NO_SPECIAL),
            _ if name.starts_with(b"x-") || name.starts_with(b"X-") => {}
            _ if IGNORED.iter().any(|ignored| name == ignored.as_bytes()) => {}
            _ => self.parameters.push((
                OsString::from_vec(name.to_vec()),
                value.map(|value| OsString::from_vec(value.to_vec())),
            )),
        }
    }

    /// Returns true if the options name the image. The source is then passed to the kernel as it is.
    pub fn name_image(&self) -> bool {
        self.parameters
            .iter()
            .any(|(name, _)| IMAGE.iter().any(|image| name == image))
    }

    /// Removes and returns the value of `digest=`, the fs-verity digest of the manifest. The kernel does
    /// not know this option.
    pub fn take_digest(&mut self) -> Result<Option<Digest>> {
        let mut digest = None;
        for (name, value) in &self.parameters {
            if name != "digest" {
                continue;
            }
            let hex = value.as_deref().unwrap_or_default().as_bytes();
            digest = Some(Digest::from_hex(hex).ok_or(MountError::NotADigest)?);
        }
        self.parameters.retain(|(name, _)| name != "digest");
        let unverified = |(name, value): &(OsString, Option<OsString>)| {
            name == "verify" && value.as_deref() == Some(OsStr::new("none"))
        };
        if digest.is_some() && self.parameters.iter().any(unverified) {
            return Err(MountError::DigestUnverified.into());
        }
        Ok(digest)
    }

    /// Adds options for the kernel to verify the metadata blob by its fs-verity digest, and the data
    /// blobs by theirs unless `verify=` is given.
    pub fn verify_from(&mut self, rootfs_verity: String) {
        let parameter = ("rootfs_verity".into(), Some(rootfs_verity.into()));
        self.parameters.push(parameter);
        self.verify_data();
    }

    /// Adds the option for the kernel to verify data by fs-verity, unless `verify=` is given.
    pub fn verify_data(&mut self) {
        if !self.parameters.iter().any(|(name, _)| name == "verify") {
            let parameter = ("verify".into(), Some("fsverity".into()));
            self.parameters.push(parameter);
        }
    }

    /// Returns the attributes as mount(2) takes them.
    pub fn flags(&self) -> MountFlags {
        use MountAttrFlags as Attr;
        let mut flags = MountFlags::RDONLY;
        for (attribute, flag) in [
            (Attr::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
            (Attr::MOUNT_ATTR_NODEV, MountFlags::NODEV),
            (Attr::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
            (Attr::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
            (Attr::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
        ] {
            if self.attributes.contains(attribute) {
                flags |= flag;
            }
        }
        let atime = self.attributes & Attr::MOUNT_ATTR__ATIME;
        flags
            | match atime {
                Attr::MOUNT_ATTR_NOATIME => MountFlags::NOATIME,
                Attr::MOUNT_ATTR_STRICTATIME => MountFlags::STRICTATIME,
                _ => MountFlags::RELATIME,
            }
    }

    /// Returns the parameters of the filesystem as mount(2) takes them, in one string.
    pub fn data(&self) -> OsString {
        let parameters = self.parameters.iter().map(|(name, value)| {
            let mut parameter = name.clone();
            if let Some(value) = value {
                parameter.push("=");
                parameter.push(value);
            }
            parameter
        });
        parameters.collect::<Vec<_>>().join(OsStr::new(","))
    }
}

/// Splits a list at its commas, except within double quotes, which are dropped.
fn split(list: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut options = vec![Vec::new()];
    let mut quoted = false;
    for &byte in list {
        match (byte, options.last_mut()) {
            (b'"', _) => quoted = !quoted,
            (b',', _) if !quoted => options.push(Vec::new()),
            (byte, Some(option)) => option.push(byte),
            (_, None) => {}
        }
    }
    if quoted {
        let list = String::from_utf8_lossy(list).into_owned();
        return Err(MountError::UnterminatedQuote { list }.into());
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use MountAttrFlags as Attr;

    const RO: Attr = Attr::MOUNT_ATTR_RDONLY;

    fn parse(list: &str) -> Options {
        Options::parse(&[list.into()]).unwrap()
    }

    #[test]
    fn attributes() {
        let special = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV;
        let table = [
            ("", RO),
            ("ro", RO),
            ("rw", RO),
            ("rw,nosuid,nodev", RO | special),
            ("nosuid,suid", RO),
            ("noexec", RO | Attr::MOUNT_ATTR_NOEXEC),
            ("noexec,exec", RO),
            ("noatime", RO | Attr::MOUNT_ATTR_NOATIME),
            ("noatime,strictatime", RO | Attr::MOUNT_ATTR_STRICTATIME),
            ("noatime,relatime", RO),
            (
                "nodiratime,nosymfollow",
                RO | Attr::MOUNT_ATTR_NODIRATIME | Attr::MOUNT_ATTR_NOSYMFOLLOW,
            ),
            ("user,exec", RO | special),
            ("user=joe", RO | special | Attr::MOUNT_ATTR_NOEXEC),
            ("owner", RO | special),
        ];
        for (list, wanted) in table {
            let options = parse(list);
            assert_eq!(options.attributes, wanted, "{list}");
            assert_eq!(options.parameters, [], "{list}");
        }
    }

    #[test]
    fn parameters() {
        type Case = (
            &'static str,
            &'static [(&'static str, Option<&'static str>)],
        );
        let table: [Case; 7] = [
            (
                "defaults,noauto,_netdev,nofail,x-systemd.automount,X-mount.mkdir=0755,comment=c",
                &[],
            ),
            ("rootfs=ab,ro", &[("rootfs", Some("ab"))]),
            (
                "verify=fsverity,new",
                &[("verify", Some("fsverity")), ("new", None)],
            ),
            (
                "oci_root_dir=/a,image_manifest=cd",
                &[("oci_root_dir", Some("/a")), ("image_manifest", Some("cd"))],
            ),
            (
                "context=\"u:r:t:s0:c1,c2\",ro",
                &[("context", Some("u:r:t:s0:c1,c2"))],
            ),
            ("a==b,,c=", &[("a", Some("=b")), ("c", Some(""))]),
            ("remount,rw", &[]),
        ];
        for (list, wanted) in table {
            let options = parse(list);
            let wanted: Vec<(OsString, Option<OsString>)> = wanted
                .iter()
                .map(|(name, value)| (name.into(), value.map(OsString::from)))
                .collect();
            assert_eq!(options.parameters, wanted, "{list}");
            assert_eq!(options.attributes, RO, "{list}");
            assert_eq!(options.remount, list.starts_with("remount"), "{list}");
        }
    }

    #[test]
    fn several_lists_and_names() {
        let options = Options::parse(&["rw".into(), "ro,rootfs=x".into()]).unwrap();
        assert!(!options.read_write);
        assert!(options.name_image());
        assert!(!parse("rw,verify=none").name_image());
        assert!(parse("rw").read_write);
        assert!(parse("noprefetch,prefetch").prefetch && !parse("prefetch,noprefetch").prefetch);
        assert_eq!(parse("prefetch,a").data(), "a");
        // The kernel refuses it.
        assert_eq!(parse("prefetch=1").data(), "prefetch=1");
        assert!(Options::parse(&["context=\"a,b".into()]).is_err());
    }

    #[test]
    fn as_mount_2_takes_them() {
        let options = parse("nosuid,noatime,rootfs=ab,flag");
        assert_eq!(
            options.flags(),
            MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOATIME
        );
        assert_eq!(options.data(), "rootfs=ab,flag");
    }

    #[test]
    fn the_digest_is_taken_out() {
        let hex = "ab".repeat(32);
        let mut options = parse(&format!("digest={hex},verify=digest"));
        let digest = options.take_digest().unwrap();
        assert_eq!(digest, Digest::from_hex(hex.as_bytes()));
        assert_eq!(options.data(), "verify=digest");
        options.verify_from("cd".to_owned());
        assert_eq!(options.data(), "verify=digest,rootfs_verity=cd");
        let mut options = parse("flag");
        assert_eq!(options.take_digest().unwrap(), None);
        options.verify_from("cd".to_owned());
        assert_eq!(options.data(), "flag,rootfs_verity=cd,verify=fsverity");
        for wrong in ["digest", "digest=xy", &format!("digest={hex}0")] {
            let error = parse(wrong).take_digest().unwrap_err();
            assert!(
                matches!(error, Error::Mount(MountError::NotADigest)),
                "{wrong}"
            );
        }
        let contradiction = parse(&format!("digest={hex},verify=none")).take_digest();
        let error = contradiction.unwrap_err();
        assert!(matches!(error, Error::Mount(MountError::DigestUnverified)));
    }

    #[test]
    fn restrictions_are_named() {
        let names = |list| parse(list).restrictions().collect::<Vec<_>>();
        assert_eq!(names("nosuid,noexec,noatime"), ["nosuid", "noexec"]);
        assert_eq!(names("user,suid"), ["nodev", "noexec"]);
        assert!(names("ro").is_empty());
    }
}
