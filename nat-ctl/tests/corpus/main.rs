//! The recorded dialogues, through the engine.
//!
//! Every case passes exactly, or it is in [`NOT_YET`] and fails: the list cannot grow stale.

mod case;
mod replay;

use case::Case;

/// Cases that are the work of a later issue, and why.
const NOT_YET: [(&str, &str); 3] = [("c134", "NAT66"), ("c136", "NAT66"), ("c137", "NAT66")];

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/ftp-corpus.jsonl");
    let text = std::fs::read_to_string(path).expect("the corpus is part of the repository");
    text.lines().filter_map(case::parse).collect()
}

#[test]
fn every_recorded_dialogue_gets_what_it_wants() {
    let cases = cases();
    let mut failures = Vec::new();
    let (mut passed, mut not_yet) = (0, 0);
    for case in &cases {
        let listed = NOT_YET.iter().find(|(id, _)| *id == case.id);
        match (replay::check(case), listed) {
            (Ok(()), None) => passed += 1,
            (Err(_), Some(_)) => not_yet += 1,
            (Err(why), None) => failures.push(format!("{}: {why}", case.id)),
            (Ok(()), Some((id, reason))) => {
                failures.push(format!("{id} passes: it is no longer to be listed ({reason})"));
            }
        }
    }
    println!("{} dialogues: {passed} pass, {not_yet} are not yet covered:", cases.len());
    for (id, reason) in NOT_YET {
        println!("  {id}: {reason}");
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(passed + not_yet, 147, "the corpus has lost or gained cases");
}

/// A successor knows what its predecessor had made of every byte: at each point of each dialogue the
/// state goes through its bytes, and the outcome is the same.
#[test]
fn a_successor_gives_the_same_output_at_every_point_of_every_dialogue() {
    for case in cases().iter().filter(|case| case.flow().is_some()) {
        let whole = replay::commands(case, replay::Agents::One);
        for point in 0..case.segments.len() {
            let changed = replay::commands(case, replay::Agents::ChangeBefore(point));
            assert_eq!(whole, changed, "{} from segment {point} on", case.id);
        }
    }
}

/// The receiver gets the same stream however it is cut: every two-byte neighbourhood of a line, and
/// a byte at a time, with everything sent twice.
#[test]
fn no_cut_changes_what_the_receiver_can_use() {
    let mut cuts = 0;
    for case in cases().iter().filter(|case| case.flow().is_some()) {
        if NOT_YET.iter().any(|(id, _)| *id == case.id) {
            continue;
        }
        cuts += replay::check_cuts(case).unwrap_or_else(|why| panic!("{}: {why}", case.id));
    }
    println!("{cuts} cuts");
}
