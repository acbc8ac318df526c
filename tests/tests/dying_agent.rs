//! An agent that dies over what it reads: transfers that are under way at that moment go on with its
//! successor, each with its data connection and without a byte lost.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nat_tests::{
    dialogue::{Dialogue, End, announced, port},
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, Lab, WAN},
    netns::Lifetime,
    requirements,
};
use nix::sys::signal::Signal;

const SESSIONS: u32 = 12;
/// A sender repeats after 0.2 s, then twice as late each time.
const LIMIT: Duration = Duration::from_secs(40);
/// For a data connection, whose SYN is repeated after a second.
const DATA: Duration = Duration::from_secs(8);
/// A round takes two seconds. `ROUNDS` in the environment asks for more of them.
const ROUNDS: u32 = 2;

fn say(dialogue: &mut Dialogue<'_>, from: End, line: &str) -> Result<()> {
    dialogue.write(from, line.as_bytes())?;
    let seen = dialogue.line(from.other(), LIMIT).with_context(|| format!("{line:?}"))?;
    ensure!(seen == line.as_bytes(), "{line:?} came as {:?}", String::from_utf8_lossy(&seen));
    Ok(())
}

/// A passive transfer from a server inside; the data connection carries bytes both ways.
fn transfer(dialogue: &mut Dialogue<'_>) -> Result<()> {
    say(dialogue, End::Client, "PASV\r\n")?;
    let listener = dialogue.listen(End::Server)?;
    let ([a, b, c, d], [high, low]) = (INSIDE.octets(), port(&listener)?.to_be_bytes());
    let line = format!("227 Passive ({a},{b},{c},{d},{high},{low}).\r\n");
    dialogue.write(End::Server, line.as_bytes())?;
    let seen = dialogue.line(End::Client, LIMIT).with_context(|| line.clone())?;
    let to = announced(&String::from_utf8_lossy(&seen), WAN)?;
    dialogue.data(End::Client, to, &listener, DATA).with_context(|| line)?;
    say(dialogue, End::Client, "RETR file\r\n")?;
    say(dialogue, End::Server, "150 here it comes\r\n")?;
    say(dialogue, End::Server, "226 done\r\n")
}

fn transfers(dialogue: &mut Dialogue<'_>, ends: &AtomicBool, done: &AtomicU32) -> Result<()> {
    while !ends.load(Ordering::Relaxed) {
        transfer(dialogue)?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn transfers_go_on_when_the_agent_dies_over_them() {
    let Some(binary) = requirements::met_with_binary("dying agent") else { return };
    let rounds = std::env::var("ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(ROUNDS);
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    let options = ["--persist", "--verbose"];
    gateway.run(&options).expect("a start");
    let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: INSIDE };
    gateway.add(&rule).expect("a forward");
    let mut dialogues: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let mut dialogue = Dialogue::open(&lab, End::Server).expect("a dialogue");
            dialogue.log_in().expect("a login");
            dialogue
        })
        .collect();
    for round in 0..rounds {
        let (ends, done) = (AtomicBool::new(false), AtomicU32::new(0));
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let (ends, done) = (&ends, &done);
            let start = |dialogue| scope.spawn(move || transfers(dialogue, ends, done));
            let threads: Vec<_> = dialogues.iter_mut().map(start).collect();
            // In each round the stop and the death fall elsewhere.
            thread::sleep(Duration::from_millis(u64::from(100 + round * 37 % 101)));
            gateway.signal(Signal::SIGSTOP).expect("a stop");
            thread::sleep(Duration::from_millis(u64::from(round * 53 % 400)));
            gateway.end(Signal::SIGKILL).expect("a kill");
            let before = done.load(Ordering::Relaxed);
            assert!(before > 0, "nothing was under way");
            gateway.run(&options).expect("a successor");
            ends.store(true, Ordering::Relaxed);
            threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
        });
        for result in results {
            result.unwrap_or_else(|error| {
                panic!("round {round}: {error:#}\n{}\n{}", gateway.output(), gateway.diagnosis())
            });
        }
    }
}
