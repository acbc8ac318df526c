//! What the command line shows while a transfer is under way.

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, OUTSIDE, WAN},
    process, requirements,
    server::{FILE, Kind, Server, Settings},
    session::{Session, accept, read_part},
};
use serde_json::Value;

/// The elements of a list, wherever the object keeps them.
fn elements(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements.clone(),
        Value::Object(fields) => {
            fields.values().filter_map(Value::as_array).flatten().cloned().collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn flows_expectations_and_sessions_show_what_goes_on() {
    let Some(binary) = requirements::met_with_binary("views") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::new().expect("a lab");
        let folder = lab.folder("server").expect("a folder");
        let settings = Settings::new(Kind::Vsftpd);
        let _server =
            Server::start(&lab.outside, &settings, &lab.payload, &folder).expect("a server");
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let list = |words: &[&str]| elements(&gateway.json(words).expect("JSON"));

        let status = gateway.json(&["status"]).expect("a status");
        assert_eq!((&status["version"], &status["ready"]), (&1.into(), &true.into()), "{status}");

        let mut session = Session::open(&lab.inside, OUTSIDE).expect("a session");
        let listener = session.active().expect("PORT");
        let announced = listener.local_addr().expect("an address").port();
        let expectations = list(&["expectations", "list"]);
        assert_eq!(expectations.len(), 1, "{expectations:?}");
        let expectation = &expectations[0];
        assert_eq!(expectation["src"], OUTSIDE.to_string(), "{expectation}");
        assert_eq!(expectation["dst"], WAN.to_string(), "{expectation}");
        assert_eq!(expectation["to"], INSIDE.to_string(), "{expectation}");
        assert_eq!(expectation["to_port"], announced, "{expectation}");

        session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
        let mut data = accept(&listener).expect("a data connection");
        let first = read_part(&mut data, 100_000).expect("a part of the file");
        assert_eq!(list(&["expectations", "list"]).len(), 0, "it is used up");

        let flows = list(&["flows", "list"]);
        let control = flows.iter().find(|flow| flow["alg"] == "ftp").expect("a control flow");
        assert_eq!(control["original"]["src"], INSIDE.to_string(), "{control}");
        assert_eq!(control["original"]["dport"], 21, "{control}");
        assert_eq!(control["reply"]["dst"], WAN.to_string(), "{control}");
        assert_eq!(control["state"], "established", "{control}");
        let related = flows.iter().find(|flow| !flow["related_to"].is_null()).expect("a data flow");
        assert_eq!(related["original"]["src"], OUTSIDE.to_string(), "{related}");
        assert!(related["original"]["bytes"].as_u64() >= Some(100_000), "{related}");

        let sessions = list(&["ftp", "sessions"]);
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        assert!(sessions[0]["client"].to_string().contains(&INSIDE.to_string()), "{sessions:?}");
        assert!(sessions[0]["server"].to_string().contains(&OUTSIDE.to_string()), "{sessions:?}");
        assert_eq!(sessions[0]["encrypted"], false, "{sessions:?}");

        // Every place of the table would be too much to read: one, and a map that is dumped whole.
        let mut bpftool = lab.gateway.command("bpftool");
        bpftool.args(["map", "lookup", "pinned"]).arg(gateway.pins().join("flows"));
        let place = process::must(bpftool.args(["key", "0", "0", "0", "0"])).expect("a place");
        for field in ["state", "sport", "rewrite", "created", "bytes"] {
            assert!(place.contains(field), "{place}");
        }
        let mut bpftool = lab.gateway.command("bpftool");
        bpftool.args(["map", "dump", "pinned"]).arg(gateway.pins().join("addresses"));
        let dump = process::must(&mut bpftool).expect("a dump");
        assert!(dump.contains("\"key\": [203,0,113,1"), "{}", process::tail(&dump, 500));

        assert_eq!(session.finish_after(first, data).expect("the rest"), lab.payload.sha256);
        gateway.stop().expect("an end");
    }
}
