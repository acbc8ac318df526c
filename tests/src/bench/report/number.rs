//! Numbers as people read them: three digits that mean something, and a letter for the thousands.

/// `value` with three significant digits: `0.97`, `265`, `12.3k`, `1.04M`.
#[must_use]
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 999_500.0 {
        format!("{}M", digits(value / 1e6))
    } else if size >= 9_995.0 {
        format!("{}k", digits(value / 1e3))
    } else {
        digits(value)
    }
}

/// A number of flows or packets on an axis: `1`, `50k`, `4M`.
#[must_use]
pub fn count(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", value / 1e6)
    } else if value >= 1e3 {
        format!("{}k", value / 1e3)
    } else {
        format!("{value}")
    }
}

/// The number that [`count`] prints; nothing where it is none.
#[must_use]
pub fn parse_count(text: &str) -> Option<f64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'M' => (&text[..text.len() - 1], 1e6),
        b'k' => (&text[..text.len() - 1], 1e3),
        _ => (text, 1.0),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    digits.parse::<f64>().ok().map(|number| number * factor)
}

fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_shown_and_rounding_adds_none() {
        let shown = [0.0, 0.9549, 9.996, 26.24, 99.96, 2582.4, 9_996.0, 999_600.0, 0.0123];
        let texts = ["0.00", "0.95", "10.0", "26.2", "100", "2582", "10.0k", "1.00M", "0.012"];
        assert_eq!(shown.map(short), texts);
    }

    #[test]
    fn counts_of_flows_are_read_back() {
        for (value, text) in [(1.0, "1"), (1e3, "1k"), (5e4, "50k"), (1e6, "1M"), (4e6, "4M")] {
            assert_eq!(count(value), text);
            assert_eq!(parse_count(text), Some(value));
        }
        for text in ["", "k", "p50", "passive", "inf"] {
            assert_eq!(parse_count(text), None, "{text}");
        }
    }
}
