//! Lines that are cut, on live TCP: every cut of each of the four lines that announce, and one byte
//! a write, with Nagle's algorithm on and off.
//!
//! The outside end must read the whole line with the public address and no byte of the private one,
//! and the data connection must be there within two seconds (FTP.md, the rewriting core, 3).

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nat_tests::{
    dialogue::{Dialogue, End, Nagle, PAUSE, announced, port, write_apart},
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, Lab, WAN},
    netns::Lifetime,
    requirements,
};

/// From the first byte of the line to the end of the data connection.
const LIMIT: Duration = Duration::from_secs(2);

/// A line that announces.
#[derive(Clone, Copy, Debug)]
enum Form {
    Port,
    Eprt,
    Pasv,
    Epsv,
}

impl Form {
    const ALL: [Self; 4] = [Self::Port, Self::Eprt, Self::Pasv, Self::Epsv];

    /// Who says it; that end is inside.
    const fn end(self) -> End {
        match self {
            Self::Port | Self::Eprt => End::Client,
            Self::Pasv | Self::Epsv => End::Server,
        }
    }

    fn line(self, at: SocketAddrV4) -> String {
        let ([a, b, c, d], port) = (at.ip().octets(), at.port());
        let [high, low] = port.to_be_bytes();
        match self {
            Self::Port => format!("PORT {a},{b},{c},{d},{high},{low}\r\n"),
            Self::Eprt => format!("EPRT |1|{}|{port}|\r\n", at.ip()),
            Self::Pasv => format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low}).\r\n"),
            Self::Epsv => format!("229 Entering Extended Passive Mode (|||{port}|)\r\n"),
        }
    }

    /// The command that such a reply answers.
    const fn command(self) -> Option<&'static str> {
        match self {
            Self::Port | Self::Eprt => None,
            Self::Pasv => Some("PASV\r\n"),
            Self::Epsv => Some("EPSV\r\n"),
        }
    }
}

/// How a line of this many bytes is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// In two, one write right after the other.
    After(usize),
    /// In two, with a pause between.
    PauseAfter(usize),
    /// A byte a write, without a pause.
    EachByte,
    /// A byte a write, with a pause after the first three.
    FirstBytesApart,
}

fn cuts(length: usize) -> Vec<Cut> {
    let mut cuts: Vec<_> = (1..length).map(Cut::After).collect();
    cuts.extend((1..length).step_by(3).map(Cut::PauseAfter));
    cuts.extend([Cut::EachByte, Cut::FirstBytesApart]);
    cuts
}

fn write_cut(dialogue: &mut Dialogue<'_>, end: End, line: &[u8], cut: Cut) -> Result<()> {
    match cut {
        Cut::After(at) => {
            let (head, tail) = line.split_at(at);
            dialogue.write(end, head)?;
            dialogue.write(end, tail)
        }
        Cut::PauseAfter(at) => {
            let (head, tail) = line.split_at(at);
            write_apart(dialogue, end, &[head, tail])
        }
        Cut::EachByte => line.chunks(1).try_for_each(|byte| dialogue.write(end, byte)),
        Cut::FirstBytesApart => {
            let (head, tail) = line.split_at(3);
            write_apart(dialogue, end, &head.chunks(1).collect::<Vec<_>>())?;
            std::thread::sleep(PAUSE);
            tail.chunks(1).try_for_each(|byte| dialogue.write(end, byte))
        }
    }
}

/// One line, cut like this, in a session that has been going on.
fn passes(dialogue: &mut Dialogue<'_>, form: Form, cut: impl Fn(usize) -> Cut) -> Result<()> {
    let (end, peer) = (form.end(), form.end().other());
    let listener = dialogue.listen(end)?;
    let at = SocketAddrV4::new(INSIDE, port(&listener)?);
    if let Some(command) = form.command() {
        dialogue.write(peer, command.as_bytes())?;
        let heard = dialogue.line(end, LIMIT)?;
        ensure!(heard == command.as_bytes(), "{command:?} came as {heard:?}");
    }
    let line = form.line(at);
    let start = Instant::now();
    write_cut(dialogue, end, line.as_bytes(), cut(line.len()))?;
    let heard = dialogue.line(peer, LIMIT)?;
    let heard = String::from_utf8(heard).context("not text")?;
    let to = announced(&heard, WAN)?;
    ensure!(heard == form.line(SocketAddrV4::new(WAN, to.port())), "{line:?} came as {heard:?}");
    dialogue.data(peer, to, &listener, LIMIT)?;
    let time = start.elapsed();
    ensure!(time < LIMIT, "it took {time:?}");
    if matches!(end, End::Client) {
        dialogue.write(peer, b"200 done\r\n")?;
        ensure!(dialogue.line(end, LIMIT)? == b"200 done\r\n", "the reply has changed");
    }
    Ok(())
}

fn every_cut_passes(nagle: Nagle) {
    let what = format!("cut lines, Nagle {nagle:?}");
    let Some(binary) = requirements::met_with_binary(&what) else { return };
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let mut gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let rule = Rule::ForwardFtp { name: "ftp".into(), public: WAN, to: INSIDE };
    gateway.add(&rule).expect("a forward");
    for form in Form::ALL {
        let sample = form.line(SocketAddrV4::new(INSIDE, 40_000));
        for cut in cuts(sample.len()) {
            // One session each: what a cut leaves behind must not help the next one.
            let run = || -> Result<()> {
                let mut dialogue = Dialogue::open(&lab, form.end())?;
                dialogue.nagle(End::Client, nagle)?;
                dialogue.nagle(End::Server, nagle)?;
                dialogue.log_in()?;
                passes(&mut dialogue, form, |_| cut)?;
                // And the session goes on, whole lines and cut ones.
                passes(&mut dialogue, form, Cut::After)?;
                passes(&mut dialogue, form, |_| Cut::EachByte)
            };
            run().unwrap_or_else(|error| {
                panic!("{form:?}, {cut:?}, {what}: {error:#}\n{}", gateway.diagnosis())
            });
        }
    }
    assert_no_leak(&gateway);
    gateway.stop().expect("an end");
}

/// Nothing was refused, and nothing was shown that had to be hidden.
fn assert_no_leak(gateway: &NatCtl<'_>) {
    let log = gateway.output();
    for word in ["refused", "leak"] {
        assert!(!log.contains(word), "the log says `{word}`:\n{log}");
    }
}

#[test]
fn every_cut_of_every_line_passes_with_nagle_on() {
    every_cut_passes(Nagle::On);
}

#[test]
fn every_cut_of_every_line_passes_with_nagle_off() {
    every_cut_passes(Nagle::Off);
}
