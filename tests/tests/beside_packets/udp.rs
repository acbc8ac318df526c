//! UDP, other protocols, and sizes.

use nat_tests::packet::{Packet, UDP};

use super::{
    cast::{NAMES, NAMES_PORT, NARROW, SERVER},
    stage::{
        Scene,
        Side::{Inside, Outside},
        Step,
    },
};

/// What is too long for the narrow ways, and fits all others.
const LARGE: [u8; 1400] = [7; 1400];

fn asked(scene: &Scene<'_>) -> Packet {
    Packet::udp(scene.cast.host(), scene.cast.remote(), b"question")
}

fn answer(scene: &Scene<'_>) -> Packet {
    Packet::udp(scene.cast.remote(), scene.cast.public(), b"answer")
}

fn to_forward(scene: &Scene<'_>) -> Packet {
    Packet::udp(scene.cast.remote(), NAMES, b"question")
}

/// A flow from inside.
pub fn open(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.through(Inside, &asked(scene)).map(drop)
}

/// The same datagram without a checksum.
fn unsummed(mut packet: Packet) -> Packet {
    packet.payload[6..8].fill(0);
    packet
}

/// One whose own length field says so many bytes.
fn with_length(mut packet: Packet, length: u16) -> Packet {
    packet.payload[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

fn other(scene: &mut Scene<'_>, protocol: u8, from: super::stage::Side) {
    let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
    // A GRE header of version 0 with a key, or the SPI of ESP, or ports and a tag of SCTP.
    let payload = vec![0x20, 0, 8, 0, 0, 0, 0, 7, 0, 0, 0, 0, 1, 0, 0, 4];
    let packet = match from {
        Inside => Packet::new(protocol, host, remote, payload),
        Outside => Packet::new(protocol, remote, *scene.cast.public().ip(), payload),
    };
    scene.send(from, &packet);
}

pub const STEPS: &[Step] = &[
    Step {
        name: "UDP from inside",
        ours: "outside: UDP public > remote",
        play: |scene| {
            scene.send(Inside, &asked(scene));
            Ok(())
        },
    },
    Step {
        name: "UDP answer",
        ours: "inside: UDP remote > host",
        play: |scene| {
            open(scene)?;
            scene.send(Outside, &answer(scene));
            Ok(())
        },
    },
    Step {
        name: "UDP answer from another port",
        ours: "dropped",
        play: |scene| {
            open(scene)?;
            let mut from = scene.cast.remote();
            from.set_port(from.port() + 20_000);
            scene.send(Outside, &Packet::udp(from, scene.cast.public(), b"answer"));
            Ok(())
        },
    },
    Step {
        name: "UDP answer from another address",
        ours: "dropped",
        play: |scene| {
            open(scene)?;
            let packet = Packet::udp(scene.cast.another(), scene.cast.public(), b"answer");
            scene.send(Outside, &packet);
            Ok(())
        },
    },
    Step {
        name: "UDP to the public address, unsolicited",
        ours: "dropped",
        play: |scene| {
            scene.send(Outside, &answer(scene));
            Ok(())
        },
    },
    Step {
        name: "UDP to an inside address",
        ours: "dropped",
        play: |scene| {
            let packet = Packet::udp(scene.cast.remote(), scene.cast.host(), b"knock");
            scene.send(Outside, &packet);
            Ok(())
        },
    },
    Step {
        name: "UDP to a forward, and its answer",
        ours: "inside: UDP remote > server; then outside: UDP public > remote",
        play: |scene| {
            scene.send(Outside, &to_forward(scene));
            scene.then();
            let from = std::net::SocketAddrV4::new(SERVER, NAMES_PORT);
            scene.send(Inside, &Packet::udp(from, scene.cast.remote(), b"answer"));
            Ok(())
        },
    },
    Step {
        name: "UDP to a forward from inside (hairpin)",
        ours: "inside: UDP public > server",
        play: |scene| {
            scene.send(Inside, &Packet::udp(scene.cast.host(), NAMES, b"question"));
            Ok(())
        },
    },
    Step {
        name: "UDP without a checksum, and its answer",
        ours: "outside: UDP public > remote, no checksum; then inside: UDP remote > host, no checksum",
        play: |scene| {
            scene.send(Inside, &unsummed(asked(scene)));
            scene.then();
            scene.send(Outside, &unsummed(answer(scene)));
            Ok(())
        },
    },
    Step {
        name: "UDP with a wrong checksum",
        ours: "outside: UDP public > remote, wrong checksum",
        play: |scene| {
            scene.send(Inside, &asked(scene).with_wrong_byte(9));
            Ok(())
        },
    },
    Step {
        name: "UDP answer with a wrong checksum",
        ours: "inside: UDP remote > host, wrong checksum",
        play: |scene| {
            open(scene)?;
            scene.send(Outside, &answer(scene).with_wrong_byte(9));
            Ok(())
        },
    },
    Step {
        name: "UDP that says to be longer than its packet",
        ours: "outside: UDP public > remote, no checksum",
        play: |scene| {
            scene.send(Inside, &unsummed(with_length(asked(scene), 400)));
            Ok(())
        },
    },
    Step {
        name: "UDP cut within its header",
        ours: "dropped",
        play: |scene| {
            let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
            let ports =
                [scene.cast.host().port(), scene.cast.remote().port()].map(u16::to_be_bytes);
            scene.send(Inside, &Packet::new(UDP, host, remote, ports.as_flattened().to_vec()));
            Ok(())
        },
    },
    Step {
        name: "UDP from port 0",
        ours: "outside: UDP public at another port > remote",
        play: |scene| {
            let mut from = scene.cast.host();
            from.set_port(0);
            scene.send(Inside, &Packet::udp(from, scene.cast.remote(), b"question"));
            Ok(())
        },
    },
    Step {
        name: "UDP to port 0",
        ours: "outside: UDP public > remote at port 0",
        play: |scene| {
            let mut to = scene.cast.remote();
            to.set_port(0);
            scene.send(Inside, &Packet::udp(scene.cast.host(), to, b"question"));
            Ok(())
        },
    },
    Step {
        name: "UDP with TTL 1",
        ours: "inside: ICMP 11/0 gateway > host, about UDP host > remote",
        play: |scene| {
            scene.send(Inside, &asked(scene).with_ttl(1));
            Ok(())
        },
    },
    Step {
        name: "UDP with TTL 1 in a flow",
        ours: "inside: ICMP 11/0 gateway > host, about UDP host > remote",
        play: |scene| {
            open(scene)?;
            scene.send(Inside, &asked(scene).with_ttl(1));
            Ok(())
        },
    },
    Step {
        name: "UDP answer with TTL 1",
        ours: "outside: ICMP 11/0 public > remote, about UDP remote > public",
        play: |scene| {
            open(scene)?;
            scene.send(Outside, &answer(scene).with_ttl(1));
            Ok(())
        },
    },
    Step {
        name: "UDP with TTL 1 to a forward",
        ours: "outside: ICMP 11/0 public > remote, about UDP remote > public",
        play: |scene| {
            scene.send(Outside, &to_forward(scene).with_ttl(1));
            Ok(())
        },
    },
    Step {
        name: "UDP with TTL 0",
        ours: "inside: ICMP 11/0 gateway > host, about UDP host > remote",
        play: |scene| {
            scene.send(Inside, &asked(scene).with_ttl(0));
            Ok(())
        },
    },
    Step {
        name: "a packet with DF that is too long for its way",
        ours: "inside: ICMP 3/4 gateway > host, about UDP host > distant, MTU 1300",
        play: |scene| {
            let packet = Packet::udp(scene.cast.host(), scene.cast.distant(), &LARGE);
            scene.send(Inside, &packet.kept_whole());
            Ok(())
        },
    },
    Step {
        name: "a packet without DF that is too long for its way",
        ours: "outside: UDP public > distant, bytes 0-1279 1280-1407",
        play: |scene| {
            scene.send(Inside, &Packet::udp(scene.cast.host(), scene.cast.distant(), &LARGE));
            Ok(())
        },
    },
    Step {
        name: "a packet with DF that is too long for the way in",
        ours: "outside: ICMP 3/4 public > remote, about UDP remote > public, MTU 1300",
        play: |scene| {
            scene.send(Outside, &Packet::udp(scene.cast.remote(), NARROW, &LARGE).kept_whole());
            Ok(())
        },
    },
    Step {
        name: "a packet without DF that is too long for the way in",
        ours: "inside: UDP remote > server, bytes 0-1279 1280-1407",
        play: |scene| {
            scene.send(Outside, &Packet::udp(scene.cast.remote(), NARROW, &LARGE));
            Ok(())
        },
    },
    Step {
        name: "GRE from inside",
        ours: "dropped",
        play: |scene| {
            other(scene, 47, Inside);
            Ok(())
        },
    },
    Step {
        name: "ESP from inside",
        ours: "dropped",
        play: |scene| {
            other(scene, 50, Inside);
            Ok(())
        },
    },
    Step {
        name: "SCTP from inside",
        ours: "dropped",
        play: |scene| {
            other(scene, 132, Inside);
            Ok(())
        },
    },
    Step {
        name: "GRE from outside",
        ours: "outside: ICMP 3/2 public > remote, about GRE remote > public",
        play: |scene| {
            other(scene, 47, Outside);
            Ok(())
        },
    },
    Step {
        name: "ESP from outside",
        ours: "outside: ICMP 3/2 public > remote, about ESP remote > public",
        play: |scene| {
            other(scene, 50, Outside);
            Ok(())
        },
    },
    Step {
        name: "SCTP from outside",
        ours: "outside: ICMP 3/2 public > remote, about SCTP remote > public",
        play: |scene| {
            other(scene, 132, Outside);
            Ok(())
        },
    },
];
