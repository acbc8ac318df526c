//! The map `sessions` as the agent works on it: records of control connections, read and corrected
//! without a system call.
//!
//! Invariant: corrections are written to the copy that is not in force, and come into force with one
//! exchange of the word that says which one is; a record is free when its last word is.

use std::{
    mem::offset_of,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use nat_common::{
    sequence::Corrections,
    session::{Session, Side},
    vouched::Vouched,
};
use zerocopy::{FromBytes, IntoBytes};

use super::error::{PlaneError, Result};
use super::mapped::Mapped;

const WORD: usize = size_of::<u64>();
const WORDS: usize = size_of::<Session>() / WORD;
/// The word whose low half is the generation; the MSS of both sides stands beside it.
const GENERATION: usize = offset_of!(Session, generation) / WORD;
const COPIES: usize = offset_of!(Session, copies) / WORD;
const COPY_WORDS: usize = 2 * size_of::<Corrections>() / WORD;
const VOUCHED: usize = offset_of!(Session, vouched) / WORD;
const CLAIMED: usize = offset_of!(Session, claimed) / WORD;

const _: () = assert!(size_of::<Session>() == WORDS * WORD && CLAIMED == WORDS - 1);
const _: () =
    assert!(size_of::<Corrections>().is_multiple_of(WORD) && cfg!(target_endian = "little"));

/// The records of control connections of an instance.
#[derive(Debug)]
pub struct SessionMemory(Mapped);

impl SessionMemory {
    /// Maps the records that are pinned in `pins`.
    ///
    /// # Errors
    /// Where there are none, or they are of another size.
    pub fn open(pins: &Path) -> Result<Self> {
        Self::of(Mapped::open(pins, "sessions")?)
    }

    fn of(places: Mapped) -> Result<Self> {
        if places.words().len() != places.entries() as usize * WORDS {
            return Err(PlaneError::Refused {
                what: "map the records of FTP sessions".to_owned(),
                why: "they have another size: remove the instance with `nat-ctl down`".to_owned(),
            });
        }
        Ok(Self(places))
    }

    /// The record in a place, unless that is free or there is none.
    pub fn get(&self, place: u32) -> Option<Session> {
        let mut words = [0; WORDS];
        for (word, value) in self.0.entry(place)?.iter().zip(&mut words) {
            *value = word.load(Ordering::Acquire);
        }
        Session::read_from_bytes(words.as_bytes()).ok().filter(|session| session.claimed != 0)
    }

    /// The places that are taken.
    pub fn taken(&self) -> impl Iterator<Item = u32> {
        (0..self.0.entries()).filter(|place| self.0.load(*place, CLAIMED).is_some_and(|it| it != 0))
    }

    /// Takes a place for a record, as the data plane does.
    pub fn set(&self, place: u32, record: &Session) {
        self.write(place, record);
    }

    /// Frees a place.
    pub fn free(&self, place: u32) {
        self.write(place, &Session::default());
    }

    /// Puts corrections in force: those of the originator, then those of the responder. Nothing
    /// where the place is no longer that of `record`, and perhaps another's.
    pub fn correct(&self, place: u32, record: &Session, sides: &[Corrections; 2]) {
        let Some(entry) = self.0.entry(place) else { return };
        let Some(word) = entry.get(GENERATION) else { return };
        let same = || self.get(place).is_some_and(|now| is_same(&now, record));
        let next = record.generation.wrapping_add(1);
        let copy = COPIES + if next & 1 == 0 { 0 } else { COPY_WORDS };
        if !same() {
            return;
        }
        write(entry.get(copy..copy + COPY_WORDS).unwrap_or_default(), sides.as_bytes());
        // The data plane may note an MSS meanwhile; the sweep frees the place with zeros.
        let moved = |word| {
            (generation(word) == record.generation && same())
                .then_some(word & !u64::from(u32::MAX) | u64::from(next))
        };
        // A place that was freed is none to correct.
        let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }

    /// Lets harmless lines of `side` pass from number `to` on, or none. Where the data plane has
    /// come further meanwhile, that stands.
    pub fn vouch(&self, place: u32, record: &Session, side: Side, to: Option<u32>) {
        let Some(word) = self.0.word(place, VOUCHED + side.index()) else { return };
        let same = || self.get(place).is_some_and(|now| is_same(&now, record));
        let wanted = to.map_or(Vouched::NONE, Vouched::up_to);
        let moved = |word| {
            let further = |to: u32| {
                let now = Vouched::from_word(word).number();
                now.is_some_and(|now| now.wrapping_sub(to) < 1 << 31)
            };
            (!to.is_some_and(further) && word != wanted.word() && same()).then_some(wanted.word())
        };
        let moved = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
        // The place may have become another's since the look.
        if moved.is_ok() && !same() {
            let nothing = Vouched::NONE.word();
            // Else that one's has moved on, and is none of ours any more.
            let _ =
                word.compare_exchange(wanted.word(), nothing, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    fn write(&self, place: u32, record: &Session) {
        write(self.0.entry(place).unwrap_or_default(), record.as_bytes());
    }
}

/// Whether two records are of one connection.
fn is_same(one: &Session, other: &Session) -> bool {
    (one.original(), one.reply(), one.created())
        == (other.original(), other.reply(), other.created())
}

const fn generation(word: u64) -> u32 {
    word as u32
}

/// Writes words in their order, the last one last.
fn write(words: &[AtomicU64], bytes: &[u8]) {
    for (word, value) in words.iter().zip(bytes.as_chunks().0) {
        word.store(u64::from_ne_bytes(*value), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{
        flow::{FlowKey, TCP, Zone},
        port::Port,
        rule::RuleId,
    };

    fn memory() -> SessionMemory {
        SessionMemory::of(Mapped::anonymous(4, size_of::<Session>() as u32)).unwrap()
    }

    fn record() -> Session {
        let host = [10, 0, 1, 2];
        let key = FlowKey::new(Zone::Inside, TCP, host, Port::new(40000), host, Port::new(21));
        let mut record = Session::default();
        record.open(&key, &key, RuleId::new(3), 77);
        record.claimed = 1;
        record
    }

    fn corrections(start: u32) -> Corrections {
        let mut corrections = Corrections::IDENTITY;
        corrections.push(start, 10, 12).unwrap();
        corrections
    }

    #[test]
    fn a_record_is_read_as_it_was_written_until_it_is_freed() {
        let memory = memory();
        assert_eq!(memory.get(2), None);
        memory.set(2, &record());
        assert_eq!(memory.get(2), Some(record()));
        assert_eq!((memory.get(1), memory.get(3), memory.get(4)), (None, None, None));
        assert_eq!(memory.taken().collect::<Vec<_>>(), [2]);
        memory.free(2);
        assert_eq!(memory.get(2), None);
        assert!(memory.0.words().iter().all(|word| word.load(Ordering::Acquire) == 0));
    }

    #[test]
    fn corrections_go_to_the_copy_that_is_not_in_force_and_leave_the_mss() {
        let memory = memory();
        let mut record = record();
        record.mss = [1380, 1400];
        memory.set(1, &record);
        for turn in 1..4 {
            let before = memory.get(1).unwrap();
            let sides = [corrections(turn), corrections(100 + turn)];
            memory.correct(1, &before, &sides);
            let after = memory.get(1).unwrap();
            assert_eq!((after.generation, after.mss), (turn, [1380, 1400]));
            assert_eq!(after.corrections(Side::Originator), &sides[0]);
            assert_eq!(after.corrections(Side::Responder), &sides[1]);
            let idle = (before.generation & 1) as usize;
            assert_eq!(after.copies[idle], before.copies[idle]);
            assert_eq!((after.original(), after.claimed), (record.original(), 1));
        }
    }

    #[test]
    fn corrections_of_a_connection_that_is_gone_reach_nobody() {
        let memory = memory();
        memory.set(1, &record());
        let gone = memory.get(1).unwrap();
        memory.free(1);
        memory.correct(1, &gone, &[corrections(1); 2]);
        assert!(memory.0.words().iter().all(|word| word.load(Ordering::Acquire) == 0));
        let mut other = record();
        other.open(gone.original(), gone.reply(), RuleId::new(3), 78);
        memory.set(1, &other);
        memory.correct(1, &gone, &[corrections(1); 2]);
        assert_eq!(memory.get(1), Some(other));
    }

    #[test]
    fn what_is_vouched_for_never_falls_behind_the_data_plane() {
        let memory = memory();
        memory.set(1, &record());
        let record = memory.get(1).unwrap();
        let vouched = || {
            let words = memory.get(1).unwrap().vouched;
            words.map(|word| Vouched::from_word(word).number())
        };
        let vouch = |side, to| memory.vouch(1, &record, side, to);
        vouch(Side::Responder, Some(u32::MAX - 3));
        assert_eq!(vouched(), [None, Some(u32::MAX - 3)]);
        vouch(Side::Responder, Some(2));
        assert_eq!(vouched(), [None, Some(2)]);
        vouch(Side::Responder, Some(u32::MAX));
        assert_eq!(vouched(), [None, Some(2)]);
        vouch(Side::Responder, None);
        vouch(Side::Originator, Some(0));
        assert_eq!(vouched(), [Some(0), None]);
        let mut other = record;
        other.open(record.original(), record.reply(), RuleId::new(3), 78);
        other.vouched = [0; 2];
        memory.set(1, &other);
        vouch(Side::Originator, Some(7));
        assert_eq!(vouched(), [None; 2]);
    }

    #[test]
    fn records_of_another_size_are_refused() {
        assert!(SessionMemory::of(Mapped::anonymous(4, 64)).is_err());
    }
}
