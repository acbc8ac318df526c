//! The main job: every case of an FTP gateway with real servers and clients, in both hooks.
//!
//! Invariant: a transfer passes only with the right checksum, by the command it was meant to use, and
//! in XDP mode with nearly all of its packets finished in XDP. Nothing is left behind unless asked.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    gateway::{self, Gateway, Mode, Rule},
    interrupt,
    lab::{INSIDE, Lab, WAN},
    netns::Lifetime,
    payload::TEN_MEGABYTES,
    process, requirements,
    server::{self, Server, Settings},
};

pub mod case;
mod keep;
pub mod large;
mod row;
mod site;

pub use case::{Case, Setup};
pub use row::{Measured, Row, table};
pub use site::Site;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Leave the lab up at the end, or at the first failure.
    pub keep: bool,
    /// Our `nat-ctl`.
    pub binary: PathBuf,
    /// Only cases whose line contains this text, e.g. `xdp` or `pyftpdlib lftp`.
    pub filter: Option<String>,
}

/// Runs the main job, prints progress and a table, and says whether all passed.
pub fn main_job(options: &Options) -> Result<bool> {
    let missing = requirements::missing();
    ensure!(missing.is_empty(), "the lab needs {}", missing.join(", "));
    interrupt::catch()?;
    let servers = servers()?;
    let start = Instant::now();
    let lifetime = if options.keep { Lifetime::Kept } else { Lifetime::Run };
    let lab = Lab::with(lifetime, TEN_MEGABYTES).context("build the lab")?;
    println!("lab {}: inside {INSIDE}, gateway {WAN}, file of {TEN_MEGABYTES} bytes", lab.name());

    let kinds = [Mode::Tc, Mode::Xdp].map(gateway::Kind::NatCtl);
    let wanted = options.filter.as_deref().unwrap_or_default();
    let plan = kinds.map(|kind| (kind, case::plan(kind, &servers, wanted)));
    let total = plan.iter().map(|(_, cases)| cases.len()).sum::<usize>();
    ensure!(total > 0, "no case has `{wanted}` in its line");

    let site = Site::of(&lab);
    let mut run = Run { site, total, rows: Vec::new(), stop_at_failure: options.keep };
    let mut kept = None;
    for (kind, cases) in plan.iter().filter(|(_, cases)| !cases.is_empty()) {
        // With --keep the one before gives way only here, so that the last one stays.
        if let Some(gateway) = kept.take() {
            Gateway::stop(gateway)?;
        }
        let Some(gateway) = run.gateway(*kind, cases, &options.binary)? else { continue };
        if options.keep {
            kept = Some(gateway);
            if run.failed() {
                break;
            }
        } else {
            gateway.stop().with_context(|| format!("end the gateway in mode {kind}"))?;
        }
    }
    let Run { rows, .. } = run;
    println!("\n{}", table(&rows));
    let passed = rows.iter().filter(|row| row.outcome.is_ok()).count();
    let seconds = start.elapsed().as_secs_f64();
    println!("{passed} of {total} passed in {seconds:.0} s");
    if options.keep {
        keep::leave(&lab, kept, &options.binary)?;
    }
    Ok(passed == total)
}

/// Runs cases through a gateway that is started for them and stopped after them, for tests.
pub fn run_cases(
    lab: &Lab,
    kind: gateway::Kind,
    cases: &[Case],
    binary: &Path,
) -> Result<Vec<Row>> {
    run_at(Site::of(lab), kind, cases, binary)
}

/// The same where the lab is more than its three hosts.
pub fn run_at(
    site: Site<'_>,
    kind: gateway::Kind,
    cases: &[Case],
    binary: &Path,
) -> Result<Vec<Row>> {
    let mut run = Run { site, total: cases.len(), rows: Vec::new(), stop_at_failure: false };
    if let Some(gateway) = run.gateway(kind, cases, binary)? {
        gateway.stop()?;
    }
    Ok(run.rows)
}

/// The two servers of the main job: vsftpd, and the first other one that is there.
pub fn servers() -> Result<[server::Kind; 2]> {
    let mut found = server::Kind::ALL.into_iter().filter(|kind| kind.is_installed());
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Ok([first, second]),
        (only, _) => {
            let known = server::Kind::ALL.map(server::Kind::package).join(", ");
            let have = only.map_or("none".to_owned(), |kind| kind.to_string());
            bail!("the lab needs two FTP servers of {known}; here is {have}: install another")
        }
    }
}

struct Run<'lab> {
    site: Site<'lab>,
    total: usize,
    rows: Vec<Row>,
    stop_at_failure: bool,
}

impl<'lab> Run<'lab> {
    /// Runs cases through one gateway and gives it back; without one if it didn't even start.
    fn gateway(
        &mut self,
        kind: gateway::Kind,
        cases: &[Case],
        binary: &Path,
    ) -> Result<Option<Gateway<'lab>>> {
        let started = Gateway::start_in(self.site.gateway, self.site.lab, kind, binary);
        let mut gateway = match started {
            Ok(gateway) => gateway,
            Err(error) => {
                interrupt::check()?;
                let error = error.context("the gateway didn't start");
                self.record_all(cases, &error);
                return Ok(None);
            }
        };
        for group in cases.chunk_by(|one, next| one.setup == next.setup) {
            self.group(&mut gateway, group)?;
            if self.stop_at_failure && self.failed() {
                break;
            }
        }
        Ok(Some(gateway))
    }

    /// Cases that share a server and a rule.
    fn group(&mut self, gateway: &mut Gateway<'lab>, cases: &[Case]) -> Result<()> {
        let Some(setup) = cases.first().map(|case| &case.setup) else { return Ok(()) };
        let ready = self.prepare(gateway, setup);
        let (server, rule) = match ready {
            Ok(ready) => ready,
            Err(error) => {
                interrupt::check()?;
                self.record_all(cases, &error);
                return Ok(());
            }
        };
        let folder = self.site.lab.folder("client")?;
        for case in cases {
            let outcome = row::measure(&self.site, gateway, &server, case, &folder);
            interrupt::check()?;
            let failure = outcome.as_ref().err().map(|error| format!("{error:#}"));
            self.record(case, outcome.map_err(|error| format!("{error:#}")));
            if let Some(failure) = failure {
                println!("{failure}\n{}", process::tail(&gateway.diagnosis(), 6000));
                if self.stop_at_failure {
                    server.leave();
                    return Ok(());
                }
            }
        }
        if let Some(rule) = rule {
            gateway.remove(&rule)?;
        }
        Ok(())
    }

    fn prepare(
        &self,
        gateway: &mut Gateway<'lab>,
        setup: &Setup,
    ) -> Result<(Server, Option<Rule>)> {
        let rule = setup.rule();
        if let Some(rule) = &rule {
            gateway.add(rule).with_context(|| format!("add the rule {}", rule.name()))?;
        }
        let settings = Settings { announce: setup.announce(), ..Settings::new(setup.server) };
        let lab = self.site.lab;
        let folder = lab.folder("server")?;
        let namespace = setup.server_namespace(&self.site);
        let server = Server::start(namespace, &settings, &lab.payload, &folder)?;
        Ok((server, rule))
    }

    /// One reason for all of them, told once.
    fn record_all(&mut self, cases: &[Case], error: &anyhow::Error) {
        let reason = format!("{error:#}");
        println!("{reason}");
        cases.iter().for_each(|case| self.record(case, Err(reason.clone())));
    }

    fn record(&mut self, case: &Case, outcome: Result<Measured, String>) {
        let row = Row { case: case.clone(), outcome };
        println!("[{:>3}/{}] {row}", self.rows.len() + 1, self.total);
        self.rows.push(row);
    }

    fn failed(&self) -> bool {
        self.rows.iter().any(|row| row.outcome.is_err())
    }
}
