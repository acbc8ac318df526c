//! Numbers for people: bytes and seconds in a few characters.
//!
//! Invariant: the text never claims more than the number says: it rounds down.

/// Bytes in at most four digits and a binary unit, as in `10.4 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10).min(6);
    let unit = 1_u64 << (10 * power);
    let tenths = (count % unit) / (unit / 10).max(1);
    format!("{}.{} {}", count / unit, tenths.min(9), UNITS[power as usize - 1])
}

/// Seconds as the two largest units, as in `2h4m` or `58s`.
pub(super) fn seconds(count: u64) -> String {
    let (days, hours) = (count / 86_400, count / 3600 % 24);
    let (minutes, rest) = (count / 60 % 60, count % 60);
    let pair = |a: u64, unit: char, b: u64, smaller: char| match b {
        0 => format!("{a}{unit}"),
        b => format!("{a}{unit}{b}{smaller}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, minutes) => pair(minutes, 'm', rest, 's'),
        (0, hours, minutes) => pair(hours, 'h', minutes, 'm'),
        (days, hours, _) => pair(days, 'd', hours, 'h'),
    }
}
