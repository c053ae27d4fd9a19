// SPDX-License-Identifier: MIT OR Apache-2.0

//! The JSON documents of an OCI image layout, as far as PuzzleFS writes and reads them.
//!
//! Follows the OCI image specification 1.1. Fields of other tools in `index.json` are kept.

use crate::model::digest::Digest;
use crate::model::reference::Selector;
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's media type of an image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's media type of an image index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The media type of the configuration of an image.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's media type of the configuration of an image.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The media type of the empty configuration.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The contents of the empty configuration.
pub const EMPTY_CONTENT: &[u8] = b"{}";
/// The media type of the metadata blob.
pub const ROOTFS: &str = "application/vnd.puzzlefs.image.rootfs.v1";
/// The media type of a raw data blob.
pub const FILEDATA: &str = "application/vnd.puzzlefs.image.filedata.v1";
/// The media type of the data blobs of an image that was built with compression, also of those that
/// it could not make smaller.
pub const FILEDATA_ZSTD: &str = "application/vnd.puzzlefs.image.filedata.v1+zstd";
/// The media type of a pack of chunks, in images of format 4. containerd unpacks only layers whose types
/// begin like this one.
pub const PACK: &str = "application/vnd.oci.image.layer.puzzlefs.pack.v1";
/// The media type of a pack before the first release.
const EARLY_PACK: &str = "application/vnd.puzzlefs.pack.v1";
/// The media type of the start-up order of an image of format 4.
pub const ORDER: &str = "application/vnd.oci.image.layer.puzzlefs.order.v1";
/// The media type of a start-up order before the first release.
const EARLY_ORDER: &str = "application/vnd.puzzlefs.order.v1";
/// The annotation of a manifest that carries the digest of the root, in images of format 4.
pub const ROOT: &str = "io.puzzlefs.root";
/// The annotation of a manifest that states how the builder compressed the chunks, in images of format 4.
pub const COMPRESSION: &str = "io.puzzlefs.compression";
/// The annotation that carries an image's tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that carries the fs-verity digest of the metadata blob.
pub const VERITY_ROOT_HASH: &str = "io.puzzlefsoci.puzzlefs.puzzlefs_verity_root_hash";
/// The annotation that says when an image was made.
pub const CREATED: &str = "org.opencontainers.image.created";
/// The most bytes of annotations that an image brings into an index.
const INDEX_ANNOTATIONS_MAX: usize = 64 << 10;
/// The version of manifests and indices.
pub const SCHEMA_VERSION: u32 = 2;
/// The version of the layout.
pub const LAYOUT_VERSION: &str = "1.0.0";
/// The contents of the file `oci-layout`.
pub const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

/// The annotations of an image do not fit into an index.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("its annotations in the index have {size} bytes; at most {INDEX_ANNOTATIONS_MAX} are kept")]
pub struct AnnotationsTooLarge {
    /// Their size in bytes.
    size: usize,
}

/// The form of an index is not known.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnknownIndex {
    /// It has another version.
    #[error("version {0} of an index is not known")]
    Version(u32),
    /// It has another media type.
    #[error("its type is '{0}', not one of an index")]
    Type(String),
}

/// Fields of other tools, which are kept.
type Other = serde_json::Map<String, serde_json::Value>;

/// A content descriptor.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type.
    pub media_type: String,
    /// The digest, `sha256:<hex>`.
    pub digest: String,
    /// The size in bytes.
    pub size: u64,
    /// The contents, in base64, where they are carried along.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: crate::model::digest::Digest, size: u64) -> Self {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_oci(),
            size,
            data: None,
            annotations: BTreeMap::new(),
            other: Other::new(),
        }
    }

    /// The same with one more annotation.
    pub fn annotated(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// Gives it these annotations, unless they are too large for an index: every command reads the
    /// index as a whole, and refuses one that is too large.
    pub(crate) fn annotated_for_index(
        mut self,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, AnnotationsTooLarge> {
        let sizes = annotations.iter();
        let size: usize = sizes.map(|(key, value)| key.len() + value.len()).sum();
        if size > INDEX_ANNOTATIONS_MAX {
            return Err(AnnotationsTooLarge { size });
        }
        self.annotations.clone_from(annotations);
        Ok(self)
    }

    /// Returns true if it is that of a pack.
    pub fn is_pack(&self) -> bool {
        matches!(&*self.media_type, PACK | EARLY_PACK)
    }

    /// Returns true if it is that of a start-up order.
    pub fn is_order(&self) -> bool {
        matches!(&*self.media_type, ORDER | EARLY_ORDER)
    }

    /// The tag in an index.
    pub fn tag(&self) -> Option<&str> {
        self.annotations.get(REF_NAME).map(String::as_str)
    }
}

/// Manifests have thousands of them, and each mount reads one: what serde derives for a flattened map
/// takes several times as long.
impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DescriptorVisitor)
    }
}

struct DescriptorVisitor;

impl<'de> Visitor<'de> for DescriptorVisitor {
    type Value = Descriptor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a content descriptor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Descriptor, A::Error> {
        let (mut media_type, mut digest, mut size) = (None, None, None);
        let (mut data, mut annotations, mut other) = (None, None, Other::new());
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::MediaType => once(&mut media_type, "mediaType", &mut map)?,
                Key::Digest => once(&mut digest, "digest", &mut map)?,
                Key::Size => once(&mut size, "size", &mut map)?,
                Key::Data => once(&mut data, "data", &mut map)?,
                Key::Annotations => once(&mut annotations, "annotations", &mut map)?,
                Key::Other(key) => {
                    other.insert(key, map.next_value()?);
                }
            }
        }
        let missing = <A::Error as de::Error>::missing_field;
        Ok(Descriptor {
            media_type: media_type.ok_or_else(|| missing("mediaType"))?,
            digest: digest.ok_or_else(|| missing("digest"))?,
            size: size.ok_or_else(|| missing("size"))?,
            data: data.flatten(),
            annotations: annotations.flatten().unwrap_or_default(),
            other,
        })
    }
}

/// Reads the value of a key that may be there once.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    value: &mut Option<T>,
    key: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    if value.replace(map.next_value()?).is_some() {
        return Err(de::Error::duplicate_field(key));
    }
    Ok(())
}

/// Reads a value for which some tools write null if it is empty.
pub(crate) fn or_null<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let value: Option<T> = Deserialize::deserialize(deserializer)?;
    Ok(value.unwrap_or_default())
}

/// A key of a descriptor.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Key {
    MediaType,
    Digest,
    Size,
    Data,
    Annotations,
    Other(String),
}

/// An image manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`MANIFEST`]; the specification lets it be absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The type of the artifact, which the configuration does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The blobs: the metadata first.
    #[serde(deserialize_with = "or_null")]
    pub layers: Vec<Descriptor>,
    /// Annotations: those of the container image that the image was imported from.
    #[serde(
        default,
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// A PuzzleFS image's manifest: the empty configuration and these layers.
    pub fn new(layers: Vec<Descriptor>) -> Self {
        let mut config = Descriptor::new(
            EMPTY,
            crate::model::digest::Digest::of(EMPTY_CONTENT),
            EMPTY_CONTENT.len() as u64,
        );
        config.data = Some("e30=".to_owned());
        Manifest {
            schema_version: SCHEMA_VERSION,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(ROOTFS.to_owned()),
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// The manifest of an image of format 4, whose layers are packs.
    pub fn packed(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Manifest {
            schema_version: SCHEMA_VERSION,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// The digests of the packs, without those that are malformed.
    pub(crate) fn packs(&self) -> impl Iterator<Item = Digest> + '_ {
        let packs = self.layers.iter().filter(|layer| layer.is_pack());
        packs.filter_map(|pack| Digest::from_oci(&pack.digest))
    }

    /// The bytes of the manifest blob.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and maps with string keys: nothing that JSON cannot have.
        serde_json::to_vec(self).expect("a manifest is always JSON")
    }

    /// Returns true if it is the manifest of a PuzzleFS image, of any version.
    pub fn is_puzzlefs(&self) -> bool {
        self.rootfs().is_some() || self.annotations.contains_key(ROOT)
    }

    /// The descriptor of the metadata blob, in format 3.
    pub fn rootfs(&self) -> Option<&Descriptor> {
        self.layers.iter().find(|layer| layer.media_type == ROOTFS)
    }
}

/// The part of a manifest that a mount needs: the descriptor of the metadata blob, one of thousands of
/// layers.
#[derive(Debug, Deserialize)]
pub struct Rootfs {
    /// The first layer that is a metadata blob.
    #[serde(rename = "layers", deserialize_with = "first_rootfs")]
    pub descriptor: Option<Descriptor>,
}

/// The part of a manifest that names the root of an image of format 4.
#[derive(Clone, Debug, Deserialize)]
pub struct Root {
    /// The value of the annotation [`ROOT`], if there is one.
    #[serde(rename = "annotations", default, deserialize_with = "root_annotation")]
    pub hex: Option<String>,
}

/// Reads annotations, and keeps the root.
fn root_annotation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let annotations: Option<BTreeMap<String, String>> = Option::deserialize(deserializer)?;
    Ok(annotations.and_then(|mut annotations| annotations.remove(ROOT)))
}

/// Reads a list of layers, and skips those behind the metadata blob.
fn first_rootfs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Descriptor>, D::Error> {
    struct Layers;

    impl<'de> Visitor<'de> for Layers {
        type Value = Option<Descriptor>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of content descriptors")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut layers: A) -> Result<Self::Value, A::Error> {
            while let Some(layer) = layers.next_element::<Descriptor>()? {
                if layer.media_type == ROOTFS {
                    while layers.next_element::<IgnoredAny>()?.is_some() {}
                    return Ok(Some(layer));
                }
            }
            Ok(None)
        }

        /// Null.
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }

    deserializer.deserialize_any(Layers)
}

/// `oci-layout`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// [`LAYOUT_VERSION`].
    pub image_layout_version: String,
}

/// `index.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`INDEX`]; the specification lets it be absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The images.
    #[serde(deserialize_with = "or_null")]
    pub manifests: Vec<Descriptor>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Other,
}

impl Default for Index {
    fn default() -> Self {
        Index {
            schema_version: SCHEMA_VERSION,
            media_type: Some(INDEX.to_owned()),
            manifests: Vec::new(),
            other: Other::new(),
        }
    }
}

impl Index {
    /// Returns the reason if this version does not know the form of the index. Then it is unknown
    /// which blobs the index leads to.
    pub fn unknown(&self) -> Option<UnknownIndex> {
        if self.schema_version != SCHEMA_VERSION {
            return Some(UnknownIndex::Version(self.schema_version));
        }
        match self.media_type.as_deref() {
            None | Some(INDEX | DOCKER_LIST) => None,
            Some(other) => Some(UnknownIndex::Type(other.to_owned())),
        }
    }

    /// The image under `tag`. Where a tool left several, the last one counts.
    pub fn find(&self, tag: &str) -> Option<&Descriptor> {
        self.manifests
            .iter()
            .rev()
            .find(|manifest| manifest.tag() == Some(tag))
    }

    /// The tags, sorted.
    pub fn tags(&self) -> Vec<String> {
        let mut tags: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|manifest| manifest.tag().map(str::to_owned))
            .collect();
        tags.sort();
        tags.dedup();
        tags
    }

    /// Puts `manifest` under `tag`, in the place of what the tag named before.
    pub fn set_tag(&mut self, tag: &str, manifest: Descriptor) {
        let manifest = manifest.annotated(REF_NAME, tag);
        let place = self
            .manifests
            .iter()
            .position(|manifest| manifest.tag() == Some(tag));
        match place {
            Some(place) => {
                self.manifests[place] = manifest;
                let mut at = 0;
                self.manifests.retain(|manifest| {
                    at += 1;
                    at <= place + 1 || manifest.tag() != Some(tag)
                });
            }
            None => self.manifests.push(manifest),
        }
    }

    /// Takes an image's tag away, or all that lists its manifest; says whether there was any.
    pub fn remove(&mut self, image: &Selector) -> bool {
        let before = self.manifests.len();
        match image {
            Selector::Tag(tag) => self.manifests.retain(|known| known.tag() != Some(tag)),
            Selector::Manifest(digest) => {
                let digest = digest.to_oci();
                self.manifests.retain(|known| known.digest != digest);
            }
        }
        self.manifests.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::Digest;

    fn manifest(content: &[u8]) -> Descriptor {
        Descriptor::new(MANIFEST, Digest::of(content), content.len() as u64)
    }

    #[test]
    fn layers_have_had_other_types() {
        let of = |media_type: &str| Descriptor::new(media_type, Digest([0; 32]), 0);
        for media_type in [PACK, "application/vnd.puzzlefs.pack.v1"] {
            assert!(of(media_type).is_pack() && !of(media_type).is_order());
        }
        for media_type in [ORDER, "application/vnd.puzzlefs.order.v1"] {
            assert!(of(media_type).is_order() && !of(media_type).is_pack());
        }
    }

    #[test]
    fn a_tag_is_replaced_in_place_and_others_kept() {
        let mut index = Index::default();
        index.set_tag("a", manifest(b"1"));
        index.set_tag("b", manifest(b"2"));
        index.set_tag("a", manifest(b"3"));
        assert_eq!(index.tags(), ["a", "b"]);
        assert_eq!(index.manifests.len(), 2);
        assert_eq!(index.find("a").unwrap().digest, Digest::of(b"3").to_oci());
        assert_eq!(index.find("b").unwrap().digest, Digest::of(b"2").to_oci());
    }

    #[test]
    fn a_descriptor_has_each_key_once_and_those_that_it_needs() {
        let read = |text: &str| {
            let result: Result<Descriptor, _> = serde_json::from_str(text);
            result.map_err(|error| error.to_string())
        };
        let whole =
            r#"{"size":1,"digest":"sha256:0","mediaType":"m","data":null,"x":[{"y":null}]}"#;
        let descriptor = read(whole).unwrap();
        assert_eq!((&*descriptor.media_type, descriptor.size), ("m", 1));
        assert_eq!(descriptor.data, None);
        let null = r#"{"size":1,"digest":"d","mediaType":"m","annotations":null}"#;
        assert!(read(null).unwrap().annotations.is_empty());
        assert_eq!(descriptor.other["x"], serde_json::json!([{"y": null}]));
        for (text, reason) in [
            (r#"{"digest":"d","mediaType":"m"}"#, "missing field `size`"),
            (r#"{"size":1,"mediaType":"m"}"#, "missing field `digest`"),
            (r#"{"size":1,"size":1}"#, "duplicate field `size`"),
            (r#"{"size":-1}"#, "invalid value: integer `-1`"),
            ("[1]", "expected a content descriptor"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_metadata_blob_is_found_among_the_layers() {
        let layer = |kind: &str, digest: &str| {
            format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1}}"#)
        };
        let find = |layers: &[String]| {
            let text = format!(r#"{{"config":0,"layers":[{}],"x":[]}}"#, layers.join(","));
            let result: Result<Rootfs, _> = serde_json::from_str(&text);
            result.map(|rootfs| rootfs.descriptor.map(|descriptor| descriptor.digest))
        };
        let (data, first) = (layer(FILEDATA, "d"), layer(ROOTFS, "a"));
        let layers = [data.clone(), first, layer(ROOTFS, "b"), data.clone()];
        assert_eq!(find(&layers).unwrap().as_deref(), Some("a"));
        assert_eq!(find(&layers[1..]).unwrap().as_deref(), Some("a"));
        assert_eq!(find(&[data.clone()]).unwrap(), None);
        assert_eq!(find(&[]).unwrap(), None);
        assert!(find(&[data, "{".to_owned()]).is_err());
        assert!(serde_json::from_str::<Rootfs>("{}").is_err());
        let null: Rootfs = serde_json::from_str(r#"{"layers":null}"#).unwrap();
        assert!(null.descriptor.is_none());
    }

    #[test]
    fn the_annotation_names_the_root() {
        let hex = |text: &str| serde_json::from_str::<Root>(text).map(|root| root.hex);
        let named = format!(r#"{{"annotations":{{"a":"b","{ROOT}":"ab"}}}}"#);
        assert_eq!(hex(&named).unwrap().as_deref(), Some("ab"));
        for text in ["{}", r#"{"annotations":null}"#, r#"{"annotations":{}}"#] {
            assert_eq!(hex(text).unwrap(), None, "{text}");
        }
        assert!(hex(r#"{"annotations":[]}"#).is_err());
    }

    #[test]
    fn what_other_tools_wrote_stays() {
        let text = r#"{"schemaVersion":2,"annotations":{"x":"y"},"manifests":[
            {"mediaType":"m","digest":"sha256:0","size":1,"platform":{"os":"linux"}},
            {"mediaType":"m","digest":"sha256:1","size":1,
             "annotations":{"org.opencontainers.image.ref.name":"t"}},
            {"mediaType":"m","digest":"sha256:2","size":1,
             "annotations":{"org.opencontainers.image.ref.name":"t"}}]}"#;
        let mut index: Index = serde_json::from_str(text).unwrap();
        assert_eq!(index.find("t").unwrap().digest, "sha256:2");
        index.set_tag("t", manifest(b""));
        let text = serde_json::to_string(&index).unwrap();
        assert!(text.contains(r#""annotations":{"x":"y"}"#), "{text}");
        assert!(text.contains(r#""platform":{"os":"linux"}"#), "{text}");
        assert_eq!(index.manifests.len(), 2);
        assert!(!text.contains("sha256:2"));
    }
}
