//! The large matrix: every server, every client and every command that it has, without a NAT, and in every
//! set-up through our gateway and through Linux's own.
//!
//! Invariant: a cell of the table says what was seen: nothing is left out but what a client has no command
//! for. What does not work without a NAT either is shown, and is no failure of a gateway.

use std::{fmt::Write as _, path::Path, thread};

use anyhow::{Result, anyhow, ensure};

use super::{
    Case, Row, Setup, Site,
    case::{Reach, Stated},
    run_at, run_cases,
};
use crate::{
    chain::Chain,
    client::{self, DataMode, Direction},
    gateway::{Gateway, Kind, Mode},
    interrupt,
    lab::{Lab, WAN},
    netns::Lifetime,
    server,
    two_nats::TwoNats,
};

const MODES: [DataMode; 4] = [DataMode::Port, DataMode::Eprt, DataMode::Pasv, DataMode::Epsv];
const OURS: Kind = Kind::NatCtl(Mode::Tc);
const GATEWAYS: [Kind; 2] = [OURS, Kind::Linux];
/// Bytes of the file.
const SIZE: usize = 100_000;

/// Runs it for what is installed, prints the table, and says whether all that works without a NAT works
/// through ours. The gateways work at the same time, each in labs of its own.
pub fn run(binary: &Path, filter: &str) -> Result<bool> {
    interrupt::catch()?;
    let servers: Vec<_> = server::Kind::ALL.into_iter().filter(|it| it.is_installed()).collect();
    let clients: Vec<_> =
        client::Kind::ALL.into_iter().filter(|it| client::is_installed(*it)).collect();
    let plans = GATEWAYS.map(|gateway| (gateway, cases(gateway, &servers, &clients, filter)));
    ensure!(plans.iter().any(|(_, cases)| !cases.is_empty()), "no case has `{filter}` in its line");
    let wanted: Vec<Case> = plans.iter().flat_map(|(_, cases)| cases.clone()).collect();
    let mut rows = in_labs(Kind::Router, &without_nat(&wanted), binary)?;
    let through = thread::scope(|scope| {
        let runs = plans
            .each_ref()
            .map(|(gateway, cases)| scope.spawn(move || in_labs(*gateway, cases, binary)));
        runs.map(|run| run.join().unwrap_or_else(|_| Err(anyhow!("a run has panicked"))))
    });
    for through in through {
        rows.extend(through?);
    }
    println!("\n{}", markdown(&rows));
    let ours = || rows.iter().filter(|row| row.case.gateway == OURS);
    let [passed, failed] =
        [ours().filter(|row| row.outcome.is_ok()).count(), failures(&rows).len()];
    println!(
        "{passed} of {} work through ours; {failed} of the others work without a NAT",
        ours().count()
    );
    Ok(failed == 0)
}

/// Runs the cases of a gateway, each in the lab that its set-up needs.
fn in_labs(gateway: Kind, cases: &[Case], binary: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let of = |reaches: &[Reach]| -> Vec<Case> {
        cases.iter().filter(|case| reaches.contains(&case.setup.reach)).cloned().collect()
    };
    let direct = of(&[Reach::Direct]);
    if !direct.is_empty() {
        let lab = Lab::with(Lifetime::Run, SIZE)?;
        lab.outside.ip(&format!("route add 10.0.1.0/24 via {WAN}"))?;
        rows.extend(run_cases(&lab, gateway, &direct, binary)?);
    }
    let between = of(&[Reach::Masquerade, Reach::Forward, Reach::OneToOne]);
    if !between.is_empty() {
        rows.extend(run_cases(&Lab::with(Lifetime::Run, SIZE)?, gateway, &between, binary)?);
    }
    let hairpin = of(&[Reach::Hairpin]);
    if !hairpin.is_empty() {
        let chain = Chain::with(SIZE)?;
        let site = Site { third: &chain.deep, ..Site::of(&chain.lab) };
        rows.extend(run_at(site, gateway, &hairpin, binary)?);
    }
    let in_a_row = of(&[Reach::TwoNats]);
    if !in_a_row.is_empty() {
        let nats = TwoNats::new(SIZE)?;
        let first = Gateway::start(&nats.lab, gateway, binary)?;
        let site = Site { lab: &nats.lab, gateway: &nats.second, third: &nats.behind };
        rows.extend(run_at(site, gateway, &in_a_row, binary)?);
        first.stop()?;
    }
    Ok(rows)
}

/// The cases of a gateway whose line contains `filter`, those of one set-up together.
#[must_use]
pub fn cases(
    gateway: Kind,
    servers: &[server::Kind],
    clients: &[client::Kind],
    filter: &str,
) -> Vec<Case> {
    let mut cases = Vec::new();
    for &server in servers {
        for (reach, stated) in [
            (Reach::Masquerade, Stated::Own),
            (Reach::Forward, Stated::Own),
            (Reach::Forward, Stated::Public),
            (Reach::OneToOne, Stated::Own),
            (Reach::Hairpin, Stated::Own),
            (Reach::TwoNats, Stated::Own),
        ] {
            if stated == Stated::Public && !server.states_addresses() {
                continue;
            }
            let setup = Setup { reach, stated, server };
            // Only a 227 states an address.
            let modes =
                MODES.into_iter().filter(|it| stated == Stated::Own || *it == DataMode::Pasv);
            for mode in modes {
                let clients = clients.iter().copied().filter(|client| client.has(mode));
                let direction = Direction::Download;
                cases.extend(clients.map(|client| Case {
                    setup,
                    gateway,
                    client,
                    mode,
                    direction,
                }));
            }
        }
    }
    cases.retain(|case| case.matches(filter));
    cases
}

/// The same servers, clients and commands with nothing between them that translates.
fn without_nat(cases: &[Case]) -> Vec<Case> {
    let mut direct: Vec<Case> = Vec::new();
    for case in cases {
        let setup = Setup { reach: Reach::Direct, stated: Stated::Own, server: case.setup.server };
        let case = Case { setup, gateway: Kind::Router, ..case.clone() };
        if !direct.contains(&case) {
            direct.push(case);
        }
    }
    // A server is started once; vsftpd first, which does not bind a port 20 that another has just used.
    direct.sort_by_key(|case| place(case.setup.server));
    direct
}

/// Where a server stands among all.
fn place(server: server::Kind) -> Option<usize> {
    server::Kind::ALL.into_iter().position(|other| other == server)
}

/// What fails through ours and does not fail without a NAT.
fn failures(rows: &[Row]) -> Vec<&Row> {
    let who = |case: &Case| (case.setup.server, case.client, case.mode, case.direction);
    let works = |case: &Case| {
        let direct = |row: &&Row| row.case.gateway == Kind::Router && who(&row.case) == who(case);
        rows.iter().find(direct).is_none_or(|row| row.outcome.is_ok())
    };
    let ours = rows.iter().filter(|row| row.case.gateway == OURS && row.outcome.is_err());
    ours.filter(|row| works(&row.case)).collect()
}

/// A line for each set-up and server, a column for each client: how many of its commands worked without a
/// NAT, or through this gateway, and through Linux. Behind it what failed.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let clients: Vec<_> = client::Kind::ALL
        .into_iter()
        .filter(|client| rows.iter().any(|row| row.case.client == *client))
        .collect();
    let mut lines: Vec<(String, server::Kind)> = Vec::new();
    for Row { case, .. } in rows {
        let line = (title(&case.setup), case.setup.server);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.sort_by_key(|(_, server)| place(*server));
    let heads = clients.iter().map(|client| {
        format!("{client} ({})", MODES.into_iter().filter(|mode| client.has(*mode)).count())
    });
    let heads: Vec<_> = heads.collect();
    let rule = "---|".repeat(heads.len());
    let mut text = format!("| set-up | server | {} |\n|---|---|{rule}\n", heads.join(" | "));
    for (setup, server) in lines {
        let passed = |client, gateway| {
            let all = rows.iter().filter(|row| {
                let case = &row.case;
                title(&case.setup) == setup
                    && (case.setup.server, case.client) == (server, client)
                    && case.gateway == gateway
            });
            all.filter(|row| row.outcome.is_ok()).count()
        };
        let direct = title(&Setup { reach: Reach::Direct, stated: Stated::Own, server });
        let cells = clients.iter().map(|&client| match setup == direct {
            true => passed(client, Kind::Router).to_string(),
            false => format!("{}, {}", passed(client, OURS), passed(client, Kind::Linux)),
        });
        // Writing to a String can't fail.
        let _ =
            writeln!(text, "| {setup} | {server} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    let _ = writeln!(text);
    for Row { case, outcome } in rows.iter().filter(|row| row.outcome.is_err()) {
        let Case { gateway, client, mode, setup, .. } = case;
        let why = outcome.as_ref().err().and_then(|why| why.lines().next()).unwrap_or_default();
        let _ = writeln!(
            text,
            "- {gateway}, {}, {}, {client} {mode}: {why}",
            title(setup),
            setup.server
        );
    }
    text
}

fn title(setup: &Setup) -> String {
    match (setup.reach, setup.stated) {
        (Reach::Masquerade, _) => "client inside",
        (Reach::Forward, Stated::Own) => "forward",
        (Reach::Forward, Stated::Public) => "forward, states the public address",
        (Reach::OneToOne, _) => "one-to-one",
        (Reach::Hairpin, _) => "hairpin",
        (Reach::TwoNats, _) => "two NATs",
        (Reach::Direct, _) => "without a NAT",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::Transfer, matrix::Measured};
    use std::time::Duration;

    fn rows(works: impl Fn(&Case) -> bool) -> Vec<Row> {
        let (servers, clients) = ([server::Kind::Vsftpd], [client::Kind::Curl, client::Kind::Lftp]);
        let plans = GATEWAYS.map(|gateway| cases(gateway, &servers, &clients, ""));
        let all = [without_nat(&plans[0]), plans.concat()].concat();
        let transfer = Transfer { bytes: 1, elapsed: Duration::ZERO };
        let measured = Measured { transfer, packets: None };
        let row = |case: Case| {
            let outcome = if works(&case) { Ok(measured) } else { Err("it broke".to_owned()) };
            Row { case, outcome }
        };
        all.into_iter().map(row).collect()
    }

    #[test]
    fn what_fails_without_a_nat_too_is_no_failure_of_ours() {
        assert_eq!(failures(&rows(|_| true)).len(), 0);
        assert_eq!(failures(&rows(|case| case.gateway != Kind::Linux)).len(), 0);
        assert_eq!(failures(&rows(|case| case.mode != DataMode::Eprt)).len(), 0);
        let broken = rows(|case| case.gateway != OURS || case.setup.reach != Reach::Hairpin);
        // Four commands of curl, three of lftp.
        assert_eq!(failures(&broken).len(), 7);
        assert!(failures(&broken).iter().all(|row| row.case.setup.reach == Reach::Hairpin));
    }

    #[test]
    fn the_table_has_what_was_seen_without_a_nat_and_through_both() {
        let text = markdown(&rows(|case| {
            case.gateway != Kind::Linux || case.client == client::Kind::Curl
        }));
        assert!(text.contains("| without a NAT | vsftpd | 4 | 3 |\n"), "{text}");
        for line in ["client inside", "one-to-one", "hairpin", "two NATs"] {
            assert!(text.contains(&format!("| {line} | vsftpd | 4, 4 | 3, 0 |\n")), "{text}");
        }
        assert!(text.contains("| forward, states the public address | vsftpd | 1, 1 | 1, 0 |\n"));
        assert!(text.contains("- linux, hairpin, vsftpd, lftp PORT: it broke\n"), "{text}");
    }
}
