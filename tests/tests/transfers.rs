//! Every case of the main job through our gateway, in both hooks, with and without offloads.

use nat_tests::{
    client,
    gateway::{Kind, Mode},
    lab::Lab,
    link::Offloads,
    matrix,
    netns::Lifetime,
    requirements, server,
};

fn all_pass(name: &str, mode: Mode, offloads: Offloads, filter: &str) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    let lab = Lab::new().expect("a lab");
    lab.set_offloads(offloads).expect("offloads set");
    let servers = matrix::servers().expect("two servers");
    let cases = matrix::case::plan(Kind::NatCtl(mode), &servers, filter);
    assert!(!cases.is_empty());
    let rows = matrix::run_cases(&lab, Kind::NatCtl(mode), &cases, &binary).expect("a run");
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    assert_eq!(failed, 0, "{failed} of {} failed:\n{}", rows.len(), matrix::table(&rows));
}

#[test]
fn every_case_passes_in_tc() {
    all_pass("transfers in TC", Mode::Tc, Offloads::On, "");
}

#[test]
fn every_case_passes_in_xdp() {
    all_pass("transfers in XDP", Mode::Xdp, Offloads::On, "");
}

#[test]
fn every_case_passes_in_tc_without_offloads() {
    all_pass("transfers in TC without offloads", Mode::Tc, Offloads::Off, "curl");
}

#[test]
fn every_case_passes_in_xdp_without_offloads() {
    all_pass("transfers in XDP without offloads", Mode::Xdp, Offloads::Off, "curl");
}

#[test]
fn clients_of_the_distribution_get_files_from_a_server_inside() {
    let Some(binary) = requirements::met_with_binary("other clients") else { return };
    let others: Vec<_> = client::Kind::ALL[2..]
        .iter()
        .copied()
        .filter(|client| client::is_installed(*client))
        .collect();
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let kind = Kind::NatCtl(Mode::Tc);
    let servers = [server::Kind::Vsftpd];
    // One command of each: the whole is `cargo xtask matrix`.
    let cases = matrix::large::cases(kind, &servers, &others, "active, server inside, forward");
    let rows = matrix::run_cases(&lab, kind, &cases, &binary).expect("a run");
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    assert_eq!(failed, 0, "{failed} of {} failed:\n{}", rows.len(), matrix::table(&rows));
}
