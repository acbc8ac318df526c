//! What the path of IPv6 needs of a packet and of tables, beside what that of IPv4 does.

use crate::{packet::Packet, tables::Refused, tables::Tables};
use nat_common::{
    checksum::Delta,
    flow::Zone,
    reason::Reason,
    record::Use,
    six::{
        Address6, Control6, Endpoint6, Expectation6, Expectation6Key, Flow6, Flow6Key,
        Fragment6Key, Opening, PrefixKey, Watch6Key,
    },
    tcp_window::{Receiver, Receiving},
    watch::Watch,
};

/// Where the kernel's routing leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// To the gateway itself; and where it does not forward, everything.
    Own,
    /// Out by the interface with this number.
    To(u32),
    /// No route, or one that says no.
    Nowhere,
}

/// A frame with IPv6 in it.
pub trait Packet6: Packet {
    /// Bytes at any offset of the frame.
    ///
    /// # Errors
    /// [`Reason::Truncated`] when the frame ends before.
    fn load<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason>;

    /// Overwrites bytes at any offset of the frame with others of the same sum.
    ///
    /// # Errors
    /// [`Reason::WriteFailed`] when the kernel does not let it.
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), Reason>;

    /// Where the kernel's routing leads a packet that arrives by the interface with that number, whatever
    /// its length.
    fn course(&self, ifindex: u32, src: &Address6, dst: &Address6) -> Course;

    /// The MTU of the route there; 0 where the kernel does not say.
    fn route_mtu(&self, src: &Address6, dst: &Address6) -> u32;

    /// Brings the checksum at an offset of the frame up to date with what was changed of the bytes that it
    /// is about. One that was left to a device comes out right too.
    ///
    /// # Errors
    /// [`Reason::WriteFailed`] when the kernel does not let it.
    fn mend(&mut self, at: usize, delta: Delta) -> Result<(), Reason>;
}

/// The place of a flow.
pub trait Line6: Copy {
    /// Bits of [`nat_common::tcp`] that were seen of both ends.
    fn seen(&self) -> u8;

    /// Whether it is an FTP control connection.
    fn is_control(&self) -> bool;

    /// The side that has begun it.
    fn begun(&self) -> Zone;

    /// What is known of the end that packets from `zone` go to.
    fn receiver(&self, zone: Zone) -> Receiver;

    /// What the last segment from `zone` said that its sender is ready to receive.
    fn receiving(&self, zone: Zone) -> Receiving;

    /// Counts a packet from `zone`, and notes what was seen of its sender. No packet is lost to another
    /// CPU that counts.
    fn note(&self, zone: Zone, by: Use);
}

/// The tables of IPv6, each named as its map.
pub trait Tables6: Tables {
    /// Place of a flow.
    type Line: Line6;

    /// A flow.
    fn flow6(&self, key: &Flow6Key) -> Option<Self::Line>;
    /// Adds a flow that is not there.
    fn insert_flow6(&mut self, key: &Flow6Key, flow: &Flow6) -> Result<(), Refused>;
    /// Puts a new flow in the place of one that has ended.
    fn replace_flow6(&mut self, key: &Flow6Key, flow: &Flow6) -> Result<(), Refused>;
    /// Counts a flow that an inside host is about to open.
    ///
    /// # Errors
    /// [`Reason::HostLimit`] and [`Reason::FlowBusy`], and it is not counted.
    fn open_host6(&mut self, host: &Address6) -> Result<(), Reason>;
    /// Takes that back: there is no such flow.
    fn close_host6(&mut self, host: &Address6);
    /// Counts a flow that was refused because the host is at its limit.
    fn refuse_host6(&mut self, host: &Address6);
    /// The flow of a datagram in fragments.
    fn fragmented6(&self, datagram: &Fragment6Key) -> Option<Flow6Key>;
    /// Notes that.
    fn note_fragmented6(&mut self, datagram: &Fragment6Key, flow: &Flow6Key);
    /// Takes an announced connection: the only one to get it is the one that removes it.
    fn take_expectation6(&mut self, key: &Expectation6Key) -> Option<Expectation6>;
    /// Forgets what the agent knew of an earlier connection with that key.
    fn forget_control6(&mut self, key: &Flow6Key);
    /// What the agent knows of a control connection.
    fn control6(&self, key: &Flow6Key) -> Option<Control6>;
    /// What the agent wants to see of a side of an encrypted control connection.
    fn watch6(&self, side: &Watch6Key) -> Watch;
    /// The next record of it starts at `boundary`.
    fn move_boundary6(&mut self, side: &Watch6Key, boundary: u32);
    /// What a rule opens at an end inside, by its exact key.
    fn opening(&self, end: &Endpoint6) -> Option<Opening>;
    /// Whether a filter lets a remote address in.
    fn allowed6(&self, filter: u32, remote: &Address6) -> bool;
    /// Puts an address as it is translated, by the longest prefix, in the place of the one in the key.
    /// The interface of that pair of prefixes; `None` for an address that is not translated.
    ///
    /// # Errors
    /// [`Reason::PrefixOnes`].
    fn translate(&self, key: &mut PrefixKey) -> Result<Option<u32>, Reason>;
    /// Whether inside hosts are known outside by the prefix of this address.
    fn is_public6(&self, address: &Address6) -> bool;
    /// Whether this inside address has another one at the way out with that number.
    fn is_translated6(&self, wan: u32, address: &Address6) -> bool;
}
