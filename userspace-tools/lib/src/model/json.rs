// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parses JSON, and says in our own words why a text cannot be used.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Parses a JSON text that has to be `what`, "an OCI image index".
///
/// # Errors
///
/// Why it is not.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            _ if bytes.trim_ascii().is_empty() => format!("not {what}: it is empty"),
            Category::Eof | Category::Io => format!("not {what}: it is JSON that ends early"),
            Category::Syntax => format!("not {what}: it is not JSON, at {place}"),
            Category::Data => format!(
                "not {what}: it is JSON, but a field is missing or of another type, at {place}"
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::oci::Index;

    #[test]
    fn messages() {
        let message = |text: &str| parse::<Index>(text.as_bytes(), "an index").unwrap_err();
        assert_eq!(message(" \n"), "not an index: it is empty");
        assert_eq!(
            message("{\"a\":"),
            "not an index: it is JSON that ends early"
        );
        let wanted = "not an index: it is not JSON, at line 1, column 1";
        assert_eq!(message("x"), wanted);
        let wanted = "a field is missing or of another type, at line 1, column 19";
        assert!(message(r#"{"schemaVersion":2}"#).ends_with(wanted));
        assert!(message(&"[".repeat(10_000)).contains("line 1"));
    }
}
