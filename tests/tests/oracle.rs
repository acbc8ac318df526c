//! The lab itself is known good: Linux's own NAT passes every case that it is known to pass, and
//! fails the one that it is known to fail.

use nat_tests::{
    gateway,
    lab::Lab,
    link::Offloads,
    matrix::{self, case::Stated},
    requirements,
};

fn verdicts_agree(offloads: Offloads, filter: &str) {
    let lab = Lab::new().expect("a lab");
    lab.set_offloads(offloads).expect("offloads set");
    let servers = matrix::servers().expect("two servers");
    let cases = matrix::case::plan(gateway::Kind::Linux, &servers, filter);
    let rows = matrix::run_cases(&lab, gateway::Kind::Linux, &cases, "".as_ref()).expect("a run");
    assert_eq!(rows.len(), cases.len());
    for row in rows {
        // The helper takes the public address in a 227 for a third host and opens nothing.
        let known_to_fail = row.case.setup.stated == Stated::Public;
        assert_eq!(row.outcome.is_err(), known_to_fail, "{row}");
    }
}

#[test]
fn linux_passes_the_ordinary_cases_and_fails_where_the_server_states_its_public_address() {
    if requirements::met("oracle with offloads") {
        verdicts_agree(Offloads::On, "");
    }
}

#[test]
fn linux_passes_the_ordinary_cases_without_offloads() {
    if requirements::met("oracle without offloads") {
        verdicts_agree(Offloads::Off, "vsftpd curl");
    }
}
