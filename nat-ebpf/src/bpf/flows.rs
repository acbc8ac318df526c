//! Flow records in the map `flows`, and while that grows in the one before it.

use super::{
    global, maps,
    memory::{self, BEFORE, NOW},
};
use crate::tables::{Refused, Slot};
use nat_common::{
    flow::{Flow, FlowKey},
    flow_table::{self, AtHome, Hashed, Lies, Memory},
    hop::HopReference,
    record::{FlowRecord, State, Use},
    tcp_window::Receiving,
};

/// The place of a flow record, in the map `flows` or in the one before it, and the version of the line
/// that was found there.
#[derive(Clone, Copy)]
pub struct FlowSlot(*mut FlowRecord, State);

impl Slot for FlowSlot {
    #[inline(always)]
    fn load(&self) -> Option<Flow> {
        flow_table::load_flow(&NOW, self.0, self.1).map(|(flow, _state)| flow)
    }

    #[inline(always)]
    fn touch(&self, flow: &Flow, by: Use) -> bool {
        if flow_table::touch(&NOW, self.0, flow.state(), by.now, by.seen).is_none() {
            return false;
        }
        memory::count(self.0, by);
        true
    }

    #[inline(always)]
    fn receiving(&self) -> Receiving {
        memory::receiving(self.0)
    }

    #[inline(always)]
    fn lead(&self, _flow: &Flow, hop: HopReference) {
        memory::lead(self.0, hop);
        // The line may have become another flow's meanwhile: that one asks the kernel again.
        if self.load().is_none() {
            memory::lead(self.0, HopReference::NONE);
        }
    }
}

/// The record for packets with this key.
#[inline(always)]
pub fn find(key: &FlowKey) -> Option<FlowSlot> {
    let [first, second] = key.words();
    match global::nat_find(first, second) {
        // From here and not from there: the frames of all calls share one short stack.
        global::NONE if memory::is_growing() => slot(moved(first, second)),
        found => slot(found),
    }
}

/// The same, which moves nothing while the table grows: it takes less of the short stack that all calls
/// share.
#[inline(always)]
pub fn find_in_place(key: &FlowKey) -> Option<FlowSlot> {
    let [first, second] = key.words();
    match global::nat_find(first, second) {
        global::NONE if memory::is_growing() => slot(global::nat_find_before(first, second)),
        found => slot(found),
    }
}

/// The same without a call where the line lies near, for the lookup that nearly every packet has.
#[inline(always)]
pub fn find_inline(key: &FlowKey) -> Option<FlowSlot> {
    let near = flow_table::find_near(&NOW, &Hashed::new(&NOW, key));
    if let AtHome::Found(found) = near {
        return Some(FlowSlot(found.place, found.state));
    }
    let [first, second] = key.words();
    let far = match near {
        AtHome::Spilled => global::nat_find_far(first, second),
        _ => global::NONE,
    };
    match far {
        global::NONE if memory::is_growing() => slot(moved(first, second)),
        far => slot(far),
    }
}

/// Adds a record.
#[inline(always)]
pub fn insert(key: &FlowKey, flow: &Flow) -> Result<(), Refused> {
    let record = maps::FLOW_SCRATCH.get_ptr_mut(0).ok_or(Refused::Full)?;
    // SAFETY: this CPU's own value.
    unsafe { *record = FlowRecord::new(State::default(), key, flow) };
    let [first, second] = key.words();
    if memory::is_growing() {
        match global::nat_is_new(first, second) {
            global::EXISTS => return Err(Refused::Exists),
            global::BUSY_KEY => return Err(Refused::Busy),
            _ => {}
        }
        // The rest of the room is for what moves.
        if !memory::may_add() {
            return Err(Refused::Full);
        }
    }
    match global::nat_insert() {
        global::ADDED => {
            if memory::is_growing() {
                memory::note_added();
            }
            Ok(())
        }
        global::EXISTS => Err(Refused::Exists),
        global::BUSY_KEY => Err(Refused::Busy),
        _ => Err(Refused::Full),
    }
}

/// Removes a record.
#[inline(always)]
pub fn remove(key: &FlowKey) {
    let [first, second] = key.words();
    if memory::is_growing() {
        global::nat_remove_both(first, second);
        return;
    }
    // From here and not from there, as in `find`.
    let found = global::nat_find(first, second);
    if found < global::NOTHING {
        global::nat_remove(found);
    }
}

/// [`flow_table::find_before`] in its steps: the frames of all calls share one short stack, and the verifier
/// goes through each step once.
#[inline(always)]
fn moved(first: u64, second: u64) -> u64 {
    let some = |answer: u64| (answer < global::NOTHING).then_some(answer);
    let lies = flow_table::go_on(
        some(global::nat_find_before(first, second)),
        |before| some(global::nat_relocate(before)),
        || some(global::nat_find(first, second)),
    );
    match lies {
        Some(Lies::Now(answer) | Lies::Before(answer)) => answer,
        None => global::NONE,
    }
}

/// The slot that a global function gave: its index, above it the version, and in which table it is.
#[inline(always)]
fn slot(answer: u64) -> Option<FlowSlot> {
    if answer >= global::NOTHING {
        return None;
    }
    let place = if memory::is_growing() && answer & global::LEFT != 0 {
        BEFORE.place(answer as u32)?
    } else {
        NOW.place(answer as u32)?
    };
    Some(FlowSlot(place, State::from_word(answer & !0xffff_ffff)))
}
