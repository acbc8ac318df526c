//! The binary as scripts see it: exit statuses, one line on stderr, JSON on stdout.
//!
//! Nothing here needs root or an agent.

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_nat-ctl");

/// A configuration in a folder of its own, and an instance that nobody runs.
struct Bench {
    folder: PathBuf,
    instance: String,
}

impl Bench {
    fn new(name: &str) -> Self {
        let instance = format!("none-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(&instance);
        fs::create_dir_all(&folder).expect("folder");
        let bench = Self { folder, instance };
        bench.configure("");
        bench
    }

    fn configure(&self, text: &str) {
        fs::write(self.config(), text).expect("configuration");
    }

    fn config(&self) -> PathBuf {
        self.folder.join("nat.toml")
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(BINARY);
        command.env("NAT_CTL_INSTANCE", &self.instance).env_remove("NO_COLOR");
        let config = self.config().display().to_string();
        command.args(line.split_whitespace().map(|word| word.replace("FILE", &config)));
        command
    }

    fn output(&self, line: &str) -> Output {
        self.command(line).output().expect("the binary runs")
    }

    /// Ends with this status and says why in one line, on stderr alone.
    fn fails(&self, status: i32, line: &str) -> String {
        let output = self.output(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{line}: {said}");
        assert!(said.starts_with("nat-ctl: ") && said.lines().count() == 1, "{line}: {said}");
        assert!(output.stdout.is_empty(), "{line}");
        said
    }

    fn succeeds(&self, line: &str) -> String {
        let output = self.output(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.succeeds(line)).expect("JSON")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const FTP: &str = "forward add --name ftp --service ftp --public 203.0.113.10 --to 192.168.1.10";

#[test]
fn wrong_usage_is_2() {
    let bench = Bench::new("usage");
    for line in [
        "forward add --name a --protocol tcp --public 203.0.113.1:80 --to 10.0.0.999",
        "forward add --name a --protocol tcp --public 203.0.113.1:80-70 --to 10.0.0.1",
        "forward add --name a --protocol tcp --public 203.0.113.1:80-81 --to 10.0.0.1:80",
        "forward add --name a --protocol icmp --public 203.0.113.1 --to 10.0.0.1",
        "forward add --name a --public 203.0.113.1:80 --to 10.0.0.1",
        "forward add --name a --service ftp --protocol tcp --public 203.0.113.1 --to 10.0.0.1",
        "forward add --name a --protocol tcp --public [2001:db8::1]:80 --to 10.0.0.1",
        "forward add --name a/b --service ftp --public 203.0.113.1 --to 10.0.0.1",
        "forward add --name a --service ftp --public 203.0.113.1 --to 10.0.0.1 --allow 1.2.3.4/40",
        "forward add --name a --service ftp --public 203.0.113.1 --to 10.0.0.1 --passive-range 1-2",
        "one-to-one add --name a --public eth0 --to 10.0.0.1",
        "one-to-one add --name a --public 203.0.113.1 --to 10.0.0.1 --inbound icmp:8",
        "flows list --proto quic",
        "flows list --sport 70000",
        "status -o yaml",
        "--instance ../../etc status",
        "reboot",
    ] {
        bench.fails(2, line);
    }
    assert_eq!(bench.output("").status.code(), Some(2));
}

#[test]
fn run_is_refused_before_anything_is_touched() {
    let bench = Bench::new("run");
    bench.fails(2, "run");
    bench.fails(2, "run --wan lo");
    let said = bench.fails(2, "run --wan if-a if-a --lan if-b");
    assert!(said.contains("'if-a' is named twice as wan"), "{said}");
    bench.fails(3, "run --wan if-a --lan if-b --config FILE.missing");
    bench.configure("[gateway]\nwan = [\"if-a\", \"if-a\"]\nlan = [\"if-b\"]\n");
    bench.fails(2, "run --config FILE");
    bench.configure("[masquerade]\nfiltering = \"sideways\"\n");
    let said = bench.fails(1, "run --config FILE --wan if-a --lan if-b");
    assert!(said.contains("line 2") && said.contains("not a choice"), "{said}");
    let status = if nix::unistd::geteuid().is_root() { 3 } else { 6 };
    bench.fails(status, "run --wan if-a --lan if-b");
}

#[test]
fn missing_permission_is_6() {
    let bench = Bench::new("permission");
    let Some(mut plain) = unprivileged(&bench.command("run --wan if-a --lan if-b")) else {
        return;
    };
    let output = plain.output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The same command without root; `None`, and a word why, where that user can't start it.
fn unprivileged(command: &Command) -> Option<Command> {
    const NOBODY: u32 = 65_534;
    let mut plain = Command::new(command.get_program());
    plain.args(command.get_args());
    if nix::unistd::geteuid().is_root() {
        plain.uid(NOBODY).gid(NOBODY);
    }
    match plain.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => {
            plain.stderr(Stdio::piped());
            Some(plain)
        }
        Err(error) => {
            eprintln!("skipped: another user cannot start {BINARY}: {error}");
            None
        }
    }
}

#[test]
fn what_does_not_exist_is_3() {
    let bench = Bench::new("missing");
    bench.fails(3, "forward show nothing --config FILE");
    bench.fails(3, "forward remove nothing --config FILE");
    bench.fails(3, "one-to-one remove nothing --config FILE");
    bench.fails(3, "drops explain nothing");
    bench.fails(3, "config check FILE.missing");
}

#[test]
fn a_clash_is_4_and_names_the_other_rule() {
    let bench = Bench::new("clash");
    bench.succeeds(&format!("{FTP} --config FILE"));
    for line in [
        "forward add --name b --protocol tcp --public 203.0.113.10:20-30 --to 192.168.1.11",
        "one-to-one add --name b --public 203.0.113.10 --to 192.168.1.11",
        FTP,
    ] {
        let said = bench.fails(4, &format!("{line} --config FILE"));
        assert!(said.contains("rule 'ftp'"), "{said}");
    }
    assert_eq!(bench.json("forward list --config FILE -o json").as_array().map(Vec::len), Some(1));
}

#[test]
fn without_an_agent_state_is_5() {
    let bench = Bench::new("agent");
    for line in [
        "status",
        "flows list",
        "flows count",
        "flows delete --proto tcp",
        "expectations list -o json",
        "ftp sessions",
        "drops",
    ] {
        let said = bench.fails(5, line);
        assert!(said.contains(&bench.instance), "{said}");
    }
    bench.fails(5, &format!("{FTP} --runtime"));
}

#[test]
fn rules_are_kept_beside_the_configuration_and_a_note_says_so() {
    let bench = Bench::new("kept");
    let output = bench.output(&format!("{FTP} --allow 198.51.100.0/24,192.0.2.7 --config FILE"));
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && output.stdout.is_empty(), "{note}");
    assert!(note.starts_with("note: ") && note.lines().count() == 1, "{note}");
    assert!(note.contains("nat.rules.json"), "{note}");
    bench.succeeds(
        "one-to-one add --name mail --public 203.0.113.11 --to 192.168.1.11 --inbound tcp:25 \
         --inbound icmp --inbound tcp:20-21@198.51.100.0/24,192.0.2.0/24 --config FILE",
    );

    let forwards = bench.json("forward list --config FILE -o json");
    let forward = json!({
        "version": 1, "kind": "forward", "name": "ftp", "protocol": "tcp",
        "public": "203.0.113.10", "public_ports": {"first": 21, "last": 21},
        "to": "192.168.1.10", "to_ports": {"first": 21, "last": 21},
        "allow": ["198.51.100.0/24", "192.0.2.7/32"], "alg": "ftp", "comment": null,
        "strict": null, "passive_range": null, "uplink": null,
        "origin": "command", "number": forwards[0]["number"],
    });
    assert_eq!(forwards, json!([forward]));
    let line = bench.succeeds("forward show ftp --config FILE -o jsonl");
    assert_eq!(line.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), forward);
    let hosts = bench.json("one-to-one list --config FILE -o json");
    assert_eq!(hosts[0]["inbound"].as_array().map(Vec::len), Some(3));

    let table = bench.succeeds("one-to-one list --config FILE");
    assert!(table.contains("tcp:20-21@198.51.100.0/24,192.0.2.0/24"), "{table}");
    assert!(!table.contains('\x1b'), "no colour into a pipe");
    assert!(bench.succeeds("forward list --config FILE --color always").contains('\x1b'));

    bench.succeeds("one-to-one remove mail --config FILE");
    assert_eq!(bench.json("one-to-one list --config FILE -o json"), json!([]));
    assert_eq!(bench.succeeds("one-to-one list --config FILE -o jsonl"), "");
}

#[test]
fn rules_of_the_configuration_are_listed_and_changed_there() {
    let bench = Bench::new("file");
    bench.configure(
        "[[forward]]\nname = \"web\"\nprotocol = \"tcp\"\npublic = \"203.0.113.10:80\"\n\
         to = \"192.168.1.10\"\n",
    );
    assert_eq!(bench.json("forward list --config FILE -o json")[0]["origin"], "file");
    let said = bench.fails(4, "forward remove web --config FILE");
    assert!(said.contains("configuration"), "{said}");
    bench.fails(
        4,
        "forward add --name x --protocol tcp --public 203.0.113.10:80 --to 10.0.0.1 --config FILE",
    );
    assert_eq!(bench.succeeds("config check FILE").lines().count(), 1);
    bench.configure("[gateway]\nwam = [\"eth0\"]\n");
    let said = bench.fails(1, "config check FILE");
    assert!(said.contains("line 2, column 1") && said.contains("`wan`"), "{said}");
}

#[test]
fn a_reason_is_explained_without_an_agent() {
    let bench = Bench::new("explain");
    let explained = bench.json("drops explain not-allowed -o json");
    assert_eq!((&explained["version"], &explained["reason"]), (&json!(1), &json!("not-allowed")));
    assert!(explained["advice"].as_str().is_some_and(|text| text.contains("--allow")));
    assert!(bench.succeeds("drops explain unsolicited").contains("meaning"));
}

#[test]
fn help_and_version_are_no_error() {
    let bench = Bench::new("help");
    for line in ["--help", "-h", "--version", "help", "forward --help", "forward add --help"] {
        let output = bench.output(line);
        assert!(output.status.success() && output.stderr.is_empty(), "{line}");
        assert!(!output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let bench = Bench::new("pipe");
    // More than a pipe holds, so that the writer meets the closed end.
    let rule = |n: usize| {
        format!(
            "[[forward]]\nname = \"rule-{n}\"\nprotocol = \"tcp\"\npublic = \"203.0.113.10:{}\"\n\
             to = \"192.168.1.10\"\n",
            1000 + n
        )
    };
    bench.configure(&(0..1500).map(rule).collect::<String>());
    for line in ["forward list --config FILE", "forward list --config FILE -o jsonl"] {
        let mut child = bench
            .command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().expect("stderr").read_to_string(&mut said).expect("text");
        let status = child.wait().expect("an end");
        assert!(status.success() && said.is_empty(), "{line}: {status}: {said}");
    }
}

#[test]
fn the_state_file_is_replaced_as_a_whole() {
    let bench = Bench::new("atomic");
    let kept = bench.folder.join("nat.rules.json");
    bench.succeeds(&format!("{FTP} --config FILE"));
    // Several commands at once: each sees the rules of those before it.
    let children: Vec<_> = (0..8)
        .map(|n| {
            let line = format!(
                "forward add --name r{n} --protocol udp --public 203.0.113.10:{} --to 10.0.0.1 \
                 --config FILE",
                2000 + n
            );
            bench.command(&line).stderr(Stdio::null()).spawn().expect("the binary runs")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("an end").success());
    }
    let value: Value = serde_json::from_slice(&fs::read(&kept).expect("file")).expect("JSON");
    assert_eq!((&value["version"], value["rules"].as_array().map(Vec::len)), (&json!(1), Some(9)));
    let files = |folder: &Path| fs::read_dir(folder).expect("folder").count();
    assert_eq!(files(&bench.folder), 2, "nothing temporary is left");

    fs::write(&kept, "{\"version\":1,\"rules\":[{\"kind\":\"forward\"}]}").expect("write");
    let said = bench.fails(1, "forward list --config FILE");
    assert!(said.contains("nat.rules.json"), "{said}");
}

#[test]
fn shells_and_readers_know_every_command() {
    let bench = Bench::new("papers");
    for shell in ["bash", "zsh", "fish"] {
        let text = bench.succeeds(&format!("completions {shell}"));
        for word in ["one-to-one", "expectations", "--passive-range", "doctor"] {
            // Fish writes an option without its dashes.
            assert!(text.contains(word.trim_start_matches('-')), "{shell} lacks {word}");
        }
    }
    bench.fails(2, "completions nosuchshell");
    let page = bench.succeeds("man");
    assert!(page.contains(".TH nat-ctl 1") && page.contains("doctor"), "{page}");
    let page = bench.succeeds("man forward add");
    assert!(page.contains("passive\\-range"), "{page}");
    bench.fails(3, "man forward nosuch");
    let folder = bench.folder.join("man");
    bench.succeeds(&format!("man --to {}", folder.display()));
    let pages: Vec<_> = fs::read_dir(&folder).expect("folder").flatten().collect();
    assert!(pages.len() > 25, "{}", pages.len());
    for page in ["nat-ctl.1", "nat-ctl-flows-watch.1", "nat-ctl-one-to-one-add.1"] {
        assert!(folder.join(page).is_file(), "{page}");
    }
}

#[test]
fn explain_and_watch_are_refused_where_they_are_written_wrong() {
    let bench = Bench::new("explain");
    for line in [
        "explain --protocol tcp 10.0.0.1:1",
        "explain --protocol quic 10.0.0.1:1 10.0.0.2:2",
        "explain --protocol tcp 10.0.0.1 10.0.0.2:2",
        "explain --protocol tcp 10.0.0.1:x 10.0.0.2:2",
        "flows watch --every 0",
        "flows watch --every soon",
        "doctor",
        "run --wan if-a --lan if-b --metrics nowhere",
    ] {
        bench.fails(2, line);
    }
    for line in [
        "explain --protocol icmp 10.0.0.1 10.0.0.2",
        "flows watch",
        "expectations watch",
        "drops --watch",
        "metrics",
    ] {
        bench.fails(5, line);
    }
}
