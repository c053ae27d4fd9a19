// SPDX-License-Identifier: MIT OR Apache-2.0

//! nginx as a cache of blobs before a registry, with the settings of `Documentation/registries.md`.

use super::*;
use std::net::TcpStream;
use std::process::Child;

/// The page that has the settings, in a block behind this line.
const PAGE: &str = include_str!("../../../../Documentation/registries.md");
const BEFORE_SETTINGS: &str = "```nginx\n";

/// nginx before a registry. Dropping it ends it.
struct Cache {
    port: u16,
    directory: PathBuf,
    process: Child,
}

impl Cache {
    fn start(directory: PathBuf, registry: u16) -> Self {
        let port = free_port();
        fs::create_dir(&directory).unwrap();
        let (_, settings) = PAGE.split_once(BEFORE_SETTINGS).unwrap();
        let (settings, _) = settings.split_once("```").unwrap();
        let settings = settings
            .replace("/var/cache/nginx/puzzlefs", "blobs")
            .replace("listen 5000;", &format!("listen 127.0.0.1:{port};"))
            .replace(
                "https://registry.example",
                &format!("http://127.0.0.1:{registry}"),
            );
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {name};\n"))
            .concat();
        let text = format!(
            "user root;\ndaemon off;\nmaster_process off;\npid pid;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{settings}}}\n"
        );
        fs::write(directory.join("nginx.conf"), text).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let process = server::program("../sbin/nginx")
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut cache = Cache {
            port,
            directory,
            process,
        };
        wait_until("nginx listens", || {
            let ended = cache.process.try_wait().unwrap();
            let log = fs::read_to_string(cache.directory.join("log")).unwrap();
            assert!(ended.is_none(), "{log}");
            TcpStream::connect(("127.0.0.1", cache.port)).is_ok()
        });
        cache
    }

    fn image(&self, tag: &str) -> String {
        format!("docker://127.0.0.1:{}/app:{tag}", self.port)
    }

    /// Returns the files of the cache.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.directory.join("blobs")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        files
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs the registry and nginx that 'qemu-test/provision registry-root' installs"]
fn a_registry_gives_a_blob_once_to_hosts_behind_a_cache() {
    let world = World::new(Form::Plain);
    world.push();
    let registry = Proxy::start(world.server.port, |_| Fault::Pass);
    let cache = Cache::start(world.path("cache"), registry.port);
    let blobs = || {
        let requests = registry.requests();
        requests.iter().filter(|request| request.is_blob()).count()
    };
    world.pull(&cache.image("t"), "one");
    world.assert_arrived("one");
    let first = blobs();
    assert!(first > 0);
    world.pull(&cache.image("t"), "two");
    world.assert_arrived("two");
    assert_eq!(blobs(), first);

    // Ranges of packs come from the cache, too.
    let tree = world.path("tree");
    fs::write(tree.join("more/new"), noise(50_000, 2000)).unwrap();
    build_with(&["--fresh"], &tree, &world.path("second"), "t");
    let second = reference(&world.path("second"), "t");
    world.run(&["push", &second, &world.server.image("app:second")]);
    let image = cache.image("second");
    let update = |store: &str| {
        let pulled = world.run(&["pull", &image, &reference(&world.path(store), "second")]);
        assert_eq!(number(&pulled, "partial_packs"), 1);
    };
    update("one");
    let both = blobs();
    assert!(both > first);
    update("two");
    assert_eq!(blobs(), both);
    assert_same(
        &image_inventory(&world.path("second"), "t"),
        &image_inventory(&world.path("two"), "second"),
    );

    // What the cache damages does not enter a store.
    for path in cache.files() {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let message = world.pull_fails(&cache.image("t"), "three", &[]);
    let cause = "the bytes that arrived have sha256";
    assert!(message.contains(cause), "{message}");
}
