//! Functions that the verifier checks once, and not again in every state that a packet may come in.
//!
//! Such a function has global linkage and takes numbers only; what it works on it finds in maps. The
//! TCP options are those in [`maps::OPTIONS_SCRATCH`], where the caller has put them.

use super::{
    Maps, hops,
    hosts::{self, Who},
    maps,
    memory::{self, BEFORE, NOW},
};
use crate::{
    control::{MSS_FLOOR, MSS_HEADROOM},
    public_port, shared_port,
    tables::Tables as _,
};
use core::ptr;
use nat_common::{
    checksum::Sum,
    contact::Contact,
    flow::FlowKey,
    flow_table::{self, AtHome, CHOICES, Hashed, LOCK_TRIES, Line, Memory as _},
    fragment, harmless,
    host::Count,
    port::Endpoint,
    reason::Reason,
    record::{FlowRecord, STATE, State},
    sequence::Round,
    session::{Session, Side},
    tcp_options,
};

/// In an answer of [`nat_find_before`]: the record lies in the table before.
pub const LEFT: u64 = 1 << 48;
/// Where an answer has the version of the line that was found, as in its state.
const VERSION: u64 = 0xff << 32;

/// Answer of [`nat_sequence`] and [`nat_acknowledgement`] that is no 32-bit number: the corrections
/// were being written, or there are none.
pub const BUSY: u64 = u64::MAX;

/// Answer of [`nat_insert`]: it is there now.
pub const ADDED: u64 = 0;
/// From here on answers are not what was asked for.
pub const NOTHING: u64 = 1 << 63;
/// Answer of [`nat_find`] and [`nat_insert`]: there is none, or no room.
pub const NONE: u64 = NOTHING;
/// Answer of [`nat_insert`]: the key is there.
pub const EXISTS: u64 = NOTHING + 1;
/// Answer of [`nat_insert`], [`nat_public_port`] and [`nat_open_host`]: somebody else has the key in hand.
pub const BUSY_KEY: u64 = NOTHING + 2;
/// Answer of [`nat_public_port`] and [`nat_shared_port`]: no port is free.
pub const EXHAUSTED: u64 = NOTHING + 3;

/// Answer of [`nat_find_at`]: it may be at another home.
const ELSEWHERE: u64 = NOTHING + 5;

/// Answer of [`nat_open_host`] and [`nat_public_port`]: the host has as many as it may.
pub const AT_LIMIT: u64 = NOTHING + 4;

/// The flow record for the key of these two words: its index, and from bit 32 on its version.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_find(first: u64, second: u64) -> u64 {
    match nat_find_at(first, second, hashed(first, second).home(&NOW, 0)) {
        ELSEWHERE => nat_find_far(first, second),
        answer => answer,
    }
}

/// The same among those that do not lie near.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_find_far(first: u64, second: u64) -> u64 {
    let key = hashed(first, second);
    for choice in 1..CHOICES {
        match nat_find_at(first, second, key.home(&NOW, choice)) {
            ELSEWHERE => {}
            answer => return answer,
        }
    }
    NONE
}

/// The same at one of its homes, or [`ELSEWHERE`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_find_at(first: u64, second: u64, home: u32) -> u64 {
    match flow_table::find_at(&NOW, &hashed(first, second), home) {
        AtHome::Found(found) => answer(found),
        AtHome::Spilled => ELSEWHERE,
        AtHome::None => NONE,
    }
}

/// The record in the table before: answers as [`nat_find`], with [`LEFT`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_find_before(first: u64, second: u64) -> u64 {
    flow_table::find(&BEFORE, &hashed(first, second)).map_or(NONE, |found| answer(found) | LEFT)
}

/// Moves the record that [`nat_find_before`] has found to the table of now, if it is still of that flow;
/// answers as [`nat_find`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_relocate(found: u64) -> u64 {
    let index = found as u32;
    let Some(place) = BEFORE.place(index) else { return NONE };
    let state = State::from_word(BEFORE.load(place, STATE));
    if !state.lives_on(State::from_word(found & VERSION)) {
        return NONE;
    }
    let found = flow_table::Found { place, home: index, offset: 0, state };
    flow_table::relocate(&BEFORE, &NOW, found).map_or(NONE, answer)
}

/// Adds the record in [`maps::FLOW_SCRATCH`]: [`ADDED`], or why not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_insert() -> u64 {
    let Some(record) = maps::FLOW_SCRATCH.get_ptr_mut(0) else { return NONE };
    // SAFETY: this CPU's own value.
    let record = unsafe { &*record };
    let words = record.words();
    match flow_table::insert_line(&NOW, &Hashed::new(&NOW, &record.key()), |word| words[word]) {
        Ok(_) => ADDED,
        Err(flow_table::Refused::Exists) => EXISTS,
        Err(flow_table::Refused::Busy) => BUSY_KEY,
        Err(flow_table::Refused::Full) => NONE,
    }
}

/// Whether the table before says nothing against a new flow with the key of these two words: 0, or as
/// [`nat_insert`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_is_new(first: u64, second: u64) -> u64 {
    match flow_table::is_new(&BEFORE, &hashed(first, second)) {
        Ok(()) => 0,
        Err(flow_table::Refused::Exists) => EXISTS,
        Err(flow_table::Refused::Busy | flow_table::Refused::Full) => BUSY_KEY,
    }
}

/// Removes the record for the key of these two words, in whichever table it lies while one grows.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_remove_both(first: u64, second: u64) -> u64 {
    flow_table::remove_both(&BEFORE, &NOW, &hashed(first, second)) as u64
}

/// Removes the record that [`nat_find`] has found, if it is still of that flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_remove(found: u64) -> u64 {
    let index = found as u32;
    let Some(place) = NOW.place(index) else { return 0 };
    let state = State::from_word(NOW.load(place, STATE));
    let is_same = state.lives_on(State::from_word(found & VERSION));
    (is_same && flow_table::remove(&NOW, Line { place, index }, state)) as u64
}

/// Clears the bit for the record number `index` in the reach of a home.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_clear_reach(home: u32, index: u32) -> u64 {
    flow_table::clear_reach(&NOW, home, index);
    0
}

/// The key of these two words; both tables have the same seeds.
#[inline(always)]
fn hashed(first: u64, second: u64) -> Hashed {
    Hashed::new(&NOW, &FlowKey::from_words([first, second]))
}

#[inline(always)]
fn answer(found: flow_table::Found<*mut FlowRecord>) -> u64 {
    found.line().index as u64 | (found.state.version() as u64) << 32
}

/// The public port of the inside endpoint of this word, on an address and its number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_public_port(inside: u64, public: u32, number: u32) -> u64 {
    let inside = Endpoint::from_word(inside);
    match public_port::of(&mut Maps, inside, public.to_ne_bytes(), number) {
        Ok(port) => port.number() as u64,
        Err(Reason::FlowBusy) => BUSY_KEY,
        Err(Reason::HostLimit) => AT_LIMIT,
        Err(_) => EXHAUSTED,
    }
}

/// Where in the pool the walk for a shared port starts, for the key of these two words.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_shared_start(first: u64, second: u64) -> u64 {
    let key = FlowKey::from_words([first, second]);
    shared_port::start(&Maps, &key).map_or(EXHAUSTED, |place| place as u64)
}

/// A port for the key of these two words that others have too, on an address and its number, by a walk
/// from `start`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_shared_port(
    first: u64,
    second: u64,
    public: u32,
    number: u32,
    start: u32,
) -> u64 {
    let key = FlowKey::from_words([first, second]);
    let port = shared_port::walk(&mut Maps, &key, public.to_ne_bytes(), number, start);
    port.map_or(EXHAUSTED, |port| port.number() as u64)
}

/// Reference to the hop of this word, as [`crate::tables::Tables::refer`] gives it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_refer(who: u64, mtu: u32, epoch: u32) -> u64 {
    hops::refer(who, mtu, epoch).half() as u64
}

/// Counts a flow of an inside host: [`ADDED`], [`AT_LIMIT`] or [`BUSY_KEY`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_open_host(address: u32) -> u64 {
    opened(hosts::open(Who::four(address.to_ne_bytes())))
}

/// The same for one with the address of IPv6 of these words.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_open_host6(first: u64, second: u64) -> u64 {
    opened(hosts::open(Who::six([first, second])))
}

/// Counts a public port of an inside host: answers as [`nat_open_host`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_open_port(address: u32) -> u64 {
    opened(hosts::take(Who::four(address.to_ne_bytes())))
}

#[inline(always)]
fn opened(result: Result<(), Reason>) -> u64 {
    match result {
        Ok(()) => ADDED,
        Err(Reason::FlowBusy) => BUSY_KEY,
        Err(_) => AT_LIMIT,
    }
}

/// Takes that back.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_close_host(address: u32) -> u64 {
    hosts::back(Who::four(address.to_ne_bytes()), Count::Flows) as u64
}

/// The same by the words of an address of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_close_host6(first: u64, second: u64) -> u64 {
    hosts::back(Who::six([first, second]), Count::Flows) as u64
}

/// Takes a port back.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_close_port(address: u32) -> u64 {
    hosts::back(Who::four(address.to_ne_bytes()), Count::Ports) as u64
}

/// Notes that the inside has sent to an address, as the public endpoint of this word.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_note_contact(public: u64, remote: u32, now: u32) -> u64 {
    let contact = Contact::new(Endpoint::from_word(public), remote.to_ne_bytes());
    // Where there is no room, only flows let that address in.
    maps::CONTACTS.insert(contact, now, 0).is_ok() as u64
}

/// Whether it has.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_is_contact(public: u64, remote: u32) -> u64 {
    let contact = Contact::new(Endpoint::from_word(public), remote.to_ne_bytes());
    // SAFETY: nothing of the value is read.
    unsafe { maps::CONTACTS.get(contact) }.is_some() as u64
}

/// Counts a flow that was refused because the host is at its limit.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_refuse_host(address: u32) -> u64 {
    hosts::refuse(Who::four(address.to_ne_bytes()));
    0
}

/// The same by the words of an address of IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_refuse_host6(first: u64, second: u64) -> u64 {
    hosts::refuse(Who::six([first, second]));
    0
}

/// An identification for a datagram between these addresses that no other one has now.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_identification(src: u32, dst: u32, protocol: u32) -> u32 {
    let (src, dst) = (src.to_ne_bytes(), dst.to_ne_bytes());
    let place = fragment::counter(src, dst, protocol as u8, memory::seeds());
    let Some(count) = maps::FRAGMENT_IDS.get_ptr_mut(place) else { return 1 };
    for _try in 0..LOCK_TRIES {
        // SAFETY: a value of an array map, one word.
        let old = unsafe { ptr::read_volatile(count) };
        if memory::swap(count, old, old.wrapping_add(1)) {
            return fragment::identification(old) as u32;
        }
    }
    // Others take them faster than one can look.
    fragment::identification(Maps.random() as u64) as u32
}

/// Maps a sequence number with the corrections of the side number `side` of a session.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_sequence(session: u32, side: u32, number: u32) -> u64 {
    let Some(session) = maps::CONTROL.get_ptr_mut(session) else { return BUSY };
    // SAFETY: a value of an array map. The agent may write to it, but not to the copy in force; that
    // it still is in force is checked afterwards.
    unsafe {
        let before = generation(session);
        let mapped = (*session).corrections(self::side(side)).map_seq(number);
        if generation(session) == before { mapped as u64 } else { BUSY }
    }
}

/// Maps an acknowledgement with the corrections of the side number `side`, whose bytes it is for.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_acknowledgement(session: u32, side: u32, number: u32) -> u64 {
    let Some(session) = maps::CONTROL.get_ptr_mut(session) else { return BUSY };
    // SAFETY: as above.
    unsafe {
        let before = generation(session);
        let mapped = (*session).corrections(self::side(side)).map_ack(number);
        if generation(session) == before { mapped as u64 } else { BUSY }
    }
}

/// Maps the SACK edges in the options with the corrections of the side number `side`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_sack(session: u32, side: u32, length: u32) -> u32 {
    let Some(area) = maps::OPTIONS_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own area.
    let area = unsafe { &mut *area };
    tcp_options::map_sack(area, length as usize, |edge, round| {
        nat_edge(session, side, edge, (round == Round::Up) as u32)
    });
    0
}

/// Maps one SACK edge with the corrections of the side number `side`; it is a left one, or not.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_edge(session: u32, side: u32, edge: u32, left: u32) -> u32 {
    let Some(session) = maps::CONTROL.get_ptr_mut(session) else { return edge };
    let round = if left != 0 { Round::Up } else { Round::Down };
    // SAFETY: a value of an array map; a copy of corrections that is overwritten meanwhile gives edges
    // that the sender ignores, for it goes by the acknowledgement.
    unsafe { (*session).corrections(self::side(side)).unmap(edge, round) }
}

/// Whether the first bytes of [`maps::LINE_SCRATCH`] are a harmless line of the side number `side`: 1
/// or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_harmless(side: u32, length: u32) -> u32 {
    let Some(line) = maps::LINE_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own value.
    harmless::is_harmless(self::side(side), unsafe { &*line }, length as usize) as u32
}

/// Lowers the MSS in the options of a control connection to `most` and by some more, and removes MPTCP;
/// the MSS that now stands there, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_syn(length: u32, most: u32) -> u32 {
    let Some(area) = maps::OPTIONS_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own area.
    let area = unsafe { &mut *area };
    tcp_options::edit_syn(area, length as usize, most as u16, MSS_HEADROOM, MSS_FLOOR) as u32
}

/// Lowers the MSS in the options to `most`; the MSS that now stands there, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_lower_mss(length: u32, most: u32) -> u32 {
    let Some(area) = maps::OPTIONS_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own area.
    let area = unsafe { &mut *area };
    tcp_options::lower_mss(area, length as usize, most as u16, 0, 0).unwrap_or(0) as u32
}

/// The scale of windows that is announced in the options, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_window_scale(length: u32) -> u32 {
    let Some(area) = maps::OPTIONS_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own area.
    tcp_options::window_scale(unsafe { &*area }, length as usize) as u32
}

/// The folded sum of the whole area of options.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_options_sum() -> u32 {
    let Some(area) = maps::OPTIONS_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own area.
    let area = unsafe { &*area };
    let mut sum = Sum::ZERO;
    let mut at = 0;
    while at < tcp_options::BUFFER {
        sum = sum.word([area[at], area[at + 1]]);
        at += 2;
    }
    sum.folded() as u32
}

#[inline(always)]
unsafe fn generation(session: *const Session) -> u32 {
    // SAFETY: of the caller.
    unsafe { ptr::read_volatile(&raw const (*session).generation) }
}

#[inline(always)]
fn side(index: u32) -> Side {
    if index == 0 { Side::Originator } else { Side::Responder }
}
