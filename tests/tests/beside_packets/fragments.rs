//! Datagrams in pieces.

use nat_tests::packet::{Packet, SYN, Segment};

use super::{
    cast::{NAMES, WEB},
    stage::{
        Scene,
        Side::{self, Inside, Outside},
        Step,
    },
    udp,
};

/// 1,208 bytes with its header, in three pieces.
const DATA: [u8; 1200] = [7; 1200];
const CUTS: [(usize, usize); 3] = [(0, 400), (400, 800), (800, 1208)];

fn whole(scene: &Scene<'_>, from: Side) -> Packet {
    let ends = match from {
        Inside => [scene.cast.host(), scene.cast.remote()],
        Outside => [scene.cast.remote(), scene.cast.public()],
    };
    Packet::udp(ends[0], ends[1], &DATA)
}

/// Sends pieces of a datagram, by their numbers.
fn send_pieces(scene: &mut Scene<'_>, from: Side, whole: &Packet, numbers: &[usize]) {
    for number in numbers {
        let (start, end) = CUTS[*number];
        scene.send(from, &whole.piece(start, end));
    }
}

macro_rules! orders {
    ($($name:literal, $ours:literal, $from:ident, $numbers:expr;)+) => {
        &[$(Step {
            name: $name,
            ours: $ours,
            play: |scene| {
                udp::open(scene)?;
                send_pieces(scene, $from, &whole(scene, $from), &$numbers);
                Ok(())
            },
        }),+]
    };
}

/// Pieces of one datagram.
pub const ORDERS: &[Step] = orders! {
    "fragments from inside in order", "outside: UDP public > remote, bytes 0-399 400-799 800-1207", Inside, [0, 1, 2];
    "fragments from inside, the last one first", "outside: UDP public > remote, bytes 0-399 400-799 800-1207", Inside, [2, 1, 0];
    "fragments from inside without the first one", "dropped", Inside, [1, 2];
    "fragments from inside without the last one", "outside: UDP public > remote, bytes 0-399 400-799", Inside, [0, 1];
    "fragments from inside, one of them twice", "outside: UDP public > remote, bytes 0-399 400-799 400-799 800-1207", Inside, [0, 1, 1, 2];
    "fragments from outside in order", "inside: UDP remote > host, bytes 0-399 400-799 800-1207", Outside, [0, 1, 2];
    "fragments from outside, the last one first", "inside: UDP remote > host, bytes 0-399 400-799 800-1207", Outside, [2, 1, 0];
    "fragments from outside without the first one", "dropped", Outside, [1, 2];
    "fragments from outside without the last one", "inside: UDP remote > host, bytes 0-399 400-799", Outside, [0, 1];
};

pub const STEPS: &[Step] = &[
    Step {
        name: "a flow that begins with fragments",
        ours: "outside: UDP public > remote, bytes 0-399 400-799 800-1207",
        play: |scene| {
            send_pieces(scene, Inside, &whole(scene, Inside), &[0, 1, 2]);
            Ok(())
        },
    },
    Step {
        name: "fragments to a forward",
        ours: "inside: UDP remote > server, bytes 0-399 400-799 800-1207",
        play: |scene| {
            let whole = Packet::udp(scene.cast.remote(), NAMES, &DATA);
            send_pieces(scene, Outside, &whole, &[0, 1, 2]);
            Ok(())
        },
    },
    Step {
        name: "fragments to the public address, unsolicited",
        ours: "dropped",
        play: |scene| {
            send_pieces(scene, Outside, &whole(scene, Outside), &[0, 1, 2]);
            Ok(())
        },
    },
    Step {
        name: "two datagrams whose fragments alternate",
        ours: "inside: UDP remote > host, bytes 0-399 400-799 800-1207; inside: UDP remote > host, bytes 0-399 400-799 800-1207",
        play: |scene| {
            udp::open(scene)?;
            let whole = whole(scene, Outside);
            let other = whole.clone().with_identification(0x4712);
            for number in 0..CUTS.len() {
                send_pieces(scene, Outside, &whole, &[number]);
                send_pieces(scene, Outside, &other, &[number]);
            }
            Ok(())
        },
    },
    Step {
        name: "fragments that overlap",
        ours: "inside: UDP remote > host, bytes 0-399 200-799 800-1207",
        play: |scene| {
            udp::open(scene)?;
            let whole = whole(scene, Outside);
            for (start, end) in [(0, 400), (200, 800), (800, 1208)] {
                scene.send(Outside, &whole.piece(start, end));
            }
            Ok(())
        },
    },
    Step {
        name: "a fragment that ends beyond 65,535 bytes",
        ours: "inside: UDP remote > host, bytes 0-399",
        play: |scene| {
            udp::open(scene)?;
            let whole = whole(scene, Outside);
            scene.send(Outside, &whole.piece(0, 400));
            let mut last = whole.piece(800, 1208);
            last.fragment = 0x1fff;
            scene.send(Outside, &last);
            Ok(())
        },
    },
    Step {
        name: "a fragment with DF",
        ours: "outside: UDP public > remote, DF, bytes 0-399 400-799 800-1207",
        play: |scene| {
            udp::open(scene)?;
            let whole = whole(scene, Inside);
            for (start, end) in CUTS {
                let mut piece = whole.piece(start, end);
                piece.fragment |= nat_tests::packet::WHOLE;
                scene.send(Inside, &piece);
            }
            Ok(())
        },
    },
    Step {
        name: "an echo in fragments",
        ours: "outside: echo public > remote, bytes 0-399 400-799 800-1207",
        play: |scene| {
            let (host, remote) = (*scene.cast.host().ip(), *scene.cast.remote().ip());
            let word = u32::from(scene.cast.host().port()) << 16;
            let whole = Packet::icmp(host, remote, [8, 0], word, &DATA);
            send_pieces(scene, Inside, &whole, &[0, 1, 2]);
            Ok(())
        },
    },
    Step {
        name: "a first fragment of TCP that hides its flags",
        ours: "dropped",
        play: |scene| {
            let syn = syn(scene);
            scene.send(Outside, &syn.piece(0, 8));
            scene.send(Outside, &syn.piece(8, 24));
            Ok(())
        },
    },
    Step {
        name: "a fragment that overwrites the flags of TCP",
        ours: "inside: TCP SYN remote > server, bytes 0-19",
        play: |scene| {
            let syn = syn(scene);
            scene.send(Outside, &syn.piece(0, 20).clone());
            let mut over = syn.piece(8, 24);
            over.fragment |= nat_tests::packet::MORE;
            scene.send(Outside, &over);
            Ok(())
        },
    },
    Step {
        name: "a SYN in fragments behind its header",
        ours: "inside: TCP SYN remote > server, bytes 0-23 24-39",
        play: |scene| {
            let syn = syn(scene);
            scene.send(Outside, &syn.piece(0, 24));
            scene.send(Outside, &syn.piece(24, 40));
            Ok(())
        },
    },
];

/// A SYN to a forward with some data.
fn syn(scene: &Scene<'_>) -> Packet {
    let segment = Segment { flags: SYN, data: &[7; 20], ..Segment::default() };
    Packet::tcp(scene.cast.remote(), WEB, &segment)
}
