//! How much work the verifier has with each program: a budget of a million instructions, of which
//! a later version of the compiler or the path may not eat unseen.
//!
//! `verifier.txt` has the counts by kernel version; `UPDATE_VERIFIER=1` writes those of this one.

use crate::{lab, object::Object};
use std::{env, fs, path::PathBuf};

/// Counts may rise by a tenth: a different patch level of compiler or kernel moves them by a few per
/// cent, a loop that the verifier walks anew by a multiple.
const TOLERANCE: u32 = 10;
/// On any kernel: half of what the verifier gives up at. An older one walks more states than a newer.
const LIMIT: u32 = 500_000;

fn snapshot() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/verifier.txt")
}

/// Major and minor version of the running kernel.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[test]
fn the_verifier_has_no_more_work_than_it_had() {
    lab::run("the_verifier_has_no_more_work_than_it_had", |object| {
        let kernel = kernel();
        let counts = Object::load(&object, 64).verified();
        let text = fs::read_to_string(snapshot()).unwrap_or_default();
        let mut others: Vec<String> = Vec::new();
        let mut known = Vec::new();
        for line in text.lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                [version, name, count] if version == kernel => {
                    known.push((name.to_owned(), count.parse::<u32>().expect("a count")));
                }
                _ => others.push(line.to_owned()),
            }
        }
        for (name, count) in &counts {
            println!("{kernel} {name} {count}");
            assert!(*count < LIMIT, "{name}: {count} verified instructions");
        }
        if env::var_os("UPDATE_VERIFIER").is_some() {
            let own = counts.iter().map(|(name, count)| format!("{kernel} {name} {count}"));
            others.extend(own);
            others.sort_unstable();
            fs::write(snapshot(), others.join("\n") + "\n").expect("the snapshot is written");
        } else if known.is_empty() {
            eprintln!("no counts of kernel {kernel} in verifier.txt: only the limit was checked");
        } else {
            for (name, count) in &counts {
                let before = known.iter().find(|(other, _)| other == name).map(|(_, count)| *count);
                let before = before.unwrap_or_else(|| panic!("{name} is not in verifier.txt"));
                let most = before + before / TOLERANCE;
                assert!(
                    *count <= most,
                    "{name}: {count} verified instructions, {before} before; if that is meant, \
                     run with UPDATE_VERIFIER=1"
                );
            }
        }
    });
}
