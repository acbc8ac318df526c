//! Fragments that wait for the first one of their datagram.
//!
//! Invariant: no more than so many datagrams, bytes, and fragments of one datagram or one sender are
//! here, and none for longer than [`PATIENCE`]. Of many senders the datagram that has waited longest
//! makes room: one that is only out of order does not wait long.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use nat_common::fragment::FragmentKey;

/// So long a fragment waits for its first one: what is overtaken comes within milliseconds, and what was
/// lost its sender repeats whole.
const PATIENCE: Duration = Duration::from_secs(2);
/// Datagrams that wait at a time.
const DATAGRAMS: usize = 1024;
/// Bytes of them.
const BYTES: usize = 4 << 20;
/// Fragments of one: 64 KiB in pieces of 1,480 bytes are 45.
const FRAGMENTS: usize = 64;
/// Datagrams of one sender.
const OF_SENDER: usize = 128;

/// A fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// As it arrived, from its IPv4 header on.
    pub packet: Vec<u8>,
    /// Whether the kernel has it as well.
    pub is_copy: bool,
}

#[derive(Debug, Default)]
struct Datagram {
    since: Duration,
    fragments: Vec<Waiting>,
}

/// All that wait.
#[derive(Debug, Default)]
pub struct Held {
    datagrams: HashMap<FragmentKey, Datagram>,
    /// By age; some have gone already.
    order: VecDeque<(Duration, FragmentKey)>,
    senders: HashMap<[u8; 4], usize>,
    bytes: usize,
}

impl Held {
    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// The datagrams that wait.
    pub fn keys(&self) -> Vec<FragmentKey> {
        self.datagrams.keys().copied().collect()
    }

    /// Lets a fragment wait; gives back those for which there is no room, be it this one.
    pub fn hold(&mut self, key: FragmentKey, waiting: Waiting, now: Duration) -> Vec<Waiting> {
        let sender = self.senders.get(&key.src()).copied().unwrap_or_default();
        match self.datagrams.get(&key) {
            Some(datagram) if datagram.fragments.len() >= FRAGMENTS => return vec![waiting],
            None if sender >= OF_SENDER => return vec![waiting],
            Some(_) => {}
            None => {
                *self.senders.entry(key.src()).or_default() += 1;
                self.order.push_back((now, key));
                self.datagrams.insert(key, Datagram { since: now, fragments: vec![] });
            }
        }
        self.bytes += waiting.packet.len();
        if let Some(datagram) = self.datagrams.get_mut(&key) {
            datagram.fragments.push(waiting);
        }
        let mut refused = vec![];
        while self.datagrams.len() > DATAGRAMS || self.bytes > BYTES {
            let Some((since, oldest)) = self.order.pop_front() else { break };
            if self.is(&oldest, since) {
                refused.extend(self.take(&oldest));
            }
        }
        refused
    }

    /// Those of a datagram, in the order in which they came; they wait no longer.
    pub fn take(&mut self, key: &FragmentKey) -> Vec<Waiting> {
        let Some(datagram) = self.datagrams.remove(key) else { return vec![] };
        if let Some(count) = self.senders.get_mut(&key.src()) {
            *count -= 1;
            if *count == 0 {
                self.senders.remove(&key.src());
            }
        }
        self.bytes -= datagram.fragments.iter().map(|it| it.packet.len()).sum::<usize>();
        datagram.fragments
    }

    /// Those that have waited for too long.
    pub fn take_late(&mut self, now: Duration) -> Vec<Waiting> {
        let mut late = vec![];
        while let Some(&(since, key)) = self.order.front()
            && (since + PATIENCE <= now || !self.is(&key, since))
        {
            self.order.pop_front();
            if self.is(&key, since) {
                late.extend(self.take(&key));
            }
        }
        late
    }

    /// Whether a datagram has waited since then.
    fn is(&self, key: &FragmentKey, since: Duration) -> bool {
        self.datagrams.get(key).is_some_and(|datagram| datagram.since == since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::flow::{UDP, Zone};

    fn key(sender: u32, identification: u16) -> FragmentKey {
        FragmentKey::new(Zone::Inside, UDP, sender.to_be_bytes(), [198, 51, 100, 1], identification)
    }

    fn waiting(byte: u8, length: usize) -> Waiting {
        Waiting { packet: vec![byte; length], is_copy: false }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn fragments_wait_in_order_and_for_a_time() {
        let mut held = Held::default();
        for byte in [3, 1, 2] {
            assert_eq!(held.hold(key(1, 7), waiting(byte, 10), at(5)), []);
        }
        assert_eq!(held.hold(key(1, 8), waiting(9, 10), at(1005)), []);
        assert_eq!(held.take_late(at(2004)), []);
        let taken: Vec<u8> = held.take(&key(1, 7)).iter().map(|it| it.packet[0]).collect();
        assert_eq!(taken, [3, 1, 2]);
        assert_eq!(held.take(&key(1, 7)), []);
        // One with the same name that comes later has its own time.
        assert_eq!(held.hold(key(1, 7), waiting(4, 10), at(2100)), []);
        assert_eq!(held.take_late(at(3005)), [waiting(9, 10)]);
        assert!(!held.is_empty());
        assert_eq!(held.take_late(at(4100)), [waiting(4, 10)]);
        assert!(held.is_empty() && held.order.is_empty() && held.senders.is_empty());
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn one_datagram_and_one_sender_have_their_share() {
        let mut held = Held::default();
        for count in 0..FRAGMENTS + 1 {
            let refused = held.hold(key(1, 0), waiting(0, 8), at(0));
            assert_eq!(refused.len(), usize::from(count >= FRAGMENTS));
        }
        for count in 1..OF_SENDER + 1 {
            let refused = held.hold(key(1, count as u16), waiting(0, 8), at(0));
            assert_eq!(refused.len(), usize::from(count >= OF_SENDER));
        }
        assert_eq!(held.hold(key(2, 0), waiting(0, 8), at(0)), []);
    }

    #[test]
    fn of_many_senders_the_oldest_makes_room() {
        let mut held = Held::default();
        for sender in 0..DATAGRAMS as u32 {
            assert_eq!(held.hold(key(sender, 0), waiting(1, 8), at(u64::from(sender))), []);
        }
        let refused = held.hold(key(u32::MAX, 0), waiting(2, 8), at(1500));
        assert_eq!(refused, [waiting(1, 8)]);
        assert_eq!(held.take(&key(0, 0)), []);
        assert_eq!(held.take(&key(u32::MAX, 0)), [waiting(2, 8)]);
        assert_eq!(held.datagrams.len(), DATAGRAMS - 1);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut held = Held::default();
        let mut refused = 0;
        for number in 0..300u32 {
            refused += held.hold(key(number, 0), waiting(1, 16_000), at(0)).len();
            assert!(held.bytes <= BYTES);
        }
        assert_eq!(refused, 300 - BYTES / 16_000);
    }
}
