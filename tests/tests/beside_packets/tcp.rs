//! TCP: what opens a connection, what ends one, and what only looks like it.

use std::net::SocketAddrV4;

use anyhow::Result;
use nat_tests::packet::{ACK, FIN, PSH, Packet, RST, SYN, Segment, URG};

use super::{
    cast::{Cast, SERVER, WEB, WEB_PORT},
    stage::{
        Scene,
        Side::{Inside, Outside},
        Step,
    },
};

/// First numbers of both ends.
const HOST: u32 = 1000;
const REMOTE: u32 = 5000;
/// What is far outside of every window.
pub const FAR: u32 = 1 << 30;

/// A segment from inside; the numbers count from the first ones of their ends.
fn out(cast: Cast, flags: u8, ahead: u32, acknowledged: u32, data: &[u8]) -> Packet {
    let numbers = [HOST.wrapping_add(ahead), REMOTE.wrapping_add(acknowledged)];
    segment([cast.host(), cast.remote()], flags, numbers, data)
}

/// One from outside.
fn back(cast: Cast, flags: u8, ahead: u32, acknowledged: u32, data: &[u8]) -> Packet {
    let numbers = [REMOTE.wrapping_add(ahead), HOST.wrapping_add(acknowledged)];
    segment([cast.remote(), cast.public()], flags, numbers, data)
}

fn segment(ends: [SocketAddrV4; 2], flags: u8, numbers: [u32; 2], data: &[u8]) -> Packet {
    let [sequence, acknowledgement] = numbers;
    let acknowledgement = if flags & ACK != 0 { acknowledgement } else { 0 };
    let segment = Segment { flags, sequence, acknowledgement, options: &[], data };
    Packet::tcp(ends[0], ends[1], &segment)
}

pub fn send_out(scene: &mut Scene<'_>, flags: u8, ahead: u32, acknowledged: u32, data: &[u8]) {
    scene.send(Inside, &out(scene.cast, flags, ahead, acknowledged, data));
}

pub fn send_back(scene: &mut Scene<'_>, flags: u8, ahead: u32, acknowledged: u32, data: &[u8]) {
    scene.send(Outside, &back(scene.cast, flags, ahead, acknowledged, data));
}

/// A SYN from inside has come through.
fn dialled(scene: &mut Scene<'_>) -> Result<()> {
    scene.through(Inside, &out(scene.cast, SYN, 0, 0, b"")).map(drop)
}

/// A connection from inside.
pub fn connected(scene: &mut Scene<'_>) -> Result<()> {
    let cast = scene.cast;
    dialled(scene)?;
    scene.through(Outside, &back(cast, SYN | ACK, 0, 1, b""))?;
    scene.through(Inside, &out(cast, ACK, 1, 1, b"")).map(drop)
}

/// One that both ends have ended.
fn ended(scene: &mut Scene<'_>) -> Result<()> {
    let cast = scene.cast;
    connected(scene)?;
    scene.through(Inside, &out(cast, FIN | ACK, 1, 1, b""))?;
    scene.through(Outside, &back(cast, FIN | ACK, 1, 2, b""))?;
    scene.through(Inside, &out(cast, ACK, 2, 2, b"")).map(drop)
}

/// Data of both ends, to see whether the connection lives.
pub fn then_data(scene: &mut Scene<'_>) {
    scene.then();
    send_out(scene, PSH | ACK, 1, 1, b"data");
    send_back(scene, PSH | ACK, 1, 1, b"data");
}

/// A segment that belongs to no connection: from inside, to the public address, to a forward.
fn stray(scene: &mut Scene<'_>, from: Stray, flags: u8) {
    let cast = scene.cast;
    let numbers = [HOST, REMOTE];
    let (side, ends) = match from {
        Stray::Inside => (Inside, [cast.host(), cast.remote()]),
        Stray::Public => (Outside, [cast.remote(), cast.public()]),
        Stray::Forward => (Outside, [cast.remote(), WEB]),
    };
    scene.send(side, &segment(ends, flags, numbers, b""));
}

#[derive(Clone, Copy)]
enum Stray {
    Inside,
    Public,
    Forward,
}

macro_rules! strays {
    ($($name:literal, $ours:literal, $from:ident, $flags:expr;)+) => {
        &[$(Step {
            name: $name,
            ours: $ours,
            play: |scene| {
                stray(scene, Stray::$from, $flags);
                Ok(())
            },
        }),+]
    };
}

/// Segments of no connection.
pub const STRAYS: &[Step] = strays! {
    "TCP SYN from inside", "outside: TCP SYN public > remote", Inside, SYN;
    "TCP SYN to the public address, unsolicited", "dropped", Public, SYN;
    "TCP SYN to a forward", "inside: TCP SYN remote > server", Forward, SYN;
    "stray ACK from inside", "dropped", Inside, ACK;
    "stray ACK to the public address", "dropped", Public, ACK;
    "stray ACK to a forward", "dropped", Forward, ACK;
    "stray SYN+ACK from inside", "dropped", Inside, SYN | ACK;
    "stray SYN+ACK to the public address", "dropped", Public, SYN | ACK;
    "stray SYN+ACK to a forward", "dropped", Forward, SYN | ACK;
    "stray RST from inside", "dropped", Inside, RST;
    "stray RST to the public address", "dropped", Public, RST;
    "stray RST to a forward", "dropped", Forward, RST;
    "stray FIN+ACK from inside", "dropped", Inside, FIN | ACK;
    "stray FIN+ACK to the public address", "dropped", Public, FIN | ACK;
    "stray FIN+ACK to a forward", "dropped", Forward, FIN | ACK;
    "SYN+FIN from inside", "dropped", Inside, SYN | FIN;
    "SYN+FIN to a forward", "dropped", Forward, SYN | FIN;
    "SYN+RST to a forward", "dropped", Forward, SYN | RST;
    "no flags from inside", "dropped", Inside, 0;
    "no flags to a forward", "dropped", Forward, 0;
    "FIN+PSH+URG from inside", "dropped", Inside, FIN | PSH | URG;
    "FIN+PSH+URG to a forward", "dropped", Forward, FIN | PSH | URG;
};

pub const STEPS: &[Step] = &[
    Step {
        name: "TCP handshake",
        ours: "outside: TCP SYN public > remote; then inside: TCP SYN+ACK remote > host; then outside: TCP ACK public > remote",
        play: |scene| {
            send_out(scene, SYN, 0, 0, b"");
            scene.then();
            send_back(scene, SYN | ACK, 0, 1, b"");
            scene.then();
            send_out(scene, ACK, 1, 1, b"");
            Ok(())
        },
    },
    Step {
        name: "TCP handshake by a forward",
        ours: "inside: TCP SYN remote > server; then outside: TCP SYN+ACK public > remote; then inside: TCP ACK remote > server",
        play: |scene| {
            let (remote, server) = (scene.cast.remote(), SocketAddrV4::new(SERVER, WEB_PORT));
            scene.send(Outside, &segment([remote, WEB], SYN, [REMOTE, 0], b""));
            scene.then();
            scene.send(Inside, &segment([server, remote], SYN | ACK, [HOST, REMOTE + 1], b""));
            scene.then();
            scene.send(Outside, &segment([remote, WEB], ACK, [REMOTE + 1, HOST + 1], b""));
            Ok(())
        },
    },
    Step {
        name: "TCP SYN to a forward from inside (hairpin)",
        ours: "inside: TCP SYN public > server",
        play: |scene| {
            scene.send(Inside, &segment([scene.cast.host(), WEB], SYN, [HOST, 0], b""));
            Ok(())
        },
    },
    Step {
        name: "data of a connection",
        ours: "data both ways",
        play: |scene| {
            connected(scene)?;
            then_data(scene);
            Ok(())
        },
    },
    Step {
        name: "SYN+ACK from another port",
        ours: "dropped",
        play: |scene| {
            dialled(scene)?;
            let mut from = scene.cast.remote();
            from.set_port(from.port() + 20_000);
            let numbers = [REMOTE, HOST + 1];
            scene.send(Outside, &segment([from, scene.cast.public()], SYN | ACK, numbers, b""));
            Ok(())
        },
    },
    Step {
        name: "SYN+ACK that acknowledges another number",
        ours: "inside: TCP SYN+ACK remote > host",
        play: |scene| {
            dialled(scene)?;
            send_back(scene, SYN | ACK, 0, FAR, b"");
            Ok(())
        },
    },
    Step {
        name: "SYN with an MSS that no packet takes",
        ours: "outside: TCP SYN public > remote, MSS 1460",
        play: |scene| {
            let options = &[2, 4, 0x23, 0];
            let segment = Segment { flags: SYN, options, ..Segment::default() };
            scene.send(Inside, &Packet::tcp(scene.cast.host(), scene.cast.remote(), &segment));
            Ok(())
        },
    },
    Step {
        name: "SYN again with another number",
        ours: "outside: TCP SYN public > remote",
        play: |scene| {
            dialled(scene)?;
            send_out(scene, SYN, 700_000, 0, b"");
            Ok(())
        },
    },
    Step {
        name: "simultaneous open",
        ours: "inside: TCP SYN remote > host; then outside: TCP SYN+ACK public > remote; then inside: TCP SYN+ACK remote > host; then data both ways",
        play: |scene| {
            dialled(scene)?;
            send_back(scene, SYN, 0, 0, b"");
            scene.then();
            send_out(scene, SYN | ACK, 0, 1, b"");
            scene.then();
            send_back(scene, SYN | ACK, 0, 1, b"");
            then_data(scene);
            Ok(())
        },
    },
    Step {
        name: "RST that refuses a SYN",
        ours: "inside: TCP RST+ACK remote > host",
        play: |scene| {
            dialled(scene)?;
            send_back(scene, RST | ACK, 0, 1, b"");
            Ok(())
        },
    },
    Step {
        name: "RST that refuses another SYN",
        ours: "dropped",
        play: |scene| {
            dialled(scene)?;
            send_back(scene, RST | ACK, 0, FAR, b"");
            Ok(())
        },
    },
    Step {
        name: "half-close",
        ours: "outside: TCP FIN+ACK public > remote; then inside: TCP ACK remote > host; then outside: TCP ACK public > remote; then inside: TCP FIN+ACK remote > host; then outside: TCP ACK public > remote",
        play: |scene| {
            connected(scene)?;
            send_out(scene, FIN | ACK, 1, 1, b"");
            scene.then();
            send_back(scene, ACK, 1, 2, b"data");
            scene.then();
            send_out(scene, ACK, 2, 5, b"");
            scene.then();
            send_back(scene, FIN | ACK, 5, 2, b"");
            scene.then();
            send_out(scene, ACK, 2, 6, b"");
            Ok(())
        },
    },
    Step {
        name: "SYN of the host after the end",
        ours: "outside: TCP SYN public > remote; then inside: TCP SYN+ACK remote > host",
        play: |scene| {
            ended(scene)?;
            send_out(scene, SYN, 900_000, 0, b"");
            scene.then();
            send_back(scene, SYN | ACK, 800_000, 900_001, b"");
            Ok(())
        },
    },
    Step {
        name: "SYN of the host after the end with an old number",
        ours: "outside: TCP SYN public > remote",
        play: |scene| {
            ended(scene)?;
            send_out(scene, SYN, 0u32.wrapping_sub(900), 0, b"");
            Ok(())
        },
    },
    Step {
        name: "SYN of the remote after the end",
        ours: "dropped",
        play: |scene| {
            ended(scene)?;
            send_back(scene, SYN, 900_000, 0, b"");
            Ok(())
        },
    },
    Step {
        name: "SYN of the host after a RST",
        ours: "outside: TCP SYN public > remote",
        play: |scene| {
            connected(scene)?;
            scene.through(Outside, &back(scene.cast, RST, 1, 0, b""))?;
            send_out(scene, SYN, 900_000, 0, b"");
            Ok(())
        },
    },
    Step {
        name: "last ACK that comes again",
        ours: "outside: TCP ACK public > remote",
        play: |scene| {
            ended(scene)?;
            send_out(scene, ACK, 2, 2, b"");
            Ok(())
        },
    },
    Step {
        name: "TCP SYN with a wrong checksum",
        ours: "outside: TCP SYN public > remote, wrong checksum",
        play: |scene| {
            scene.send(Inside, &out(scene.cast, SYN, 0, 0, b"").with_wrong_byte(19));
            Ok(())
        },
    },
    Step {
        name: "data of the remote with a wrong checksum",
        ours: "inside: TCP PSH+ACK remote > host, wrong checksum",
        play: |scene| {
            connected(scene)?;
            let packet = back(scene.cast, PSH | ACK, 1, 1, b"data").with_wrong_byte(20);
            scene.send(Outside, &packet);
            Ok(())
        },
    },
    Step {
        name: "TCP with a header of four words",
        ours: "dropped",
        play: |scene| {
            connected(scene)?;
            let mut packet = back(scene.cast, ACK, 1, 1, b"data");
            packet.payload[12] = 4 << 4;
            scene.send(Outside, &packet);
            Ok(())
        },
    },
    Step {
        name: "TCP with a header longer than the segment",
        ours: "dropped",
        play: |scene| {
            connected(scene)?;
            let mut packet = back(scene.cast, ACK, 1, 1, b"data");
            packet.payload[12] = 15 << 4;
            scene.send(Outside, &packet);
            Ok(())
        },
    },
    Step {
        name: "TCP SYN from port 0",
        ours: "outside: TCP SYN public at another port > remote",
        play: |scene| {
            let mut from = scene.cast.host();
            from.set_port(0);
            scene.send(Inside, &segment([from, scene.cast.remote()], SYN, [HOST, 0], b""));
            Ok(())
        },
    },
    Step {
        name: "TCP SYN to port 0",
        ours: "outside: TCP SYN public > remote at port 0",
        play: |scene| {
            let mut to = scene.cast.remote();
            to.set_port(0);
            scene.send(Inside, &segment([scene.cast.host(), to], SYN, [HOST, 0], b""));
            Ok(())
        },
    },
];
