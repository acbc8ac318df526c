//! What the path looks up and keeps.
//!
//! Each insertion is atomic and fails when the key exists: that is the only way a tuple or a port
//! gets an owner. Nothing is inserted over another, and nobody removes what another CPU may already
//! rely on.

use crate::control::{MSS_FLOOR, MSS_HEADROOM};
use nat_common::{
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{Flow, FlowKey},
    interface::Interface,
    port::{Endpoint, Mapping, MappingKey, PortOwner},
    reason::Reason,
    rule::{Forward, OneToOne, RuleId},
    session::{SessionId, Side},
    settings::Settings,
    tcp_options,
};

/// Why an insertion failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key has a value; it stays.
    Exists,
    /// No room.
    Full,
}

/// The place of a flow record.
pub trait Slot: Copy {
    /// The record as it is now.
    fn load(&self) -> Flow;

    /// Counts a packet of `bytes`, seen at `now` with the bits `seen` of [`nat_common::tcp`].
    fn record(&self, now: u32, bytes: u32, seen: u8);
}

/// A sequence number and an acknowledgement, translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shifted {
    /// For the receiver of the packet.
    pub sequence: u32,
    /// For the receiver of the packet.
    pub acknowledgement: u32,
}

/// The body of a bounded loop whose turns the verifier need not tell apart.
pub trait Turn<T> {
    /// One turn; whether to go on.
    fn turn(&mut self, tables: &mut T) -> bool;
}

/// The tables of the data plane, each named as its map.
pub trait Tables {
    /// Place of a flow record.
    type Slot: Slot;

    /// Seconds of the monotonic clock, coarse.
    fn now(&self) -> u32;
    /// A random number.
    fn random(&self) -> u32;
    /// What the agent has set.
    fn settings(&self) -> Settings;
    /// A managed interface.
    fn interface(&self, ifindex: u32) -> Option<Interface>;
    /// Whether an address is the gateway's own on an inside interface.
    fn is_inside_address(&self, address: [u8; 4]) -> bool;

    /// The record for packets with this key.
    fn flow(&self, key: &FlowKey) -> Option<Self::Slot>;
    /// Adds a record.
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), Refused>;
    /// Removes a record.
    fn remove_flow(&mut self, key: &FlowKey);

    /// The mapping of an inside endpoint.
    fn mapping(&self, key: &MappingKey) -> Option<Mapping>;
    /// Adds a mapping.
    fn insert_mapping(&mut self, key: &MappingKey, mapping: &Mapping) -> Result<(), Refused>;

    /// Who owns a public port.
    fn port_owner(&self, public: &Endpoint) -> Option<PortOwner>;
    /// Reserves a public port.
    fn claim_port(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<(), Refused>;
    /// Gives a public port back that this very packet has claimed and that nothing refers to.
    fn release_port(&mut self, public: &Endpoint);

    /// Takes an expectation out; of two packets that ask, one gets it.
    fn take_expectation(&mut self, key: &ExpectationKey) -> Option<Expectation>;

    /// A forward by its exact key.
    fn forward(&self, public: &Endpoint) -> Option<Forward>;
    /// Whether a filter lets a remote address in.
    fn allowed(&self, filter: u32, remote: [u8; 4]) -> bool;
    /// The public address of an inside host that has one of its own.
    fn one_to_one(&self, inside: [u8; 4]) -> Option<OneToOne>;

    /// Takes a free place for the record of a control connection whose packets arrive as `original`
    /// and whose answers arrive as `reply`.
    fn claim_session(
        &mut self,
        original: &FlowKey,
        reply: &FlowKey,
        rule: RuleId,
    ) -> Option<SessionId>;
    /// Gives back a place that no flow refers to.
    fn release_session(&mut self, id: SessionId);
    /// Notes the MSS that `side` has announced.
    fn note_mss(&mut self, id: SessionId, side: Side, mss: u16);
    /// Shifts the numbers of a packet that `side` sends.
    ///
    /// # Errors
    /// [`Reason::AlgBusy`] when the corrections were being written meanwhile,
    /// [`Reason::AlgUnknown`] when there is no such session.
    fn shift(
        &self,
        id: SessionId,
        side: Side,
        sequence: u32,
        acknowledgement: u32,
    ) -> Result<Shifted, Reason>;
    /// Maps the SACK edges of a packet that `side` sends, in a buffer of options.
    fn map_sack(
        &self,
        id: SessionId,
        side: Side,
        area: &mut [u8; tcp_options::BUFFER],
        length: usize,
    );

    /// Edits the options of a SYN of a control connection; the MSS that it then announces, or 0.
    #[inline(always)]
    fn edit_syn(&self, area: &mut [u8; tcp_options::BUFFER], length: usize) -> u16 {
        tcp_options::edit_syn(area, length, MSS_HEADROOM, MSS_FLOOR)
    }

    /// Runs up to `turns` turns of `body`.
    fn repeat<B: Turn<Self>>(&mut self, turns: u32, body: &mut B)
    where
        Self: Sized;

    /// Counts an event.
    fn count(&mut self, counter: Counter);
    /// Counts a drop.
    fn count_drop(&mut self, reason: Reason);
}
