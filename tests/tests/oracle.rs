//! The lab itself is known good: Linux's own NAT passes every case that it is known to pass, and
//! fails the one that it is known to fail.

use nat_tests::{
    gateway,
    lab::Lab,
    link::Offloads,
    matrix::{self, case::Stated},
    requirements, server,
};

fn verdicts_agree(offloads: Offloads, servers: &[server::Kind], filter: &str) {
    let lab = Lab::new().expect("a lab");
    lab.set_offloads(offloads).expect("offloads set");
    let cases = matrix::case::plan(gateway::Kind::Linux, servers, filter);
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
        let servers = matrix::servers().expect("two servers");
        verdicts_agree(Offloads::On, &servers, "");
    }
}

#[test]
fn linux_passes_the_ordinary_cases_without_offloads() {
    if requirements::met("oracle without offloads") {
        let servers = matrix::servers().expect("two servers");
        verdicts_agree(Offloads::Off, &servers[..1], "curl");
    }
}

#[test]
fn the_servers_that_the_main_job_leaves_out_work_in_the_lab_too() {
    if requirements::met("oracle with other servers") {
        let taken = matrix::servers().expect("two servers");
        let others = server::Kind::ALL
            .into_iter()
            .filter(|kind| kind.is_installed() && !taken.contains(kind))
            .collect::<Vec<_>>();
        println!("other servers here: {others:?}");
        verdicts_agree(Offloads::On, &others, "curl");
    }
}
