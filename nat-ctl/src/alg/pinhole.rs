//! The data connections that a session has announced and that are not known to be over.
//!
//! Invariant: at most [`PINHOLES`] a session; the oldest makes way. That one has been used or has
//! expired is known to the data plane alone, so taking back what is gone must do no harm there.

use serde::{Deserialize, Serialize};

use super::{expect::ExpectationKey, keyword::Form};

/// Most pinholes of a session at a time.
pub const PINHOLES: usize = 8;

/// Names a pinhole within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinholeId(u16);

/// The pinholes of a session, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinholes {
    list: Vec<Pinhole>,
    last: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pinhole {
    id: PinholeId,
    key: ExpectationKey,
    kind: Kind,
    /// A transfer command has come since: a pipelined successor does not replace it.
    bound: bool,
}

/// Which announcements replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// PORT and its like.
    Active,
    /// PASV and its like.
    Passive,
}

impl Kind {
    /// The kind of an announcement.
    pub const fn of(form: Form) -> Kind {
        match form {
            Form::Port | Form::Eprt | Form::Lprt => Kind::Active,
            Form::Pasv | Form::Lpsv | Form::Epsv => Kind::Passive,
        }
    }
}

impl Pinholes {
    /// Adds one, and gives what has to make way where there are `most` already. The same key again is the same pinhole.
    pub fn add(
        &mut self,
        key: ExpectationKey,
        kind: Kind,
        bound: bool,
        most: usize,
    ) -> (PinholeId, Option<ExpectationKey>) {
        self.list.retain(|pinhole| pinhole.key != key);
        let oldest = (self.list.len() >= most.clamp(1, PINHOLES)).then(|| self.list.remove(0).key);
        self.last = self.last.wrapping_add(1);
        let id = PinholeId(self.last);
        self.list.push(Pinhole { id, key, kind, bound });
        (id, oldest)
    }

    /// Removes those of a kind that no transfer has been asked for, but not `kept`: a newer command
    /// has replaced them.
    pub fn replaced(&mut self, kind: Kind, kept: Option<PinholeId>) -> Vec<ExpectationKey> {
        self.take(|pinhole| pinhole.kind == kind && !pinhole.bound && Some(pinhole.id) != kept)
    }

    /// Removes one.
    pub fn revoke(&mut self, id: PinholeId) -> Vec<ExpectationKey> {
        self.take(|pinhole| pinhole.id == id)
    }

    /// Removes all.
    pub fn revoke_all(&mut self) -> Vec<ExpectationKey> {
        self.take(|_| true)
    }

    /// A transfer command: all that are there belong to it or to those before it.
    pub fn bind(&mut self) {
        self.list.iter_mut().for_each(|pinhole| pinhole.bound = true);
    }

    /// The oldest transfer is over.
    pub fn transfer_done(&mut self) -> Vec<ExpectationKey> {
        match self.list.iter().position(|pinhole| pinhole.bound) {
            Some(oldest) => vec![self.list.remove(oldest).key],
            None => Vec::new(),
        }
    }

    /// The oldest transfer was refused.
    pub fn transfer_failed(&mut self) {
        if let Some(oldest) = self.list.iter_mut().find(|pinhole| pinhole.bound) {
            oldest.bound = false;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn take(&mut self, gone: impl Fn(&Pinhole) -> bool) -> Vec<ExpectationKey> {
        let taken = self.list.iter().filter(|pinhole| gone(pinhole)).map(|pinhole| pinhole.key);
        let taken = taken.collect();
        self.list.retain(|pinhole| !gone(pinhole));
        taken
    }
}
