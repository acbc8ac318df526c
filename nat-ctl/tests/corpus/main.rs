//! The recorded dialogues, through the engine: every one gets exactly what it wants.

mod case;
mod replay;

use case::Case;

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/ftp-corpus.jsonl");
    let text = std::fs::read_to_string(path).expect("the corpus is part of the repository");
    text.lines().filter_map(case::parse).collect()
}

#[test]
fn every_recorded_dialogue_gets_what_it_wants() {
    let cases = cases();
    let failures: Vec<_> = cases
        .iter()
        .filter_map(|case| replay::check(case).err().map(|why| format!("{}: {why}", case.id)))
        .collect();
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(cases.len(), 147, "the corpus has lost or gained cases");
}

/// A successor knows what its predecessor had made of every byte: at each point of each dialogue the
/// state goes through its bytes, and the outcome is the same.
#[test]
fn a_successor_gives_the_same_output_at_every_point_of_every_dialogue() {
    for case in &cases() {
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
    for case in &cases() {
        cuts += replay::check_cuts(case).unwrap_or_else(|why| panic!("{}: {why}", case.id));
    }
    println!("{cuts} cuts");
}
