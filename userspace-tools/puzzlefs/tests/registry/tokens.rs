// SPDX-License-Identifier: MIT OR Apache-2.0

//! A registry with a token server: scopes, tokens that expire, and identity tokens.

use super::*;
use serde_json::json;
use server::openssl;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `docker login` stores for some registries, instead of a password.
const IDENTITY: &str = "identity-of-someone";
/// "someone:a:secret" and "reader:x" in base64.
const SOMEONE: &str = "Basic c29tZW9uZTphOnNlY3JldA==";
const READER: &str = "Basic cmVhZGVyOng=";

/// A token server, which signs tokens with a key that registries trust.
struct Tokens {
    proxy: Proxy,
    state: Arc<State>,
}

/// The state of a token server.
#[derive(Default)]
struct State {
    directory: PathBuf,
    /// The number of tokens that are expired already.
    expired: AtomicU32,
    /// The scopes of each request, and its secret.
    asked: Mutex<Vec<(Vec<String>, String)>>,
}

impl Tokens {
    fn start(directory: &Path) -> Self {
        openssl(
            directory,
            "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout tokens.key -out tokens.pem -subj /CN=tokens",
        );
        let state = Arc::new(State {
            directory: directory.to_path_buf(),
            ..State::default()
        });
        let own = Arc::clone(&state);
        let proxy = Proxy::start(0, move |request| own.answer(request));
        Tokens { proxy, state }
    }

    fn asked(&self) -> Vec<(Vec<String>, String)> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl State {
    fn answer(&self, request: &Request) -> Fault {
        let fields = if request.method == "POST" {
            pairs(std::str::from_utf8(&request.body).unwrap())
        } else {
            pairs(request.path.split_once('?').map_or("", |(_, query)| query))
        };
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let secret = match &request.method[..] {
            "POST" if field("grant_type") == ["refresh_token"] => field("refresh_token").join(""),
            _ => request
                .header("authorization")
                .unwrap_or_default()
                .to_owned(),
        };
        assert_eq!(field("service"), ["test"]);
        let scopes = field("scope");
        let scopes: Vec<String> = scopes
            .iter()
            .flat_map(|scope| scope.split(' '))
            .map(str::to_owned)
            .collect();
        self.asked
            .lock()
            .unwrap()
            .push((scopes.clone(), secret.clone()));
        let allowed: &[&str] = match &secret[..] {
            SOMEONE | IDENTITY => &["pull", "push"],
            READER => &["pull"],
            "" => &[],
            _ => return Fault::Answer("401 Unauthorized".to_owned(), b"unknown secret".to_vec()),
        };
        let access: Vec<Value> = scopes
            .iter()
            .map(|scope| {
                let (kind, rest) = scope.split_once(':').unwrap();
                let (name, actions) = rest.rsplit_once(':').unwrap();
                let actions = actions.split(',').filter(|action| allowed.contains(action));
                json!({"type": kind, "name": name, "actions": actions.collect::<Vec<_>>()})
            })
            .collect();
        let field = match &request.method[..] {
            "POST" => "access_token",
            _ => "token",
        };
        let answer = json!({field: self.token(&access), "expires_in": 300});
        Fault::Answer("200 OK".to_owned(), answer.to_string().into_bytes())
    }

    /// Signs a token.
    fn token(&self, access: &[Value]) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        // No token equals another one.
        let number = self.asked.lock().unwrap().len().to_string();
        let left = self.expired.load(Relaxed);
        let is_expired = left > 0;
        self.expired.store(left.saturating_sub(1), Relaxed);
        let certificate = fs::read_to_string(self.directory.join("tokens.pem")).unwrap();
        let certificate: String = certificate
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
        // Registries accept a token for some time after its end.
        let (from, to) = if is_expired {
            (now - 7200, now - 3600)
        } else {
            (now - 10, now + 300)
        };
        let claims = json!({
            "iss": "test", "sub": "someone", "aud": "test", "jti": number,
            "iat": from, "nbf": from, "exp": to, "access": access,
        });
        let part = |bytes: &[u8]| {
            let scratch = tempfile::tempdir_in(&self.directory).unwrap();
            fs::write(scratch.path().join("in"), bytes).unwrap();
            let text = openssl(scratch.path(), "base64 -A -in in");
            let text = String::from_utf8(text).unwrap();
            text.trim_end_matches('=')
                .replace('+', "-")
                .replace('/', "_")
        };
        let signed = format!(
            "{}.{}",
            part(header.to_string().as_bytes()),
            part(claims.to_string().as_bytes())
        );
        let scratch = tempfile::tempdir_in(&self.directory).unwrap();
        fs::write(scratch.path().join("signed"), &signed).unwrap();
        let signature = openssl(scratch.path(), "dgst -sha256 -sign ../tokens.key signed");
        format!("{signed}.{}", part(&signature))
    }
}

/// The fields of a query or a form.
fn pairs(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        found.entry(decoded(name)).or_default().push(decoded(value));
    }
    found
}

fn decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next().unwrap().replace('+', " ");
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        decoded.push(u8::from_str_radix(code, 16).unwrap() as char);
        decoded += &rest.replace('+', " ");
    }
    decoded
}

/// A registry with a token server.
fn world(large: usize) -> (World, Tokens) {
    let scratch = memory_scratch();
    let tokens = Tokens::start(scratch.path());
    let form = Form::Token(tokens.proxy.port);
    (World::of(scratch, form, large), tokens)
}

/// A file with an identity token for a registry.
fn authfile(world: &World, port: u16, identity: &str) -> String {
    let auths = json!({"auths": {format!("127.0.0.1:{port}"): {"identitytoken": identity}}});
    let path = world.path("identity.json");
    fs::write(&path, auths.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A proxy before a registry, which takes each token for `uses` requests.
fn short_lived(world: &World, realm: u16, uses: usize) -> Proxy {
    let used = Mutex::new(BTreeMap::<String, usize>::new());
    Proxy::start(world.server.port, move |request| {
        let token = request.header("authorization").unwrap_or_default();
        let mut used = used.lock().unwrap();
        let count = used.entry(token.to_owned()).or_default();
        *count += 1;
        if token.is_empty() || *count <= uses {
            return Fault::Pass;
        }
        let challenge = format!(
            r#"Bearer realm="http://127.0.0.1:{realm}/token",service="test",error="invalid_token""#
        );
        let head = format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}");
        Fault::Answer(head, Vec::new())
    })
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn tokens_are_for_what_a_command_does() {
    let (world, tokens) = world(6 << 20);
    let (image, name) = (world.image("t"), world.server.image("team/app:t"));
    let creds = format!("--creds={USER}:{PASSWORD}");
    world.run(&["push", &image, &name, &creds]);
    let scopes = |scope: &str| vec![format!("repository:{scope}")];
    let asked = tokens.asked();
    assert!(
        asked.iter().all(|(_, secret)| secret == SOMEONE),
        "{asked:?}"
    );
    let wanted = [scopes("team/app:pull,push"), scopes("team/app:pull")];
    assert!(
        asked.iter().all(|(scopes, _)| wanted.contains(scopes)),
        "{asked:?}"
    );
    let store = world.path("to");
    let before = asked.len();
    world.run(&["pull", &name, store.to_str().unwrap(), "--creds=reader:x"]);
    world.assert_arrived("to");
    let asked = tokens.asked().split_off(before);
    assert!(
        asked.iter().all(|(scopes, _)| scopes == &wanted[1]),
        "{asked:?}"
    );

    // Others may not.
    let other = world.server.image("team/other:t");
    let message = world.fails(&["push", &image, &other, "--creds=reader:x"]);
    assert!(
        message.contains("denies access to the user 'reader'"),
        "{message}"
    );
    let message = world.fails(&["push", &image, &other]);
    assert!(
        message.contains("the registry wants credentials"),
        "{message}"
    );
    let message = world.fails(&["push", &image, &other, "--creds=nobody:x"]);
    assert!(
        message.contains("token server refused: unknown secret"),
        "{message}"
    );

    // Mounts need a token for both repositories.
    let mount = ["--mount-from", "team/app", &creds];
    let pushed = world.run(&[&["push", &image, &other], &mount[..]].concat());
    assert_eq!(number(&pushed, "new_blobs"), 1, "{pushed}");
    let (scopes, _) = tokens.asked().pop().unwrap();
    assert_eq!(
        scopes,
        [
            "repository:team/other:pull,push",
            "repository:team/app:pull"
        ]
    );
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn tokens_that_expire_during_a_transfer_are_renewed() {
    let (world, tokens) = world(40 << 20);
    // Each is for a few requests, and some have expired when they come.
    let proxy = short_lived(&world, tokens.proxy.port, 4);
    let (image, name) = (world.image("t"), proxy.image("app:t"));
    for (access, wanted) in [
        (format!("--creds={USER}:{PASSWORD}"), SOMEONE),
        (
            format!("--authfile={}", authfile(&world, proxy.port, IDENTITY)),
            IDENTITY,
        ),
    ] {
        let name = name.replace("app", &format!("app{}", wanted.len()));
        tokens.state.expired.store(1, Relaxed);
        let before = (tokens.asked().len(), proxy.requests().len());
        let pushed = world.run(&["push", &image, &name, &access, "--transfers=1"]);
        let asked = tokens.asked().split_off(before.0);
        assert!(asked.len() >= 4, "{asked:?}");
        // If an access token has expired by its own date, the client asks without an identity token first.
        let is_wanted = |secret: &str| secret == wanted || wanted == IDENTITY && secret.is_empty();
        assert!(
            asked.iter().all(|(_, secret)| is_wanted(secret)),
            "{asked:?}"
        );
        // The part that was refused goes on after the others.
        let requests = proxy.requests().split_off(before.1);
        let parts = requests.iter().filter(|request| request.is_part());
        let starts: Vec<_> = parts
            .map(|part| part.header("content-range").unwrap())
            .collect();
        let restarts = starts.iter().filter(|range| range.starts_with("0-"));
        assert!(restarts.count() <= 2, "{starts:?}");
        assert!(number(&pushed, "new_blobs") > 3, "{pushed}");
        let store = format!("to{}", wanted.len());
        let target = world.path(&store);
        tokens.state.expired.store(1, Relaxed);
        world.run(&[
            "pull",
            &name,
            target.to_str().unwrap(),
            &access,
            "--transfers=1",
        ]);
        world.assert_arrived(&store);
    }
}

#[test]
#[ignore = "needs the registry that 'qemu-test/provision registry-root' installs"]
fn identity_tokens_go_to_the_token_server_alone() {
    let (world, tokens) = world(6 << 20);
    let proxy = Proxy::start(world.server.port, |_| Fault::Pass);
    let (image, name) = (world.image("t"), proxy.image("app:t"));
    let access = format!("--authfile={}", authfile(&world, proxy.port, IDENTITY));
    world.run(&["push", &image, &name, &access]);
    let store = world.path("to");
    world.run(&["pull", &name, store.to_str().unwrap(), &access]);
    world.assert_arrived("to");
    let shows = |request: &Request| format!("{request:?}").contains(IDENTITY);
    assert!(!proxy.requests().iter().any(shows));
    let posts = tokens.proxy.requests();
    assert!(posts.iter().all(|request| request.method == "POST"));

    let wrong = format!("--authfile={}", authfile(&world, proxy.port, "other"));
    let message = world.fails(&["pull", &name, store.to_str().unwrap(), &wrong]);
    assert!(
        message.contains("token server refused: unknown secret"),
        "{message}"
    );

    // A token server that sends clients elsewhere.
    let elsewhere = Proxy::start(0, |_| Fault::Answer("200 OK".to_owned(), Vec::new()));
    let target = format!("http://localhost:{}/token", elsewhere.port);
    let redirecting = Proxy::start(0, move |_| {
        let head = format!("307 Temporary Redirect\r\nLocation: {target}");
        Fault::Answer(head, Vec::new())
    });
    let realm = redirecting.port;
    let registry = Proxy::start(world.server.port, move |_| {
        let challenge = format!(r#"Bearer realm="http://127.0.0.1:{realm}/token",service="test""#);
        let head = format!("401 Unauthorized\r\nWWW-Authenticate: {challenge}");
        Fault::Answer(head, Vec::new())
    });
    let access = format!("--authfile={}", authfile(&world, registry.port, IDENTITY));
    let name = registry.image("app:t");
    let message = world.fails(&["pull", &name, store.to_str().unwrap(), &access]);
    assert!(message.contains("token server refused"), "{message}");
    assert_eq!(elsewhere.requests().len(), 0);

    // A registry that wants passwords, and no tokens.
    let basic = Proxy::start(world.server.port, |_| {
        let head = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"";
        Fault::Answer(head.to_owned(), Vec::new())
    });
    let access = format!("--authfile={}", authfile(&world, basic.port, IDENTITY));
    let message = world.fails(&[
        "pull",
        &basic.image("app:t"),
        store.to_str().unwrap(),
        &access,
    ]);
    assert!(message.contains("it names no token server"), "{message}");
    let shows = |request: &Request| format!("{request:?}").contains(IDENTITY);
    assert!(!basic.requests().iter().any(shows));
}
