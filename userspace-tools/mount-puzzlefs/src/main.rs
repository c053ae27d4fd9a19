// SPDX-License-Identifier: MIT OR Apache-2.0

//! `mount.puzzlefs`: what mount(8) runs to mount `<oci-dir>:<tag>` or
//! `<oci-dir>@sha256:<manifest digest>`.
//!
//! It finds the image's metadata blob and hands the kernel the store's directory and the blob's
//! digest; the kernel reads no JSON and resolves no tag.

mod args;
mod mount;
mod options;

use args::{Args, Request};
use options::Options;
use puzzlefs_lib::{Digest, Image, ImageRef};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Mounts a PuzzleFS image, read-only. mount(8) runs this for 'mount -t puzzlefs'.

usage: mount.puzzlefs <source> <directory> [-fsnv] [-N <namespace>] [-o <options>]

source:
  <oci-dir>:<tag>              the image that index.json lists under the tag
  <oci-dir>@sha256:<digest>    the image whose manifest has this digest
  <oci-dir>                    with -o rootfs=<hex>: the image of that metadata blob

  -o <options>    those of mount(8), and the file system's own:
     verify=none|fsverity|digest   how data is checked; see Documentation/puzzlefs.rst
     digest=<hex>                  the fs-verity digest that the manifest must have: all
                                   the rest is then checked against it, by the kernel
  -f              fake: resolve the image and check the options, mount nothing
  -s              sloppy: leave out options that the file system does not know
  -n              accepted; no mtab is written anyway
  -v              verbose
  -N <namespace>  mount in the mount namespace of this process id or path
  -h, --help      this help
  -V, --version   the version

exit status: 0 mounted, 1 wrong usage or no permission, 2 system error, 32 mount failed
";

/// What mount(8) documents.
mod status {
    pub const USAGE: u8 = 1;
    pub const SYSTEM: u8 = 2;
    pub const FAILED: u8 = 32;
}

/// A message and the exit status that goes with it.
struct Refusal {
    status: u8,
    message: String,
}

impl Refusal {
    fn new(status: u8, message: impl ToString) -> Self {
        Refusal {
            status,
            message: message.to_string(),
        }
    }
}

impl From<mount::Failure> for Refusal {
    fn from(failure: mount::Failure) -> Self {
        let status = match failure.errno {
            Errno::PERM | Errno::ACCESS => status::USAGE,
            Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSYS => status::SYSTEM,
            _ => status::FAILED,
        };
        Refusal::new(status, failure)
    }
}

fn main() -> ExitCode {
    let args = match Request::parse(std::env::args_os().skip(1)) {
        Ok(Request::Mount(args)) => args,
        Ok(Request::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Request::Version) => {
            println!("mount.puzzlefs {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("mount.puzzlefs: {message}; see mount.puzzlefs --help");
            return ExitCode::from(status::USAGE);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal { status, message }) => {
            let (source, directory) = (Path::new(&args.source), Path::new(&args.directory));
            let (source, directory) = (source.display(), directory.display());
            eprintln!("mount.puzzlefs: {source} on {directory}: {message}");
            ExitCode::from(status)
        }
    }
}

fn run(args: &Args) -> Result<(), Refusal> {
    let mut options =
        Options::parse(&args.options).map_err(|message| Refusal::new(status::USAGE, message))?;
    if let Some(namespace) = &args.namespace {
        enter(namespace)?;
    }
    let directory = Path::new(&args.directory);
    if options.remount {
        // What was checked at the mount is not checked again, and cannot become another.
        options
            .take_digest()
            .map_err(|message| Refusal::new(status::USAGE, message))?;
        if !args.fake {
            mount::remount(directory, &options)?;
        }
        return Ok(());
    }
    let source = resolve(&args.source, &mut options)?;
    if args.verbose {
        let (source, data) = (source.to_string_lossy(), options.data());
        let data = data.to_string_lossy();
        eprintln!("mount.puzzlefs: source {source}, options {data}");
        if options.read_write {
            eprintln!("mount.puzzlefs: puzzlefs is read-only: mounting read-only");
        }
    }
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(Refusal::new(
                status::FAILED,
                "the mount point is not a directory",
            ))
        }
        Err(error) => {
            return Err(Refusal::new(
                status::FAILED,
                format!("the mount point: {error}"),
            ))
        }
    }
    if args.fake {
        return Ok(());
    }
    if mount::is_long(&source) {
        return Ok(mount::mount_classic(
            "puzzlefs", &source, directory, &options,
        )?);
    }
    let prepared = mount::prepare("puzzlefs", &source, &options, args.sloppy)?;
    for remark in &prepared.remarks {
        eprintln!("mount.puzzlefs: {remark}");
    }
    Ok(mount::attach(&prepared, directory)?)
}

/// What the kernel gets as the source: the store's absolute path. Adds the option `rootfs=`.
fn resolve(source: &OsStr, options: &mut Options) -> Result<OsString, Refusal> {
    let digest = options
        .take_digest()
        .map_err(|message| Refusal::new(status::USAGE, message))?;
    if options.name_image() {
        if digest.is_some() {
            let message = "digest= checks an image's manifest: give the image as \
                           <oci-dir>:<tag> or <oci-dir>@sha256:<digest>, without rootfs=";
            return Err(Refusal::new(status::USAGE, message));
        }
        // With oci_root_dir= the source is only a name, as for the older prototype.
        let path = Path::new(source);
        return Ok(match path.canonicalize() {
            Ok(absolute) if absolute.is_dir() => absolute.into_os_string(),
            _ if ImageRef::parse(source).is_ok_and(|image| image.store.is_dir()) => {
                let message = "give either a tag or digest in the source, or the option rootfs=";
                return Err(Refusal::new(status::USAGE, message));
            }
            _ => source.to_owned(),
        });
    }
    let (store, image) = find(source)?;
    let hex = OsString::from(image.rootfs.to_hex());
    options.parameters.insert(0, ("rootfs".into(), Some(hex)));
    if let Some(wanted) = digest {
        enforce(&image, wanted, options)
            .map_err(|message| Refusal::new(status::FAILED, message))?;
    }
    Ok(store.into_os_string())
}

/// Checks that the manifest is the one of a digest, and has the kernel check the rest against what it
/// says.
fn enforce(image: &Image, wanted: Digest, options: &mut Options) -> Result<(), String> {
    if image.manifest_verity != wanted {
        return Err(format!(
            "the manifest has the fs-verity digest {}, not {wanted}: \
             this is not the image that was asked for",
            image.manifest_verity
        ));
    }
    let Some(rootfs) = image.rootfs_verity else {
        return Err(format!(
            "the manifest has no fs-verity digest of the metadata blob \
             (annotation {}): the image cannot be verified",
            puzzlefs_lib::oci::VERITY_ROOT_HASH
        ));
    };
    options.verify_from(rootfs.to_hex());
    Ok(())
}

fn find(source: &OsStr) -> Result<(PathBuf, Image), Refusal> {
    let image = ImageRef::parse(source).map_err(|error| Refusal::new(status::USAGE, error))?;
    let fail = |error: puzzlefs_lib::Error| Refusal::new(status::FAILED, error);
    let (store, found) = puzzlefs_lib::store::find_image(&image).map_err(fail)?;
    let path = store.path().canonicalize().map_err(|error| {
        Refusal::new(
            status::SYSTEM,
            format!("{}: {error}", store.path().display()),
        )
    })?;
    match store.blob_size(&found.rootfs).map_err(fail)? {
        Some(size) if size == found.rootfs_size => Ok((path, found)),
        Some(size) => Err(Refusal::new(
            status::FAILED,
            format!(
                "{}: the metadata blob is damaged: it has {size} bytes instead of {}",
                store.blob_path(&found.rootfs).display(),
                found.rootfs_size
            ),
        )),
        None => Err(Refusal::new(
            status::FAILED,
            format!(
                "{}: the metadata blob is missing",
                store.blob_path(&found.rootfs).display()
            ),
        )),
    }
}

/// Moves this process into another mount namespace.
fn enter(namespace: &OsStr) -> Result<(), Refusal> {
    use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};
    use std::os::fd::AsFd;
    let number = namespace.to_str().and_then(|text| text.parse::<u32>().ok());
    let path = match number {
        Some(process) => PathBuf::from(format!("/proc/{process}/ns/mnt")),
        None => PathBuf::from(namespace),
    };
    let fail = |error: std::io::Error| {
        let message = format!("mount namespace {}: {error}", path.display());
        Refusal::new(status::SYSTEM, message)
    };
    let file = std::fs::File::open(&path).map_err(fail)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|errno| fail(errno.into()))
}
