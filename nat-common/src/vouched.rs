//! Up to where a direction of a control connection is resolved: the word by which a harmless line
//! passes without the agent.
//!
//! While a word vouches for a number X, it holds that
//!
//! - every byte before X has been read by the agent, or stands in the ring buffer before every record
//!   that is reserved from now on, without a gap;
//! - X is where a line starts;
//! - every line before X that the agent may rewrite has been, with its corrections in force.
//!
//! The agent alone makes a word vouch, and takes it back (with zero), by compare-and-swap. The data
//! plane moves it from X to Y, by compare-and-swap, once a copy of the harmless line from X to Y is in
//! the ring. Where that swap fails somebody else has moved the word, and the line may pass all the
//! same: it was reserved behind all that came before it.

/// A word of [`crate::session::Session::vouched`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vouched(u64);

/// Tells number 0 from none.
const SOME: u64 = 1 << 32;

impl Vouched {
    /// Nothing is resolved, or nobody says so.
    pub const NONE: Self = Self(0);

    /// Every byte before `number` is resolved, and a line starts there.
    #[inline(always)]
    pub const fn up_to(number: u32) -> Self {
        Self(SOME | number as u64)
    }

    /// As it lies in the record.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// What lies in a record.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The number, in the sender's space.
    #[inline(always)]
    pub const fn number(self) -> Option<u32> {
        if self.0 & SOME == 0 { None } else { Some(self.0 as u32) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_told_from_none() {
        for number in [0, 1, u32::MAX] {
            let vouched = Vouched::up_to(number);
            assert_eq!(vouched.number(), Some(number));
            assert_eq!(Vouched::from_word(vouched.word()), vouched);
        }
        assert_eq!((Vouched::NONE.number(), Vouched::NONE.word()), (None, 0));
    }
}
