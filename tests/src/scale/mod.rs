//! FTP in numbers: many sessions at once, many transfers a second, many rewrites in a session, and a
//! server that dials before it answers.
//!
//! ```text
//!   inside: clients (this process) ---- gateway ---- outside: server (a process of its own)
//! ```
//!
//! Invariant: a load counts as done when every reply and every byte was right and nothing was dropped
//! as unsolicited; all of it stays in the lab.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{net::TcpListener, runtime::Builder, task::JoinSet, time::interval};

use crate::{
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE, WAN},
    netns::Lifetime,
    process::{self, Process},
};

mod client;
mod server;

use client::{Client, Form};

/// Sessions that are opened at the same time, and that transfer at the same time.
const TOGETHER: usize = 32;

/// Transfers that a session makes with one port of its own. A port that was used is kept for minutes
/// by the gateway, and there are 36,280.
const TRANSFERS_OF_A_PORT: u32 = 100;

/// What is asked of the gateway.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// So many sessions at once, each with a transfer behind it.
    Sessions(u32),
    /// So many transfers a second, active and passive by turns, for so many seconds.
    Rate(u32, u32),
    /// So many rewrites in one session, that grow and shrink by turns.
    Rewrites(u32),
    /// So many active transfers, as fast as they go, from a server that dials before it answers.
    Early(u32),
}

impl Load {
    /// What `cargo xtask scale` does.
    pub const ALL: [Self; 4] =
        [Self::Sessions(10_000), Self::Rate(100, 60), Self::Rewrites(1000), Self::Early(100_000)];
}

impl Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sessions(count) => write!(formatter, "{count} sessions at once"),
            Self::Rate(rate, seconds) => {
                write!(formatter, "{rate} transfers a second for {seconds} s")
            }
            Self::Rewrites(count) => write!(formatter, "{count} rewrites in a session"),
            Self::Early(count) => write!(formatter, "{count} transfers dialled before the 200"),
        }
    }
}

/// What a load has come to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Transfers that were made.
    pub transfers: u32,
    /// From the first to the last.
    pub elapsed: Duration,
    /// Bytes of the agent's memory for a session, where that was looked at.
    pub agent_bytes: Option<u64>,
    /// Bytes of maps for a session.
    pub map_bytes: Option<u64>,
    /// Packets that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

impl Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} transfers in {:.1} s", self.transfers, self.elapsed.as_secs_f64())?;
        if let Some(bytes) = self.agent_bytes {
            write!(formatter, "; {bytes} bytes of the agent's memory a session")?;
        }
        if let Some(bytes) = self.map_bytes {
            write!(formatter, "; {bytes} bytes of maps a session")?;
        }
        write!(formatter, "; drops: ")?;
        if self.drops.is_empty() {
            return write!(formatter, "none");
        }
        let drops: Vec<_> =
            self.drops.iter().map(|(reason, it)| format!("{reason} {it}")).collect();
        write!(formatter, "{}", drops.join(", "))
    }
}

/// All loads, each through a gateway of its own; says whether all were borne.
pub fn run(binary: &Path, program: &Path, filter: &str) -> Result<bool> {
    crate::interrupt::catch()?;
    let mut passed = true;
    for load in Load::ALL.into_iter().filter(|load| load.to_string().contains(filter)) {
        match bear(binary, program, load) {
            Ok(outcome) => println!("{load}: passed: {outcome}"),
            Err(error) => {
                passed = false;
                println!("{load}: FAILED: {error:#}");
            }
        }
    }
    Ok(passed)
}

/// One load, through a gateway that is started for it; `program` is `nat-scale`.
pub fn bear(binary: &Path, program: &Path, load: Load) -> Result<Outcome> {
    raise_limit()?;
    let lab = Lab::with(Lifetime::Run, 1000)?;
    // A session inside has two ports of its own, and each transfer one of the server's.
    for namespace in [&lab.inside, &lab.outside] {
        namespace.sysctl("net.ipv4.ip_local_port_range", "'10000 65000'")?;
    }
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, binary)?;
    // One client stands for many here.
    gateway.configure("[limits]\npinholes_per_second = 1000000\n")?;
    gateway.run(&[])?;
    let _server = server(&lab, program)?;
    let before = drops(&gateway)?;
    let mut outcome = inside(&lab, async || match load {
        Load::Sessions(count) => sessions(&gateway, count).await,
        Load::Rate(rate, seconds) => paced(rate, seconds).await,
        Load::Rewrites(count) => rewrites(count).await,
        Load::Early(count) => early(count).await,
    })
    .with_context(|| process::tail(&gateway.diagnosis(), 3000).to_owned())?;
    outcome.drops = drops(&gateway)?;
    for (reason, count) in before {
        if let Some(now) = outcome.drops.get_mut(&reason) {
            *now -= count;
        }
    }
    outcome.drops.retain(|_, count| *count > 0);
    let unsolicited = outcome.drops.get("unsolicited").copied().unwrap_or(0);
    ensure!(unsolicited == 0, "{unsolicited} packets came before they were expected: {outcome}");
    gateway.stop()?;
    Ok(outcome)
}

async fn sessions(gateway: &NatCtl<'_>, count: u32) -> Result<Outcome> {
    let start = Instant::now();
    let resident = gateway.resident()?;
    let mut clients = open(count).await?;
    for client in &mut clients {
        client.active(Form::Plain).await?;
        client.leave_port();
    }
    let elapsed = start.elapsed();
    let known = gateway.json(&["status"])?["ftp_sessions"].as_u64();
    ensure!(known == Some(count.into()), "the gateway knows {known:?} sessions");
    let grown = gateway.resident()?.saturating_sub(resident);
    // They are all still there.
    for client in &mut clients {
        client.command("NOOP", "200").await?;
    }
    let agent_bytes = Some(grown / u64::from(count));
    let map_bytes = Some(gateway.map_bytes_a_session()?);
    Ok(Outcome { transfers: count, elapsed, agent_bytes, map_bytes, ..Outcome::default() })
}

async fn paced(rate: u32, seconds: u32) -> Result<Outcome> {
    let mut idle = open(u32::try_from(TOGETHER)?).await?;
    let mut busy = JoinSet::new();
    let (start, total) = (Instant::now(), rate * seconds);
    let mut ticks = interval(Duration::from_secs(1) / rate);
    for number in 0..total {
        ticks.tick().await;
        while let Some(done) = busy.try_join_next() {
            idle.push(done??);
        }
        let mut client = match idle.pop() {
            Some(client) => client,
            // All are at work: late, and the ticks that were missed follow at once.
            None => busy.join_next().await.context("no session is left")???,
        };
        busy.spawn(async move {
            match number % 2 {
                0 => client.active(Form::Plain).await?,
                _ => client.passive().await?,
            }
            anyhow::Ok(client)
        });
    }
    while let Some(done) = busy.join_next().await {
        done??;
    }
    let elapsed = start.elapsed();
    // A tenth of lateness is for the last transfers and the clock.
    let wanted = Duration::from_secs(u64::from(seconds) + 1).mul_f64(1.1);
    ensure!(elapsed < wanted, "{total} transfers took {elapsed:.1?}");
    Ok(Outcome { transfers: total, elapsed, ..Outcome::default() })
}

async fn rewrites(count: u32) -> Result<Outcome> {
    let mut client = Client::open(0).await?;
    let start = Instant::now();
    for number in 0..count {
        let form = if number % 2 == 0 { Form::Plain } else { Form::Long };
        client.active(form).await.with_context(|| format!("rewrite {number}"))?;
    }
    Ok(Outcome { transfers: count, elapsed: start.elapsed(), ..Outcome::default() })
}

async fn early(count: u32) -> Result<Outcome> {
    let clients = open(u32::try_from(TOGETHER)?).await?;
    let (start, each) = (Instant::now(), count.div_ceil(u32::try_from(TOGETHER)?));
    let mut busy = JoinSet::new();
    for mut client in clients {
        busy.spawn(async move {
            for number in 1..=each {
                client.active(Form::Plain).await.with_context(|| format!("transfer {number}"))?;
                if number.is_multiple_of(TRANSFERS_OF_A_PORT) {
                    client.leave_port();
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = busy.join_next().await {
        done??;
    }
    let transfers = each * u32::try_from(TOGETHER)?;
    Ok(Outcome { transfers, elapsed: start.elapsed(), ..Outcome::default() })
}

/// Opens sessions, a bounded number at a time.
async fn open(count: u32) -> Result<Vec<Client>> {
    let mut opening = JoinSet::new();
    let mut clients = Vec::new();
    for number in 0..count {
        if opening.len() >= TOGETHER {
            clients.extend(opening.join_next().await.transpose()?.transpose()?);
        }
        opening.spawn(Client::open(number));
    }
    while let Some(client) = opening.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

/// Runs `work` inside.
fn inside<T: Send>(lab: &Lab, work: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    lab.inside.enter(|| runtime()?.block_on(work()))?
}

/// Starts the server outside: `program` is `nat-scale`. A process of its own, for a limit of files is
/// one of a process, and there are two ends of each session.
fn server(lab: &Lab, program: &Path) -> Result<Process> {
    let log = lab.folder("server")?.join("server.log");
    let mut server =
        Process::spawn(lab.outside.command(program).arg("--serve"), "the server", &log)?;
    server.ready(Duration::from_secs(10), "listening", |_| lab.outside.listens(21))?;
    Ok(server)
}

/// Serves until it is ended: what [`server`] has started.
pub fn serve() -> Result<()> {
    raise_limit()?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind((OUTSIDE, 21)).await.context("listen on port 21")?;
        server::serve(listener, WAN).await;
        Ok(())
    })
}

/// As many open files as this process may have.
fn raise_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("ask for the limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of files")
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Builder::new_current_thread().enable_all().build().context("start a runtime")
}

fn drops(gateway: &NatCtl<'_>) -> Result<BTreeMap<String, u64>> {
    serde_json::from_value(gateway.json(&["drops"])?).context("read nat-ctl drops")
}
