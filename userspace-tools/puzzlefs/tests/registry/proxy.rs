// SPDX-License-Identifier: MIT OR Apache-2.0

//! A proxy before a registry, which disturbs the answers.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// "GET".
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// The lines of the head, without the first one.
    pub head: Vec<String>,
    /// The length of the body.
    pub length: usize,
    /// The body, if it is short.
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.iter().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim())
    }

    /// Returns true if it is for the bytes of a blob.
    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/sha256:")
    }

    /// Returns true if it is for a range of more than 1 MiB, such as one of a pack.
    pub fn has_large_range(&self) -> bool {
        let range = self.header("range").unwrap_or_default();
        let range = range
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'));
        let length = range.and_then(|(from, to)| {
            let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
            Some(to - from)
        });
        length.is_some_and(|length| length > 1 << 20)
    }

    /// Returns true if it brings bytes of a blob.
    pub fn is_part(&self) -> bool {
        self.method == "PATCH" && self.path.contains("/blobs/uploads/")
    }

    /// Returns true if it asks for the state of an upload.
    pub fn is_status(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/uploads/")
    }

    pub fn is_manifest(&self) -> bool {
        self.method == "GET" && self.path.contains("/manifests/")
    }
}

/// The treatment of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// None.
    Pass,
    /// The registry does not see that a range is wanted.
    WithoutRange,
    /// The connection ends after this number of bytes of the body.
    Cut(usize),
    /// The answer is as short as this, and says so.
    Truncate(usize),
    /// A bit of this byte of the body is changed, or of the last one.
    Corrupt(usize),
    /// Nothing comes after this number of bytes of the body.
    Stall(usize),
    /// This answer, which the registry does not give.
    Answer(String, Vec<u8>),
    /// A body without an end.
    Endless,
    /// The connection ends after this number of bytes of the request, which the registry does not get.
    Lose(usize),
    /// The registry gets this number of bytes of a part of a blob, and the connection ends without an answer.
    Keep(usize),
    /// The state of an upload after [`Fault::Keep`].
    Kept,
    /// The registry gets the request, and the connection ends without an answer.
    Forget,
}

/// Disturbs the requests of a kind whose turn it is. The first one has number 0.
fn disturb_in_turn(
    is_it: impl Fn(&Request) -> bool + Send + Sync + 'static,
    is_its_turn: impl Fn(usize) -> bool + Send + Sync + 'static,
    fault: Fault,
) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |request| {
        if is_it(request) && is_its_turn(seen.fetch_add(1, Ordering::Relaxed)) {
            fault.clone()
        } else {
            Fault::Pass
        }
    }
}

/// Disturbs the first `count` requests of a kind.
pub fn first(
    count: usize,
    is_it: impl Fn(&Request) -> bool + Send + Sync + 'static,
    fault: Fault,
) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    disturb_in_turn(is_it, move |number| number < count, fault)
}

/// Disturbs the request of a kind that comes after `count` others.
pub fn nth(
    count: usize,
    is_it: impl Fn(&Request) -> bool + Send + Sync + 'static,
    fault: Fault,
) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    disturb_in_turn(is_it, move |number| number == count, fault)
}

/// Disturbs all requests of a kind.
pub fn always(
    is_it: impl Fn(&Request) -> bool + Send + Sync + 'static,
    fault: Fault,
) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    disturb_in_turn(is_it, |_| true, fault)
}

/// The largest body that a proxy shows, in bytes.
const BODY_MAX: usize = 64 << 10;

/// A proxy on this host. Dropping it ends it.
pub struct Proxy {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    ends: Arc<AtomicBool>,
}

/// The state that the connections of a proxy share.
struct Shared<'s> {
    requests: &'s Mutex<Vec<Request>>,
    ends: &'s AtomicBool,
    /// The head of the registry's answer to a part that was kept.
    kept: &'s Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts a proxy before the registry at `to`. A function decides about each request.
    pub fn start(to: u16, decide: impl Fn(&Request) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, ends) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let proxy = Proxy {
            port,
            requests: Arc::clone(&requests),
            ends: Arc::clone(&ends),
        };
        let decide = Arc::new(decide);
        let kept = Arc::<Mutex<Vec<String>>>::default();
        thread::spawn(move || {
            for client in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (requests, ends) = (Arc::clone(&requests), Arc::clone(&ends));
                let (decide, kept) = (Arc::clone(&decide), Arc::clone(&kept));
                // A client that goes away is no failure of the proxy.
                thread::spawn(move || {
                    let shared = Shared {
                        requests: &requests,
                        ends: &ends,
                        kept: &kept,
                    };
                    let _ = serve(client.unwrap(), to, &*decide, &shared);
                });
            }
        });
        proxy
    }

    /// The name of an image in the registry, by this proxy.
    pub fn image(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/{name}", self.port)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Reads a head. Returns its lines, and what was read beyond it.
fn head(stream: &mut TcpStream) -> std::io::Result<(Vec<String>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
            return Ok((text.split("\r\n").map(str::to_owned).collect(), rest));
        }
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece)?;
        // A TLS handshake: a server without TLS answers it like this.
        if bytes.is_empty() && piece[0] == 0x16 {
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..read]);
    }
}

/// Serves one request of a connection.
fn serve(
    mut client: TcpStream,
    to: u16,
    decide: &(dyn Fn(&Request) -> Fault + Send + Sync),
    shared: &Shared<'_>,
) -> std::io::Result<()> {
    let ends = shared.ends;
    let (lines, mut body) = head(&mut client)?;
    let mut words = lines[0].split(' ').map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        head: lines[1..].to_vec(),
        length: 0,
        body: Vec::new(),
    };
    let length = request.header("content-length").map(str::to_owned);
    request.length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    if request.length <= BODY_MAX {
        let rest = (request.length - body.len()) as u64;
        (&client).take(rest).read_to_end(&mut body)?;
        request.body.clone_from(&body);
    }
    shared.requests.lock().unwrap().push(request.clone());
    let fault = decide(&request);
    if let Fault::Lose(length) = fault {
        let length = length.saturating_sub(body.len()) as u64;
        std::io::copy(&mut (&client).take(length), &mut std::io::sink())?;
        return client.shutdown(Shutdown::Both);
    }
    if let Fault::Kept = fault {
        let mut head = "HTTP/1.1 204 No Content\r\n".to_owned();
        for line in shared.kept.lock().unwrap().iter() {
            let name = line.split(':').next().unwrap_or_default();
            if ["location", "range"].contains(&&*name.to_ascii_lowercase()) {
                head += &format!("{line}\r\n");
            }
        }
        return client.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
    }
    if let Fault::Answer(head, answer) = &fault {
        // The whole request is read: otherwise its rest would reset the connection.
        std::io::copy(
            &mut (&client).take((request.length - body.len()) as u64),
            &mut std::io::sink(),
        )?;
        let head = format!(
            "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        client.write_all(head.as_bytes())?;
        return client.write_all(answer);
    }
    if let Fault::Endless = fault {
        client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{")?;
        while !ends.load(Ordering::Relaxed) {
            client.write_all(&[b' '; 65536])?;
        }
        return Ok(());
    }
    let mut registry = TcpStream::connect(("127.0.0.1", to))?;
    let mut text = format!("{}\r\n", lines[0]);
    for line in &request.head {
        let name = line
            .split(':')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let is_dropped =
            name == "connection" || name == "range" && matches!(fault, Fault::WithoutRange);
        if let (Fault::Keep(length), "content-length") = (&fault, &*name) {
            text += &format!("Content-Length: {length}\r\n");
        } else if let (Fault::Keep(length), "content-range") = (&fault, &*name) {
            let from = line.split([' ', '-']).nth(2).unwrap();
            let last = from.parse::<usize>().unwrap() + length - 1;
            text += &format!("Content-Range: {from}-{last}\r\n");
        } else if !is_dropped {
            text += &format!("{line}\r\n");
        }
    }
    text += "Connection: close\r\n\r\n";
    registry.write_all(text.as_bytes())?;
    if let Fault::Keep(length) = fault {
        body.truncate(length);
        request.length = length;
    }
    registry.write_all(&body)?;
    std::io::copy(
        &mut (&client).take((request.length - body.len()) as u64),
        &mut registry,
    )?;
    let (lines, first) = head(&mut registry)?;
    if let Fault::Keep(_) | Fault::Forget = fault {
        *shared.kept.lock().unwrap() = lines;
        return client.shutdown(Shutdown::Both);
    }
    let mut body = first;
    if request.method != "HEAD" {
        registry.read_to_end(&mut body)?;
    }
    disturb(client, &fault, &lines, body, ends)
}

/// Gives an answer of the registry to the client.
fn disturb(
    mut client: TcpStream,
    fault: &Fault,
    lines: &[String],
    mut body: Vec<u8>,
    ends: &AtomicBool,
) -> std::io::Result<()> {
    let mut length = None;
    match fault {
        Fault::Corrupt(at) if !body.is_empty() => {
            let at = (*at).min(body.len() - 1);
            body[at] ^= 1;
        }
        Fault::Truncate(at) => {
            body.truncate(*at);
            length = Some(body.len());
        }
        _ => {}
    }
    let mut head = String::new();
    for line in lines {
        if length.is_some() && line.to_ascii_lowercase().starts_with("content-length") {
            continue;
        }
        head += &format!("{line}\r\n");
    }
    if let Some(length) = length {
        head += &format!("Content-Length: {length}\r\n");
    }
    client.write_all(format!("{head}\r\n").as_bytes())?;
    match fault {
        Fault::Cut(at) => client.write_all(&body[..body.len().min(*at)])?,
        Fault::Stall(at) => {
            client.write_all(&body[..body.len().min(*at)])?;
            // Until the client gives up.
            let _ = client.read(&mut [0]);
            while !ends.load(Ordering::Relaxed) && client.peek(&mut [0]).is_ok_and(|read| read > 0)
            {
            }
        }
        _ => client.write_all(&body)?,
    }
    client.shutdown(Shutdown::Both)
}
