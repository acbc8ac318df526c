//! How connections over IPv6 may open (RFC 6092, REC-31), in segments made by hand: no kernel has a part in
//! them, so each goes out when it is its turn, as often as it is sent.

use std::{net::Ipv6Addr, time::Duration};

use nat_tests::{
    chain::Chain,
    gateway::{Mode, NatCtl},
    lab::{INSIDE_DEVICE, LAN_DEVICE, OUTSIDE_DEVICE, WAN_DEVICE},
    packet::{ACK, FIN, SYN, TCP, checksum},
    requirements,
    six::{self, INSIDE6, OUTSIDE6},
    wait,
    wire::Wire,
};

const LIMIT: Duration = Duration::from_secs(10);
/// Where an IPv6 header has the protocol, the hops that are left, and its addresses; and its length.
const PROTOCOL: usize = 6;
const HOPS: usize = 7;
const ADDRESSES: usize = 8;
const HEADER: usize = 40;
const TTL: u8 = 64;

/// An end of a connection.
#[derive(Clone, Copy)]
struct End {
    address: Ipv6Addr,
    port: u16,
}

/// A segment without options from one end to another: its flags and numbers, and payload.
fn segment(from: End, to: End, flags: u8, numbers: [u32; 2], payload: &[u8]) -> Vec<u8> {
    let mut segment = [from.port, to.port].map(u16::to_be_bytes).as_flattened().to_vec();
    segment.extend(numbers.map(u32::to_be_bytes).as_flattened());
    segment.extend([5 << 4, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    let length = segment.len() as u16;
    let ends = [from.address.octets(), to.address.octets()];
    let pseudo = [ends.as_flattened(), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, TCP]].concat();
    let sum = checksum(&[&pseudo, &segment[..]].concat());
    segment[16..18].copy_from_slice(&sum);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([TCP, TTL]);
    packet.extend(ends.as_flattened());
    packet.extend(segment);
    packet
}

/// A gateway between two hosts that are wires.
struct Stage<'a> {
    gateway: &'a NatCtl<'a>,
    inside: Wire,
    outside: Wire,
}

impl Stage<'_> {
    /// The segment comes out on the other side as it is, but for one hop.
    fn passes(&self, packet: &[u8]) {
        let is_from_inside = packet[ADDRESSES..ADDRESSES + 16] == INSIDE6.octets();
        let (from, to) = match is_from_inside {
            true => (&self.inside, &self.outside),
            false => (&self.outside, &self.inside),
        };
        from.send(packet).expect("a frame");
        let mut wanted = packet.to_vec();
        wanted[HOPS] = TTL - 1;
        let came = wait::until(LIMIT, "a segment", || {
            let is_ours = |packet: &Vec<u8>| packet.len() > HEADER && packet[PROTOCOL] == TCP;
            Ok(to.receive()?.filter(is_ours))
        });
        let came = came.unwrap_or_else(|error| panic!("{error:#}\n{}", self.gateway.diagnosis()));
        assert_eq!(came, wanted, "{}", self.gateway.diagnosis());
    }

    /// State of the only flow.
    fn state(&self) -> String {
        let list = self.gateway.json(&["flows", "list"]).expect("a list");
        let flows = list.as_array().expect("a list");
        assert_eq!(flows.len(), 1, "{list:#}");
        flows[0]["state"].as_str().expect("a state").to_owned()
    }
}

fn in_each_mode(name: &str, test: impl Fn(&Stage<'_>)) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = Chain::new().expect("a chain");
        six::turn_on(&chain).expect("IPv6");
        let lab = &chain.lab;
        let gateway = NatCtl::start(lab, mode, &binary).expect("a gateway");
        println!("mode {mode}");
        let inside = Wire::new(&lab.inside, INSIDE_DEVICE, INSIDE6, (&lab.gateway, LAN_DEVICE));
        let outside = Wire::new(&lab.outside, OUTSIDE_DEVICE, OUTSIDE6, (&lab.gateway, WAN_DEVICE));
        let (inside, outside) = (inside.expect("a wire"), outside.expect("a wire"));
        test(&Stage { gateway: &gateway, inside, outside });
        gateway.stop().expect("an end");
    }
}

const HERE: End = End { address: INSIDE6, port: 5000 };
const THERE: End = End { address: OUTSIDE6, port: 80 };

#[test]
fn a_syn_and_its_answer_come_again_until_they_are_acknowledged() {
    in_each_mode("SYN again over IPv6", |stage| {
        let syn = segment(HERE, THERE, SYN, [1000, 0], b"");
        for _again in 0..3 {
            stage.passes(&syn);
            assert_eq!(stage.state(), "syn-sent");
        }
        let answer = segment(THERE, HERE, SYN | ACK, [9000, 1001], b"");
        for _again in 0..3 {
            stage.passes(&answer);
            assert_eq!(stage.state(), "syn-received");
        }
        // The answer was lost on the way: both come again.
        stage.passes(&syn);
        stage.passes(&answer);
        stage.passes(&segment(HERE, THERE, ACK, [1001, 9001], b""));
        assert_eq!(stage.state(), "established");
        // The acknowledgement was.
        stage.passes(&answer);
        stage.passes(&segment(HERE, THERE, ACK, [1001, 9001], b"question"));
        stage.passes(&segment(THERE, HERE, ACK, [9001, 1009], b"answer"));
        assert_eq!(stage.state(), "established");
        assert_eq!(stage.gateway.json(&["status"]).expect("a status")["drops"], 0);
    });
}

#[test]
fn both_ends_may_open_at_once() {
    in_each_mode("simultaneous open over IPv6", |stage| {
        let (ours, theirs) =
            (segment(HERE, THERE, SYN, [1000, 0], b""), segment(THERE, HERE, SYN, [9000, 0], b""));
        // From outside alone it opens nothing.
        stage.outside.send(&theirs).expect("a frame");
        wait::until_true(LIMIT, "a drop", || Ok(stage.gateway.dropped("unsolicited")? == 1))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.gateway.diagnosis()));
        stage.passes(&ours);
        stage.passes(&theirs);
        stage.passes(&ours);
        stage.passes(&segment(HERE, THERE, SYN | ACK, [1000, 9001], b""));
        stage.passes(&segment(THERE, HERE, SYN | ACK, [9000, 1001], b""));
        stage.passes(&segment(HERE, THERE, ACK, [1001, 9001], b""));
        stage.passes(&segment(THERE, HERE, ACK, [9001, 1001], b""));
        assert_eq!(stage.state(), "established");
        stage.passes(&segment(THERE, HERE, ACK, [9001, 1001], b"hello"));
        stage.passes(&segment(HERE, THERE, FIN | ACK, [1001, 9006], b"good bye"));
        stage.passes(&segment(THERE, HERE, FIN | ACK, [9006, 1010], b""));
        assert_eq!(stage.state(), "time-wait");
        assert_eq!(stage.gateway.json(&["status"]).expect("a status")["drops"], 1);
    });
}
