//! What the papers must not forget: every reason, every command, every file that they point to.

use std::{fs, path::Path, process::Command};

use nat_common::{counter::Counter, reason::Reason};
use nat_tests::requirements;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PAPERS: [&str; 7] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "docs/ftp.md",
    "docs/operate.md",
    "docs/packet-path.md",
    "docs/rfc.md",
];

fn paper(name: &str) -> String {
    let path = Path::new(ROOT).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

#[test]
fn the_table_of_reasons_is_that_of_the_code() {
    let mut table = "| reason | what it means | what to do |\n|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let (name, meaning, advice) = (reason.name(), reason.meaning().trim(), reason.advice());
        table += &format!("| `{name}` | {meaning} | {advice} |\n");
    }
    assert!(
        paper("docs/operate.md").contains(&table),
        "docs/operate.md must have this table:\n{table}"
    );
}

#[test]
fn every_counter_is_in_the_page_of_the_packet_path() {
    let page = paper("docs/packet-path.md");
    for counter in Counter::ALL {
        let name = counter.name();
        assert!(page.contains(&format!("`{name}`")), "docs/packet-path.md lacks `{name}`");
    }
}

#[test]
fn every_exit_status_is_in_the_manual() {
    let page = paper("docs/operate.md");
    for status in 0..=6 {
        assert!(page.contains(&format!("\n| {status} | ")), "docs/operate.md lacks {status}");
    }
}

#[test]
fn every_command_is_in_the_manual() {
    let binary = requirements::binary();
    if !binary.is_file() {
        eprintln!("SKIPPED papers: missing {} (cargo xtask build)", binary.display());
        return;
    }
    let page = paper("docs/operate.md") + &paper("README.md");
    let commands = commands(&binary, &[]);
    assert!(commands.len() > 10, "the help is not read as it is written: {commands:?}");
    for command in commands {
        assert!(
            page.contains(&format!("`{command}")),
            "README.md and docs/operate.md lack `{command}`"
        );
    }
}

/// The commands below `words` that do something, by the help.
fn commands(binary: &Path, words: &[&str]) -> Vec<String> {
    let output = Command::new(binary).args(words).arg("--help").output().expect("start nat-ctl");
    let help = String::from_utf8(output.stdout).expect("help in UTF-8");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect::<Vec<_>>();
    let mut found = Vec::new();
    for name in names {
        let below = commands(binary, &[words, &[name]].concat());
        if below.is_empty() {
            found.push([words, &[name]].concat().join(" "));
        }
        found.extend(below);
    }
    found
}

#[test]
fn every_link_leads_to_a_file() {
    for name in PAPERS {
        let folder = Path::new(ROOT).join(name);
        let folder = folder.parent().expect("a folder");
        let text = paper(name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(folder.join(file).exists(), "{name} points to {link}");
            }
        }
    }
}

#[test]
fn every_source_file_that_is_named_exists() {
    let crates = ["", "nat-common/src", "nat-ebpf/src", "nat-ctl/src", "tests", "tests/src"];
    for name in ["ARCHITECTURE.md", "docs/packet-path.md", "docs/operate.md"] {
        for word in paper(name).split('`').skip(1).step_by(2) {
            let is_path = word.ends_with(".rs") && !word.contains(' ');
            let exists = |place: &&str| Path::new(ROOT).join(place).join(word).exists();
            assert!(
                !is_path || crates.iter().any(exists) || below(Path::new(ROOT), word),
                "{name} names {word}"
            );
        }
    }
}

/// Whether a file of that path lies anywhere in the source folders.
fn below(root: &Path, path: &str) -> bool {
    ["nat-common", "nat-ebpf", "nat-ctl", "tests", "xtask"]
        .iter()
        .any(|name| search(&root.join(name), path))
}

fn search(folder: &Path, path: &str) -> bool {
    folder.join(path).is_file()
        || fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.path().is_dir() && search(&entry.path(), path))
        })
}
