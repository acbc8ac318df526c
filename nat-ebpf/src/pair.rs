//! The two records of a flow: made together, removed together.
//!
//! The record of the answer is made first, so that no packet leaves whose answer would be unknown.
//! Two CPUs that make the same flow make the same records, since the choice of the public port is
//! theirs in common ([`crate::public_port`]); whoever comes second adopts what is there. Nothing is
//! rolled back but what nobody else can have seen; a record without its pair expires by itself.

use crate::tables::{Refused, Slot, Tables};
use nat_common::{
    counter::Counter,
    flow::{Direction, Flow, FlowKey, Rewrite},
    reason::Reason,
    rule::RuleId,
    session::SessionId,
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

/// Makes the flow of a packet with `key` that leaves as `rewrite`.
///
/// # Errors
/// [`Reason::TupleTaken`] when the answers are those of another flow already, [`Reason::TableFull`],
/// [`Reason::AlgSessionsFull`].
#[inline(always)]
pub fn make<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    rewrite: Rewrite,
    rule: RuleId,
    kin: Kin,
    now: u32,
) -> Result<T::Slot, Reason> {
    let answer = key.answer(&rewrite);
    let mut claimed = SessionId::NONE;
    if let Kin::Control = kin {
        claimed = tables.claim_session(key, &answer, rule).ok_or(Reason::AlgSessionsFull)?;
    }
    let made = insert(tables, key, rewrite, rule, kin, claimed, now);
    if made.is_err() && claimed != SessionId::NONE {
        tables.release_session(claimed);
    }
    match made {
        Ok(()) => tables.count(Counter::Flows),
        Err(Lost::Adopt) => {}
        Err(Lost::Refuse(reason)) => return Err(reason),
    }
    tables.flow(key).ok_or(Reason::TableFull)
}

enum Lost {
    /// Another CPU was faster; its record is as good.
    Adopt,
    Refuse(Reason),
}

#[inline(always)]
fn insert<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    rewrite: Rewrite,
    rule: RuleId,
    kin: Kin,
    claimed: SessionId,
    now: u32,
) -> Result<(), Lost> {
    let answer = key.answer(&rewrite);
    // One record after the other, for there is little stack.
    let back = Flow::new(Direction::Reply, &answer, Rewrite::answer(key), rule, now);
    match tables.insert_flow(&answer, &tie(back, kin, claimed)) {
        Ok(()) => {}
        Err(Refused::Full) => return Err(Lost::Refuse(Reason::TableFull)),
        Err(Refused::Exists) => match tables.flow(&answer) {
            // The same flow: made by another CPU this instant, or left over without its pair.
            Some(other) if *other.load().rewrite() == Rewrite::answer(key) => {
                if let Kin::Control = kin {
                    return Err(adopt_control(tables, key, &answer));
                }
            }
            _ => return Err(Lost::Refuse(Reason::TupleTaken)),
        },
    }
    let there = Flow::new(Direction::Original, key, rewrite, rule, now);
    match tables.insert_flow(key, &tie(there, kin, claimed)) {
        Ok(()) => Ok(()),
        Err(Refused::Exists) => Err(Lost::Adopt),
        Err(Refused::Full) => Err(Lost::Refuse(Reason::TableFull)),
    }
}

#[inline(always)]
fn tie(flow: Flow, kin: Kin, claimed: SessionId) -> Flow {
    match kin {
        Kin::Plain => flow,
        Kin::Control => flow.control(claimed),
        Kin::Related(session) => flow.related(session),
    }
}

/// A control connection's records name their session, so one of ours cannot stand beside one of
/// another CPU. A left-over is removed; the SYN that met it is repeated and finds the way free.
#[inline(always)]
fn adopt_control<T: Tables>(tables: &mut T, key: &FlowKey, answer: &FlowKey) -> Lost {
    if tables.flow(key).is_some() {
        return Lost::Adopt;
    }
    tables.remove_flow(answer);
    Lost::Refuse(Reason::AlgBusy)
}

/// Removes both records of a flow that has ended: of packets with `key` that leave as `rewrite`.
#[inline(always)]
pub fn remove<T: Tables>(tables: &mut T, key: &FlowKey, rewrite: &Rewrite) {
    let answer = key.answer(rewrite);
    tables.remove_flow(key);
    tables.remove_flow(&answer);
}
