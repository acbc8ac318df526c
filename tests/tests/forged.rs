//! Segments that somebody makes up to break a connection (RFC 5961): dropped, counted, and without effect.

use std::{
    io::{ErrorKind, Read as _},
    net::TcpStream,
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    chain::Chain,
    frame::{Frame, Tcp},
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE, OUTSIDE_DEVICE},
    netns::{Lifetime, Namespace},
    packet::checksum,
    requirements, session,
    six::{self, FAR6},
    traffic, wait,
};

const LIMIT: Duration = Duration::from_secs(10);
const NETWORK: usize = 14;
const TRANSPORT: usize = NETWORK + 20;
const END: usize = TRANSPORT + 20;
/// Where TCP lies in a frame of IPv6.
const TRANSPORT6: usize = NETWORK + 40;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A segment like this one, without options and payload, with other flags and numbers.
fn forged(like: &Frame, flags: u8, sequence: u32) -> Vec<u8> {
    let mut frame = like.bytes[..END].to_vec();
    frame[NETWORK + 2..NETWORK + 4].copy_from_slice(&40u16.to_be_bytes());
    frame[NETWORK + 10..NETWORK + 12].fill(0);
    let network = checksum(&frame[NETWORK..TRANSPORT]);
    frame[NETWORK + 10..NETWORK + 12].copy_from_slice(&network);
    frame[TRANSPORT + 4..TRANSPORT + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[TRANSPORT + 12] = 5 << 4;
    frame[TRANSPORT + 13] = flags;
    frame[TRANSPORT + 16..TRANSPORT + 18].fill(0);
    let mut summed = frame[NETWORK + 12..NETWORK + 20].to_vec();
    summed.extend([0, 6, 0, 20]);
    summed.extend(&frame[TRANSPORT..]);
    frame[TRANSPORT + 16..TRANSPORT + 18].copy_from_slice(&checksum(&summed));
    frame
}

/// The same over IPv6.
fn forged6(like: &Frame, flags: u8, sequence: u32) -> Vec<u8> {
    let mut frame = like.bytes[..TRANSPORT6 + 20].to_vec();
    frame[NETWORK + 4..NETWORK + 6].copy_from_slice(&20u16.to_be_bytes());
    frame[TRANSPORT6 + 4..TRANSPORT6 + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[TRANSPORT6 + 12] = 5 << 4;
    frame[TRANSPORT6 + 13] = flags;
    frame[TRANSPORT6 + 16..TRANSPORT6 + 18].fill(0);
    let mut summed = frame[NETWORK + 8..].to_vec();
    summed.extend([0, 20, 0, 6]);
    frame[TRANSPORT6 + 16..TRANSPORT6 + 18].copy_from_slice(&checksum(&summed));
    frame
}

/// The sequence number of a segment over IPv6 whose payload is this.
fn sequence6(frame: &Frame, payload: &[u8]) -> Option<u32> {
    let header = frame.bytes.get(TRANSPORT6..TRANSPORT6 + 20)?;
    let behind = frame.bytes.get(TRANSPORT6 + usize::from(header[12] >> 4) * 4..)?;
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    (behind == payload).then_some(sequence)
}

fn state(gateway: &NatCtl<'_>) -> String {
    let flows = gateway.json(&["flows", "list"]).expect("flows");
    let tcp = flows.as_array().into_iter().flatten().find(|flow| flow["protocol"] == "tcp");
    tcp.and_then(|flow| flow["state"].as_str()).unwrap_or("none").to_owned()
}

/// Sends segments to the near end of a connection that `forge` makes with these flags and with numbers that
/// far ahead of the next one: those that the host would not take end nothing, and one that it takes does.
fn expect_only_true_ones(
    gateway: &NatCtl<'_>,
    outside: &Namespace,
    [near, far]: [&mut TcpStream; 2],
    forge: impl Fn(u8, u32) -> Vec<u8>,
) {
    let send = |flags, ahead| {
        traffic::send_frame(outside, OUTSIDE_DEVICE, &forge(flags, ahead)).expect("a frame");
    };
    for (flags, ahead) in [
        (RST, 1 << 30),
        (RST, 0u32.wrapping_sub(1)),
        (RST | ACK, 1 << 31),
        (FIN | ACK, 1 << 30),
        (SYN | FIN, 0),
        (0, 0),
    ] {
        send(flags, ahead);
    }
    wait::until_true(LIMIT, "six drops", || {
        Ok((gateway.dropped("tcp-window")?, gateway.dropped("tcp-flags")?) == (4, 2))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", gateway.diagnosis()));
    assert_eq!(state(gateway), "established");
    session::say(near, far, b"still here").expect("bytes");
    session::say(far, near, b"and I am").expect("bytes");
    // With the very number that it waits for.
    send(RST, 8);
    let broken = near.read(&mut [0; 8]).map_err(|error| error.kind());
    assert_eq!(broken, Err(ErrorKind::ConnectionReset));
    assert_eq!(state(gateway), "closed");
}

#[test]
fn a_reset_and_an_end_that_nobody_has_sent_end_nothing() {
    let Some(binary) = requirements::met_with_binary("forged segments") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let folder = lab.folder("capture").expect("a folder");
        let capture =
            Capture::start(&lab.outside, OUTSIDE_DEVICE, "tcp", &folder).expect("a capture");
        let [mut near, mut far] =
            session::pair(&lab.inside, &lab.outside, OUTSIDE).expect("a connection");
        session::say(&mut near, &mut far, b"question").expect("bytes");
        session::say(&mut far, &mut near, b"answered").expect("bytes");
        let answer = |frame: &Frame| match frame.ipv4.as_ref()?.tcp.as_ref()? {
            Tcp { sequence, payload, .. } if payload.starts_with(b"answered") => Some(*sequence),
            _ => None,
        };
        let (like, next) = wait::until(LIMIT, "the answer in the capture", || {
            let frames = capture.so_far()?;
            let found = frames.iter().find_map(|frame| Some((frame.clone(), answer(frame)?)));
            Ok(found.map(|(frame, sequence)| (frame, sequence.wrapping_add(8))))
        })
        .expect("the answer");
        expect_only_true_ones(&gateway, &lab.outside, [&mut near, &mut far], |flags, ahead| {
            forged(&like, flags, next.wrapping_add(ahead))
        });
        gateway.stop().expect("an end");
    }
}

#[test]
fn over_ipv6_too_only_what_its_receiver_takes_ends_a_connection() {
    let Some(binary) = requirements::met_with_binary("forged segments of IPv6") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let chain = Chain::new().expect("a chain");
        six::turn_on(&chain).expect("IPv6");
        let Chain { deep, far, lab } = &chain;
        let gateway = NatCtl::start(lab, mode, &binary).expect("a gateway");
        let folder = lab.folder("capture").expect("a folder");
        let capture = Capture::start(&lab.outside, OUTSIDE_DEVICE, "ip6 and tcp", &folder)
            .expect("a capture");
        let [mut near, mut end] = six::connection(deep, far, FAR6, 0).expect("a connection");
        session::say(&mut end, &mut near, b"answered").expect("bytes");
        let (like, next) = wait::until(LIMIT, "the answer in the capture", || {
            let frames = capture.so_far()?;
            let sequence = |frame: &Frame| sequence6(frame, b"answered");
            let found = frames.iter().find_map(|frame| Some((frame.clone(), sequence(frame)?)));
            Ok(found.map(|(frame, sequence)| (frame, sequence.wrapping_add(8))))
        })
        .expect("the answer");
        expect_only_true_ones(&gateway, &lab.outside, [&mut near, &mut end], |flags, ahead| {
            forged6(&like, flags, next.wrapping_add(ahead))
        });
        gateway.stop().expect("an end");
    }
}
