//! The clock of the data plane.

/// Seconds of a clock that counts nanoseconds; some milliseconds late, and never early.
///
/// A division by a constant is a real division to the kernel's compiler, some 30 cycles on every
/// packet. This multiplies by 2^22 / 10^9, as a fraction of 2^34 that is rounded down: it is four
/// milliseconds late at first and a third of a second after 18 years, when the product no longer fits.
#[inline(always)]
pub const fn seconds(nanoseconds: u64) -> u32 {
    ((nanoseconds >> 22).wrapping_mul(72_057_594) >> 34) as u32
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn seconds_are_never_early_and_hardly_late() {
        const DAY: u64 = 86_400;
        for second in [0, 1, 2, 3, 59, 60, DAY, 30 * DAY, 365 * DAY, 10 * 365 * DAY] {
            for within in [0, 1, 499_999_999, 999_999_999] {
                let moment = second * 1_000_000_000 + within;
                assert!(u64::from(seconds(moment)) <= second, "{moment} is early");
                let late = u64::from(seconds(moment + 5_000_000 + second / 1_000 * 600_000));
                assert!(late >= second, "{moment} is late");
            }
        }
    }
}
