//! The large matrix: every server, every client and every command that it has, in every set-up of the
//! main job, through our gateway and through Linux's own.
//!
//! Invariant: a cell of the table says what was seen, in both: nothing is left out but what a client
//! has no command for.

use std::{fmt::Write as _, path::Path};

use anyhow::{Result, ensure};

use super::{
    Case, Row, Setup,
    case::{Reach, Stated},
    run_cases,
};
use crate::{
    client::{self, DataMode, Direction},
    gateway::{Kind, Mode},
    interrupt,
    lab::Lab,
    netns::Lifetime,
    server,
};

const MODES: [DataMode; 4] = [DataMode::Port, DataMode::Eprt, DataMode::Pasv, DataMode::Epsv];
const GATEWAYS: [Kind; 2] = [Kind::NatCtl(Mode::Tc), Kind::Linux];
/// Bytes of the file.
const SIZE: usize = 100_000;

/// Runs it for what is installed, prints the table, and says whether all passed through ours.
pub fn run(binary: &Path, filter: &str) -> Result<bool> {
    interrupt::catch()?;
    let servers: Vec<_> = server::Kind::ALL.into_iter().filter(|it| it.is_installed()).collect();
    let clients: Vec<_> =
        client::Kind::ALL.into_iter().filter(|it| client::is_installed(*it)).collect();
    let mut rows = Vec::new();
    for gateway in GATEWAYS {
        let cases = cases(gateway, &servers, &clients, filter);
        ensure!(!cases.is_empty(), "no case has `{filter}` in its line");
        let lab = Lab::with(Lifetime::Run, SIZE)?;
        rows.extend(run_cases(&lab, gateway, &cases, binary)?);
    }
    println!("\n{}", markdown(&rows));
    let ours = |row: &&Row| row.case.gateway != Kind::Linux;
    Ok(rows.iter().filter(ours).all(|row| row.outcome.is_ok()))
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
        ] {
            let setup = Setup { reach, stated, server };
            for &client in clients {
                let modes = MODES.into_iter().filter(|mode| client.has(*mode));
                let direction = Direction::Download;
                cases.extend(modes.map(|mode| Case { setup, gateway, client, mode, direction }));
            }
        }
    }
    cases.retain(|case| case.matches(filter));
    cases
}

/// A line for each set-up and server, a column for each client: how many of its commands worked through
/// this gateway, and through Linux. Behind it what failed.
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
    let heads = clients.iter().map(|client| {
        format!("{client} ({})", MODES.into_iter().filter(|mode| client.has(*mode)).count())
    });
    let heads: Vec<_> = heads.collect();
    let rule = "---|".repeat(heads.len());
    let mut text = format!("| set-up | server | {} |\n|---|---|{rule}\n", heads.join(" | "));
    for (setup, server) in lines {
        let passed = |client, is_linux| {
            let ours = rows.iter().filter(|row| {
                let case = &row.case;
                title(&case.setup) == setup
                    && (case.setup.server, case.client) == (server, client)
                    && (case.gateway == Kind::Linux) == is_linux
            });
            ours.filter(|row| row.outcome.is_ok()).count()
        };
        let cells =
            clients.iter().map(|it| format!("{}, {}", passed(*it, false), passed(*it, true)));
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
    }
    .to_owned()
}
