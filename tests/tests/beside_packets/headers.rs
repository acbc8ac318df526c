//! IPv4 headers that are wrong, rare or forged.

use std::net::{Ipv4Addr, SocketAddrV4};

use nat_tests::{
    lab::{LAN, WAN},
    packet::{Packet, SYN, Segment, with_header},
};

use super::{
    cast::NAMES,
    stage::{
        Scene,
        Side::{self, Inside, Outside},
        Step,
    },
};

/// Options of RFC 791 section 3.1, with room for two addresses, or one to go by.
const RECORD_ROUTE: [u8; 12] = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const TIMESTAMPS: [u8; 12] = [68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ROUTER_ALERT: [u8; 4] = [148, 4, 0, 0];
const LOOSE: [u8; 8] = [131, 7, 4, 198, 51, 100, 254, 0];
const STRICT: [u8; 8] = [137, 7, 4, 198, 51, 100, 254, 0];
/// An option that is longer than all of them.
const ENDLESS: [u8; 4] = [7, 40, 4, 0];

fn asked(scene: &Scene<'_>) -> Packet {
    Packet::udp(scene.cast.host(), scene.cast.remote(), b"question")
}

/// Sends a datagram with options: from inside, or to a forward.
fn send_options(scene: &mut Scene<'_>, from: Side, options: &[u8]) {
    let packet = match from {
        Inside => asked(scene),
        Outside => Packet::udp(scene.cast.remote(), NAMES, b"question"),
    };
    scene.send(from, &packet.with_options(options));
}

macro_rules! options {
    ($($name:literal, $ours:literal, $from:ident, $options:expr;)+) => {
        &[$(Step {
            name: $name,
            ours: $ours,
            play: |scene| {
                send_options(scene, $from, &$options);
                Ok(())
            },
        }),+]
    };
}

/// IP options.
pub const OPTIONS: &[Step] = options! {
    "record route from inside", "outside: UDP public > remote, record route with 0 entries", Inside, RECORD_ROUTE;
    "record route to a forward", "inside: UDP remote > server, record route with 0 entries", Outside, RECORD_ROUTE;
    "timestamps from inside", "outside: UDP public > remote, timestamps with 0 entries", Inside, TIMESTAMPS;
    "router alert from inside", "outside: UDP public > remote, option 148", Inside, ROUTER_ALERT;
    "loose source route from inside", "outside: UDP public > remote, source route", Inside, LOOSE;
    "loose source route to a forward", "inside: UDP remote > server, source route", Outside, LOOSE;
    "strict source route to a forward", "inside: UDP remote > server, source route", Outside, STRICT;
    "an option longer than the header", "outside: UDP public > remote, record route with 0 entries", Inside, ENDLESS;
};

/// Sends a datagram from an address that is not its sender's: from inside to the remote, or from outside
/// to a forward.
fn send_from(scene: &mut Scene<'_>, from: Side, source: Ipv4Addr) {
    let (port, to) = match from {
        Inside => (scene.cast.host().port(), scene.cast.remote()),
        Outside => (scene.cast.remote().port(), NAMES),
    };
    scene.send(from, &Packet::udp(SocketAddrV4::new(source, port), to, b"question"));
}

macro_rules! sources {
    ($($name:literal, $ours:literal, $from:ident, $source:expr;)+) => {
        &[$(Step {
            name: $name,
            ours: $ours,
            play: |scene| {
                send_from(scene, $from, $source);
                Ok(())
            },
        }),+]
    };
}

/// Source addresses.
pub const SOURCES: &[Step] = sources! {
    "source 0.0.0.0 from inside", "dropped", Inside, Ipv4Addr::UNSPECIFIED;
    "source 0.0.0.0 to a forward", "dropped", Outside, Ipv4Addr::UNSPECIFIED;
    "source 127.0.0.1 from inside", "dropped", Inside, Ipv4Addr::LOCALHOST;
    "source 127.0.0.1 to a forward", "dropped", Outside, Ipv4Addr::LOCALHOST;
    "source 255.255.255.255 from inside", "dropped", Inside, Ipv4Addr::BROADCAST;
    "source 255.255.255.255 to a forward", "dropped", Outside, Ipv4Addr::BROADCAST;
    "source 224.0.0.1 from inside", "dropped", Inside, Ipv4Addr::new(224, 0, 0, 1);
    "source 224.0.0.1 to a forward", "dropped", Outside, Ipv4Addr::new(224, 0, 0, 1);
    "source 240.0.0.1 to a forward", "dropped", Outside, Ipv4Addr::new(240, 0, 0, 1);
    "source 203.0.113.255 to a forward", "dropped", Outside, Ipv4Addr::new(203, 0, 113, 255);
    "source of nobody inside, from inside", "outside: UDP public > remote", Inside, Ipv4Addr::new(192, 0, 2, 1);
    "source of the outside, from inside", "outside: UDP public > remote", Inside, Ipv4Addr::new(198, 51, 100, 251);
    "source of the inside, to a forward", "dropped", Outside, Ipv4Addr::new(10, 0, 2, 251);
    "source of the gateway inside, from inside", "outside: UDP public > remote", Inside, LAN;
    "source of the public address, from inside", "outside: UDP public > remote", Inside, WAN;
    "source of the public address, to a forward", "dropped", Outside, WAN;
};

pub const STEPS: &[Step] = &[
    Step {
        name: "land: TCP SYN from the public address to itself",
        ours: "dropped",
        play: |scene| {
            let segment = Segment { flags: SYN, ..Segment::default() };
            scene.send(Outside, &Packet::tcp(scene.cast.public(), scene.cast.public(), &segment));
            Ok(())
        },
    },
    Step {
        name: "source of the inside, to the public address",
        ours: "dropped",
        play: |scene| {
            let to = scene.cast.public();
            scene.send(Outside, &Packet::udp(scene.cast.host(), to, b"knock"));
            Ok(())
        },
    },
    Step {
        name: "UDP to 255.255.255.255 from inside",
        ours: "dropped",
        play: |scene| {
            let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, scene.cast.remote().port());
            scene.send(Inside, &Packet::udp(scene.cast.host(), to, b"who"));
            Ok(())
        },
    },
    Step {
        name: "UDP to the broadcast of the outside, from inside",
        ours: "dropped",
        play: |scene| {
            let to = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 255), scene.cast.remote().port());
            scene.send(Inside, &Packet::udp(scene.cast.host(), to, b"who"));
            Ok(())
        },
    },
    Step {
        name: "UDP to 224.0.0.1 from inside",
        ours: "dropped",
        play: |scene| {
            let to = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), scene.cast.remote().port());
            scene.send(Inside, &Packet::udp(scene.cast.host(), to, b"who"));
            Ok(())
        },
    },
    Step {
        name: "UDP to 127.0.0.1 from inside",
        ours: "dropped",
        play: |scene| {
            let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, scene.cast.remote().port());
            scene.send(Inside, &Packet::udp(scene.cast.host(), to, b"who"));
            Ok(())
        },
    },
    Step {
        name: "UDP to where no route leads, from inside",
        ours: "inside: ICMP 3/0 gateway > host, about UDP host > 192.0.2.9",
        play: |scene| {
            let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), scene.cast.remote().port());
            scene.send(Inside, &Packet::udp(scene.cast.host(), to, b"who"));
            Ok(())
        },
    },
    Step {
        name: "UDP from outside to a third party outside",
        ours: "dropped",
        play: |scene| {
            let packet = Packet::udp(scene.cast.remote(), scene.cast.another(), b"pass it on");
            scene.send(Outside, &packet);
            Ok(())
        },
    },
    Step {
        name: "a header with a wrong checksum",
        ours: "outside: UDP public > remote, wrong header checksum",
        play: |scene| {
            let mut bytes = asked(scene).bytes();
            bytes[10] ^= 0xff;
            scene.send_bytes(Inside, bytes);
            Ok(())
        },
    },
    Step {
        name: "a header of four words",
        ours: "dropped",
        play: |scene| {
            scene.send_bytes(Inside, with_header(&asked(scene), 0, &[0x44]));
            Ok(())
        },
    },
    Step {
        name: "a header of version 6",
        ours: "dropped",
        play: |scene| {
            scene.send_bytes(Inside, with_header(&asked(scene), 0, &[0x65]));
            Ok(())
        },
    },
    Step {
        name: "a total length within the header",
        ours: "dropped",
        play: |scene| {
            scene.send_bytes(Inside, with_header(&asked(scene), 2, &[0, 19]));
            Ok(())
        },
    },
    Step {
        name: "a total length of 0",
        ours: "dropped",
        play: |scene| {
            scene.send_bytes(Inside, with_header(&asked(scene), 2, &[0, 0]));
            Ok(())
        },
    },
    Step {
        name: "a total length beyond the frame",
        ours: "dropped",
        play: |scene| {
            scene.send_bytes(Inside, with_header(&asked(scene), 2, &[2, 0]));
            Ok(())
        },
    },
    Step {
        name: "bytes behind the packet",
        ours: "outside: UDP public > remote",
        play: |scene| {
            let mut bytes = asked(scene).bytes();
            bytes.extend([0; 30]);
            scene.send_bytes(Inside, bytes);
            Ok(())
        },
    },
    Step {
        name: "the reserved flag of a header",
        ours: "outside: UDP public > remote",
        play: |scene| {
            scene.send_bytes(Inside, with_header(&asked(scene), 6, &[0x80, 0]));
            Ok(())
        },
    },
    Step {
        name: "a type of service",
        ours: "outside: UDP public > remote, type of service 185",
        play: |scene| {
            scene.send_bytes(Inside, with_header(&asked(scene), 1, &[0xb9]));
            Ok(())
        },
    },
];
