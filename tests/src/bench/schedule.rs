//! In which order contenders take their turns: A B C, then C B A.
//!
//! Invariant: in each round every contender has exactly one turn, and over two rounds all of them
//! have the same mean place, so that a drift of the machine hurts none more than the others.

use anyhow::{Context as _, Result};

use super::sample::Sample;
use crate::interrupt;

/// Places in the list of contenders, in the order of their turns in `round`.
pub fn turns(contenders: usize, round: u32) -> impl Iterator<Item = usize> {
    let is_back = round % 2 == 1;
    (0..contenders).map(move |turn| if is_back { contenders - 1 - turn } else { turn })
}

/// Gives each of the `contenders` its turn in each of `rounds` rounds, and collects what `turn`
/// measures. A turn that fails ends the measure; the error says whose turn it was.
pub fn rounds<C>(
    contenders: &mut [C],
    rounds: u32,
    mut turn: impl FnMut(&mut C, u32) -> Result<Vec<Sample>>,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for round in 0..rounds {
        for place in turns(contenders.len(), round) {
            interrupt::check()?;
            let taken = turn(&mut contenders[place], round);
            samples.extend(taken.with_context(|| format!("round {round}, turn of {place}"))?);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_go_forth_and_back() {
        assert_eq!(turns(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(turns(3, 1).collect::<Vec<_>>(), [2, 1, 0]);
        assert_eq!(turns(3, 2).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn every_contender_has_one_turn_a_round() {
        let mut seen = Vec::new();
        rounds(&mut ["a", "b"], 2, |contender, round| {
            seen.push((round, *contender));
            Ok(Vec::new())
        })
        .expect("no turn fails");
        assert_eq!(seen, [(0, "a"), (0, "b"), (1, "b"), (1, "a")]);
    }
}
