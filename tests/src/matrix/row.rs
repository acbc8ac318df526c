//! One transfer's outcome, and the table of all.

use std::{
    fmt::{self, Display, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

use super::{Case, Site};
use crate::{
    client::{self, Transfer},
    gateway::{self, Gateway, Mode, Packets},
    server::Server,
};

/// Below this share of packets finished in XDP a transfer in XDP mode fails, in percent.
const SHARE_WANTED: f64 = 95.0;

/// What was seen of a transfer that worked.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Size and time.
    pub transfer: Transfer,
    /// Translated packets by hook.
    pub packets: Option<Packets>,
}

/// A case and its outcome.
#[derive(Clone, Debug)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// What was seen, or what went wrong.
    pub outcome: Result<Measured, String>,
}

/// Makes the transfer of a case and judges it.
pub(super) fn measure(
    site: &Site<'_>,
    gateway: &Gateway<'_>,
    server: &Server,
    case: &Case,
    folder: &Path,
) -> Result<Measured> {
    let before = gateway.packets()?;
    let (namespace, payload) = (case.setup.client_namespace(site), &site.lab.payload);
    let transfer = client::transfer(namespace, &case.request(), server, payload, folder)?;
    let after = gateway.packets()?;
    let packets = before.zip(after).map(|(before, after)| after.since(before));
    if let (gateway::Kind::NatCtl(mode), Some(packets)) = (case.gateway, packets) {
        let share = packets.share_in_xdp().context("the gateway counted no packet")?;
        match mode {
            Mode::Xdp => ensure!(share >= SHARE_WANTED, "only {share:.1} % finished in XDP"),
            Mode::Tc => ensure!(packets.xdp == 0, "{share:.1} % finished in XDP, in mode tc"),
        }
    }
    Ok(Measured { transfer, packets })
}

impl Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [bytes, seconds, share] = figures(&self.outcome);
        let case = self.case.to_string();
        write!(formatter, "{case:<70} {bytes:>9} {seconds:>6} {share:>7} ")?;
        match &self.outcome {
            Ok(_) => write!(formatter, "passed"),
            Err(reason) => write!(formatter, "FAILED: {}", first_line(reason)),
        }
    }
}

/// The table of the main job.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let heads = ["case", "server", "client", "transfer", "mode", "bytes", "seconds", "in XDP"];
    let mut line = |cells: [&str; 8], verdict: &str| {
        let [case, server, client, transfer, mode, bytes, seconds, share] = cells;
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "{case:<41} {server:<9} {client:<6} {transfer:<8} {mode:<5} {bytes:>9} {seconds:>8} \
             {share:>7}  {verdict}"
        );
    };
    line(heads, "verdict");
    for Row { case, outcome } in rows {
        let [bytes, seconds, share] = figures(outcome);
        let cells = [
            &case.title(),
            &case.setup.server.to_string(),
            &case.client.to_string(),
            &format!("{} {}", case.mode, case.direction),
            &case.gateway.to_string(),
            &bytes,
            &seconds,
            &share,
        ];
        let verdict = match outcome {
            Ok(_) => "passed".to_owned(),
            Err(reason) => format!("FAILED: {}", first_line(reason)),
        };
        line(cells.map(String::as_str), &verdict);
    }
    text
}

fn figures(outcome: &Result<Measured, String>) -> [String; 3] {
    let Ok(Measured { transfer, packets }) = outcome else {
        return ["-", "-", "-"].map(str::to_owned);
    };
    let share = packets.and_then(Packets::share_in_xdp);
    [
        transfer.bytes.to_string(),
        format!("{:.3}", transfer.elapsed.as_secs_f64()),
        share.map_or("-".to_owned(), |share| format!("{share:.1} %")),
    ]
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
