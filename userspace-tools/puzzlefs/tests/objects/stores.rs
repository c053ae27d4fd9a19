// SPDX-License-Identifier: MIT OR Apache-2.0

//! An S3 server, moto, from the root that `qemu-test/provision registry-root` makes, and servers of files.

use crate::common::*;
use crate::registry::server::{make_certificates, program};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

/// The bucket that an S3 server has.
pub const BUCKET: &str = "images";

/// A server of its own process. Dropping it ends it.
pub struct Server {
    pub port: u16,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Python with the modules of the root.
fn python() -> Command {
    let mut command = program("python3");
    let root = Path::new(command.get_args().last().unwrap())
        .ancestors()
        .nth(3);
    let root = root.unwrap().to_path_buf();
    command
        .env_clear()
        .env("PYTHONHOME", root.join("usr"))
        .env("PYTHONPATH", root.join("usr/lib/python3/dist-packages"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PATH", "/usr/bin:/bin");
    command
}

/// Starts a server that chooses its port, and prints it behind these words.
fn start(command: &mut Command, log: &Path, words: &str) -> Server {
    let output = fs::File::create(log).unwrap();
    let command = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let mut server = Server {
        port: 0,
        process: command.spawn().unwrap(),
    };
    wait_until("the server prints its port", || {
        let text = fs::read_to_string(log).unwrap();
        let line = text
            .split_once(words)
            .and_then(|(_, rest)| rest.split_once('\n'));
        server.port = line.map_or(0, |(port, _)| port.trim().parse().unwrap());
        server.port != 0
    });
    server
}

/// Starts an S3 server with an empty bucket.
pub fn s3(directory: &Path) -> Server {
    let mut command = python();
    let command = command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
    let log = directory.join("moto.log");
    let server = start(
        command.env("HOME", directory),
        &log,
        "Running on http://127.0.0.1:",
    );
    let (status, body) = request(server.port, "PUT", &format!("/{BUCKET}"), b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    server
}

/// Starts a server of files with TLS, which ignores ranges. Returns the directory with its CA, too.
pub fn https(directory: &Path, files: &Path) -> (Server, PathBuf) {
    let tls = directory.join("tls");
    fs::create_dir(&tls).unwrap();
    make_certificates(&tls);
    let script = format!(
        "import functools, http.server as h, ssl\n\
         tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
         tls.load_cert_chain('leaf.pem', 'leaf.key')\n\
         files = functools.partial(h.SimpleHTTPRequestHandler, directory='{}')\n\
         server = h.ThreadingHTTPServer(('127.0.0.1', 0), files)\n\
         print('port', server.server_address[1], flush=True)\n\
         server.socket = tls.wrap_socket(server.socket, server_side=True)\n\
         server.serve_forever()\n",
        files.display()
    );
    let mut command = python();
    let command = command.arg("-c").arg(script).current_dir(&tls);
    let server = start(command, &directory.join("https.log"), "port ");
    (server, tls.join("ca"))
}

/// Makes a request with any signature, which moto accepts. Returns the status and the body.
pub fn request(port: u16, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, \
         SignedHeaders=host, Signature=none\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body)
}

/// Serves the files of a directory, with ranges, to the end of the test. Returns the port.
pub fn files(directory: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let directory = directory.to_path_buf();
    thread::spawn(move || {
        for client in listener.incoming() {
            let directory = directory.clone();
            // A client that goes away is no failure of the server.
            thread::spawn(move || {
                let _ = serve(client.unwrap(), &directory);
            });
        }
    });
    port
}

/// Serves one request of a connection.
fn serve(mut client: TcpStream, directory: &Path) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let Ok(mut file) = fs::File::open(directory.join(path.trim_start_matches('/'))) else {
        let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(answer.as_bytes());
    };
    let size = file.metadata()?.len();
    let range = head.to_ascii_lowercase();
    let range = range
        .split_once("range: bytes=")
        .map(|(_, rest)| rest.to_owned());
    let range = range.and_then(|rest| {
        let (first, last) = rest.split_once("\r\n")?.0.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    });
    let (status, start, length) = match range {
        Some((first, last)) => {
            let last = last.min(size - 1);
            let range = format!("206 Partial\r\nContent-Range: bytes {first}-{last}/{size}");
            (range, first, last + 1 - first)
        }
        None => ("200 OK".to_owned(), 0, size),
    };
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    client.write_all(answer.as_bytes())?;
    file.seek(SeekFrom::Start(start))?;
    std::io::copy(&mut file.take(length), &mut client)?;
    client.shutdown(Shutdown::Write)
}
