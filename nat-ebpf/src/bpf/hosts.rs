//! Flows that inside hosts open and ports that they take, counted in the maps `hosts` and `hosts6`.

use super::{maps, memory};
use core::{
    intrinsics::{self, AtomicOrdering::SeqCst},
    ptr,
};
use nat_common::{
    flow_table::LOCK_TRIES,
    host::{self, Count, HOST_PROBES, HOSTS, HOSTS6, REFUSED, WHO},
    reason::Reason,
};

/// A host by the first word of its place, in the map of its family.
#[derive(Clone, Copy)]
pub enum Who {
    /// In `hosts`, by [`host::who`].
    Four(u64),
    /// In `hosts6`, by [`host::who6`].
    Six(u64),
}

impl Who {
    /// By its address.
    #[inline(always)]
    pub fn four(address: [u8; 4]) -> Self {
        Self::Four(host::who(address))
    }

    /// By the words of its address of IPv6.
    #[inline(always)]
    pub fn six(words: [u64; 2]) -> Self {
        Self::Six(host::who6(words, memory::seeds()))
    }

    #[inline(always)]
    fn word(self) -> u64 {
        match self {
            Self::Four(who) | Self::Six(who) => who,
        }
    }

    /// The place number `probe` of those that it may have.
    #[inline(always)]
    fn place(self, probe: u32) -> Option<*mut u64> {
        let place = match self {
            Self::Four(who) => maps::HOST_TABLE.get_ptr_mut(host::index(who, probe, HOSTS)),
            Self::Six(who) => maps::HOST_TABLE6.get_ptr_mut(host::index(who, probe, HOSTS6)),
        };
        place.map(|place| place.cast::<u64>())
    }
}

/// Counts a flow that a host is about to open. Of two CPUs that open the last one that it may, one gets
/// it.
///
/// # Errors
/// [`Reason::HostLimit`], and [`Reason::FlowBusy`] when other CPUs count flows of it all the while.
#[inline(always)]
pub fn open(who: Who) -> Result<(), Reason> {
    // Where other hosts have all places, the agent finds it one, if it has many flows.
    let Some(place) = find(who, who.word()).or_else(|| find(who, 0)) else { return Ok(()) };
    let limit = maps::SETTINGS.get(0).map_or(0, |settings| settings.flows_per_host);
    one_more(place, Count::Flows, limit)
}

/// Counts a public port that a host is about to take, which has a place for the flow that needs it.
///
/// # Errors
/// As [`open`].
#[inline(always)]
pub fn take(who: Who) -> Result<(), Reason> {
    let Some(place) = find(who, who.word()) else { return Ok(()) };
    let limit = maps::SETTINGS.get(0).map_or(0, |settings| settings.ports_per_host);
    one_more(place, Count::Ports, limit)
}

#[inline(always)]
fn one_more(place: *mut u64, count: Count, limit: u32) -> Result<(), Reason> {
    for _try in 0..LOCK_TRIES {
        // SAFETY: a value of an array map, one word at a time.
        let (added, base) = unsafe {
            let added = ptr::read_volatile(place.add(count.added()));
            (added, ptr::read_volatile(place.add(count.base())))
        };
        if host::is_at_limit(host::since(added, base), limit) {
            return Err(Reason::HostLimit);
        }
        // SAFETY: as above; only its address is taken.
        if memory::swap(unsafe { place.add(count.added()) }, added, added.wrapping_add(1)) {
            return Ok(());
        }
    }
    Err(Reason::FlowBusy)
}

/// Takes one back; whether the host has a place.
#[inline(always)]
pub fn back(who: Who, count: Count) -> bool {
    let place = find(who, who.word());
    if let Some(place) = place {
        add(place, count.added(), u64::MAX);
    }
    place.is_some()
}

/// Counts a flow that was refused because the host is at its limit.
#[inline(always)]
pub fn refuse(who: Who) {
    if let Some(place) = find(who, who.word()) {
        add(place, REFUSED, 1);
    }
}

/// The place of a host that has it already (`now` is the host), or the first free one, which is its from
/// here on (`now` is nobody).
#[inline(always)]
fn find(who: Who, now: u64) -> Option<*mut u64> {
    for probe in 0..HOST_PROBES {
        let place = who.place(probe)?;
        // SAFETY: a value of an array map, one word.
        let found = unsafe { ptr::read_volatile(place.add(WHO)) };
        // SAFETY: as above; only its address is taken.
        let taken = || memory::swap(unsafe { place.add(WHO) }, 0, who.word());
        if found == now && (now == who.word() || taken()) {
            return Some(place);
        }
    }
    None
}

/// Adds to a word.
#[inline(always)]
fn add(place: *mut u64, word: usize, more: u64) {
    // SAFETY: a value of an array map, and one of its words.
    unsafe { intrinsics::atomic_xadd::<u64, u64, { SeqCst }>(place.add(word), more) };
}
