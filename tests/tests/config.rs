//! Another configuration while the gateway runs: planned, applied, on trial, taken back.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, LAN_DEVICE, Lab, WAN, WAN_DEVICE},
    netns::Lifetime,
    requirements, traffic, wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(15);

/// A configuration with forwards of udp ports to the host inside.
fn text(forwards: &[(&str, u16)], more: &str) -> String {
    let mut text = format!(
        "[gateway]\nwan = [\"{WAN_DEVICE}\"]\nlan = [\"{LAN_DEVICE}\"]\nmode = \"tc\"\n{more}"
    );
    for (name, port) in forwards {
        text += &format!(
            "[[forward]]\nname = \"{name}\"\nprotocol = \"udp\"\npublic = \"{WAN}:{port}\"\n\
             to = \"{INSIDE}:{port}\"\n"
        );
    }
    text
}

struct Bench<'lab> {
    gateway: NatCtl<'lab>,
    /// The agent's own file.
    own: PathBuf,
    other: PathBuf,
}

impl<'lab> Bench<'lab> {
    fn start(lab: &'lab Lab, binary: &Path) -> Self {
        let mut gateway = NatCtl::prepare(lab, Mode::Tc, binary).expect("a gateway");
        let folder = gateway.instance().rsplit('-').next().expect("a folder");
        let own = lab.root().join(folder).join("nat.toml");
        assert!(own.is_file(), "{}", own.display());
        let other = lab.folder("config").expect("a folder").join("other.toml");
        fs::write(&own, text(&[("a", 7001), ("b", 7002)], "")).expect("a file");
        gateway.run(&[]).expect("an agent");
        Self { gateway, own, other }
    }

    fn call(&self, line: &str, status: i32) -> String {
        let other = self.other.display().to_string();
        let words: Vec<_> = line
            .split_whitespace()
            .map(|word| if word == "FILE" { &other } else { word })
            .collect();
        let finished = self.gateway.call(&words).expect("a call");
        assert_eq!(finished.status.code(), Some(status), "{line}: {finished:?}");
        finished.stdout + &finished.stderr
    }

    /// Names of the forwards in force.
    fn rules(&self) -> Vec<String> {
        let rules = self.gateway.json(&["forward", "list"]).expect("rules");
        let name = |rule: &Value| rule["name"].as_str().unwrap_or_default().to_owned();
        rules.as_array().expect("a list").iter().map(name).collect()
    }

    fn forwards_in_map(&self) -> usize {
        let mut bpftool = std::process::Command::new("bpftool");
        bpftool.args(["-j", "map", "dump", "pinned"]).arg(self.gateway.pins().join("forwards"));
        let dump = nat_tests::process::must(&mut bpftool).expect("a dump");
        let value: Value = serde_json::from_str(&dump).expect("JSON");
        value.as_array().map_or(0, Vec::len)
    }
}

#[test]
fn a_plan_says_what_changes_and_apply_does_it() {
    let Some(binary) = requirements::met_with_binary("config plan") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let bench = Bench::start(&lab, &binary);
    bench
        .call(&format!("forward add --name c --protocol udp --public {WAN}:7003 --to {INSIDE}"), 0);
    // A flow by a rule that is to go.
    let inside = traffic::udp_socket(&lab.inside, 7002).expect("a socket");
    let outside = traffic::udp_socket(&lab.outside, 0).expect("a socket");
    outside.send_to(b"question", (WAN, 7002)).expect("a datagram");
    let mut buffer = [0; 100];
    let (_, peer) = inside.recv_from(&mut buffer).expect("a datagram");

    let same = text(&[("a", 7001), ("b", 7002)], "");
    fs::write(&bench.other, &same).expect("a file");
    assert_eq!(bench.call("config plan FILE", 0), "nothing changes\n");
    let then = text(&[("a", 8001), ("d", 7004)], "[limits]\nflows = 4096\n");
    fs::write(&bench.other, &then).expect("a file");
    let other = bench.other.display().to_string();
    let plan = bench.gateway.json(&["config", "plan", &other]).expect("a plan");
    let change = |change: &str, name: &str, flows| json!({"change": change, "kind": "forward", "name": name, "flows": flows});
    assert_eq!(
        plan["rules"],
        json!([change("replace", "a", 0), change("remove", "b", 1), change("add", "d", 0)])
    );
    assert_eq!(plan["next_start"], json!(["limits"]));
    assert_eq!(bench.rules(), ["a", "b", "c"], "a plan changes nothing");

    let said = bench.call("config apply FILE", 0);
    assert!(
        said.contains("remove   forward 'b': 1 flow by it goes on") && said.contains("in force")
    );
    assert_eq!(bench.rules(), ["a", "d", "c"], "the rule of the command line stays");
    assert_eq!(bench.forwards_in_map(), 3);
    assert_eq!(fs::read_to_string(&bench.own).expect("a file"), then);
    inside.send_to(b"answer", peer).expect("an answer");
    outside.recv_from(&mut buffer).expect("the flow goes on");

    // One that clashes with the rule of the command line, and one with a mistake, change nothing.
    fs::write(&bench.other, text(&[("e", 7003)], "")).expect("a file");
    assert!(bench.call("config plan FILE", 4).contains("'c'"));
    assert!(bench.call("config apply FILE", 4).contains("'c'"));
    fs::write(&bench.other, "[[forward]]\nname = 1\n").expect("a file");
    assert!(bench.call("config apply FILE", 1).contains("line 2"));
    assert_eq!(
        (bench.rules(), bench.forwards_in_map()),
        (vec!["a".into(), "d".into(), "c".into()], 3)
    );

    bench.call("config rollback", 0);
    assert_eq!(bench.rules(), ["a", "b", "c"]);
    assert_eq!(fs::read_to_string(&bench.own).expect("a file"), same);
    bench.gateway.stop().expect("an end");
}

#[test]
fn what_nobody_confirms_is_taken_back() {
    let Some(binary) = requirements::met_with_binary("config apply --confirm") else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut bench = Bench::start(&lab, &binary);
    let before = fs::read_to_string(&bench.own).expect("a file");
    let own = |bench: &Bench<'_>| fs::read_to_string(&bench.own).expect("a file");
    bench.call("config confirm", 3);
    bench.call("config rollback", 3);
    let then = text(&[("z", 9000)], "");
    fs::write(&bench.other, &then).expect("a file");

    bench.call("config apply FILE --confirm 2", 0);
    assert_eq!((bench.rules(), own(&bench)), (vec!["z".to_owned()], before.clone()));
    bench.call("config apply FILE", 4);
    wait::until_true(LIMIT, "the rules of before", || Ok(bench.rules() == ["a", "b"]))
        .expect("the rules of before");
    assert_eq!((bench.forwards_in_map(), own(&bench)), (2, before.clone()));
    assert!(bench.gateway.output().contains("nobody has confirmed"), "{}", bench.gateway.output());
    bench.call("config confirm", 3);

    bench.call("config apply FILE --confirm 600", 0);
    bench.call("config rollback", 0);
    assert_eq!((bench.rules(), own(&bench)), (vec!["a".into(), "b".into()], before.clone()));

    // An agent that dies leaves the file of before to its successor.
    bench.call("config apply FILE --confirm 600", 0);
    bench.gateway.end(Signal::SIGKILL).expect("a kill");
    bench.gateway.run(&[]).expect("a successor");
    assert_eq!((bench.rules(), own(&bench)), (vec!["a".into(), "b".into()], before));

    bench.call("config apply FILE --confirm 600", 0);
    bench.call("config confirm", 0);
    assert_eq!((bench.rules(), own(&bench)), (vec!["z".to_owned()], then));
    bench.gateway.stop().expect("an end");
}
