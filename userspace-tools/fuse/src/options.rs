// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mount options of the library as FUSE has them.

use fuser::{Config, MountOption, SessionACL};
use puzzlefs_lib::mount::{self, Options};
use puzzlefs_lib::tree::FileData;
use puzzlefs_lib::{Error, Result};
use rustix::mount::MountAttrFlags as Attr;

/// Returns true if the options escape the extended attributes that overlayfs claims.
pub fn escapes_overlay(options: &Options) -> bool {
    let mut names = options.parameters.iter().map(|(name, _)| name);
    names.any(|name| name == mount::ESCAPE_OVERLAY)
}

/// Returns the session's configuration. Makes `blobs` verified if an option says so.
pub(crate) fn config(options: &Options, data: &mut FileData) -> Result<Config> {
    let root = rustix::process::geteuid().is_root();
    let mut config = Config::default();
    if root {
        config.acl = SessionACL::All;
    }
    for (name, value) in &options.parameters {
        match (
            name.to_str(),
            value.as_ref().and_then(|value| value.to_str()),
        ) {
            (Some("allow_other"), None) => config.acl = SessionACL::All,
            (Some(mount::ESCAPE_OVERLAY), None) | (Some("verify"), Some("none")) => {}
            (Some("verify"), Some("fsverity")) => *data = FileData::verified(),
            (Some("verify"), Some("digest")) => {
                return Err(usage(
                    "verify=digest is not an option over FUSE; use verify=fsverity, or the kernel module",
                ))
            }
            _ => {
                let name = name.to_string_lossy();
                return Err(usage(format!("'{name}' is not an option over FUSE")));
            }
        }
    }
    config.mount_options = mount_options(options.attributes, root)?;
    Ok(config)
}

/// Returns the options of the mount itself. Only root can undo the defaults of FUSE.
fn mount_options(attributes: Attr, root: bool) -> Result<Vec<MountOption>> {
    if attributes.contains(Attr::MOUNT_ATTR_NOSYMFOLLOW) {
        return Err(usage("'nosymfollow' is not an option over FUSE"));
    }
    let mut list = vec![
        MountOption::RO,
        MountOption::DefaultPermissions,
        MountOption::CUSTOM("subtype=puzzlefs".to_owned()),
    ];
    for (attribute, with, without) in [
        (
            Attr::MOUNT_ATTR_NOSUID,
            MountOption::NoSuid,
            Some(MountOption::Suid),
        ),
        (
            Attr::MOUNT_ATTR_NODEV,
            MountOption::NoDev,
            Some(MountOption::Dev),
        ),
        (Attr::MOUNT_ATTR_NOEXEC, MountOption::NoExec, None),
        (Attr::MOUNT_ATTR_NOATIME, MountOption::NoAtime, None),
    ] {
        if attributes.contains(attribute) {
            list.push(with);
        } else {
            list.extend(without.filter(|_| root));
        }
    }
    Ok(list)
}

fn usage(message: impl Into<String>) -> Error {
    Error::Usage(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str) -> Options {
        Options::parse(&[list.into()]).unwrap()
    }

    #[test]
    fn options_of_the_kernel_module_are_refused() {
        for list in ["verify=digest", "share", "rootfs_verity=0", "nosymfollow"] {
            let error = config(&parsed(list), &mut FileData::default()).err();
            assert!(matches!(error, Some(Error::Usage(_))), "{list}");
        }
        for list in ["verify=none", "verify=fsverity", "escape_overlay", "nodev"] {
            config(&parsed(list), &mut FileData::default()).unwrap();
        }
    }

    #[test]
    fn only_root_undoes_defaults() {
        let attributes = parsed("noexec").attributes;
        let root = mount_options(attributes, true).unwrap();
        assert!(root.contains(&MountOption::Suid) && root.contains(&MountOption::NoExec));
        let other = mount_options(attributes, false).unwrap();
        assert!(!other.contains(&MountOption::Suid) && !other.contains(&MountOption::Dev));
        let restricted = mount_options(parsed("nosuid").attributes, true).unwrap();
        assert!(restricted.contains(&MountOption::NoSuid));
    }

    #[test]
    fn escapes() {
        assert!(escapes_overlay(&parsed("nodev,escape_overlay")));
        assert!(!escapes_overlay(&parsed("nodev")));
    }
}
