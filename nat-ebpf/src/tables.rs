//! What the path looks up and keeps.
//!
//! Each insertion is atomic and fails when the key exists: that is the only way a tuple or a port
//! gets an owner. Nothing is inserted over another, and nobody removes what another CPU may already
//! rely on.

use crate::{
    control::{MSS_FLOOR, MSS_HEADROOM},
    packet::NextHop,
    public_port, shared_port,
};
use nat_common::{
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, Fragmented},
    hop::{Hop, HopReference},
    interface::{Interface, Paired},
    port::{Endpoint, Pool, Port, PortOwner},
    reason::Reason,
    record::Use,
    rule::{AllowedKey, Forward, OneToOne, RuleId},
    session::{SessionId, Side},
    settings::Settings,
    tcp_options,
    tcp_window::Receiving,
    watch::Watch,
};

/// Why an insertion failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The key has a value; it stays.
    Exists,
    /// No room.
    Full,
    /// Another CPU, or the agent, has the key in hand at this instant.
    Busy,
}

/// The place of a flow record.
pub trait Slot: Copy {
    /// The flow as it is now; `None` when it has ended.
    fn load(&self) -> Option<Flow>;

    /// Uses the flow that was loaded from here: from here on it lives for its whole lifetime again.
    /// `false` when it has ended meanwhile, and the packet must not go on.
    fn touch(&self, flow: &Flow, by: Use) -> bool;

    /// What the last segment of the flow that was loaded from here said of its sender.
    fn receiving(&self) -> Receiving;

    /// Notes where packets of the flow that was loaded from here leave.
    fn lead(&self, flow: &Flow, hop: HopReference);
}

/// A hop that the agent keeps true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownHop {
    /// Where it leads.
    pub hop: NextHop,
    /// Longest packet from the IP header on; 0 where that is not known.
    pub mtu: u32,
}

impl KnownHop {
    /// What is in a place of the map `hops`; `None` while the agent has not filled it in.
    #[inline(always)]
    pub const fn of(hop: &Hop) -> Option<Self> {
        if hop.mtu() == 0 {
            return None;
        }
        let way = NextHop { ifindex: hop.ifindex(), neighbour: hop.neighbour(), link: hop.link() };
        Some(Self { hop: way, mtu: hop.mtu() as u32 })
    }
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
    /// The ports of masquerade among that, for turns of a walk: the whole takes more of the stack.
    #[inline(always)]
    fn pool(&self) -> Option<Pool> {
        Some(self.settings().pool)
    }
    /// Whether public ports of UDP have the parity of inside ports where they can.
    #[inline(always)]
    fn keeps_parity(&self) -> bool {
        self.settings().parity != 0
    }
    /// A managed interface.
    fn interface(&self, ifindex: u32) -> Option<Interface>;
    /// A public address that some hosts are hidden behind, by its place.
    fn paired(&self, place: u32) -> Option<Paired>;
    /// The public address that `host` is hidden behind on the way by `interface`, and its number in the map
    /// `ports`.
    #[inline(always)]
    fn hidden_behind(&self, interface: &Interface, host: [u8; 4]) -> Option<([u8; 4], u32)> {
        match interface.place(host).and_then(|place| self.paired(place)) {
            Some(paired) => Some((paired.address, paired.number)),
            None => interface.public(),
        }
    }
    /// Whether an address is the gateway's own on an inside interface.
    fn is_inside_address(&self, address: [u8; 4]) -> bool;
    /// Whether it is the gateway's own on an interface that it manages.
    fn is_own_address(&self, address: [u8; 4]) -> bool;

    /// The record for packets with this key.
    fn flow(&self, key: &FlowKey) -> Option<Self::Slot>;
    /// The same, for the one lookup that nearly every packet has.
    #[inline(always)]
    fn flow_often(&self, key: &FlowKey) -> Option<Self::Slot> {
        self.flow(key)
    }
    /// The same, wherever it lies: for a hint, and in a stage behind one that has found it. It takes less of
    /// the stack; a record that moves at this moment may be missed.
    #[inline(always)]
    fn flow_in_place(&self, key: &FlowKey) -> Option<Self::Slot> {
        self.flow(key)
    }
    /// Adds a record.
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), Refused>;
    /// Removes a record.
    fn remove_flow(&mut self, key: &FlowKey);

    /// Counts a flow that an inside host is about to open.
    ///
    /// # Errors
    /// [`Reason::HostLimit`] and [`Reason::FlowBusy`], and it is not counted.
    fn open_host(&mut self, host: [u8; 4]) -> Result<(), Reason>;
    /// Takes that back: there is no such flow.
    fn close_host(&mut self, host: [u8; 4]);
    /// Counts a flow that was refused because the host is at its limit.
    fn refuse_host(&mut self, host: [u8; 4]);
    /// Counts a public port that an inside host is about to take.
    ///
    /// # Errors
    /// As [`Tables::open_host`].
    fn open_port(&mut self, host: [u8; 4]) -> Result<(), Reason>;
    /// Takes that back: there is no such port.
    fn close_port(&mut self, host: [u8; 4]);

    /// A hop that the agent has filled in.
    fn hop(&self, index: u32) -> Option<KnownHop>;
    /// Reference to the hop that the kernel's routing has led to in `epoch`, for packets of up to
    /// `mtu` bytes; [`HopReference::NONE`] until the agent has filled it in, and where that hop would
    /// take longer packets.
    fn refer(&mut self, hop: &NextHop, mtu: u32, epoch: u32) -> HopReference;

    /// Number of the interface that packets with this public address leave by; 0 where the kernel's
    /// routing decides alone.
    fn uplink(&self, public: [u8; 4]) -> u32;

    /// Number of a public address whose ports are in the map `ports`.
    fn address_number(&self, address: [u8; 4]) -> Option<u32>;

    /// Who owns a public port.
    fn port_owner(&self, public: &Endpoint) -> Option<PortOwner>;
    /// Reserves a public port.
    fn claim_port(&mut self, public: &Endpoint, owner: &PortOwner) -> Result<(), Refused>;

    /// The word of a port of the numbered public address; that of nobody where there is none.
    fn port_word(&self, number: u32, public: &Endpoint) -> PortOwner;
    /// Exchanges the word of a port, if it is `old`.
    fn swap_port(&mut self, number: u32, public: &Endpoint, old: PortOwner, new: PortOwner)
    -> bool;
    /// Takes the lock on the mappings of an inside endpoint; gives its stripe, or `None` when others
    /// have it for too long.
    fn lock_mappings(&mut self, inside: &Endpoint) -> Option<u32>;
    /// Gives the lock back.
    fn unlock_mappings(&mut self, stripe: u32);
    /// How far from the first choice mappings of a stripe lie; under its lock.
    fn mapping_reach(&self, stripe: u32) -> u32;
    /// Sets that.
    fn set_mapping_reach(&mut self, stripe: u32, reach: u32);
    /// A number that follows from an inside endpoint and what else is given, and that nobody outside
    /// can know.
    fn lot(&self, inside: &Endpoint, more: u64) -> u32;

    /// The public port of `inside` on the numbered address; see [`public_port::of`].
    ///
    /// # Errors
    /// Those of [`public_port::of`].
    #[inline(always)]
    fn public_port(
        &mut self,
        inside: Endpoint,
        public: [u8; 4],
        number: u32,
    ) -> Result<Port, Reason>
    where
        Self: Sized,
    {
        public_port::of(self, inside, public, number)
    }

    /// A port on the numbered address for packets with `key` that others have too; see
    /// [`shared_port::of`].
    ///
    /// # Errors
    /// Those of [`shared_port::of`].
    #[inline(always)]
    fn shared_port(&mut self, key: &FlowKey, public: [u8; 4], number: u32) -> Result<Port, Reason>
    where
        Self: Sized,
    {
        shared_port::of(self, key, public, number)
    }

    /// What is known of a datagram in fragments.
    fn fragmented(&self, key: &FragmentKey) -> Option<Fragmented>;
    /// Notes that, in place of what was known.
    fn note_fragmented(&mut self, key: &FragmentKey, value: &Fragmented);
    /// An identification for a datagram from `src` to `dst` that no other one has now.
    fn identification(&mut self, src: [u8; 4], dst: [u8; 4], protocol: u8) -> u16;

    /// Takes an expectation out; of two packets that ask, one gets it.
    fn take_expectation(&mut self, key: &ExpectationKey) -> Option<Expectation>;

    /// A forward by its exact key.
    fn forward(&self, public: &Endpoint) -> Option<Forward>;
    /// Whether a filter lets a remote address in.
    fn allowed(&self, filter: u32, remote: [u8; 4]) -> bool;
    /// Whether packets to and from a remote address are not translated.
    #[inline(always)]
    fn is_exempt(&self, remote: [u8; 4]) -> bool {
        self.settings().exempt != 0 && self.allowed(AllowedKey::EXEMPT, remote)
    }
    /// Notes that whoever is seen as `public` has sent to `remote`.
    fn note_contact(&mut self, public: &Endpoint, remote: [u8; 4], now: u32);
    /// Whether it has.
    fn is_contact(&self, public: &Endpoint, remote: [u8; 4]) -> bool;
    /// The encrypted control session that a client holds through a rule.
    fn encrypted(&self, rule: RuleId, client: [u8; 4]) -> Option<SessionId>;
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
    /// What the agent wants to see of what `side` sends.
    fn watch(&self, id: SessionId, side: Side) -> Watch;
    /// The next record that `side` sends starts at `boundary`.
    fn move_boundary(&mut self, id: SessionId, side: Side, boundary: u32);
    /// Whether what `side` sends is resolved up to exactly `sequence`; see [`nat_common::vouched`].
    /// What is read after this is at least as new as that word.
    fn is_vouched(&self, id: SessionId, side: Side, sequence: u32) -> bool;
    /// It is resolved up to `next` now, unless somebody else has moved the word.
    fn vouch(&mut self, id: SessionId, side: Side, sequence: u32, next: u32);
    /// Maps the SACK edges of a packet that `side` sends, in a buffer of options.
    fn map_sack(
        &self,
        id: SessionId,
        side: Side,
        area: &mut [u8; tcp_options::BUFFER],
        length: usize,
    );

    /// Edits the options of a SYN of a control connection on whose path an MSS of `most` fits; the MSS
    /// that it then announces, or 0.
    #[inline(always)]
    fn edit_syn(&self, area: &mut [u8; tcp_options::BUFFER], length: usize, most: u16) -> u16 {
        tcp_options::edit_syn(area, length, most, MSS_HEADROOM, MSS_FLOOR)
    }

    /// Lowers the MSS in the options of any other SYN to `most`.
    #[inline(always)]
    fn lower_mss(&self, area: &mut [u8; tcp_options::BUFFER], length: usize, most: u16) {
        tcp_options::lower_mss(area, length, most, 0, 0);
    }

    /// Runs up to `turns` turns of `body`.
    fn repeat<B: Turn<Self>>(&mut self, turns: u32, body: &mut B)
    where
        Self: Sized;

    /// Whether the sender of a packet that was refused at `now` may be told so; `takes` is 1 for who tells
    /// it, and 0 for who asks.
    fn may_tell(&mut self, now: u32, takes: u32) -> bool;

    /// Counts an event.
    fn count(&mut self, counter: Counter);
    /// Counts a drop.
    fn count_drop(&mut self, reason: Reason);
}
