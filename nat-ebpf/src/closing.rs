//! What a packet notes in the line of its flow; and which segments that open or close a connection
//! count.
//!
//! A FIN or RST that the other end would not take is dropped: it could only end the flow, or be sent on
//! to be ignored. All that it is held against is what that end's own segments have said
//! ([`nat_common::tcp_window`]), which nobody can write who cannot send in its name from its side.

use crate::{
    headers::{Headers, TCP_FIXED, TcpFields, Transport},
    packet::Packet,
    tables::{Slot, Tables},
};
use nat_common::{
    flow::{Flow, FlowKey},
    reason::Reason,
    record::Use,
    tcp::{self, wire},
    tcp_window::{self, Receiver, Receiving, SHIFTED},
};

/// What a packet adds to what is known of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    seen: u8,
    receiving: Receiving,
}

impl Noted {
    /// Of a segment that neither opens nor closes, or a packet that is not TCP.
    #[inline(always)]
    pub const fn plain(tcp: &TcpFields) -> Self {
        let TcpFields { acknowledgement, window, flags, .. } = *tcp;
        Self {
            seen: tcp::seen(flags),
            receiving: Receiving { acknowledged: acknowledgement, window },
        }
    }

    /// Notes it in the line `slot`, from which `flow` was loaded, for a packet with these headers.
    ///
    /// # Errors
    /// [`Reason::FlowBusy`].
    #[inline(always)]
    pub fn note<S: Slot>(
        self,
        slot: &S,
        flow: &Flow,
        headers: &Headers,
        now: u32,
    ) -> Result<(), Reason> {
        let Self { seen, receiving } = self;
        let by = Use { now, bytes: headers.length as u32, seen, receiving };
        if slot.touch(flow, by) { Ok(()) } else { Err(Reason::FlowBusy) }
    }
}

/// Notes any packet with `key` in the line `slot`, from which `flow` was loaded.
///
/// # Errors
/// [`Reason::TcpFlags`] and [`Reason::TcpWindow`], and those of [`Noted::note`].
#[inline(always)]
pub fn note<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers,
    key: &FlowKey,
    slot: &T::Slot,
    flow: &Flow,
    now: u32,
) -> Result<(), Reason> {
    noted(packet, tables, headers, key, slot, flow)?.note(slot, flow, headers, now)
}

/// What the packet adds.
#[inline(always)]
fn noted<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    headers: &Headers,
    key: &FlowKey,
    slot: &T::Slot,
    flow: &Flow,
) -> Result<Noted, Reason> {
    let TcpFields { sequence, acknowledgement, window, flags, .. } = headers.tcp;
    let plain = Noted::plain(&headers.tcp);
    if headers.kind != Transport::Tcp || tcp::goes_on(flags) {
        return Ok(plain);
    }
    if !tcp::is_possible(flags) {
        return Err(Reason::TcpFlags);
    }
    if tcp::is_syn(flags) {
        let (at, length) = (headers.transport + TCP_FIXED, headers.tcp.length - TCP_FIXED);
        let seen = plain.seen | tcp_window::scale_bits(packet.window_scale(at, length));
        let receiving = Receiving::of_syn(flags, sequence, acknowledgement, window);
        return Ok(Noted { seen, receiving });
    }
    let receiver = receiver(tables, key, flow);
    let slack = if flow.control_session().is_some() { SHIFTED } else { 0 };
    if flags & wire::RST != 0 {
        if !receiver.takes_reset(flags, sequence, acknowledgement, slack) {
            return Err(Reason::TcpWindow);
        }
        // It acknowledges, but its sender is ready to receive nothing any more.
        return Ok(Noted { seen: tcp::RST, receiving: slot.receiving() });
    }
    if !receiver.takes_fin(sequence, headers.payload() as u32, slack) {
        return Err(Reason::TcpWindow);
    }
    Ok(plain)
}

/// What is known of the end that a packet with `key` goes to; of a line that has lost its pair nothing.
#[inline(always)]
fn receiver<T: Tables>(tables: &T, key: &FlowKey, flow: &Flow) -> Receiver {
    if let Some(slot) = tables.flow_in_place(&key.answer(flow.rewrite()))
        && let Some(answer) = slot.load()
    {
        return Receiver { seen: answer.seen, receiving: slot.receiving() };
    }
    Receiver { seen: 0, receiving: Receiving::default() }
}
