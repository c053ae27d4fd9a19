// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers, sizes and modes for people.

use indicatif::HumanCount;

pub use puzzlefs_lib::time::utc as time;

/// Returns a size with a binary unit: `1.4 MiB`.
///
/// `indicatif` writes two decimals, which makes columns uneven, and 1024.00 KiB for 1 MiB - 1.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024.0 belongs to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Returns a number and its noun: `1 blob`, `2 blobs`.
pub fn count(value: u64, one: &str, many: &str) -> String {
    let word = if value == 1 { one } else { many };
    format!("{} {word}", number(value))
}

/// Returns a number with separators: `1,234`.
pub fn number(number: u64) -> String {
    HumanCount(number).to_string()
}

/// Returns a file's type and permissions as `ls -l` shows them: `drwxr-xr-x`.
pub fn mode(kind: char, permissions: u16) -> String {
    let mut mode = String::from(kind);
    // For each of owner, group and others: their bits, and what stands for the bit that makes
    // executing special.
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = permissions >> shift;
        mode.push(if bits & 4 != 0 { 'r' } else { '-' });
        mode.push(if bits & 2 != 0 { 'w' } else { '-' });
        mode.push(match (bits & 1 != 0, permissions & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    mode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(mode('-', 0o644), "-rw-r--r--");
        assert_eq!(mode('d', 0o1777), "drwxrwxrwt");
        assert_eq!(mode('-', 0o7001), "---S--S--t");
        assert_eq!(mode('-', 0o6755), "-rwsr-sr-x");
    }

    #[test]
    fn numbers() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(count(1, "blob", "blobs"), "1 blob");
        assert_eq!(count(0, "blob", "blobs"), "0 blobs");
        assert_eq!(count(1234567, "blob", "blobs"), "1,234,567 blobs");
    }
}
