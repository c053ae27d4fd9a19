// SPDX-License-Identifier: MIT OR Apache-2.0

//! Settings for registries, in the format of containers-registries.conf(5), version 2.
//!
//! This module interprets texts, and reads no file. Keys that concern other tools alone are ignored.

use crate::reference::RemoteImage;
use serde::de::IgnoredAny;
use serde::Deserialize;
use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The settings of all files.
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    /// The registries for names without one, if a file has the setting.
    search: Option<Vec<String>>,
    /// The tables by their prefixes.
    tables: BTreeMap<String, Table>,
}

/// A table `[[registry]]`: the treatment of images whose name begins with its prefix.
#[derive(Clone, Debug)]
struct Table {
    /// The file that contains it.
    file: PathBuf,
    /// The replacement of the prefix. `None` keeps the name.
    location: Option<String>,
    is_insecure: bool,
    is_blocked: bool,
    mirrors: Vec<Mirror>,
}

/// A table `[[registry.mirror]]`.
#[derive(Clone, Debug)]
struct Mirror {
    location: String,
    is_insecure: bool,
    purpose: Purpose,
}

/// The pulls that use a mirror.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Purpose {
    All,
    DigestOnly,
    TagOnly,
}

/// A place that may have an image.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The name of the image at this place.
    pub image: RemoteImage,
    /// Accept any certificate, and plain HTTP.
    pub is_insecure: bool,
    /// The file that forbids this place.
    pub blocked_by: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<TableDocument>,
    /// The table of version 1.
    registries: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TableDocument {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorDocument {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<Purpose>,
}

impl RegistrySettings {
    /// Adds the settings of a file. They replace earlier ones: a table that of the same prefix, and a list of
    /// registries the former list.
    ///
    /// # Errors
    ///
    /// The cause, if the text is malformed.
    pub(crate) fn add(&mut self, text: &str, file: &Path) -> Result<(), String> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            match before {
                Some(before) => {
                    let line = before.matches('\n').count() + 1;
                    format!("line {line}: {}", error.message())
                }
                None => error.message().to_owned(),
            }
        })?;
        if document.registries.is_some() {
            return Err(
                "[registries] is of version 1 of the format, which puzzlefs does not read; use \
                 unqualified-search-registries and [[registry]] of version 2"
                    .to_owned(),
            );
        }
        if let Some(search) = document.unqualified_search_registries {
            let registries = search.iter().map(|registry| match location(registry) {
                Ok(location) if !location.contains('/') => Ok(location),
                _ => Err(format!(
                    "unqualified-search-registries has '{registry}', which is not HOST[:PORT]"
                )),
            });
            self.search = Some(registries.collect::<Result<_, _>>()?);
        }
        let mut tables = BTreeMap::new();
        for table in document.registry {
            let (prefix, table) = Table::of(table, file)?;
            match tables.entry(prefix) {
                Entry::Vacant(place) => place.insert(table),
                Entry::Occupied(place) => {
                    return Err(format!("two tables [[registry]] are for {}", place.key()))
                }
            };
        }
        self.tables.append(&mut tables);
        Ok(())
    }

    /// The registries for names without one.
    pub fn search(&self) -> &[String] {
        self.search.as_deref().unwrap_or_default()
    }

    /// Returns the places that an image is pulled from, in order: the mirrors, then the location.
    ///
    /// # Errors
    ///
    /// The file and the cause, if a location makes no name of an image.
    pub(crate) fn places(&self, image: &RemoteImage) -> Result<Vec<Place>, (PathBuf, String)> {
        let name = image.name();
        let Some((table, length)) = self.table(&name) else {
            return Ok(vec![self.place(image.clone(), false)]);
        };
        let rest = name.get(length..).unwrap_or_default();
        let at = |location: &str| {
            let moved = format!("{location}{rest}");
            let parsed = RemoteImage::parse(&OsString::from(format!("docker://{moved}")));
            parsed.map_err(|_| {
                let cause = format!("location '{location}' turns {name} into {moved}");
                (table.file.clone(), cause)
            })
        };
        if table.is_blocked {
            return Ok(vec![Place {
                image: image.clone(),
                is_insecure: false,
                blocked_by: Some(table.file.clone()),
            }]);
        }
        let mut places = Vec::new();
        let by_digest = image.digest().is_some();
        for mirror in &table.mirrors {
            let is_used = match mirror.purpose {
                Purpose::All => true,
                Purpose::DigestOnly => by_digest,
                Purpose::TagOnly => !by_digest,
            };
            if is_used {
                places.push(self.place(at(&mirror.location)?, mirror.is_insecure));
            }
        }
        let own = match &table.location {
            Some(location) => at(location)?,
            None => image.clone(),
        };
        places.push(self.place(own, table.is_insecure));
        Ok(places)
    }

    /// Returns the registry of an image itself. Another location of its table does not count, and `insecure`
    /// is that of the location.
    pub(crate) fn itself(&self, image: &RemoteImage) -> Result<Place, (PathBuf, String)> {
        let places = self.places(image)?;
        let own = places.into_iter().next_back();
        let own = own.filter(|own| own.image == *image);
        Ok(own.unwrap_or_else(|| self.place(image.clone(), false)))
    }

    /// Returns a place. The table for its own name can forbid it.
    fn place(&self, image: RemoteImage, is_insecure: bool) -> Place {
        let table = self.table(&image.name());
        let blocked = table.filter(|(table, _)| table.is_blocked);
        Place {
            image,
            is_insecure,
            blocked_by: blocked.map(|(table, _)| table.file.clone()),
        }
    }

    /// Finds the table whose prefix matches the most of a name, and the number of bytes that match. A prefix
    /// without a wildcard has precedence over an equal match.
    fn table(&self, name: &str) -> Option<(&Table, usize)> {
        let matching = self.tables.iter().filter_map(|(prefix, table)| {
            let length = matched(name, prefix)?;
            Some((length, prefix.len(), table))
        });
        let longest = matching.max_by_key(|(length, prefix, _)| (*length, *prefix));
        longest.map(|(length, _, table)| (table, length))
    }
}

impl Table {
    /// Checks a table. Returns its prefix, too.
    fn of(document: TableDocument, file: &Path) -> Result<(String, Self), String> {
        let unset = |text: Option<String>| text.filter(|text| !text.is_empty());
        let given = unset(document.location);
        let given = given.map(|text| location(&text)).transpose()?;
        let prefix = match (unset(document.prefix), &given) {
            (Some(prefix), _) => prefix.trim_end_matches('/').to_owned(),
            (None, Some(location)) => location.clone(),
            (None, None) => {
                return Err("a table [[registry]] has neither prefix nor location".to_owned())
            }
        };
        // The host of a wildcard is a part of one.
        let plain = prefix.strip_prefix("*.").unwrap_or(&prefix);
        if plain.is_empty() || plain.contains('*') || plain.contains("://") {
            return Err(format!(
                "prefix '{prefix}' is not HOST[:PORT][/NAME] or *.HOST"
            ));
        }
        let mut mirrors = Vec::new();
        for mirror in document.mirror {
            let purpose = match (mirror.pull_from_mirror, document.mirror_by_digest_only) {
                (Some(_), true) => {
                    return Err(format!(
                        "'{prefix}' has mirror-by-digest-only, and a mirror with pull-from-mirror"
                    ))
                }
                (Some(purpose), false) => purpose,
                (None, true) => Purpose::DigestOnly,
                (None, false) => Purpose::All,
            };
            mirrors.push(Mirror {
                location: location(&mirror.location)?,
                is_insecure: mirror.insecure,
                purpose,
            });
        }
        let table = Table {
            file: file.to_path_buf(),
            location: given,
            is_insecure: document.insecure,
            is_blocked: document.blocked,
            mirrors,
        };
        Ok((prefix, table))
    }
}

/// Checks a location, and removes `/` at its end.
fn location(text: &str) -> Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    let host = trimmed.split_once('/').map_or(trimmed, |(host, _)| host);
    // A scheme makes a name that does not parse.
    let name = OsString::from(format!("docker://{host}/name"));
    match RemoteImage::parse(&name) {
        Ok(image) if image.registry() == host && !trimmed.contains("//") => Ok(trimmed.to_owned()),
        _ => Err(format!("location '{text}' is not HOST[:PORT][/NAME]")),
    }
}

/// Returns the number of bytes of a name that a prefix matches. The match ends at the end of a part.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*') {
        // `*.example.com` matches `a.b.example.com`, and not `example.com`.
        Some(suffix) => {
            let host = name.split_once('/').map_or(name, |(host, _)| host);
            let (suffix_host, below) = suffix.split_once('/').unwrap_or((suffix, ""));
            let length = host.ends_with(suffix_host).then_some(host.len())?;
            match below {
                "" => length,
                _ if name.get(length + 1..)?.starts_with(below) => length + 1 + below.len(),
                _ => return None,
            }
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    let is_host = !prefix.contains('/');
    let next = name.get(length..)?.chars().next();
    let ends = match next {
        None | Some('/') => true,
        // After a host, a port follows, which belongs to it.
        Some(':' | '@') => !is_host,
        Some(_) => false,
    };
    ends.then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(texts: &[&str]) -> RegistrySettings {
        let mut settings = RegistrySettings::default();
        for (number, text) in texts.iter().enumerate() {
            let file = PathBuf::from(format!("/{number}.conf"));
            settings.add(text, &file).unwrap();
        }
        settings
    }

    /// The places of an image, with `!` if they are insecure and `-` if they are blocked.
    fn places(settings: &RegistrySettings, name: &str) -> Vec<String> {
        let image = RemoteImage::parse(&OsString::from(format!("docker://{name}"))).unwrap();
        let shown = settings.places(&image).unwrap().into_iter().map(|place| {
            let insecure = if place.is_insecure { "!" } else { "" };
            let blocked = if place.blocked_by.is_some() { "-" } else { "" };
            format!("{insecure}{blocked}{}", place.image.name())
        });
        shown.collect()
    }

    #[test]
    fn mirrors_come_before_the_location() {
        let settings = settings(&[r#"
            short-name-mode = "enforcing"
            [[registry]]
            prefix = "registry.example/team"
            location = "other.example:5000/x/team/"
            insecure = true
            [[registry.mirror]]
            location = "one.example"
            [[registry.mirror]]
            location = "two.example/y"
            insecure = true
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "three.example"
            pull-from-mirror = "tag-only"
            [aliases]
            "a" = "registry.example/a"
        "#]);
        assert_eq!(
            places(&settings, "registry.example/team/app:1"),
            [
                "one.example/app:1",
                "three.example/app:1",
                "!other.example:5000/x/team/app:1"
            ]
        );
        let digest = format!("app@sha256:{}", "a".repeat(64));
        assert_eq!(
            places(&settings, &format!("registry.example/team/{digest}")),
            [
                format!("one.example/{digest}"),
                format!("!two.example/y/{digest}"),
                format!("!other.example:5000/x/team/{digest}"),
            ]
        );
        for other in ["registry.example/teams/a:1", "registry.example:5000/team:1"] {
            assert_eq!(places(&settings, other), [other]);
        }
    }

    #[test]
    fn mirrors_for_digests_only() {
        let settings = settings(&[r#"
            [[registry]]
            location = "registry.example"
            mirror-by-digest-only = true
            mirror = [{ location = "one.example" }]
        "#]);
        let own = "registry.example/a:1";
        assert_eq!(places(&settings, own), [own]);
        let digest = format!("a@sha256:{}", "a".repeat(64));
        let found = places(&settings, &format!("registry.example/{digest}"));
        assert_eq!(found[0], format!("one.example/{digest}"));
    }

    #[test]
    fn the_longest_prefix_counts() {
        let settings = settings(&[r#"
            [[registry]]
            prefix = "*.example"
            insecure = true
            [[registry]]
            prefix = "*.b.example"
            location = "b.test/x"
            [[registry]]
            prefix = "*.c.example/ns"
            location = "c.test"
            [[registry]]
            prefix = "a.b.example"
            location = "a.test"
            [[registry]]
            prefix = "a.b.example/team/app:1"
            location = "one.test/app:2"
        "#]);
        for (name, place) in [
            ("example.test/a:1", "example.test/a:1"),
            ("b.example/a:1", "!b.example/a:1"),
            ("c.b.example/a:1", "b.test/x/a:1"),
            ("x.c.example/ns/a:1", "c.test/a:1"),
            ("x.c.example/nsx/a:1", "!x.c.example/nsx/a:1"),
            ("a.b.example/a:1", "a.test/a:1"),
            ("a.b.example:5000/a:1", "a.b.example:5000/a:1"),
            ("a.b.example/team/app:1", "one.test/app:2"),
            ("a.b.example/team/app:12", "a.test/team/app:12"),
            ("xb.example/b.example/a:1", "!xb.example/b.example/a:1"),
            ("c.test/c.b.example/a:1", "c.test/c.b.example/a:1"),
        ] {
            assert_eq!(places(&settings, name), [place], "{name}");
        }
    }

    #[test]
    fn later_files_replace_tables_and_lists() {
        let first = r#"
            unqualified-search-registries = ["a.example", "localhost:5000/"]
            [[registry]]
            location = "one.example"
            blocked = true
            [[registry]]
            location = "two.example"
            insecure = true
        "#;
        let second = r#"
            [[registry]]
            location = "one.example"
            insecure = true
        "#;
        let settings = |texts: &[&str]| settings(texts);
        let alone = settings(&[first]);
        assert_eq!(places(&alone, "one.example/a:1"), ["-one.example/a:1"]);
        assert_eq!(alone.search(), ["a.example", "localhost:5000"]);
        let both = settings(&[first, second]);
        assert_eq!(places(&both, "one.example/a:1"), ["!one.example/a:1"]);
        assert_eq!(places(&both, "two.example/a:1"), ["!two.example/a:1"]);
        assert_eq!(both.search().len(), 2);
        let none = settings(&[first, "unqualified-search-registries = []"]);
        assert_eq!(none.search().len(), 0);
    }

    #[test]
    fn a_blocked_mirror_or_location() {
        let settings = settings(&[r#"
            [[registry]]
            location = "one.example"
            mirror = [{ location = "two.example" }]
            [[registry]]
            location = "two.example"
            blocked = true
        "#]);
        let found = places(&settings, "one.example/a:1");
        assert_eq!(found, ["-two.example/a:1", "one.example/a:1"]);
    }

    #[test]
    fn the_registry_itself_has_no_other_location() {
        let settings = settings(&[r#"
            [[registry]]
            location = "one.example"
            insecure = true
            mirror = [{ location = "two.example" }]
            [[registry]]
            prefix = "three.example"
            location = "four.example"
            insecure = true
        "#]);
        for (name, is_insecure) in [("one.example/a:1", true), ("three.example/a:1", false)] {
            let image = RemoteImage::parse(&OsString::from(format!("docker://{name}"))).unwrap();
            let place = settings.itself(&image).unwrap();
            assert_eq!((place.image, place.is_insecure), (image, is_insecure));
        }
    }

    #[test]
    fn malformed_files() {
        for (text, cause) in [
            ("\nx = ", "line 2: "),
            ("[[registry]]\nblocked = 1\nlocation = 'a.b'", "line 2: "),
            (
                "[registries.search]\nregistries = ['a.example']",
                "version 1",
            ),
            (
                "[[registry]]\nblocked = true",
                "neither prefix nor location",
            ),
            (
                "[[registry]]\nlocation = 'https://a.example'",
                "location 'https://a.example'",
            ),
            ("[[registry]]\nlocation = 'mirror'", "location 'mirror'"),
            ("[[registry]]\nlocation = 'a.b//c'", "location 'a.b//c'"),
            ("[[registry]]\nprefix = 'a.*'", "prefix 'a.*'"),
            (
                "[[registry]]\nlocation = 'a.b'\n[[registry]]\nlocation = 'a.b'",
                "two tables [[registry]] are for a.b",
            ),
            (
                "[[registry]]\nlocation = 'a.b'\nmirror = [{ insecure = true }]",
                "location",
            ),
            (
                "[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'c.d'\n\
                 pull-from-mirror = 'never'",
                "line 5: ",
            ),
            (
                "[[registry]]\nlocation = 'a.b'\nmirror-by-digest-only = true\n[[registry.mirror]]\n\
                 location = 'c.d'\npull-from-mirror = 'all'",
                "a mirror with pull-from-mirror",
            ),
            (
                "unqualified-search-registries = ['a.example/x']",
                "has 'a.example/x'",
            ),
        ] {
            let result = RegistrySettings::default().add(text, Path::new("/x"));
            let message = result.expect_err(text);
            assert!(message.contains(cause), "{text}: {message}");
        }
    }

    #[test]
    fn a_location_that_makes_no_name() {
        let settings = settings(&[r#"
            [[registry]]
            prefix = "a.example/x"
            location = "b.example"
        "#]);
        let image = RemoteImage::parse(&OsString::from("docker://a.example/x:1")).unwrap();
        let (file, cause) = settings.places(&image).unwrap_err();
        assert_eq!(file, Path::new("/0.conf"));
        assert!(cause.contains("into b.example:1"), "{cause}");
    }
}
