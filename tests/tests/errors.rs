//! Mistakes: one clear line, the exit status that scripts rely on, and nothing left attached.

use std::{fs, path::Path, process::Command, time::Duration};

use nat_tests::{
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, LAN_DEVICE, Lab, WAN, WAN_DEVICE},
    process::{self, Finished},
    requirements,
};

const ERROR: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;
const NOT_RUNNING: i32 = 5;
const REFUSED: i32 = 6;

const LIMIT: Duration = Duration::from_secs(15);

fn small_lab() -> Lab {
    Lab::with(nat_tests::netns::Lifetime::Run, 1000).expect("a lab")
}

fn run(command: &mut Command) -> Finished {
    process::run(command, LIMIT).expect("a command that ends by itself")
}

/// The status, and one line on stderr that names what it is about.
fn complains(finished: &Finished, status: i32, about: &str) {
    let said = finished.stderr.trim();
    assert_eq!(finished.code(), status, "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    assert!(said.contains(about), "`{said}` says nothing about `{about}`");
}

fn nothing_is_left(gateway: &NatCtl<'_>) {
    assert_eq!(gateway.leftovers().expect("a look around"), Vec::<String>::new());
}

#[test]
fn without_root_nothing_is_touched() {
    let Some(binary) = requirements::met_with_binary("no root") else { return };
    let lab = small_lab();
    // Where the binary was built its folder may be closed to others.
    let copy = lab.folder("binary").expect("a folder").join("nat-ctl");
    fs::copy(&binary, &copy).expect("a copy");
    let gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    let mut command = lab.gateway.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(copy);
    command.args(["--instance", gateway.instance(), "run", "--wan", WAN_DEVICE]);
    command.args(["--lan", LAN_DEVICE]);
    complains(&run(&mut command), REFUSED, "root");
    nothing_is_left(&gateway);
}

#[test]
fn interface_that_does_not_exist_is_named() {
    let Some(binary) = requirements::met_with_binary("no such interface") else { return };
    let lab = small_lab();
    let gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    let mut command = gateway.command(&["run", "--wan", "nosuch0", "--lan", LAN_DEVICE]);
    complains(&run(&mut command), NOT_FOUND, "nosuch0");
    nothing_is_left(&gateway);
}

#[test]
fn interface_of_another_instance_is_refused_and_the_other_works_on() {
    let Some(binary) = requirements::met_with_binary("taken interface") else { return };
    let lab = small_lab();
    for mode in [Mode::Tc, Mode::Xdp] {
        let first = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let before = nat_tests::gateway::attached(&lab.gateway).expect("a look around");
        assert!(!before.is_empty());
        let second = NatCtl::prepare(&lab, mode, &binary).expect("a second gateway");
        complains(&run(&mut second.agent_command(&[])), CONFLICT, first.instance());
        assert!(!second.pins().exists(), "the second instance left pins");
        let after = nat_tests::gateway::attached(&lab.gateway).expect("a look around");
        assert_eq!(after, before);
        assert_eq!(first.json(&["status"]).expect("a status")["ready"], true);
        drop(second);
        first.stop().expect("an end");
    }
}

#[test]
fn same_instance_twice_is_refused() {
    let Some(binary) = requirements::met_with_binary("same instance") else { return };
    let lab = small_lab();
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    complains(&run(&mut gateway.agent_command(&[])), CONFLICT, gateway.instance());
    assert_eq!(gateway.json(&["status"]).expect("a status")["ready"], true);
    gateway.stop().expect("an end");
}

#[test]
fn forward_that_clashes_is_refused_with_the_name_of_the_other() {
    let Some(binary) = requirements::met_with_binary("clash of forwards") else { return };
    let lab = small_lab();
    let mut gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let rule = Rule::ForwardFtp { name: "the-first".into(), public: WAN, to: INSIDE };
    gateway.add(&rule).expect("a rule");
    let (public, to) = (WAN.to_string(), INSIDE.to_string());
    let add = |public: &str, to: &str| {
        let words = ["forward", "add", "--name", "second", "--service", "ftp"];
        gateway.call(&[&words[..], &["--public", public, "--to", to]].concat()).expect("a call")
    };
    complains(&add(&public, "10.0.1.3"), CONFLICT, "the-first");
    complains(&add("203.0.113.300", &to), USAGE, "203.0.113.300");
    complains(&add(&public, "10.0.1"), USAGE, "10.0.1");
    let list = gateway.json(&["forward", "list"]).expect("a list").to_string();
    assert!(list.contains("the-first") && !list.contains("second"), "{list}");
    let remove = gateway.call(&["forward", "remove", "never-was"]).expect("a call");
    complains(&remove, NOT_FOUND, "never-was");
    gateway.stop().expect("an end");
}

#[test]
fn one_to_one_on_the_address_that_all_hosts_share_is_refused() {
    let Some(binary) = requirements::met_with_binary("shared address") else { return };
    let lab = small_lab();
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let public = WAN.to_string();
    let words = ["one-to-one", "add", "--name", "all", "--public", &public, "--to", "10.0.1.2"];
    complains(&gateway.call(&words).expect("a call"), CONFLICT, WAN_DEVICE);
    assert_eq!(gateway.json(&["one-to-one", "list"]).expect("a list"), serde_json::json!([]));
    gateway.stop().expect("an end");
}

#[test]
fn commands_to_an_agent_that_is_not_there_say_so() {
    let Some(binary) = requirements::met_with_binary("no agent") else { return };
    let lab = small_lab();
    let gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    for words in [&["status"][..], &["flows", "list"], &["ftp", "sessions"], &["drops"]] {
        let finished = gateway.call(words).expect("a call");
        complains(&finished, NOT_RUNNING, gateway.instance());
    }
}

#[test]
fn malformed_configuration_is_refused_with_its_line() {
    let Some(binary) = requirements::met_with_binary("malformed configuration") else { return };
    let lab = small_lab();
    let gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    for (tables, about) in [
        (
            "[[forward]]\nname = \"ftp\"\nprotocol = \"tcp\"\npublic = \"203.0.113.999:21\"\n\
          to = \"10.0.1.2:21\"\n",
            "203.0.113.999",
        ),
        ("[limits]\nflows = \"many\"\n", "flows"),
        ("[nonsense]\n", "nonsense"),
    ] {
        gateway.configure(tables).expect("a configuration");
        complains(&run(&mut gateway.agent_command(&[])), ERROR, about);
        nothing_is_left(&gateway);
    }
}

#[test]
fn usage_errors_need_no_agent_and_no_root() {
    let Some(binary) = requirements::met_with_binary("usage") else { return };
    let call = |words: &[&str]| run(Command::new(&binary).args(words));
    assert_eq!(call(&["forward", "add", "--name"]).code(), USAGE);
    assert_eq!(call(&["no-such-command"]).code(), USAGE);
    assert!(Path::new(&binary).is_file());
}
