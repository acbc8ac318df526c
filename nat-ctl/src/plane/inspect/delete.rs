//! The end of flows that somebody wants to be gone.
//!
//! Invariant: a flow that packets use meanwhile is ended too, in whichever table it lies by then.

use std::{net::Ipv4Addr, ops::ControlFlow, thread, time::Duration};

use super::{Inspector, Names};
use crate::output::FlowFilter;
use crate::plane::{clock, dump, error::Result, flow_memory::FlowMemory, grow::tables, pair::Pair};

/// How often the end of a flow is tried that packets use meanwhile: each of its lines changes once a
/// second, and with every new flag of TCP.
const TRIES: u32 = 16;

/// Time that flows need to move to a larger table, at most; without an agent they stay.
const GROWTH: Duration = Duration::from_secs(5);
/// Time between two looks at that.
const LOOK: Duration = Duration::from_millis(5);

impl Inspector {
    /// Removes the flows that match; gives back how many. Their ports are released by the sweep.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn delete_flows(&mut self, filter: &FlowFilter) -> Result<u64> {
        let now = clock::now();
        let matches = |this: &Self, pair: &Pair| {
            let mut matched = false;
            let _ = this.with_line(pair, now, &Names::of(this), |line| {
                matched = filter.matches(line);
                ControlFlow::Continue(())
            });
            matched
        };
        let mut deleted = 0;
        self.delete(matches, |_| deleted += 1);
        Ok(deleted + self.delete_flows6(filter)?)
    }

    /// Removes the flows that the outside sees at that address; gives them back as they were.
    pub fn delete_flows_of(&mut self, public: Ipv4Addr) -> Vec<Pair> {
        let mut deleted = vec![];
        let is_there = |_: &Self, pair: &Pair| pair.first.public().address() == public.octets();
        self.delete(is_there, |pair| deleted.push(*pair));
        deleted
    }

    fn delete(&mut self, wanted: impl Fn(&Self, &Pair) -> bool, mut deleted: impl FnMut(&Pair)) {
        loop {
            let _ = dump::flows(&self.maps.flows, |pair| {
                if wanted(self, pair) && self.end(*pair) {
                    deleted(pair);
                }
                ControlFlow::Continue(())
            });
            // What has moved to a larger table meanwhile is deleted there.
            if !self.follow_growth() {
                return;
            }
        }
    }

    /// Whether the table that was read is no longer the one in use; then that one is read next.
    fn follow_growth(&mut self) -> bool {
        let pins = self.instance.pins();
        let end = clock::moment().saturating_add(GROWTH);
        while pins.join(tables::BEFORE).exists() && clock::moment() < end {
            thread::sleep(LOOK);
        }
        match FlowMemory::open(&pins) {
            Ok(flows) if flows.places() != self.maps.flows.places() => {
                self.maps.flows = flows;
                true
            }
            // Whoever removes the instance removes its flows.
            Ok(_) | Err(_) => false,
        }
    }

    /// Ends a flow, as often as packets use it in between.
    fn end(&self, mut pair: Pair) -> bool {
        let flows = &self.maps.flows;
        for _ in 0..TRIES {
            if flows.end(&pair) {
                return true;
            }
            let again = flows.find(&pair.first.key()).and_then(|first| flows.pair(first));
            match again {
                Some(again) => pair = again,
                None => return false,
            }
        }
        false
    }
}
