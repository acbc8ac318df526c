//! Forms of announcing that few clients use.

use super::{super::*, Lab, expected, outside, refusals};

#[test]
fn the_reply_to_every_passive_command_opens_what_it_names() {
    for (command, reply, left) in [
        ("LPSV", "228 long (4,4,10,0,2,2,2,9,9)", "228 long (4,4,203,0,113,1,2,9,9)"),
        ("CPSV", "227 both (10,0,2,2,9,9)", "227 both (203,0,113,1,9,9)"),
        ("SPSV", "227 one (10,0,2,2,9,9)", "227 one (203,0,113,1,9,9)"),
    ] {
        let mut lab = Lab::new(Side::Server);
        lab.client(&format!("{command}\r\n"));
        let commands = lab.server(&format!("{reply}\r\n"));
        assert_eq!(expected(&commands), ["203.0.113.20 > 203.0.113.1:2313"], "{command}");
        assert_eq!(outside(&commands), format!("{left}\r\n"));
        // It has answered: another one is nobody's.
        assert_eq!(refusals(&lab.server(&format!("{reply}\r\n"))), [Refusal::Unsolicited]);
    }
}

#[test]
fn a_reply_to_spsv_that_names_a_port_alone_passes() {
    let mut lab = Lab::new(Side::Server);
    lab.client("SPSV\r\n");
    let commands = lab.server("227 50000\r\n");
    assert_eq!(outside(&commands), "227 50000\r\n");
    assert_eq!((expected(&commands), refusals(&commands)), (vec![], vec![]));
}

#[test]
fn a_long_port_command_is_rewritten() {
    let mut lab = Lab::new(Side::Client);
    let commands = lab.client("LPRT 4,4,10,0,1,2,2,9,9\r\n");
    assert_eq!(expected(&commands), ["203.0.113.10 > 203.0.113.1:2313"]);
    assert_eq!(outside(&commands), "LPRT 4,4,203,0,113,1,2,9,9\r\n");
}

#[test]
fn epsv_all_is_a_promise_and_asks_for_nothing() {
    let mut lab = Lab::new(Side::Server);
    lab.client("EPSV ALL\r\n");
    let commands = lab.server("229 here (|||2313|)\r\n");
    assert_eq!((expected(&commands), refusals(&commands)), (vec![], vec![Refusal::Unsolicited]));
}

#[test]
fn what_only_looks_like_an_address_is_nobodys_to_change() {
    let mut lab = Lab::new(Side::Client);
    for line in [
        "HOST 10.0.1.2\r\n",
        "NLST 10,0,1,2,9,9\r\n",
        "MKD PORT 10,0,1,2,9,9\r\n",
        "SITE EPRT |1|10.0.1.2|5000|\r\n",
    ] {
        let commands = lab.client(line);
        assert_eq!((outside(&commands).as_str(), expected(&commands)), (line, vec![]));
        lab.server("200 ok\r\n");
    }
}
