//! Runs a dialogue through the engine, with receivers that check every byte they get.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use nat_common::sequence::Corrections;
use nat_ctl::alg::{
    Command, ControlFlow, Event, Expectation, Gateway, PortRequest, Segment, Session, Side,
    Translation,
};

use crate::case::{Case, Expect, Want};

/// First bytes of the streams: both cross a border of the sequence space within a few lines.
const FIRST: [u32; 2] = [0u32.wrapping_sub(40), (1u32 << 31) - 40];

/// Segments that are sent behind one that is cut.
const BEHIND_CUT: usize = 8;

/// Whether one agent does it all.
#[derive(Clone, Copy)]
pub enum Agents {
    One,
    /// A successor takes over before this segment.
    ChangeBefore(usize),
}

/// Gives the port that is asked for; the corpus assumes it.
#[derive(Clone, Default)]
struct Ports {
    claimed: BTreeSet<u16>,
    /// Whether only addresses are translated, as for IPv6.
    kept: bool,
}

impl Gateway for Ports {
    fn keeps_ports(&self) -> bool {
        self.kept
    }

    fn claim(&mut self, request: &PortRequest) -> Option<u16> {
        let any = || (50000..).find(|port| !self.claimed.contains(port));
        let port = request.port.or_else(any)?;
        self.claimed.insert(port);
        Some(port)
    }

    fn release(&mut self, public: SocketAddr) {
        assert!(self.claimed.remove(&public.port()), "{public} was not claimed");
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
    }
}

/// A receiver, and the sender at the other end.
#[derive(Clone)]
struct Wire {
    first: u32,
    sent: usize,
    received: Vec<u8>,
}

/// Two ends with the engine between them.
#[derive(Clone)]
struct Line {
    session: Session,
    ports: Ports,
    wires: [Wire; 2],
    /// The shift of each direction, as the data plane has been told it.
    shifts: [Corrections; 2],
}

impl Line {
    fn new(case: &Case, flow: ControlFlow) -> Line {
        let session = match case.is_from_syn() {
            true => Session::new(flow, Default::default()),
            false => Session::joined(flow, Default::default()),
        };
        let wires = FIRST.map(|first| Wire { first, sent: 0, received: Vec::new() });
        let ports = Ports { kept: flow.public.is_ipv6(), ..Ports::default() };
        let mut line = Line { session, ports, wires, shifts: Default::default() };
        for side in [Side::Client, Side::Server] {
            line.session.starts_at(side, line.wires[side as usize].first);
        }
        for (side, bytes) in &case.before {
            line.send(*side, bytes);
        }
        line
    }

    /// Sends new bytes, and gives the commands and what the receiver got.
    fn send(&mut self, side: Side, bytes: &[u8]) -> (Vec<Command>, Vec<u8>) {
        let at = self.wires[side as usize].sent;
        self.wires[side as usize].sent += bytes.len();
        self.send_at(side, at, bytes)
    }

    fn send_at(&mut self, side: Side, at: usize, bytes: &[u8]) -> (Vec<Command>, Vec<u8>) {
        let wire = &self.wires[side as usize];
        let back = &self.wires[side.other() as usize];
        let segment = Segment {
            side,
            seq: wire.first.wrapping_add(at as u32),
            ack: Some(back.first.wrapping_add(back.received.len() as u32)),
            payload: bytes,
            fin: false,
            urgent: None,
        };
        let commands = self.session.on_segment(&segment, &mut self.ports);
        check_order(&commands);
        let before = self.wires[side as usize].received.len();
        for command in &commands {
            match command {
                Command::SetCorrections { side, corrections } => {
                    self.shifts[*side as usize] = *corrections;
                }
                Command::Emit(emit) => {
                    assert_eq!(emit.seq, self.shifts[side as usize].map_seq(segment.seq));
                    let ack =
                        segment.ack.map(|ack| self.shifts[side.other() as usize].map_ack(ack));
                    assert_eq!(emit.ack, ack);
                    self.wires[side as usize].receive(emit.seq, &emit.payload);
                }
                _ => {}
            }
        }
        let wire = &self.wires[side as usize];
        // What the receiver has is what the sender has sent, once the data plane has shifted it.
        let acknowledged = wire.first.wrapping_add(wire.received.len() as u32);
        let sent = wire.first.wrapping_add(wire.sent as u32);
        assert_eq!(self.shifts[side as usize].map_ack(acknowledged), sent);
        (commands, wire.received[before..].to_vec())
    }
}

impl Wire {
    /// Takes what is new, and insists that what is not has not changed.
    fn receive(&mut self, seq: u32, payload: &[u8]) {
        let offset = seq.wrapping_sub(self.first) as usize;
        assert!(offset <= self.received.len(), "a hole before offset {offset}");
        let known = (self.received.len() - offset).min(payload.len());
        let (old, new) = payload.split_at(known);
        assert_eq!(&self.received[offset..offset + known], old, "sent bytes have changed");
        self.received.extend_from_slice(new);
    }
}

/// Expectations before corrections before bytes.
fn check_order(commands: &[Command]) {
    let rank = |command: &Command| match command {
        Command::Expect(_) | Command::Unexpect(_) | Command::Log(_) => 0,
        Command::SetCorrections { .. } => 1,
        Command::EndInspection(_) | Command::ResumeInspection => 2,
        Command::Watch { .. } => 3,
        Command::Emit(_) | Command::Drop { .. } | Command::Reset { .. } => 4,
    };
    assert!(commands.iter().map(rank).is_sorted(), "out of order: {commands:#?}");
}

/// The commands of every segment.
pub fn commands(case: &Case, agents: Agents) -> Vec<Vec<Command>> {
    let mut line = Line::new(case, case.flow());
    let mut all = Vec::new();
    for (index, (side, bytes)) in case.segments.iter().enumerate() {
        if matches!(agents, Agents::ChangeBefore(point) if point == index) {
            let image = line.session.to_bytes().expect("a session fits its record");
            line.session = Session::from_bytes(&image, Default::default()).expect("its own record");
        }
        all.push(line.send(*side, bytes).0);
    }
    all
}

/// Whether a case gets exactly what it wants.
pub fn check(case: &Case) -> Result<(), String> {
    let flow = case.flow();
    let mut line = Line::new(case, flow);
    let mut done: Vec<(Vec<Command>, Vec<u8>, Vec<u8>)> = Vec::new();
    for (side, bytes) in &case.segments {
        let (commands, outside) = line.send(*side, bytes);
        done.push((commands, bytes.clone(), outside));
    }
    if let Some(want) = case.whole() {
        let commands = done.iter().flat_map(|(commands, ..)| commands.clone()).collect::<Vec<_>>();
        let inside = done.iter().flat_map(|(_, inside, _)| inside.clone()).collect::<Vec<_>>();
        let outside = done.iter().flat_map(|(.., outside)| outside.clone()).collect::<Vec<_>>();
        return check_want(want, &flow, &commands, &inside, &outside);
    }
    let pass = Want { segment: None, act: "pass".to_owned(), line: None, expect: None };
    for (index, (commands, inside, outside)) in done.iter().enumerate() {
        let want = case.want(index).unwrap_or(&pass);
        check_want(want, &flow, commands, inside, outside)
            .map_err(|why| format!("segment {index}: {why}"))?;
    }
    Ok(())
}

fn check_want(
    want: &Want,
    flow: &ControlFlow,
    commands: &[Command],
    inside: &[u8],
    outside: &[u8],
) -> Result<(), String> {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let expectations = expectations(commands);
    let unchanged = || match inside == outside {
        true => Ok(()),
        false => Err(format!("{:?} left as {:?}", show(inside), show(outside))),
    };
    if matches!(want.act.as_str(), "pass" | "refuse") && !expectations.is_empty() {
        return Err(format!("made {expectations:?}"));
    }
    match want.act.as_str() {
        "pass" => unchanged(),
        "refuse" => {
            let leaks = commands
                .iter()
                .any(|command| matches!(command, Command::Log(Event::LeakPrevented { .. })));
            let private = flow.address(flow.inside).to_string().replace('.', ",");
            match leaks {
                true if show(outside).contains(&private) => Err("an inside address left".into()),
                true => Ok(()),
                false => unchanged(),
            }
        }
        "expect" => {
            unchanged()?;
            check_expected(want, &expectations, None)
        }
        "rewrite" | "hold" => {
            let moved = match (want.act.as_str(), expectations.as_slice()) {
                ("hold", [one]) => Some(one.key.to.port()),
                _ => None,
            };
            check_expected(want, &expectations, moved)?;
            let wanted = wanted_outside(want, flow, inside, moved);
            match wanted == outside {
                true => Ok(()),
                false => Err(format!("{:?} left, not {:?}", show(outside), show(&wanted))),
            }
        }
        other => Err(format!("an action {other} is not known")),
    }
}

/// Compares the one expectation; where the public port could not be kept, `moved` replaces it.
fn check_expected(want: &Want, made: &[Expectation], moved: Option<u16>) -> Result<(), String> {
    let [made] = made else { return Err(format!("made {made:?}")) };
    let (dnat, snat) = match made.translation {
        Translation::Inbound(to) => (Some(to.to_string()), None),
        Translation::Outbound(from) => (None, Some(from.to_string())),
        Translation::Turned { to, public, .. } => (Some(to.to_string()), Some(public.to_string())),
    };
    let from = made.key.from.to_string();
    let made = Expect { from, to: made.key.to.to_string(), dnat, snat };
    let Some(mut wanted) = want.expect.clone() else { return Ok(()) };
    if let (Some(port), Some((address, _))) = (moved, wanted.to.clone().split_once(':')) {
        wanted.to = format!("{address}:{port}");
    }
    match made == wanted {
        true => Ok(()),
        false => Err(format!("made {made:?}, not {wanted:?}")),
    }
}

/// The bytes that should leave: the line that announces, as the case states it or with the address
/// replaced; all else as it came.
fn wanted_outside(want: &Want, flow: &ControlFlow, inside: &[u8], moved: Option<u16>) -> Vec<u8> {
    let private = flow.address(flow.inside).to_string();
    let public = flow.public.ip().to_string();
    let comma = |address: &str| address.replace('.', ",");
    let latin: String = inside.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = Vec::new();
    for line in latin.split_inclusive('\n') {
        let plain = line.replace(", ", ",");
        let word = line.trim_start_matches(|char| char >= '\u{f0}');
        let upper = word.to_ascii_uppercase();
        let announces = ["PORT ", "EPRT ", "227", "228"].iter().any(|it| upper.starts_with(it));
        lines.push(match &want.line {
            Some(wanted) if announces => {
                let telnet = &line[..line.len() - word.len()];
                format!("{telnet}{wanted}")
            }
            None if announces && plain.contains(&comma(&private)) => {
                plain.replace(&comma(&private), &comma(&public))
            }
            _ => line.to_owned(),
        });
    }
    let mut text = lines.concat();
    if let (Some(port), Some(expect)) = (moved, &want.expect) {
        let stated = expect.to.rsplit(':').next().expect("a port").parse().expect("a port");
        let pair = |port: u16| format!(",{},{}", port >> 8, port & 255);
        text = text.replace(&pair(stated), &pair(port));
    }
    text.chars().map(|char| char as u8).collect()
}

fn expectations(commands: &[Command]) -> Vec<Expectation> {
    let expected = |command: &Command| match command {
        Command::Expect(expectation) => Some(*expectation),
        _ => None,
    };
    commands.iter().filter_map(expected).collect()
}

/// Cuts each segment of a case in two at every byte, and into single bytes, and repeats what was
/// sent; gives the number of cuts.
pub fn check_cuts(case: &Case) -> Result<usize, String> {
    let mut line = Line::new(case, case.flow());
    let mut cuts = 0;
    for (index, (side, bytes)) in case.segments.iter().enumerate() {
        let act = case.want(index).or(case.whole()).map(|want| want.act.as_str());
        let wanted = !matches!(act, None | Some("pass"));
        let all: Vec<usize> = (1..bytes.len()).collect();
        // Where nothing is wanted of a segment, single bytes are enough; of a long one, nothing.
        let halves = all.iter().filter(|_| wanted).map(|cut| vec![*cut]);
        for borders in halves.chain([all.clone()]).filter(|_| bytes.len() < 200) {
            cuts += 1;
            let rest = &case.segments[index..];
            check_cut(&line, rest, &borders)
                .map_err(|why| format!("{index} {borders:?}: {why}"))?;
        }
        line.send(*side, bytes);
    }
    Ok(cuts)
}

/// Sends a segment whole and cut, and a few of those behind it, and compares.
fn check_cut(line: &Line, rest: &[(Side, Vec<u8>)], borders: &[usize]) -> Result<(), String> {
    let (mut whole, mut cut) = (line.clone(), line.clone());
    let (mut made, mut made_cut) = (Vec::new(), Vec::new());
    for (index, (side, bytes)) in rest.iter().enumerate().take(BEHIND_CUT) {
        made.extend(expectations(&whole.send(*side, bytes).0));
        let start = cut.wires[*side as usize].sent;
        let borders = if index == 0 { borders } else { &[] };
        let mut from = 0;
        for to in borders.iter().copied().chain([bytes.len()]) {
            made_cut.extend(expectations(&cut.send(*side, &bytes[from..to]).0));
            // Again, and with other borders.
            let again = cut.send_at(*side, start + from, &bytes[from..to]);
            let back = from.saturating_sub(3);
            let more = cut.send_at(*side, start + back, &bytes[back..to]);
            if !again.1.is_empty() || !more.1.is_empty() {
                return Err("a repeat brought new bytes".into());
            }
            from = to;
        }
    }
    if made.len() != made_cut.len() {
        return Err(format!("{made:?} whole, {made_cut:?} cut"));
    }
    let flow = *line.session.flow();
    for side in [Side::Client, Side::Server] {
        let received = |line: &Line| line.wires[side as usize].received.clone();
        let (one, other) = (received(&whole), received(&cut));
        if side != flow.inside && one != other {
            return Err("the outside end's bytes have changed".into());
        }
        compare_lines(&flow, &one, &other, &made, &made_cut)?;
    }
    Ok(())
}

/// The streams agree line by line, but for blanks and case, and for the port where it had to be
/// claimed before it was known. A line that makes no expectation may announce anything of the public
/// address.
fn compare_lines(
    flow: &ControlFlow,
    whole: &[u8],
    cut: &[u8],
    made: &[Expectation],
    made_cut: &[Expectation],
) -> Result<(), String> {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        text.split('\n').map(|line| line.replace([' ', '\t'], "").to_ascii_uppercase()).collect()
    };
    let (whole, cut) = (lines(whole), lines(cut));
    if whole.len() != cut.len() {
        return Err(format!("{whole:?} became {cut:?}"));
    }
    for (whole, cut) in whole.iter().zip(&cut) {
        let pair = |port: u16| format!(",{},{}", port >> 8, port & 255);
        let renamed = made.iter().zip(made_cut).any(|(one, other)| {
            let (one, other) = (one.key.to.port(), other.key.to.port());
            let plain = cut.replace('#', "|");
            let moved = whole.replace(&pair(one), &pair(other));
            let between = |delimiter: char, port: u16| format!("{delimiter}{port}{delimiter}");
            let fields =
                |delimiter| whole.replace(&between(delimiter, one), &between(delimiter, other));
            plain == moved || plain == fields('|') || *cut == fields('!')
        });
        let shows = |address: IpAddr| {
            let (dotted, listed) = (address.to_string(), address.to_string().replace('.', ","));
            cut.contains(&dotted) || cut.contains(&listed)
        };
        let hidden = shows(flow.public.ip()) && !shows(flow.address(flow.inside));
        if whole != cut && !renamed && !(made.is_empty() && hidden) {
            return Err(format!("{whole:?} became {cut:?}"));
        }
    }
    Ok(())
}
