//! Public ports by what a pass has seen of them.
//!
//! Invariant: a port that was seen in use in a pass is not given back in it. For ports in the map
//! `ports` a bit each, by their place there; for the others, which are few, their names.

use std::collections::{HashMap, HashSet};

use nat_common::port::{Endpoint, PORT_ADDRESSES, PORTS_PER_ADDRESS, place};

use crate::plane::owners::Numbered;

const BITS: u32 = u64::BITS;

/// What was seen.
#[derive(Debug, Clone)]
pub struct Marks {
    numbered: Vec<Numbered>,
    bits: Vec<u64>,
    /// Of the ports without a place, those that may have to be released, and whether each was seen.
    others: HashMap<Endpoint, bool>,
    /// Those of them that were not seen in the pass before.
    idle: HashSet<Endpoint>,
}

impl Marks {
    /// Before the first pass.
    pub fn new() -> Self {
        let places = PORT_ADDRESSES * PORTS_PER_ADDRESS;
        Self {
            numbered: vec![],
            bits: vec![0; places.div_ceil(BITS) as usize],
            others: HashMap::new(),
            idle: HashSet::new(),
        }
    }

    /// Begins a pass with these numbers of addresses; `others` may have to be released at its end.
    pub fn begin(&mut self, numbered: Vec<Numbered>, others: impl Iterator<Item = Endpoint>) {
        self.numbered = numbered;
        self.bits.fill(0);
        self.others.clear();
        self.others.extend(others.map(|other| (other, false)));
    }

    /// The addresses that had numbers at the beginning.
    pub fn numbered(&self) -> &[Numbered] {
        &self.numbered
    }

    /// A flow or an expectation uses the port.
    pub fn add(&mut self, public: &Endpoint) {
        let number = self.numbered.iter().find(|(address, _)| *address == public.address());
        if let Some(place) = number.and_then(|(_, number)| place(*number, public)) {
            if let Some(bits) = self.bits.get_mut((place / BITS) as usize) {
                *bits |= 1 << (place % BITS);
            }
        } else if !self.others.is_empty()
            && let Some(seen) = self.others.get_mut(public)
        {
            *seen = true;
        }
    }

    /// Whether the port at that place was seen.
    pub fn has(&self, place: u32) -> bool {
        self.bits.get((place / BITS) as usize).is_some_and(|bits| bits & 1 << (place % BITS) != 0)
    }

    /// Whether there are ports without a place that may have to be released.
    pub fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// Ends a pass for the ports without a place: gives those that were unseen in two passes in a row.
    pub fn unused_others(&mut self) -> Vec<Endpoint> {
        let unseen: HashSet<_> =
            self.others.iter().filter(|(_, seen)| !**seen).map(|(other, _)| *other).collect();
        let (unused, idle): (HashSet<_>, _) =
            unseen.into_iter().partition(|other| self.idle.contains(other));
        self.idle = idle;
        unused.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{
        flow::{ICMP, TCP, UDP},
        port::Port,
    };

    const NUMBERED: [u8; 4] = [203, 0, 113, 1];
    const ROUTED: [u8; 4] = [198, 51, 100, 8];

    #[test]
    fn each_numbered_port_has_a_bit_of_its_own() {
        let mut marks = Marks::new();
        marks.begin(vec![([203, 0, 113, 9], 0), (NUMBERED, 7)], [].into_iter());
        let all = [TCP, UDP, ICMP].map(|protocol| {
            [0, 63, 64, 65535].map(|port| Endpoint::new(protocol, NUMBERED, Port::new(port)))
        });
        for (index, public) in all.as_flattened().iter().enumerate() {
            let seen = |public: &Endpoint| place(7, public).unwrap();
            assert!(!marks.has(seen(public)));
            marks.add(public);
            let marked = all.as_flattened().iter().filter(|other| marks.has(seen(other))).count();
            assert_eq!(marked, index + 1);
        }
        marks.begin(vec![(NUMBERED, 7)], [].into_iter());
        assert!(all.as_flattened().iter().all(|public| !marks.has(place(7, public).unwrap())));
    }

    #[test]
    fn a_port_without_a_place_goes_after_two_passes_in_a_row_without_use() {
        let mut marks = Marks::new();
        let port = Endpoint::new(TCP, ROUTED, Port::new(21));
        let mut pass = |used: bool| {
            marks.begin(vec![(NUMBERED, 0)], [port].into_iter());
            if used {
                marks.add(&port);
            }
            marks.unused_others()
        };
        let unused: Vec<usize> =
            [false, true, false, true, false, false].map(&mut pass).iter().map(Vec::len).collect();
        assert_eq!(unused, [0, 0, 0, 0, 0, 1]);
        assert!(pass(false).is_empty());
    }
}
