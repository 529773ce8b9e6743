//! Sizes in bytes as people write them.

/// Reads `N`, `NKiB`, `NMiB` or `NGiB`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        unit => return Err(format!("unknown unit {unit:?}: expected KiB, MiB or GiB")),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number of bytes, KiB, MiB or GiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "larger than 16 EiB".to_owned())
}

/// Writes a size with three digits.
pub(crate) fn show(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [
            ("0", Ok(0)),
            ("4096", Ok(4096)),
            ("256KiB", Ok(256 << 10)),
            ("1 MiB", Ok(1 << 20)),
            ("3GiB", Ok(3 << 30)),
            ("", Err(())),
            ("MiB", Err(())),
            ("1MB", Err(())),
            ("-1", Err(())),
            ("99999999999999GiB", Err(())),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).map_err(|_| ()), expected, "{text}");
        }
    }
}
