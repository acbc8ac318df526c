//! What a measure gives: one number of one contender in one round.

use serde::Serialize;

/// One measured value. Samples of one `measure`, `case` and `round` are pairs: they were taken one
/// after the other, so that their ratio says more than either of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// What was measured; a key that stays the same over time, such as `gateway-cost`.
    pub measure: &'static str,
    /// Under which circumstances, such as `1M uniform`.
    pub case: String,
    /// Whose value it is: the name of a [`super::contender::Contender`].
    pub contender: String,
    /// Round of the schedule, from 0.
    pub round: u32,
    /// The value, in `unit`.
    pub value: f64,
    /// Unit of `value`, such as `ns/packet`.
    pub unit: &'static str,
}
