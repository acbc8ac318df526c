//! ICMP: echoes, errors about flows and about nothing, and everything else.

use anyhow::Result;
use nat_tests::{
    lab::{INSIDE, OUTSIDE, WAN},
    packet::Packet,
};

use super::{
    stage::{
        Scene,
        Side::{self, Inside, Outside},
        Step,
    },
    udp,
};

/// How much of a packet is quoted at least (RFC 792): its header and eight bytes.
const QUOTE: usize = 28;

fn echo(scene: &Scene<'_>) -> Packet {
    let identifier = u32::from(scene.cast.host().port()) << 16;
    let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
    Packet::icmp(host, remote, [8, 0], identifier | 1, b"echo")
}

fn reply(scene: &Scene<'_>) -> Packet {
    let identifier = u32::from(scene.cast.host().port()) << 16;
    Packet::icmp(*scene.cast.remote().ip(), WAN, [0, 0], identifier | 1, b"echo")
}

/// What an error from that side is about: a datagram to there, as it was there.
fn about(scene: &Scene<'_>, from: Side) -> Packet {
    let packet = match from {
        Outside => Packet::udp(scene.cast.public(), scene.cast.remote(), b"question"),
        Inside => Packet::udp(scene.cast.remote(), scene.cast.host(), b"answer"),
    };
    packet.with_ttl(61)
}

/// An error of a router on that side.
fn error(scene: &Scene<'_>, from: Side, kind: [u8; 2], word: u32, quote: &[u8]) -> Packet {
    let ends = match from {
        Outside => [OUTSIDE, WAN],
        Inside => [INSIDE, *scene.cast.remote().ip()],
    };
    Packet::icmp(ends[0], ends[1], kind, word, quote)
}

fn flow(scene: &mut Scene<'_>) -> Result<()> {
    udp::open(scene)?;
    let answer = Packet::udp(scene.cast.remote(), scene.cast.public(), b"answer");
    scene.through(Outside, &answer).map(drop)
}

/// Sends an error about a flow that there is, or not, which quotes so much.
fn send_error(scene: &mut Scene<'_>, from: Side, kind: [u8; 2], word: u32, length: usize) {
    let quote = about(scene, from).bytes();
    let packet = error(scene, from, kind, word, &quote[..length.min(quote.len())]);
    scene.send(from, &packet);
}

macro_rules! errors {
    ($($name:literal, $ours:literal, $from:ident, $kind:expr, $word:expr, $length:expr;)+) => {
        &[$(Step {
            name: $name,
            ours: $ours,
            play: |scene| {
                flow(scene)?;
                send_error(scene, $from, $kind, $word, $length);
                Ok(())
            },
        }),+]
    };
}

/// Errors about a flow.
pub const ERRORS: &[Step] = errors! {
    "host unreachable from outside", "inside: ICMP 3/1 router > host, about UDP host > remote", Outside, [3, 1], 0, QUOTE;
    "host unreachable from inside", "outside: ICMP 3/1 public > remote, about UDP remote > public", Inside, [3, 1], 0, QUOTE;
    "port unreachable from outside", "inside: ICMP 3/3 router > host, about UDP host > remote", Outside, [3, 3], 0, QUOTE;
    "fragmentation needed from outside", "inside: ICMP 3/4 router > host, about UDP host > remote, MTU 1300", Outside, [3, 4], 1300, QUOTE;
    "fragmentation needed from inside", "outside: ICMP 3/4 public > remote, about UDP remote > public, MTU 1300", Inside, [3, 4], 1300, QUOTE;
    "time exceeded from outside", "inside: ICMP 11/0 router > host, about UDP host > remote", Outside, [11, 0], 0, QUOTE;
    "time exceeded from inside", "outside: ICMP 11/0 public > remote, about UDP remote > public", Inside, [11, 0], 0, QUOTE;
    "reassembly time exceeded from outside", "inside: ICMP 11/1 router > host, about UDP host > remote", Outside, [11, 1], 0, QUOTE;
    "parameter problem from outside", "inside: ICMP 12/0 router > host, about UDP host > remote", Outside, [12, 0], 1 << 24, QUOTE;
    "parameter problem from inside", "outside: ICMP 12/0 public > remote, about UDP remote > public", Inside, [12, 0], 1 << 24, QUOTE;
    "source quench from outside", "dropped", Outside, [4, 0], 0, QUOTE;
    "source quench from inside", "dropped", Inside, [4, 0], 0, QUOTE;
    "redirect from outside", "dropped", Outside, [5, 1], 0xcb00_710c, QUOTE;
    "redirect from inside", "dropped", Inside, [5, 1], 0x0a00_0109, QUOTE;
    "an error that quotes all", "inside: ICMP 3/1 router > host, about UDP host > remote", Outside, [3, 1], 0, 100;
    "an error that quotes four bytes behind the header", "dropped", Outside, [3, 1], 0, 24;
    "an error that quotes no ports", "dropped", Outside, [3, 1], 0, 20;
    "an error that quotes half a header", "dropped", Outside, [3, 1], 0, 10;
    "an error that quotes nothing", "dropped", Outside, [3, 1], 0, 0;
};

pub const STEPS: &[Step] = &[
    Step {
        name: "echo from inside, and its reply",
        ours: "outside: echo public > remote; then inside: echo reply remote > host",
        play: |scene| {
            scene.send(Inside, &echo(scene));
            scene.then();
            scene.send(Outside, &reply(scene));
            Ok(())
        },
    },
    Step {
        name: "echo reply with another identifier",
        ours: "dropped",
        play: |scene| {
            scene.through(Inside, &echo(scene))?;
            let word = u32::from(scene.cast.host().port() + 20_000) << 16;
            let remote = *scene.cast.remote().ip();
            scene.send(Outside, &Packet::icmp(remote, WAN, [0, 0], word, b"echo"));
            Ok(())
        },
    },
    Step {
        name: "echo reply from another address",
        ours: "dropped",
        play: |scene| {
            scene.through(Inside, &echo(scene))?;
            let mut packet = reply(scene);
            packet.source = *scene.cast.another().ip();
            scene.send(Outside, &packet);
            Ok(())
        },
    },
    Step {
        name: "echo reply that nobody asked for, from outside",
        ours: "dropped",
        play: |scene| {
            scene.send(Outside, &reply(scene));
            Ok(())
        },
    },
    Step {
        name: "echo reply that nobody asked for, from inside",
        ours: "dropped",
        play: |scene| {
            let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
            let word = u32::from(scene.cast.host().port()) << 16;
            scene.send(Inside, &Packet::icmp(host, remote, [0, 0], word, b"echo"));
            Ok(())
        },
    },
    Step {
        name: "echo from outside to the gateway",
        ours: "outside: echo reply public > remote",
        play: |scene| {
            let word = u32::from(scene.cast.host().port()) << 16;
            let remote = *scene.cast.remote().ip();
            scene.send(Outside, &Packet::icmp(remote, WAN, [8, 0], word, b"echo"));
            Ok(())
        },
    },
    Step {
        name: "echo from inside to the public address",
        ours: "inside: echo reply public > host",
        play: |scene| {
            let word = u32::from(scene.cast.host().port()) << 16;
            let host = *scene.cast.host().ip();
            scene.send(Inside, &Packet::icmp(host, WAN, [8, 0], word, b"echo"));
            Ok(())
        },
    },
    Step {
        name: "echo with TTL 1",
        ours: "inside: ICMP 11/0 gateway > host, about echo host > remote",
        play: |scene| {
            scene.send(Inside, &echo(scene).with_ttl(1));
            Ok(())
        },
    },
    Step {
        name: "echo with a wrong checksum",
        ours: "outside: echo public > remote, wrong checksum",
        play: |scene| {
            scene.send(Inside, &echo(scene).with_wrong_byte(9));
            Ok(())
        },
    },
    Step {
        name: "timestamp request from inside",
        ours: "dropped",
        play: |scene| {
            let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
            let word = u32::from(scene.cast.host().port()) << 16;
            scene.send(Inside, &Packet::icmp(host, remote, [13, 0], word, &[0; 12]));
            Ok(())
        },
    },
    Step {
        name: "timestamp request from outside to the gateway",
        ours: "outside: ICMP 14/0 public > remote",
        play: |scene| {
            let word = u32::from(scene.cast.host().port()) << 16;
            let remote = *scene.cast.remote().ip();
            scene.send(Outside, &Packet::icmp(remote, WAN, [13, 0], word, &[0; 12]));
            Ok(())
        },
    },
    Step {
        name: "router solicitation from inside",
        ours: "dropped",
        play: |scene| {
            let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
            scene.send(Inside, &Packet::icmp(host, remote, [10, 0], 0, b""));
            Ok(())
        },
    },
    Step {
        name: "an error about no flow, from outside",
        ours: "dropped",
        play: |scene| {
            send_error(scene, Outside, [3, 1], 0, QUOTE);
            Ok(())
        },
    },
    Step {
        name: "an error about no flow, from inside",
        ours: "dropped",
        play: |scene| {
            send_error(scene, Inside, [3, 1], 0, QUOTE);
            Ok(())
        },
    },
    Step {
        name: "an error for another than has sent what it quotes",
        ours: "dropped",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Inside).bytes();
            let packet = Packet::icmp(INSIDE, *scene.cast.another().ip(), [3, 1], 0, &quote);
            scene.send(Inside, &packet);
            Ok(())
        },
    },
    Step {
        name: "an error of the remote itself",
        ours: "inside: ICMP 3/3 remote > host, about UDP host > remote",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Outside).bytes();
            let remote = *scene.cast.remote().ip();
            scene.send(Outside, &Packet::icmp(remote, WAN, [3, 3], 0, &quote));
            Ok(())
        },
    },
    Step {
        name: "an error of the host itself",
        ours: "outside: ICMP 3/3 public > remote, about UDP remote > public",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Inside).bytes();
            let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
            scene.send(Inside, &Packet::icmp(host, remote, [3, 3], 0, &quote));
            Ok(())
        },
    },
    Step {
        name: "an error with a wrong checksum, from outside",
        ours: "dropped",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Outside).bytes();
            let packet = error(scene, Outside, [3, 1], 0, &quote[..QUOTE]);
            scene.send(Outside, &packet.with_wrong_byte(5));
            Ok(())
        },
    },
    Step {
        name: "an error with a wrong checksum, from inside",
        ours: "dropped",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Inside).bytes();
            let packet = error(scene, Inside, [3, 1], 0, &quote[..QUOTE]);
            scene.send(Inside, &packet.with_wrong_byte(5));
            Ok(())
        },
    },
    Step {
        name: "an error that quotes a header with a wrong checksum",
        ours: "inside: ICMP 3/1 router > host, about UDP host > remote, wrong header checksum in the quote",
        play: |scene| {
            flow(scene)?;
            let mut quote = about(scene, Outside).bytes();
            quote[10] ^= 0xff;
            scene.send(Outside, &error(scene, Outside, [3, 1], 0, &quote[..QUOTE]));
            Ok(())
        },
    },
    Step {
        name: "an error that quotes options",
        ours: "inside: ICMP 3/1 router > host, about UDP host > remote",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Outside).with_options(&[7, 7, 4, 0, 0, 0, 0, 0]).bytes();
            scene.send(Outside, &error(scene, Outside, [3, 1], 0, &quote[..QUOTE + 8]));
            Ok(())
        },
    },
    Step {
        name: "an error that quotes a first fragment",
        ours: "inside: ICMP 3/4 router > host, about UDP host > remote, MTU 1300",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Outside).piece(0, 8).bytes();
            scene.send(Outside, &error(scene, Outside, [3, 4], 1300, &quote));
            Ok(())
        },
    },
    Step {
        name: "an error that quotes a later fragment",
        ours: "dropped",
        play: |scene| {
            flow(scene)?;
            let quote = about(scene, Outside).piece(8, 16).bytes();
            scene.send(Outside, &error(scene, Outside, [11, 1], 0, &quote));
            Ok(())
        },
    },
    Step {
        name: "an error that quotes an echo, from outside",
        ours: "inside: ICMP 11/0 router > host, about echo host > remote",
        play: |scene| {
            scene.through(Inside, &echo(scene))?;
            let mut quoted = echo(scene);
            quoted.source = WAN;
            let quote = quoted.bytes();
            scene.send(Outside, &error(scene, Outside, [11, 0], 0, &quote));
            Ok(())
        },
    },
    Step {
        name: "an error about an error",
        ours: "dropped",
        play: |scene| {
            flow(scene)?;
            let inner = about(scene, Outside).bytes();
            let quote = Packet::icmp(WAN, *scene.cast.remote().ip(), [3, 1], 0, &inner[..QUOTE]);
            scene.send(Outside, &error(scene, Outside, [11, 0], 0, &quote.bytes()));
            Ok(())
        },
    },
];
