//! Functions that the verifier checks once, and not again in every state that a packet may come in.
//!
//! Such a function has global linkage and takes numbers only; what it works on it finds in maps. The
//! TCP options are those in [`maps::OPTIONS_SCRATCH`], where the caller has put them.

use super::maps;
use crate::control::{MSS_FLOOR, MSS_HEADROOM};
use core::ptr;
use nat_common::{
    checksum::Sum,
    session::{Session, Side},
    tcp_options,
};

/// Answer of [`nat_sequence`] and [`nat_acknowledgement`] that is no 32-bit number: the corrections
/// were being written, or there are none.
pub const BUSY: u64 = u64::MAX;

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
    let (Some(session), Some(area)) =
        (maps::CONTROL.get_ptr_mut(session), maps::OPTIONS_SCRATCH.get_ptr_mut(0))
    else {
        return 0;
    };
    // SAFETY: this CPU's own area; a copy of corrections that is overwritten meanwhile gives edges
    // that the sender ignores, for it goes by the acknowledgement.
    unsafe {
        let corrections = (*session).corrections(self::side(side));
        if !corrections.is_identity() {
            tcp_options::map_sack(&mut *area, length as usize, corrections);
        }
    }
    0
}

/// Lowers the MSS in the options and removes MPTCP; the MSS that now stands there, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nat_syn(length: u32) -> u32 {
    let Some(area) = maps::OPTIONS_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own area.
    let area = unsafe { &mut *area };
    tcp_options::edit_syn(area, length as usize, MSS_HEADROOM, MSS_FLOOR) as u32
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
