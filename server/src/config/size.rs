//! Sizes as people write them: `64MiB`, `20GB`, bytes as a number.

/// The units, the longest spelling first where one ends in another.
const UNITS: [(&str, u64); 14] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
    ("", 1),
];

/// Reads a size in bytes.
pub(super) fn parse(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let bad = || "a size is a number of bytes, or one with KiB, MiB, GiB, TiB or KB, MB, GB, TB";
    for (unit, bytes) in UNITS {
        let Some(number) = lower.strip_suffix(unit) else { continue };
        let number: u64 = number.trim_end().parse().map_err(|_| bad())?;
        return number.checked_mul(bytes).ok_or_else(|| "it is too large".to_owned());
    }
    Err(bad().to_owned())
}

/// A size for people, in the largest binary unit that divides it.
pub(super) fn render(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |(_, bits): &(&str, u32)| bytes > 0 && bytes.is_multiple_of(1 << bits);
    match units.into_iter().find(fits) {
        Some((unit, bits)) => format!("{}{unit}", bytes >> bits),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4_096),
            ("64MiB", 64 << 20),
            ("64 MiB", 64 << 20),
            ("10GB", 10_000_000_000),
            ("512m", 512 << 20),
            ("7b", 7),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1XB", "99999999999TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            (render(64 << 20), render(1_000)),
            ("64MiB".to_owned(), "1000 bytes".to_owned())
        );
    }
}
