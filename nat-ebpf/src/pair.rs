//! The two records of a flow: made together, removed together.
//!
//! The record of the answer is made first, so that no packet leaves whose answer would be unknown.
//! Two CPUs that make the same flow make the same records, since the choice of the public port is
//! theirs in common ([`crate::public_port`]); whoever comes second adopts what is there. Of two that
//! came to different shared ports ([`crate::shared_port`]) the one whose first record is there wins,
//! and the other takes its own answer's record back. Nothing is rolled back that another CPU may rely
//! on; a record without its pair expires by itself.

use crate::tables::{Refused, Slot, Tables};
use nat_common::{
    counter::Counter,
    flow::{Direction, Flow, FlowKey, Origin, Rewrite},
    hop::HopReference,
    reason::Reason,
    rule::RuleId,
    session::SessionId,
    tcp,
};

/// What a flow is to FTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// Nothing.
    Plain,
    /// A control connection.
    Control,
    /// A data connection that this session has announced.
    Related(SessionId),
}

/// Makes the flow of a packet with `key` that leaves as `rewrite`, by the hop `way` if that is known.
///
/// # Errors
/// [`Reason::TupleTaken`] when the answers are those of another flow already, [`Reason::TableFull`],
/// [`Reason::FlowBusy`], [`Reason::AlgSessionsFull`], [`Reason::AlgBusy`].
#[inline(always)]
pub fn make<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    rewrite: Rewrite,
    rule: RuleId,
    kin: Kin,
    way: HopReference,
    now: u32,
) -> Result<(), Reason> {
    let answer = key.answer(&rewrite);
    let mut origin = match kin {
        Kin::Plain => Origin::Rule(rule),
        Kin::Related(session) => Origin::Related(session),
        Kin::Control => Origin::Control(
            tables.claim_session(key, &answer, rule).ok_or(Reason::AlgSessionsFull)?,
        ),
    };
    // One record after the other, for there is little stack.
    let back = Flow::new(Direction::Reply, Rewrite::answer(key), origin, now);
    let made = tables.insert_flow(&answer, &back);
    if let Err(refused) = made {
        // Given back here only, where no record names it yet.
        if let Origin::Control(claimed) = origin {
            tables.release_session(claimed);
        }
        match refused {
            Refused::Full => return Err(Reason::TableFull),
            Refused::Busy => return Err(Reason::FlowBusy),
            Refused::Exists => origin = adopt(tables, key, &answer, origin)?,
        }
    }
    let there = Flow::new(Direction::Original, rewrite, origin, now).by(way);
    match tables.insert_flow(key, &there) {
        Ok(()) => {
            tables.count(Counter::Flows);
            Ok(())
        }
        Err(Refused::Full) => Err(Reason::TableFull),
        Err(Refused::Busy) => Err(Reason::FlowBusy),
        // Another CPU was faster; its record is as good.
        Err(Refused::Exists) => {
            let slot = tables.flow(key).ok_or(Reason::FlowBusy)?;
            let other = slot.load();
            if other.is_some_and(|other| *other.rewrite() != rewrite) {
                // It leaves by another shared port. Whoever has met this answer's record meanwhile has
                // come here too, so only who has made it takes it away.
                if made.is_ok() {
                    tables.remove_flow(&answer);
                }
            } else if let Origin::Control(session) = origin {
                // Records of two sessions in one flow: two CPUs began it anew at the same time. The
                // SYN is repeated and finds the way free.
                if other.and_then(|flow| flow.control_session()) != Some(session) {
                    remove(tables, key, &rewrite);
                    return Err(Reason::AlgBusy);
                }
            }
            Ok(())
        }
    }
}

/// The answer's record is there already: of the same flow, made by another CPU this instant or left
/// over without its pair, or of another flow. A control connection goes by the session that it names.
#[inline(always)]
fn adopt<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    answer: &FlowKey,
    origin: Origin,
) -> Result<Origin, Reason> {
    let other = tables.flow(answer).and_then(|slot| slot.load()).ok_or(Reason::FlowBusy)?;
    if *other.rewrite() != Rewrite::answer(key) {
        return Err(Reason::TupleTaken);
    }
    match origin {
        Origin::Rule(_) | Origin::Related(_) => Ok(origin),
        Origin::Control(_) => {
            other.control_session().map(Origin::Control).ok_or(Reason::TupleTaken)
        }
    }
}

/// Removes the TCP flow whose answers would be those of a new one, of packets with `key` that leave as
/// `rewrite`, if it has ended: a remote host has used one source port for two public addresses, or
/// ports, that lead to one port inside.
#[inline(always)]
pub fn make_room<T: Tables>(tables: &mut T, key: &FlowKey, rewrite: &Rewrite) {
    let answer = key.answer(rewrite);
    let Some(other) = tables.flow(&answer).and_then(|slot| slot.load()) else { return };
    let (old, seen) = (*other.rewrite(), other.seen);
    if old == Rewrite::answer(key) {
        return;
    }
    // One without its pair may be in the making on another CPU.
    let peer = tables.flow(&answer.answer(&old)).and_then(|slot| slot.load());
    let peer = peer.map_or(0, |peer| peer.seen);
    if tcp::ends(seen | peer) {
        remove(tables, &answer, &old);
    }
}

/// Removes both records of a flow that has ended: of packets with `key` that leave as `rewrite`.
#[inline(always)]
pub fn remove<T: Tables>(tables: &mut T, key: &FlowKey, rewrite: &Rewrite) {
    let answer = key.answer(rewrite);
    tables.remove_flow(key);
    tables.remove_flow(&answer);
}
