// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes OCI image layouts, also those that no program would write.

use super::stderr;
use puzzlefs_lib::Digest;
use serde_json::{json, Value};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An OCI image layout in the making.
pub struct Layout(pub PathBuf);

impl Layout {
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout(path)
    }

    pub fn blob_path(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap();
        self.0.join("blobs").join(digest.replace(':', "/"))
    }

    /// Adds a blob and gives its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_oci();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        fs::write(self.blob_path(&descriptor), bytes).unwrap();
        descriptor
    }

    pub fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    /// Adds an image of these layers: the archive and how it is compressed.
    pub fn image(&self, architecture: &str, layers: &[(Vec<u8>, &str)]) -> Value {
        let diff_ids = layers.iter().map(|(tar, _)| Digest::of(tar).to_oci());
        let config = json!({
            "os": "linux", "architecture": architecture,
            "config": {"Entrypoint": ["/bin/sh"], "Env": ["A=B"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
        });
        let config = config.to_string();
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.as_bytes(),
        );
        let layers = layers.iter().map(|(tar, compression)| {
            let (suffix, bytes) = match *compression {
                "" => ("".to_owned(), tar.clone()),
                name => (format!("+{name}"), compressed(name, tar)),
            };
            let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
            self.blob(&media_type, &bytes)
        });
        let manifest = json!({
            "schemaVersion": 2, "config": config, "layers": layers.collect::<Vec<_>>(),
        });
        let bytes = manifest.to_string();
        let mut descriptor = self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            bytes.as_bytes(),
        );
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    }
}

/// Runs a shell script in a directory.
pub fn shell(directory: &Path, script: &str) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// Gives a descriptor a tag.
pub fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    descriptor
}

/// Compresses with a program such as gzip(1).
pub fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("layer");
    fs::write(&path, bytes).unwrap();
    let output = Command::new(program).arg("-c").arg(path).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// An archive of what a script makes in an empty directory.
pub fn layer(script: &str) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    shell(scratch.path(), &format!("chmod 755 .; {script}"));
    let output = Command::new("tar")
        .args(["-c", "--format=posix", "-C"])
        .arg(scratch.path())
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output.stdout
}

/// Three layers, and the script that makes the tree that they are.
pub fn layers() -> (Vec<(Vec<u8>, &'static str)>, &'static str) {
    let first = layer(
        "umask 022; mkdir -p etc/sub usr/lib opaque/deep was-dir/x old
         echo one >etc/keep; echo gone >etc/gone; echo big >etc/sub/file
         echo lib >usr/lib/lib.so; ln -s usr/lib lib; echo hidden >opaque/deep/hidden
         echo x >was-dir/x/y; echo f >was-file; echo linked >original; echo old >old/file",
    );
    let second = layer(
        "umask 022; mkdir -p etc opaque/deep was-file
         touch etc/.wh.gone etc/.wh.sub opaque/.wh..wh..opq .wh.never-there .wh.old
         echo shown >opaque/deep/shown; echo file >was-dir; echo in >was-file/in
         mkdir old; echo new >old/other; touch .wh..wh.aufs; chmod 700 etc",
    );
    let third = layer(
        "umask 022; mkdir etc; chmod 700 etc; echo two >etc/keep; echo linked >original
         ln original another",
    );
    let expected = "umask 022; mkdir -p etc usr/lib opaque/deep was-file old; chmod 700 etc
         echo two >etc/keep; echo lib >usr/lib/lib.so; ln -s usr/lib lib
         echo shown >opaque/deep/shown; echo file >was-dir; echo in >was-file/in
         echo new >old/other; echo linked >original; ln original another";
    (
        vec![(first, ""), (second, "gzip"), (third, "zstd")],
        expected,
    )
}
