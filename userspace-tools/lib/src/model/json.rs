// SPDX-License-Identifier: MIT OR Apache-2.0

//! Parses JSON, and explains why a text cannot be used.

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::fmt;

/// A text cannot be parsed as a document.
#[derive(Debug)]
pub struct ParseError {
    /// The document that was expected, "an OCI image index".
    wanted: String,
    /// The text has no characters but spaces.
    is_empty: bool,
    cause: serde_json::Error,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}: ", self.wanted)?;
        let (line, column) = (self.cause.line(), self.cause.column());
        match self.cause.classify() {
            _ if self.is_empty => f.write_str("it is empty"),
            Category::Eof | Category::Io => f.write_str("it is JSON that ends early"),
            Category::Syntax => write!(f, "it is not JSON, at line {line}, column {column}"),
            Category::Data => write!(
                f,
                "it is JSON, but a field is missing or of another type, \
                 at line {line}, column {column}"
            ),
        }
    }
}

impl std::error::Error for ParseError {}

/// Parses a JSON text that has to be `what`, "an OCI image index".
///
/// # Errors
///
/// If the text is not JSON, or JSON of another document.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ParseError> {
    serde_json::from_slice(bytes).map_err(|cause| ParseError {
        wanted: what.to_owned(),
        is_empty: bytes.trim_ascii().is_empty(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::oci::Index;

    #[test]
    fn messages() {
        let message = |text: &str| {
            let error = parse::<Index>(text.as_bytes(), "an index").unwrap_err();
            error.to_string()
        };
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
