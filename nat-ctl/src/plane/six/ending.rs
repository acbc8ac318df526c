//! The end of flows of IPv6 that may be used at that very instant.
//!
//! Invariant: a flow that a packet has used since it was looked at goes on. It is taken out, which says
//! what it was at the end, and put back; where others have taken all room meanwhile, it gets that of the
//! next one that ends.

use std::io;

use nat_common::six::{Flow6, Flow6Key};
use nix::libc;

use crate::plane::whole::Whole;

/// The flows, of which others take and give at any time.
pub trait Flows {
    /// One of them.
    ///
    /// # Errors
    /// Where the kernel refuses; the same goes for all of these.
    fn find(&self, key: &Flow6Key) -> io::Result<Option<Flow6>>;
    /// Takes one out.
    fn take(&self, key: &Flow6Key) -> io::Result<Option<Flow6>>;
    /// Adds one, unless there is one of that key; whether there is room.
    fn add(&self, key: &Flow6Key, flow: &Flow6) -> io::Result<bool>;
}

impl Flows for Whole<Flow6Key, Flow6> {
    fn find(&self, key: &Flow6Key) -> io::Result<Option<Flow6>> {
        self.find(key)
    }

    fn take(&self, key: &Flow6Key) -> io::Result<Option<Flow6>> {
        self.take(key)
    }

    fn add(&self, key: &Flow6Key, flow: &Flow6) -> io::Result<bool> {
        match self.add(key, flow) {
            // A packet may have begun it anew in between: then that one counts.
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Ends those that `ends` says so of, at the very end too; tells of each that is there whether it has ended.
///
/// # Errors
/// Where the kernel refuses.
pub fn end_all(
    flows: &impl Flows,
    keys: &[Flow6Key],
    ends: impl Fn(&Flow6Key, &Flow6) -> bool,
    mut told: impl FnMut(&Flow6Key, &Flow6, bool),
) -> io::Result<()> {
    // Flows that were used after all, and that there is no room for now.
    let mut owed = vec![];
    for key in keys {
        // Looked at once more, so that few are taken out that are used.
        let Some(seen) = flows.find(key)? else { continue };
        if !ends(key, &seen) {
            told(key, &seen, false);
            continue;
        }
        let Some(flow) = flows.take(key)? else { continue };
        let has_ended = ends(key, &flow);
        told(key, &flow, has_ended);
        if !has_ended {
            owed.push((*key, flow));
        }
        put_back(flows, &mut owed)?;
    }
    put_back(flows, &mut owed)
}

/// Puts flows back, as many as there is room for.
fn put_back(flows: &impl Flows, owed: &mut Vec<(Flow6Key, Flow6)>) -> io::Result<()> {
    while let Some((key, flow)) = owed.last() {
        if !flows.add(key, flow)? {
            break;
        }
        owed.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{flow::UDP, flow::Zone, port::Port, record::Use, rule::RuleId};
    use std::{cell::RefCell, collections::HashMap};

    /// A full table; of some keys a packet comes between the look and the end, and others take the room of the
    /// first few that were taken out.
    struct Table {
        flows: RefCell<HashMap<Flow6Key, Flow6>>,
        room: usize,
        used: Vec<Flow6Key>,
        rush: RefCell<u16>,
    }

    impl Flows for Table {
        fn find(&self, key: &Flow6Key) -> io::Result<Option<Flow6>> {
            Ok(self.flows.borrow().get(key).copied())
        }

        fn take(&self, key: &Flow6Key) -> io::Result<Option<Flow6>> {
            let mut flows = self.flows.borrow_mut();
            let taken = flows.remove(key).map(|flow| match self.used.contains(key) {
                true => flow.used(Zone::Outside, Use::default()),
                false => flow,
            });
            let mut rush = self.rush.borrow_mut();
            if *rush > 0 {
                *rush -= 1;
                flows.insert(self::key(10_000 + *rush), flow());
            }
            Ok(taken)
        }

        fn add(&self, key: &Flow6Key, flow: &Flow6) -> io::Result<bool> {
            let mut flows = self.flows.borrow_mut();
            let fits = flows.len() < self.room;
            if fits {
                flows.entry(*key).or_insert(*flow);
            }
            Ok(fits)
        }
    }

    fn key(number: u16) -> Flow6Key {
        let (near, far) = (Port::new(number), Port::new(53));
        Flow6Key::new(Zone::Inside, UDP, [1; 16], near, [2; 16], far)
    }

    fn flow() -> Flow6 {
        Flow6::new(Zone::Inside, RuleId::NONE, Use::default())
    }

    #[test]
    fn what_is_used_at_its_end_goes_on_though_others_take_its_room() {
        let keys: Vec<Flow6Key> = (0..10).map(key).collect();
        for (used, rush) in [(vec![], 0), (vec![3], 0), (vec![0, 1], 4), (vec![0, 4], 6)] {
            let used: Vec<Flow6Key> = used.into_iter().map(key).collect();
            let flows = keys.iter().map(|key| (*key, flow())).collect();
            let table = Table {
                flows: RefCell::new(flows),
                room: keys.len(),
                used: used.clone(),
                rush: RefCell::new(rush),
            };
            let unanswered = |_: &Flow6Key, flow: &Flow6| flow.inbound.packets == 0;
            let (mut ended, mut left) = (0, vec![]);
            // One is not there any more.
            let all = [&keys[..], &[key(99)]].concat();
            end_all(&table, &all, unanswered, |key, _, has_ended| match has_ended {
                true => ended += 1,
                false => left.push(*key),
            })
            .unwrap();
            assert_eq!((ended, &left), (keys.len() - used.len(), &used));
            let flows = table.flows.borrow();
            assert_eq!(flows.len(), used.len() + usize::from(rush));
            for key in used {
                assert_eq!(flows[&key].inbound.packets, 1, "{rush}");
            }
        }
    }

    #[test]
    fn what_was_used_before_is_not_taken_out() {
        let flows = HashMap::from([(key(1), flow().used(Zone::Outside, Use::default()))]);
        let table =
            Table { flows: RefCell::new(flows), room: 1, used: vec![], rush: RefCell::new(1) };
        let mut left = 0;
        let ends = |_: &Flow6Key, flow: &Flow6| flow.inbound.packets == 0;
        end_all(&table, &[key(1)], ends, |_, _, has_ended| left += u32::from(!has_ended)).unwrap();
        assert_eq!((left, *table.rush.borrow(), table.flows.borrow().len()), (1, 1, 1));
    }
}
