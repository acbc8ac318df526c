//! Segments that somebody makes up to break a connection (RFC 5961): dropped, counted, and without effect.

use std::{
    io::{ErrorKind, Read as _},
    time::Duration,
};

use nat_tests::{
    capture::Capture,
    frame::{Frame, Tcp},
    gateway::{Mode, NatCtl},
    lab::{Lab, OUTSIDE, OUTSIDE_DEVICE},
    netns::Lifetime,
    requirements, session, traffic, wait,
};

const LIMIT: Duration = Duration::from_secs(10);
const NETWORK: usize = 14;
const TRANSPORT: usize = NETWORK + 20;
const END: usize = TRANSPORT + 20;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The sum of RFC 1071, complemented.
fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A segment like this one, without options and payload, with other flags and numbers.
fn forged(like: &Frame, flags: u8, sequence: u32) -> Vec<u8> {
    let mut frame = like.bytes[..END].to_vec();
    frame[NETWORK + 2..NETWORK + 4].copy_from_slice(&40u16.to_be_bytes());
    frame[NETWORK + 10..NETWORK + 12].fill(0);
    let network = sum(&frame[NETWORK..TRANSPORT]);
    frame[NETWORK + 10..NETWORK + 12].copy_from_slice(&network);
    frame[TRANSPORT + 4..TRANSPORT + 8].copy_from_slice(&sequence.to_be_bytes());
    frame[TRANSPORT + 12] = 5 << 4;
    frame[TRANSPORT + 13] = flags;
    frame[TRANSPORT + 16..TRANSPORT + 18].fill(0);
    let mut summed = frame[NETWORK + 12..NETWORK + 20].to_vec();
    summed.extend([0, 6, 0, 20]);
    summed.extend(&frame[TRANSPORT..]);
    frame[TRANSPORT + 16..TRANSPORT + 18].copy_from_slice(&sum(&summed));
    frame
}

fn state(gateway: &NatCtl<'_>) -> String {
    let flows = gateway.json(&["flows", "list"]).expect("flows");
    let tcp = flows.as_array().into_iter().flatten().find(|flow| flow["protocol"] == "tcp");
    tcp.and_then(|flow| flow["state"].as_str()).unwrap_or("none").to_owned()
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
        for (flags, ahead) in [
            (RST, 1 << 30),
            (RST, 0u32.wrapping_sub(1)),
            (RST | ACK, 1 << 31),
            (FIN | ACK, 1 << 30),
            (SYN | FIN, 0),
            (0, 0),
        ] {
            let frame = forged(&like, flags, next.wrapping_add(ahead));
            traffic::send_frame(&lab.outside, OUTSIDE_DEVICE, &frame).expect("a frame");
        }
        wait::until_true(LIMIT, "six drops", || {
            Ok((gateway.dropped("tcp-window")?, gateway.dropped("tcp-flags")?) == (4, 2))
        })
        .unwrap_or_else(|error| panic!("{mode}: {error:#}\n{}", gateway.diagnosis()));
        assert_eq!(state(&gateway), "established", "{mode}");
        session::say(&mut near, &mut far, b"still here").expect("bytes");
        session::say(&mut far, &mut near, b"and I am").expect("bytes");

        // One that the host takes counts: with the very number that it waits for.
        let frame = forged(&like, RST, next.wrapping_add(8));
        traffic::send_frame(&lab.outside, OUTSIDE_DEVICE, &frame).expect("a frame");
        let broken = near.read(&mut [0; 8]).map_err(|error| error.kind());
        assert_eq!(broken, Err(ErrorKind::ConnectionReset), "{mode}");
        assert_eq!(state(&gateway), "closed", "{mode}");
        gateway.stop().expect("an end");
    }
}
