// SPDX-License-Identifier: MIT OR Apache-2.0

//! How numbers are shown to people.

/// Bytes with a binary unit: `1.4 MiB`.
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

/// A number and what it counts: `1 blob`, `2 blobs`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    format!("{shown} {word}")
}

/// A time in UTC, `2026-11-23 14:05:09`, of seconds since the epoch.
pub fn time(seconds: i64) -> String {
    const DAY: i64 = 24 * 60 * 60;
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Years that begin in March have their leap day at the end, and 400 of them always as many days.
    const DAYS_TO_EPOCH: i64 = 719_468;
    const ERA: i64 = 146_097;
    let day = days + DAYS_TO_EPOCH;
    let (era, day) = (day.div_euclid(ERA), day.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (year, month + 3),
        _ => (year + 1, month - 9),
    };
    let year = era * 400 + year;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A file's type and permissions as `ls -l` shows them: `drwxr-xr-x`.
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
    fn times() {
        // As `date -u -d @N` prints them.
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(-1), "1969-12-31 23:59:59");
        assert_eq!(time(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(time(1_795_442_709), "2026-11-23 14:05:09");
        assert_eq!(time(4_107_542_399), "2100-02-28 23:59:59");
        assert_eq!(time(4_107_542_400), "2100-03-01 00:00:00");
        assert_eq!(time(i64::MIN), "-292277022657-01-27 08:29:52");
        assert_eq!(time(i64::MAX), "292277026596-12-04 15:30:07");
    }

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
