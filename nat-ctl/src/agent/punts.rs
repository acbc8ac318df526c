//! Segments that the data plane hands over, from the ring buffer to the event loop.
//!
//! Invariant: the loop is woken while there is a record, also for one that was there before it
//! began; and a flood of records never keeps it from its other work, for each wake-up reads a
//! bounded number.

use std::io;

use aya::maps::{MapData, RingBuf};
use nat_common::punt::PuntHeader;
use tokio::io::{
    Interest,
    unix::{AsyncFd, AsyncFdReadyMutGuard},
};
use zerocopy::FromBytes;

/// Records that are read before the loop looks at its other work: about 5 ms of it.
pub const MOST_AT_ONCE: usize = 128;

/// Rounds of that when all are to be read: more than fit in the half of the ring that copies have.
const ROUNDS: usize = 64;

/// Where records come from: the ring buffer, or a list in tests.
pub trait Records {
    /// Gives the next record to `take`; `false` when there is none.
    fn next(&mut self, take: &mut dyn FnMut(&[u8])) -> bool;
}

impl Records for RingBuf<MapData> {
    fn next(&mut self, take: &mut dyn FnMut(&[u8])) -> bool {
        match RingBuf::next(self) {
            Some(record) => {
                take(&record);
                true
            }
            None => false,
        }
    }
}

/// The ring buffer, in the event loop.
pub struct Punts(AsyncFd<RingBuf<MapData>>);

impl Punts {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// Where the file can't be waited on.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: a RingBuf owns the map whose descriptor it gives, and never opens it anew: the
        // descriptor stays valid and the same as long as the RingBuf lives, which is inside.
        let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits for records. Safe to use in `select!`: none is read yet.
    ///
    /// # Errors
    /// Where the file can't be waited on.
    pub async fn wait(&mut self) -> io::Result<Ready<'_>> {
        self.0.readable_mut().await.map(Ready)
    }
}

impl Punts {
    /// Gives all records that are there to `take`, those among them that nobody was woken for.
    pub fn read(&mut self, mut take: impl FnMut(&PuntHeader, &[u8])) {
        for _ in 0..ROUNDS {
            if drain(self.0.get_mut(), &mut take) == Drained::Empty {
                return;
            }
        }
    }
}

/// There are records.
pub struct Ready<'a>(AsyncFdReadyMutGuard<'a, RingBuf<MapData>>);

impl Ready<'_> {
    /// Gives a bounded number of them to `take`.
    pub fn read(mut self, take: impl FnMut(&PuntHeader, &[u8])) {
        match drain(self.0.get_inner_mut(), take) {
            // The kernel wakes only a reader that has read everything: only then is it waited on.
            Drained::Empty => self.0.clear_ready(),
            Drained::More => self.0.retain_ready(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Drained {
    Empty,
    More,
}

fn drain(records: &mut impl Records, mut take: impl FnMut(&PuntHeader, &[u8])) -> Drained {
    let mut take = |record: &[u8]| {
        // The data plane writes the header whole, or nothing.
        if let Ok((header, packet)) = PuntHeader::read_from_prefix(record) {
            take(&header, packet.get(..header.length()).unwrap_or(packet));
        }
    };
    for _ in 0..MOST_AT_ONCE {
        if !records.next(&mut take) {
            return Drained::Empty;
        }
    }
    Drained::More
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::session::{SessionId, Side};
    use zerocopy::IntoBytes;

    impl Records for Vec<Vec<u8>> {
        fn next(&mut self, take: &mut dyn FnMut(&[u8])) -> bool {
            match self.pop() {
                Some(record) => {
                    take(&record);
                    true
                }
                None => false,
            }
        }
    }

    fn record(session: u32, packet: &[u8]) -> Vec<u8> {
        let id = SessionId::new(session);
        let header = PuntHeader::new(id, Side::Responder, packet.len() as u32, 3);
        [header.as_bytes(), packet].concat()
    }

    #[test]
    fn records_are_read_to_the_end() {
        let mut seen = vec![];
        let mut records = vec![record(1, b"b"), vec![0; 5], record(0, b"a")];
        let drained = drain(&mut records, |header, packet| {
            seen.push((header.session().number(), packet.to_vec()));
        });
        assert_eq!(drained, Drained::Empty);
        assert_eq!(seen, [(1, b"a".to_vec()), (2, b"b".to_vec())]);
    }

    #[test]
    fn a_flood_is_read_in_bounded_parts() {
        let mut records = vec![record(0, b"x"); MOST_AT_ONCE + 1];
        let mut count = 0;
        assert_eq!(drain(&mut records, |_, _| count += 1), Drained::More);
        assert_eq!(count, MOST_AT_ONCE);
        assert_eq!(drain(&mut records, |_, _| count += 1), Drained::Empty);
        assert_eq!(count, MOST_AT_ONCE + 1);
    }
}
