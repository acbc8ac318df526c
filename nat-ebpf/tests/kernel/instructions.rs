//! How many instructions a packet takes, and how many calls of helpers: the same on every machine,
//! so that not one of them comes unseen.
//!
//! `instructions.txt` has them for the object as it is; `UPDATE_INSTRUCTIONS=1` writes those of this
//! one. They are those of one compiler: another one may need the counts written anew.

use crate::{
    both::{Both, ROOMY, Step, clock},
    common::{
        frame::{ACK, SYN, Spec, TCP, UDP},
        gateway::{HOST, PUBLIC, REMOTE},
    },
    counted::{Executed, Executions},
    lab,
};
use nat_common::{counter::Counter, flow::Zone};
use std::{env, fs, path::PathBuf};

fn snapshot() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt")
}

#[derive(Clone, Copy, Debug)]
enum Hook {
    Xdp,
    Tc,
}

/// An end inside and one outside, and the public port of the former: its own, which is in the pool.
const INSIDE: ([u8; 4], u16) = (HOST, 40001);
const OUTSIDE: ([u8; 4], u16) = (REMOTE, 80);
const SEEN: ([u8; 4], u16) = (PUBLIC, 40001);

/// A packet of the one flow, as it arrives from `zone`.
fn spec(protocol: u8, zone: Zone, flags: u8) -> Spec {
    let (from, to) = match zone {
        Zone::Inside => (INSIDE, OUTSIDE),
        Zone::Outside => (OUTSIDE, SEEN),
    };
    match protocol {
        TCP => Spec::tcp(from, to, flags),
        _ => Spec::udp(from, to),
    }
}

/// A gateway whose object counts what it executes.
struct Counted {
    both: Both,
    executed: Executions,
}

impl Counted {
    /// What a packet executes that the hook finishes.
    fn packet(&mut self, hook: Hook, protocol: u8, zone: Zone, flags: u8) -> String {
        let (early, counter) = match hook {
            Hook::Xdp => (true, Counter::Xdp),
            Hook::Tc => (false, Counter::Tc),
        };
        let packet = spec(protocol, zone, flags);
        let before = self.both.counted(counter);
        self.executed.take();
        self.both.packet(early, zone, &packet.build());
        let Executed { instructions, calls } = self.executed.take();
        assert_eq!(self.both.counted(counter), before + 1, "{hook:?} finishes {packet:?}");
        format!("{instructions} {calls}")
    }

    /// The same of a packet that is not the first one of its flow in a second: that one does more, it
    /// says when the flow was used.
    fn another(&mut self, hook: Hook, protocol: u8, zone: Zone) -> String {
        loop {
            let began = clock();
            self.packet(hook, protocol, zone, ACK);
            let line = self.packet(hook, protocol, zone, ACK);
            if clock() == began {
                return line;
            }
        }
    }

    /// What each kind of packet executes.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for (hook, place) in [(Hook::Xdp, "xdp"), (Hook::Tc, "tc")] {
            for (protocol, name) in [(TCP, "tcp"), (UDP, "udp")] {
                self.both.reset();
                // The options of a SYN are read by TC alone.
                let opening = if protocol == TCP { Hook::Tc } else { hook };
                let first = self.packet(opening, protocol, Zone::Inside, SYN);
                // The answer finds its way too; then the agent fills in what is known of both.
                self.packet(opening, protocol, Zone::Outside, SYN | ACK);
                self.both.keep_hops(&Step::Fill(true, 1500));
                let outbound = self.another(hook, protocol, Zone::Inside);
                let inbound = self.another(hook, protocol, Zone::Outside);
                for (kind, counts) in
                    [("first", first), ("outbound", outbound), ("inbound", inbound)]
                {
                    lines.push(format!("{place} {name} {kind} {counts}"));
                }
            }
        }
        lines
    }
}

#[test]
fn a_packet_takes_as_many_instructions_as_it_did() {
    lab::run("a_packet_takes_as_many_instructions_as_it_did", |object| {
        // Nobody else sends: the kernel would, once an interface is up.
        let quiet = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let _sockets = lab::set_up();
        let mut executed = Executions::new();
        let both = Both::new(&executed.instrument(&object), ROOMY);
        let mut counted = Counted { both, executed };
        // The host gets its place in `hosts`, which it keeps: 195 instructions more, once.
        counted.packet(Hook::Tc, UDP, Zone::Inside, SYN);
        let lines = counted.lines();
        println!("{}", lines.join("\n"));
        assert_eq!(lines, counted.lines(), "the same again (IPv6 off: {quiet:?})");
        if env::var_os("UPDATE_INSTRUCTIONS").is_some() {
            fs::write(snapshot(), lines.join("\n") + "\n").expect("the snapshot is written");
        }
        let known = fs::read_to_string(snapshot()).unwrap_or_default();
        assert_eq!(
            lines,
            known.lines().collect::<Vec<_>>(),
            "instructions and calls, now and in instructions.txt; if that is meant, run with \
             UPDATE_INSTRUCTIONS=1"
        );
    });
}
