// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which machines a container image is for.

use crate::model::oci::{self, Descriptor};
use serde::{Deserialize, Serialize};
use std::env::consts;
use std::fmt;
use std::str::FromStr;

/// A platform, as OCI names them: `linux/amd64`, `linux/arm/v7`. Any part may be absent in a
/// configuration; an absent one fits every other.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Platform {
    #[serde(default, deserialize_with = "oci::or_null")]
    os: String,
    #[serde(default, deserialize_with = "oci::or_null")]
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

impl Platform {
    /// The one this runs on.
    pub fn host() -> Self {
        let architecture = match consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform {
            os: consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// The operating system, `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The processor, `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the processor, `v7`, if one is given.
    pub fn given_variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Returns the platform of an image that a descriptor in an index has.
    pub(crate) fn of(descriptor: &Descriptor) -> Option<Self> {
        let platform = descriptor.other.get("platform")?;
        Platform::deserialize(platform).ok()
    }

    /// Returns the fitness of an image for `other`, the larger the better; `None` if it cannot run. Any
    /// variant fits if none is asked for. ARM processors run the programs of earlier versions.
    pub fn fit(&self, other: &Platform) -> Option<u32> {
        if (&self.os, &self.architecture) != (&other.os, &other.architecture) {
            return None;
        }
        match (self.arm_version(), other.arm_version()) {
            (Some(wanted), Some(version)) if version <= wanted => Some(version),
            _ if self.variant.is_none() || self.variant() == other.variant() => Some(0),
            _ => None,
        }
    }

    /// The version of a processor of ARM of 32 bits; 7 where nothing is said.
    fn arm_version(&self) -> Option<u32> {
        if self.architecture != "arm" {
            return None;
        }
        let variant = self.variant.as_deref().unwrap_or("v7");
        variant.strip_prefix('v')?.parse().ok()
    }

    /// The same by what a configuration says, which leaves the variant to the index more often than not.
    pub(crate) fn takes_configured(&self, other: &Platform) -> bool {
        let mut other = other.clone();
        for (said, wanted) in [
            (&mut other.os, &self.os),
            (&mut other.architecture, &self.architecture),
        ] {
            if said.is_empty() {
                said.clone_from(wanted);
            }
        }
        other.variant = other.variant.or(self.variant.clone());
        self.fit(&other).is_some()
    }

    /// The variant; of arm64 there is one where nothing is said.
    fn variant(&self) -> Option<&str> {
        match (&*self.architecture, self.variant.as_deref()) {
            ("arm64", None) => Some("v8"),
            (_, variant) => variant,
        }
    }

    /// Returns true if it names a platform: attestations are listed among images, as those for
    /// `unknown/unknown`.
    pub(crate) fn is_known(&self) -> bool {
        ![&self.os, &self.architecture]
            .iter()
            .any(|part| part.is_empty() || *part == "unknown")
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err("OS/ARCHITECTURE[/VARIANT] is expected".to_owned()),
        };
        Ok(Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: &'_ str| match part {
            "" => "unknown".to_owned(),
            part => part.to_owned(),
        };
        write!(f, "{}/{}", part(&self.os), part(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn text_round_trips() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/arm64/v8"] {
            assert_eq!(platform(text).to_string(), text);
        }
        for wrong in ["", "linux", "linux/arm/v7/x"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
        let parts = platform("linux/arm/v7");
        assert_eq!((parts.os(), parts.architecture()), ("linux", "arm"));
        assert_eq!(parts.given_variant(), Some("v7"));
        let unknown: Platform = serde_json::from_str(r#"{"os": null, "variant": "v8"}"#).unwrap();
        assert_eq!(unknown.to_string(), "unknown/unknown/v8");
    }

    #[test]
    fn attestations_are_no_platform() {
        assert!(Platform::host().is_known() && platform("linux/amd64").is_known());
        for unknown in ["unknown/unknown", "linux/unknown", "linux/", "/amd64"] {
            assert!(!platform(unknown).is_known(), "{unknown}");
        }
    }

    #[test]
    fn arm_runs_earlier_versions_and_prefers_later_ones() {
        let fit = |wanted: &str, other: &str| platform(wanted).fit(&platform(other));
        for (wanted, other, fits) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v3", Some(0)),
            ("linux/amd64/v2", "linux/amd64/v3", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64/v9", "linux/arm64", None),
            ("linux/arm", "linux/arm/v6", Some(6)),
            ("linux/arm/v7", "linux/arm/v5", Some(5)),
            ("linux/arm/v7", "linux/arm", Some(7)),
            ("linux/arm/v6", "linux/arm/v7", None),
            // Any variant if none is asked for.
            ("linux/arm", "linux/arm/v8", Some(0)),
        ] {
            assert_eq!(fit(wanted, other), fits, "{other} for {wanted}");
        }
    }

    #[test]
    fn a_configuration_may_leave_parts_out() {
        let wanted = platform("linux/arm/v6");
        for configured in [
            "/",
            "linux/",
            "/arm",
            "linux/arm",
            "linux/arm/v6",
            "linux/arm/v5",
        ] {
            assert!(
                wanted.takes_configured(&platform(configured)),
                "{configured}"
            );
        }
        for configured in ["windows/", "/amd64", "linux/arm/v7"] {
            assert!(
                !wanted.takes_configured(&platform(configured)),
                "{configured}"
            );
        }
    }
}
