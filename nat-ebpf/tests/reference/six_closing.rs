//! Which segments open and close a connection over IPv6 (RFC 5961), one by one and against a slow model.

use crate::{
    common::{
        frame::{ACK, FIN, RST, SYN},
        six::{Segment, fragment, frame},
    },
    gateway::{self, Gateway},
    six::{
        Fate::{self, Dropped, Known, Punted},
        HERE, SERVER, THERE, back, out, send, start, the_flow,
    },
};
use nat_common::{
    flow::{TCP, Zone},
    port::Port,
    reason::Reason,
    rule::RuleId,
    six::{Address6, Endpoint6, Flow6, Opening},
    tcp::State,
    tcp_window::Receiving,
};
use proptest::{prelude::*, sample::select};

/// What the first bytes of the inside and of the outside are numbered.
const FIRST: [u32; 2] = [0xffff_ffff, 5_000_000];
const TOO_FAR: Fate = Dropped(Reason::TcpWindow);

/// A segment from `zone` of the connection to `server`.
fn from(gateway: &Gateway, zone: Zone, server: (Address6, u16), segment: Segment) -> Fate {
    match zone {
        Zone::Inside => out(gateway, &segment.frame(HERE, server)),
        Zone::Outside => back(gateway, &segment.frame(server, HERE)),
    }
}

/// The next bytes that each end waits for, after a handshake.
fn next(zone: Zone) -> u32 {
    let [inside, outside] = FIRST;
    let first = if zone == Zone::Inside { outside } else { inside };
    first.wrapping_add(1)
}

/// A segment of `zone` with the number that the other end waits for, and so many bytes ahead.
fn ahead(zone: Zone, flags: u8, bytes: u32) -> Segment {
    Segment::numbered(flags, next(zone.other()).wrapping_add(bytes), next(zone))
}

/// A connection from inside: the inside has a window of 4096 bytes, the outside one of 4096 * 2^7.
fn connected(server: (Address6, u16)) -> Gateway {
    let gateway = start();
    let [inside, outside] = FIRST;
    let syn = Segment { scale: Some(0), ..Segment::numbered(SYN, inside, 0) };
    let answer = Segment::numbered(SYN | ACK, outside, next(Zone::Outside));
    let answer = Segment { scale: Some(7), ..answer };
    assert_eq!(from(&gateway, Zone::Inside, server, syn), Known);
    assert_eq!(from(&gateway, Zone::Outside, server, answer), Known);
    assert_eq!(from(&gateway, Zone::Inside, server, ahead(Zone::Inside, ACK, 0)), Known);
    gateway
}

fn state(flow: &Flow6) -> State {
    let [original, reply] = flow.seen();
    State::of(original, reply)
}

#[test]
fn only_what_its_receiver_would_take_ends_a_connection() {
    for (zone, window) in [(Zone::Outside, 4096), (Zone::Inside, 4096 << 7)] {
        let gateway = connected(THERE);
        let sends = |segment| from(&gateway, zone, THERE, segment);
        let before = the_flow(&gateway);
        let back = |bytes: u32| 0u32.wrapping_sub(bytes);
        for (flags, bytes) in [
            (RST, window + 1),
            (RST, back(1)),
            (RST | ACK, 1 << 31),
            (FIN | ACK, window + 1),
            (FIN | ACK, back(window.max(65_535) + 1)),
        ] {
            assert_eq!(sends(ahead(zone, flags, bytes)), TOO_FAR, "{zone:?} {flags} {bytes}");
        }
        let payload = Segment { payload: 1, ..ahead(zone, FIN | ACK, window) };
        assert_eq!(sends(payload), TOO_FAR);
        assert_eq!(the_flow(&gateway), before, "what is dropped leaves nothing");
        assert_eq!(state(&before.1), State::Established);
        // A FIN comes again while what acknowledges it is lost.
        assert_eq!(sends(ahead(zone, FIN | ACK, back(1))), Known);
        assert_eq!(state(&the_flow(&gateway).1), State::HalfClosed);
        assert_eq!(sends(ahead(zone, RST, window)), Known);
        assert_eq!(state(&the_flow(&gateway).1), State::Closed);
        // Who goes on has sent no RST.
        assert_eq!(sends(ahead(zone, ACK, 0)), Known);
        assert_eq!(state(&the_flow(&gateway).1), State::HalfClosed);
    }
}

#[test]
fn a_reset_leaves_what_its_sender_was_ready_for() {
    let gateway = connected(THERE);
    let kept = the_flow(&gateway).1.receiving(Zone::Outside);
    let reset = Segment { window: 0, ..Segment::numbered(RST | ACK, next(Zone::Inside), 99) };
    assert_eq!(from(&gateway, Zone::Outside, THERE, reset), Known);
    assert_eq!(the_flow(&gateway).1.receiving(Zone::Outside), kept);
    assert_eq!(kept, Receiving { acknowledged: next(Zone::Outside), window: 0x1000 });
}

#[test]
fn a_refusal_names_the_syn_that_it_refuses_and_comes_again_with_it() {
    let gateway = start();
    let [inside, _] = FIRST;
    let syn = Segment::numbered(SYN, inside, 0);
    let refused = |number| Segment::numbered(RST | ACK, 0, number);
    for _again in 0..2 {
        assert_eq!(from(&gateway, Zone::Inside, THERE, syn), Known);
        let before = the_flow(&gateway);
        for number in [inside, inside.wrapping_sub(1 << 30), 1 << 20] {
            assert_eq!(from(&gateway, Zone::Outside, THERE, refused(number)), TOO_FAR);
        }
        assert_eq!(the_flow(&gateway), before);
    }
    assert_eq!(from(&gateway, Zone::Outside, THERE, refused(next(Zone::Outside))), Known);
    assert_eq!(state(&the_flow(&gateway).1), State::Closed);
    // It is dialled again with other numbers, which count from then on.
    let again = Segment::numbered(SYN, 70_000, 0);
    assert_eq!(from(&gateway, Zone::Inside, THERE, again), Known);
    assert_eq!(from(&gateway, Zone::Outside, THERE, refused(next(Zone::Outside))), TOO_FAR);
    assert_eq!(from(&gateway, Zone::Outside, THERE, refused(70_001)), Known);
}

#[test]
fn both_may_open_at_once_and_close_one_after_the_other() {
    let gateway = start();
    for (zone, number) in [Zone::Inside, Zone::Outside].into_iter().zip(FIRST) {
        let syn = Segment { scale: Some(3), ..Segment::numbered(SYN, number, 0) };
        assert_eq!(from(&gateway, zone, THERE, syn), Known);
    }
    for (zone, number) in [Zone::Inside, Zone::Outside].into_iter().zip(FIRST) {
        let answer = Segment::numbered(SYN | ACK, number, next(zone));
        assert_eq!(from(&gateway, zone, THERE, answer), Known);
    }
    let window = 4096 << 3;
    for zone in [Zone::Inside, Zone::Outside] {
        assert_eq!(from(&gateway, zone, THERE, ahead(zone, RST, window + 1)), TOO_FAR);
        assert_eq!(from(&gateway, zone, THERE, ahead(zone, FIN | ACK, window + 1)), TOO_FAR);
    }
    assert_eq!(state(&the_flow(&gateway).1), State::Established);
    assert_eq!(from(&gateway, Zone::Inside, THERE, ahead(Zone::Inside, FIN | ACK, 0)), Known);
    // The other half goes on, and ends.
    let more = Segment { payload: 9, ..ahead(Zone::Outside, ACK, 0) };
    assert_eq!(from(&gateway, Zone::Outside, THERE, more), Known);
    assert_eq!(state(&the_flow(&gateway).1), State::HalfClosed);
    assert_eq!(from(&gateway, Zone::Outside, THERE, ahead(Zone::Outside, FIN | ACK, 9)), Known);
    assert_eq!(state(&the_flow(&gateway).1), State::TimeWait);
    // A new one in its place begins with nothing.
    gateway.memory.state().now += 5;
    let syn = Segment::numbered(SYN, 900, 0);
    assert_eq!(from(&gateway, Zone::Inside, THERE, syn), Known);
    let (_, flow) = the_flow(&gateway);
    assert_eq!((state(&flow), flow.created()), (State::SynSent, gateway::START + 5));
    assert_eq!(flow.receiving(Zone::Inside), Receiving { acknowledged: 901, window: 0x1000 });
    assert_eq!(flow.receiving(Zone::Outside), Receiving::default());
}

#[test]
fn numbers_of_a_control_connection_may_be_off_by_what_lines_have_grown() {
    let gateway = connected(SERVER);
    let sends =
        |flags, bytes| from(&gateway, Zone::Outside, SERVER, ahead(Zone::Outside, flags, bytes));
    for flags in [RST, FIN | ACK] {
        assert_eq!(sends(flags, 4096 + 65_536), TOO_FAR);
        assert_eq!(sends(flags, 4096 + 65_535), Punted);
    }
    assert_eq!(sends(RST, 0u32.wrapping_sub(65_536)), TOO_FAR);
    assert_eq!(sends(RST, 0u32.wrapping_sub(65_535)), Punted);
}

#[test]
fn a_later_fragment_says_nothing_of_numbers() {
    let gateway = connected(THERE);
    let kept = the_flow(&gateway).1.receiving(Zone::Inside);
    let part = |offset, more, body: &[u8]| {
        let rest = [&fragment(TCP, offset, more, 9)[..], body].concat();
        frame(HERE.0, THERE.0, 44, &rest)
    };
    let whole = Segment { payload: 4, ..ahead(Zone::Inside, ACK, 0) }.frame(HERE, THERE);
    assert_eq!(out(&gateway, &part(0, true, &whole[54..])), Known);
    assert_eq!(out(&gateway, &part(3, false, b"more")), Known);
    assert_eq!(the_flow(&gateway).1.receiving(Zone::Inside), kept);
}

/// What the model knows of an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    /// SYN, an acknowledgement, FIN and RST in bits 0 to 3, the scale above.
    seen: u8,
    takes: Receiving,
}

/// A connection as the model has it: its ends inside and outside, if there is one.
#[derive(Debug, Default)]
struct Model(Option<[End; 2]>);

impl Model {
    fn pass(&mut self, zone: Zone, segment: &Segment) -> Fate {
        let has = |flag| segment.flags & flag != 0;
        let turns = [SYN, FIN, RST].into_iter().filter(|flag| has(*flag)).count();
        let is_possible = turns < 2 && (has(ACK) || turns == 1 && !has(FIN));
        let opens = is_possible && has(SYN) && !has(ACK);
        let ended = |ends: &[End; 2]| ends.iter().any(|end| end.seen & 12 != 0);
        if self.0.as_ref().is_none_or(|ends| opens && ended(ends)) {
            return match (zone, is_possible, opens) {
                (Zone::Outside, ..) => Dropped(Reason::Unsolicited),
                (Zone::Inside, false, _) => Dropped(Reason::TcpFlags),
                (Zone::Inside, true, false) => Dropped(Reason::NoSyn),
                (Zone::Inside, true, true) => {
                    let mut ends = [End::default(); 2];
                    note(&mut ends[0], segment);
                    self.0 = Some(ends);
                    Known
                }
            };
        }
        let Some(ends) = &mut self.0 else { unreachable!() };
        let (own, other) = if zone == Zone::Inside { (0, 1) } else { (1, 0) };
        if !is_possible {
            return Dropped(Reason::TcpFlags);
        }
        if !is_taken(&ends[other], segment) {
            return TOO_FAR;
        }
        note(&mut ends[own], segment);
        Known
    }
}

fn note(end: &mut End, segment: &Segment) {
    let has = |flag| segment.flags & flag != 0;
    end.seen &= !8;
    if has(RST) {
        end.seen |= 8;
        return;
    }
    let bits = [(SYN, 1), (ACK, 2), (FIN, 4)];
    end.seen |= bits.into_iter().filter(|(flag, _)| has(*flag)).map(|(_, bit)| bit).sum::<u8>();
    if has(SYN) {
        end.seen |= segment.scale.unwrap_or(0).min(14) << 4;
    }
    let acknowledged = match has(ACK) {
        true => segment.acknowledgement,
        false => segment.sequence.wrapping_add(1),
    };
    end.takes = Receiving { acknowledged, window: segment.window };
}

fn is_taken(receiver: &End, segment: &Segment) -> bool {
    const ALL: i64 = 1 << 32;
    let has = |flag| segment.flags & flag != 0;
    let End { seen, takes } = *receiver;
    // How far a number lies behind the one that is waited for, and before it.
    let within = |number: u32, before: i64, behind: i64| {
        let distance = (i64::from(number) - i64::from(takes.acknowledged)).rem_euclid(ALL);
        distance <= behind || ALL - distance <= before
    };
    let size = i64::from(takes.window) << (seen >> 4);
    match (seen & 2 != 0, has(RST), has(FIN)) {
        (true, true, _) => within(segment.sequence, 0, size),
        (true, _, true) => {
            let end = segment.sequence.wrapping_add(u32::from(segment.payload));
            within(end, size.max(65_535), size)
        }
        (false, true, _) => {
            seen & 1 == 0 || !has(ACK) || within(segment.acknowledgement, 0, 65_535)
        }
        (..) => true,
    }
}

fn segments() -> impl Strategy<Value = Vec<(Zone, Segment)>> {
    let flags = [SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, 0];
    let number = || {
        let far = select(vec![0u32, 1, 2, 0x1000, 0x1001, 65_535, 65_537, 1 << 24, 1 << 31]);
        (far, any::<bool>()).prop_map(|(far, is_before)| match is_before {
            true => 0u32.wrapping_sub(far),
            false => far,
        })
    };
    let zone = select(vec![Zone::Inside, Zone::Outside]);
    let window = select(vec![0u16, 1, 0x1000, 0xffff]);
    let scale = prop::option::of(0u8..=15);
    let one = (zone, select(flags.to_vec()), number(), number(), window, scale, 0u8..3);
    let one = one.prop_map(|(zone, flags, sequence, acknowledgement, window, scale, payload)| {
        (zone, Segment { flags, sequence, acknowledgement, window, scale, payload })
    });
    prop::collection::vec(one, 1..60)
}

proptest! {
    #[test]
    fn the_path_takes_the_segments_that_the_model_takes(sent in segments()) {
        let gateway = start();
        let mut model = Model::default();
        let first = (Zone::Inside, Segment::new(SYN));
        for (zone, segment) in [first].into_iter().chain(sent) {
            let frame = match zone {
                Zone::Inside => segment.frame(HERE, THERE),
                Zone::Outside => segment.frame(THERE, HERE),
            };
            let wanted = model.pass(zone, &segment);
            prop_assert_eq!(send(&gateway, zone, &frame), wanted, "{:?} {:?}", zone, segment);
            let (_, flow) = the_flow(&gateway);
            let ends = [Zone::Inside, Zone::Outside].map(|zone| End {
                seen: flow.way(zone).seen,
                takes: flow.receiving(zone),
            });
            prop_assert_eq!(Some(ends), model.0, "{:?} {:?}", zone, segment);
        }
    }
}

#[test]
fn a_connection_that_a_rule_lets_in_ends_by_the_same_numbers() {
    let gateway = start();
    let end = Endpoint6::new(TCP, HERE.0, Port::new(HERE.1));
    gateway.memory.state().forwards6.insert(end, Opening::new(RuleId::new(7), 0));
    let [inside, outside] = FIRST;
    assert_eq!(from(&gateway, Zone::Outside, THERE, Segment::numbered(SYN, outside, 0)), Known);
    let answer = Segment::numbered(SYN | ACK, inside, next(Zone::Inside));
    assert_eq!(from(&gateway, Zone::Inside, THERE, answer), Known);
    assert_eq!(from(&gateway, Zone::Outside, THERE, ahead(Zone::Outside, ACK, 0)), Known);
    assert_eq!(from(&gateway, Zone::Outside, THERE, ahead(Zone::Outside, RST, 4097)), TOO_FAR);
    assert_eq!(from(&gateway, Zone::Outside, THERE, ahead(Zone::Outside, RST, 4096)), Known);
}
