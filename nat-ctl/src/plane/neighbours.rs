//! The kernel's neighbours and devices as netlink tells of them.
//!
//! Invariant: pure; what is here is what the kernel said last. A whole copy is kept, not only what is
//! in use: a next hop that is taken is then filled in without asking, though the kernel told of its
//! neighbour before anybody saw that it was taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nix::libc;

/// An Ethernet address.
pub type LinkAddress = [u8; 6];

/// A neighbour: a router, or a host on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Number of the interface.
    pub ifindex: u32,
    /// Its address.
    pub address: [u8; 4],
}

/// What the kernel knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// NUD_* of linux/neighbour.h.
    pub state: u16,
    /// Its link address, where it has one that is Ethernet's.
    pub link: Option<LinkAddress>,
}

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its own link address, where it has one that is Ethernet's.
    pub link: Option<LinkAddress>,
    /// Longest packet from the IP header on.
    pub mtu: u32,
    /// Flags that say whether packets can leave by it.
    pub flags: u32,
    /// Number of the bridge, bond or VRF that it belongs to; 0 for none.
    pub master: u32,
}

impl Device {
    /// Flags on which routing depends: administration, operation and carrier.
    pub const FLAGS: u32 = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOWER_UP) as u32;
}

impl Neighbour {
    /// Where a packet for it goes, if it may go there now (NUD_VALID of net/neighbour.h).
    pub fn valid(&self) -> Option<LinkAddress> {
        const VALID: u16 = libc::NUD_PERMANENT
            | libc::NUD_NOARP
            | libc::NUD_REACHABLE
            | libc::NUD_PROBE
            | libc::NUD_STALE
            | libc::NUD_DELAY;
        self.link.filter(|_| self.state & VALID != 0)
    }
}

/// What a message about a neighbour comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Packets go where they went.
    Nothing,
    /// It can be reached from now on, or elsewhere.
    Found,
    /// The kernel has let it go.
    Gone,
    /// It was there and does not answer any more.
    Failed,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Neighbours {
    all: BTreeMap<Key, Neighbour>,
    /// Those that the kernel has not heard of for a while, and when it was last asked to check.
    stale: BTreeMap<Key, Option<Duration>>,
}

impl Neighbours {
    /// Time for an answer to [`Neighbours::take_stale`]: the kernel says nothing before it has waited
    /// (delay_first_probe_time, 5 s) and probed.
    const CHECK: Duration = Duration::from_secs(10);

    /// Notes what the kernel says.
    pub fn note(&mut self, key: Key, neighbour: Neighbour) -> Change {
        if neighbour.state == libc::NUD_STALE {
            self.stale.entry(key).or_default();
        } else {
            self.stale.remove(&key);
        }
        let before = self.all.insert(key, neighbour).and_then(|before| before.valid());
        match (before, neighbour.valid()) {
            (before, now) if before == now => Change::Nothing,
            (_, Some(_)) => Change::Found,
            (_, None) => Change::Failed,
        }
    }

    /// Notes that the kernel has removed one.
    pub fn forget(&mut self, key: Key) -> Change {
        self.stale.remove(&key);
        match self.all.remove(&key).and_then(|before| before.valid()) {
            None => Change::Nothing,
            Some(_) => Change::Gone,
        }
    }

    /// All of a device are gone with it.
    pub fn forget_device(&mut self, ifindex: u32) {
        self.all.retain(|key, _| key.ifindex != ifindex);
        self.stale.retain(|key, _| key.ifindex != ifindex);
    }

    /// Link address to which packets for `key` go now.
    pub fn valid(&self, key: &Key) -> Option<LinkAddress> {
        self.all.get(key).and_then(Neighbour::valid)
    }

    /// At most `limit` of those that the kernel should check, since XDP uses them without its
    /// knowledge: stale ones that are `used`. They are not given again soon.
    pub fn take_stale(
        &mut self,
        now: Duration,
        limit: usize,
        used: impl Fn(&Key) -> bool,
    ) -> Vec<Key> {
        let due = |asked: &Option<Duration>| asked.is_none_or(|asked| asked + Self::CHECK <= now);
        let due = self.stale.iter_mut().filter(|(key, asked)| due(asked) && used(key));
        due.take(limit)
            .map(|(key, asked)| {
                *asked = Some(now);
                *key
            })
            .collect()
    }

    /// Puts a whole list in the place of what is known; gives back all that were or are in it.
    pub fn replace(&mut self, listed: BTreeMap<Key, Neighbour>) -> BTreeSet<Key> {
        let touched = self.all.keys().chain(listed.keys()).copied().collect();
        let mut stale = BTreeMap::new();
        for (key, _) in listed.iter().filter(|(_, found)| found.state == libc::NUD_STALE) {
            stale.insert(*key, self.stale.get(key).copied().flatten());
        }
        (self.all, self.stale) = (listed, stale);
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { ifindex: 3, address: [203, 0, 113, 10] };
    const FIRST: LinkAddress = [2, 0, 0, 0, 0, 1];
    const SECOND: LinkAddress = [2, 0, 0, 0, 0, 2];

    fn neighbour(state: u16, link: LinkAddress) -> Neighbour {
        Neighbour { state, link: Some(link) }
    }

    #[test]
    fn only_an_address_that_the_kernel_would_use_is_valid() {
        for state in [
            libc::NUD_REACHABLE,
            libc::NUD_STALE,
            libc::NUD_DELAY,
            libc::NUD_PROBE,
            libc::NUD_PERMANENT,
            libc::NUD_NOARP,
        ] {
            assert_eq!(neighbour(state, FIRST).valid(), Some(FIRST));
        }
        for state in [libc::NUD_NONE, libc::NUD_INCOMPLETE, libc::NUD_FAILED] {
            assert_eq!(neighbour(state, FIRST).valid(), None);
        }
        assert_eq!(Neighbour { state: libc::NUD_REACHABLE, link: None }.valid(), None);
    }

    #[test]
    fn ageing_changes_nothing_until_nobody_answers() {
        let mut all = Neighbours::default();
        let mut note = |state, link| all.note(KEY, neighbour(state, link));
        assert_eq!(note(libc::NUD_INCOMPLETE, FIRST), Change::Nothing);
        assert_eq!(note(libc::NUD_REACHABLE, FIRST), Change::Found);
        for state in [libc::NUD_STALE, libc::NUD_DELAY, libc::NUD_PROBE, libc::NUD_REACHABLE] {
            assert_eq!(note(state, FIRST), Change::Nothing);
        }
        assert_eq!(note(libc::NUD_STALE, SECOND), Change::Found);
        assert_eq!(note(libc::NUD_FAILED, SECOND), Change::Failed);
        assert_eq!(note(libc::NUD_FAILED, SECOND), Change::Nothing);
        assert_eq!(all.forget(KEY), Change::Nothing);
        all.note(KEY, neighbour(libc::NUD_PERMANENT, FIRST));
        assert_eq!((all.forget(KEY), all.valid(&KEY)), (Change::Gone, None));
    }

    #[test]
    fn a_stale_neighbour_in_use_is_checked_once_in_a_while() {
        let second = Duration::from_secs;
        let other = Key { ifindex: 4, ..KEY };
        let mut all = Neighbours::default();
        for key in [KEY, other] {
            all.note(key, neighbour(libc::NUD_STALE, FIRST));
        }
        let used = |key: &Key| *key == KEY;
        assert_eq!(all.take_stale(second(5), 0, used), []);
        assert_eq!(all.take_stale(second(5), 9, used), [KEY]);
        assert_eq!(all.take_stale(second(14), 9, used), []);
        assert_eq!(all.take_stale(second(15), 9, used), [KEY], "the request was lost");
        all.note(KEY, neighbour(libc::NUD_REACHABLE, FIRST));
        assert_eq!(all.take_stale(second(99), 9, used), []);
        all.note(KEY, neighbour(libc::NUD_STALE, FIRST));
        assert_eq!(all.take_stale(second(99), 9, used), [KEY]);
    }

    #[test]
    fn a_new_list_tells_of_those_that_went_and_those_that_came() {
        let other = Key { ifindex: 4, ..KEY };
        let mut all = Neighbours::default();
        all.note(KEY, neighbour(libc::NUD_STALE, FIRST));
        let listed = BTreeMap::from([(other, neighbour(libc::NUD_STALE, SECOND))]);
        assert_eq!(all.replace(listed), BTreeSet::from([KEY, other]));
        assert_eq!((all.valid(&KEY), all.valid(&other)), (None, Some(SECOND)));
        assert_eq!(all.take_stale(Duration::ZERO, 9, |_| true), [other]);
        all.forget_device(4);
        assert_eq!(all.valid(&other), None);
        assert_eq!(all.take_stale(Duration::from_secs(99), 9, |_| true), []);
    }
}
