//! FTP through the gateway: small transfers, how long a rewritten line is held, what the agent sees
//! of a transfer, and one large file.
//!
//! Client, server, agent and the gateway's packets share one core, so that what is compared is work.
//! The server is a real one, a process of its own for each contender.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    super::{
        Options,
        agent::Agent,
        contender::Contender,
        names,
        sample::Sample,
        schedule, stats,
        topology::{ENDS_CORE, GATEWAY_CORE, SERVER},
    },
    core::{first_on_core, put_first, start_first_on_core},
    players::{Player, play},
    rounds, sample,
};
use crate::{
    payload::Payload,
    server::{self, Kind, Server, Settings},
};
use client::{Client, Way};
use held::Watch;

mod client;
mod held;

/// The small file.
const SMALL: usize = 4096;
/// The large file. It has a size but no block on the disk, so reading it costs no disk time.
const LARGE: u64 = 256 << 20;
const LARGE_NAME: &str = "large.bin";
/// Transfers before the first one that counts.
const WARM_UP: u32 = 10;

/// A contender with its server.
struct Stage<'p, 't> {
    player: &'p Player<'t>,
    /// Ends with its guard.
    _server: Server,
    watch: Watch,
}

/// Everything about FTP.
pub(in crate::bench) fn measure(options: &Options) -> Result<Vec<Sample>> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.is_installed());
    let kind = kind.context("no FTP server here: install vsftpd, proftpd or pure-ftpd")?;
    let transfers = if options.quick { 60 } else { 200 };
    play(options, true, |players| {
        let mut stages = Vec::new();
        for player in &players {
            let stage = Stage::new(player, kind)?;
            match stage.session(|client| repeat(client, Way::Active, WARM_UP)) {
                Ok(()) => stages.push(stage),
                // Not every gateway of others knows FTP; that it doesn't is no failure of the bench.
                Err(error) if matches!(player.contender, Contender::Peer(_)) => {
                    eprintln!("  {} carries no active FTP: {error:#}", player.contender.name());
                }
                Err(error) => return Err(error.context(player.contender.name().to_owned())),
            }
        }
        schedule::rounds(&mut stages, rounds(options), |stage, round| {
            let mut samples = Vec::new();
            for (case, way) in [("passive", Way::Passive), ("active", Way::Active)] {
                samples.extend(stage.small(round, case, way, transfers)?);
            }
            samples.extend(stage.held(round, transfers)?);
            samples.push(stage.large(round)?);
            Ok(samples)
        })
    })
}

impl<'p, 't> Stage<'p, 't> {
    fn new(player: &'p Player<'t>, kind: Kind) -> Result<Self> {
        let topology = player.topology;
        if let Some(agent) = player.running.agent() {
            put_first(agent.id())?;
        }
        // The server gives up root before it enters its folder.
        fs::set_permissions(topology.folder(), fs::Permissions::from_mode(0o755))
            .with_context(|| format!("set the mode of {}", topology.folder().display()))?;
        let folder = topology.file("server");
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        let payload = Payload::new(SMALL);
        let server = start_first_on_core(ENDS_CORE, || {
            Server::start(&topology.server, &Settings::new(kind), &payload, &folder)
        })?;
        let large = server.uploaded(LARGE_NAME);
        File::create(&large)
            .and_then(|file| file.set_len(LARGE))
            .with_context(|| format!("create {}", large.display()))?;
        Ok(Self { player, _server: server, watch: Watch::start(topology)? })
    }

    /// Transfers a second of the small file, and what the agent saw of each.
    fn small(&self, round: u32, case: &str, way: Way, transfers: u32) -> Result<Vec<Sample>> {
        let before = self.punted()?;
        let rate = first_on_core(ENDS_CORE, || {
            self.session(|client| {
                repeat(client, way, WARM_UP)?;
                let start = Instant::now();
                repeat(client, way, transfers)?;
                Ok(f64::from(transfers) / start.elapsed().as_secs_f64())
            })
        })?;
        let mut samples = vec![sample(self.player, round, names::FTP_TRANSFERS, case, rate, "/s")];
        if let (Some(before), Some(after)) = (before, self.punted()?) {
            let punted = (after - before) / f64::from(WARM_UP + transfers);
            samples.push(sample(self.player, round, names::FTP_PUNTED, case, punted, "segments"));
        }
        Ok(samples)
    }

    /// How long the PORT lines of many transfers were held.
    fn held(&self, round: u32, transfers: u32) -> Result<Vec<Sample>> {
        let translated = self.player.contender.translates();
        let times = first_on_core(ENDS_CORE, || {
            self.session(|client| {
                let mut times = Vec::new();
                for _ in 0..transfers {
                    self.watch.forget()?;
                    repeat(client, Way::Active, 1)?;
                    times.push(self.watch.held(translated)?.as_secs_f64() * 1e6);
                }
                Ok(times)
            })
        })?;
        [("p50", 0.5), ("p99", 0.99)]
            .into_iter()
            .map(|(case, share)| {
                let time = stats::quantile(&times, share).context("no line was seen")?;
                Ok(sample(self.player, round, names::FTP_HELD, case, time, "µs"))
            })
            .collect()
    }

    /// What a large transfer brings over in a second, from RETR to 226.
    fn large(&self, round: u32) -> Result<Sample> {
        let file = format!("{}/{LARGE_NAME}", server::UPLOADS);
        // The server has the other core: here it is a rate that counts, not a cost.
        let time = first_on_core(GATEWAY_CORE, || {
            self.session(|client| {
                let start = Instant::now();
                let length = client.fetch(Way::Passive, &file)?;
                ensure!(length == LARGE, "{length} bytes of {LARGE} arrived");
                Ok(start.elapsed().as_secs_f64())
            })
        })?;
        // 2^28 and its eightfold are exact.
        #[expect(clippy::cast_precision_loss)]
        let rate = LARGE as f64 * 8.0 / time / 1e9;
        Ok(sample(self.player, round, names::FTP_BULK, "passive", rate, "Gbit/s"))
    }

    /// Runs `work` in the client's namespace with a control connection of its own.
    fn session<T: Send>(&self, work: impl FnOnce(&mut Client) -> Result<T> + Send) -> Result<T> {
        self.player.topology.client.enter(|| work(&mut Client::open(SERVER)?))?
    }

    /// Segments handed to the agent so far, where there is one.
    fn punted(&self) -> Result<Option<f64>> {
        self.player.running.agent().map(punted).transpose()
    }
}

fn repeat(client: &mut Client, way: Way, transfers: u32) -> Result<()> {
    for _ in 0..transfers {
        let length = client.fetch(way, server::FILE)?;
        ensure!(length == SMALL as u64, "{length} bytes of {SMALL} arrived");
    }
    Ok(())
}

fn punted(agent: &Agent) -> Result<f64> {
    let text = agent.call(&["status", "-o", "json"])?.stdout;
    let status: serde_json::Value = serde_json::from_str(&text).context("read nat-ctl status")?;
    status["packets"]["punted"].as_f64().context("nat-ctl status has no packets.punted")
}
