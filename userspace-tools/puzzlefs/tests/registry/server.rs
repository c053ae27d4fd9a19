// SPDX-License-Identifier: MIT OR Apache-2.0

//! Debian's registry and other clients, from the root that `qemu-test/provision registry-root` makes.

use crate::common::*;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The user, the password and the line of the file for htpasswd(1) of registries that want a login.
pub const USER: &str = "someone";
pub const PASSWORD: &str = "a:secret";
const HTPASSWD: &str = "someone:$2b$05$eu4l74KfJncvI7u//dQMoOIxr2aydgqks.y0vz1DO.5uy.U0ECe5a\n";

/// A program of the root, with the root's libraries.
pub fn program(name: &str) -> Command {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/env");
    let text = fs::read_to_string(environment).unwrap_or_default();
    let root = text
        .lines()
        .find_map(|line| line.strip_prefix("REGISTRY_ROOT="));
    let root = Path::new(root.expect("run 'qemu-test/provision registry-root' first"));
    assert!(
        root.is_dir(),
        "run 'qemu-test/provision registry-root' first"
    );
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries);
    command.arg(root.join("usr/bin").join(name));
    command
}

/// A port at which nothing listens. Another test can take it only if it gets the same one.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The form of a registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Plain,
    Login,
    Tls,
    /// With the token server at this port, whose certificate is in the directory of the registry's directory.
    Token(u16),
}

/// A registry on this host. Dropping it ends it.
pub struct Server {
    pub port: u16,
    pub directory: PathBuf,
    process: Child,
}

impl Server {
    pub fn start(directory: &Path, form: Form) -> Self {
        let directory = directory.join("registry");
        fs::create_dir(&directory).unwrap();
        let path = |name: &str| directory.join(name).display().to_string();
        let port = free_port();
        let mut text = format!(
            "version: 0.1\n\
             log: {{level: error}}\n\
             storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            path("data")
        );
        match form {
            Form::Plain => {}
            Form::Login => {
                fs::write(path("htpasswd"), HTPASSWD).unwrap();
                write!(
                    text,
                    "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
                    path("htpasswd")
                )
                .unwrap();
            }
            Form::Token(port) => write!(
                text,
                "auth:\n  token: {{realm: 'http://127.0.0.1:{port}/token', service: test, issuer: test, \
                 rootcertbundle: {}}}\n",
                directory.with_file_name("tokens.pem").display()
            )
            .unwrap(),
            Form::Tls => {
                make_certificates(&directory);
                writeln!(
                    text,
                    "  tls: {{certificate: {}, key: {}}}",
                    path("leaf.pem"),
                    path("leaf.key")
                )
                .unwrap();
            }
        }
        fs::write(path("config.yml"), text).unwrap();
        let mut command = program("docker-registry");
        let command = command.arg("serve").arg(path("config.yml"));
        let log = fs::File::create(path("log")).unwrap();
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = command.spawn().unwrap();
        let server = Server {
            port,
            directory,
            process,
        };
        wait_until("the registry listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        server
    }

    /// The name of an image in this registry.
    pub fn image(&self, name: &str) -> String {
        format!("docker://{}", self.address(name))
    }

    /// The same without the prefix.
    pub fn address(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// The directory with the certificate of the CA.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs openssl in a directory, with words separated by blanks.
pub fn openssl(directory: &Path, arguments: &str) -> Vec<u8> {
    let mut command = Command::new("openssl");
    let command = command
        .args(arguments.split_whitespace())
        .current_dir(directory);
    let made = output(command);
    assert!(made.status.success(), "{}", stderr(&made));
    made.stdout
}

/// Makes a CA and a certificate of this host.
pub fn make_certificates(directory: &Path) {
    fs::create_dir(directory.join("ca")).unwrap();
    let openssl = |arguments: &str| openssl(directory, arguments);
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(&format!(
        "{new} -keyout ca.key -out ca/ca.crt -subj /CN=test-ca"
    ));
    openssl(&format!(
        "{new} -CA ca/ca.crt -CAkey ca.key -keyout leaf.key -out leaf.pem -subj /CN=localhost \
         -addext subjectAltName=IP:127.0.0.1,DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    ));
}

/// Runs skopeo, which must succeed.
pub fn skopeo(home: &Path, arguments: &[&str]) -> String {
    other(
        home,
        "skopeo",
        &[&["--insecure-policy"], arguments].concat(),
    )
}

/// Runs a program of the root, which must succeed.
pub fn other(home: &Path, name: &str, arguments: &[&str]) -> String {
    let mut command = program(name);
    let command = command.args(arguments);
    let run = output(command.env("HOME", home).env("XDG_RUNTIME_DIR", home));
    assert!(
        run.status.success(),
        "{name} {arguments:?}: {}",
        stderr(&run)
    );
    String::from_utf8(run.stdout).unwrap()
}

/// `puzzlefs` without settings of the user who runs the tests.
pub fn client(home: &Path) -> Command {
    let mut command = puzzlefs();
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin");
    command
}
