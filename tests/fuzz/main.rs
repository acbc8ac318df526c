//! Replays the committed corpus of the fuzzer, without the fuzzer. `cargo xtask fuzz` finds more.
#![allow(missing_docs, clippy::unwrap_used)]

mod targets;

use std::{fs, panic, path::Path};

use targets::TARGETS;

/// A corpus is read by people and replayed at each test: it stays small.
const MOST_FILES: usize = 300;
const MOST_BYTES: usize = 2048;

#[test]
fn every_input_of_the_corpus_keeps_the_invariants() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let (mut files, mut failed) = (0, vec![]);
    for target in TARGETS {
        let inputs = fs::read_dir(folder.join(target.name)).expect("each target has a corpus");
        let before = files;
        for input in inputs {
            let path = input.expect("the folder can be read").path();
            let bytes = fs::read(&path).expect("an input can be read");
            assert!(bytes.len() <= MOST_BYTES, "{} is too long", path.display());
            if panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                failed.push(path.display().to_string());
            }
            files += 1;
        }
        println!("{}: {} inputs", target.name, files - before);
        assert!(files > before, "{} has no corpus", target.name);
    }
    assert!(files <= MOST_FILES, "{files} inputs are too many");
    assert!(failed.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn any_short_input_is_taken() {
    for target in TARGETS {
        (target.run)(&[]);
        for byte in 0..=u8::MAX {
            (target.run)(&[byte]);
            (target.run)(&[0, byte, byte]);
        }
    }
}
