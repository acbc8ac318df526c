//! What the path needs of a packet: its bytes, its checksums, and what the kernel knows of it.

use crate::headers::Headers;
use nat_common::{
    checksum::Delta, flow::Rewrite, hop::Link, punt::PuntHeader, reason::Reason, session::Side,
    tcp_options,
};

/// A frame on its way through a hook.
pub trait Packet {
    /// Whether the hook can do everything. The XDP program cannot: what it does not finish it leaves
    /// untouched for the TC program on the same interface.
    const COMPLETE: bool;

    /// Length of the frame in bytes; a GSO super-packet counts whole.
    fn length(&self) -> usize;

    /// Whether it is a GSO super-packet: several segments in one.
    fn is_super(&self) -> bool;

    /// Number of the interface it arrived on.
    fn ifindex(&self) -> u32;

    /// Whether it belongs to another interface, for a VLAN tag was taken off it (other than the
    /// priority tag 0), or is addressed to another station or to several.
    fn is_foreign(&self) -> bool;

    /// Bytes at an offset of the frame.
    ///
    /// # Errors
    /// [`Reason::Truncated`] when the frame ends before.
    fn read<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason>;

    /// The same behind the headers, wherever that is.
    ///
    /// # Errors
    /// As [`Packet::read`].
    #[inline(always)]
    fn read_far<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        self.read(at)
    }

    /// Overwrites bytes at an offset of the frame.
    ///
    /// # Errors
    /// [`Reason::WriteFailed`] when the kernel does not let it.
    fn write<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Result<(), Reason>;

    /// Whole words of 32 bits, in memory order, at an offset of the frame: at most five.
    ///
    /// # Errors
    /// [`Reason::Truncated`] when the frame ends before.
    fn words<const N: usize>(&self, at: usize) -> Result<[u32; N], Reason>;

    /// Overwrites such words.
    ///
    /// # Errors
    /// [`Reason::WriteFailed`] when the kernel does not let it.
    fn set_words<const N: usize>(&mut self, at: usize, words: [u32; N]) -> Result<(), Reason>;

    /// Brings the transport checksum up to date with what was rewritten: `addresses` is the change
    /// of the pseudo-header, `rest` that of the segment itself. A checksum that was left to a device
    /// must come out right too.
    ///
    /// # Errors
    /// [`Reason::WriteFailed`] when the kernel does not let it.
    fn update_checksum(
        &mut self,
        headers: &Headers,
        rewrite: &Rewrite,
        addresses: Delta,
        rest: Delta,
    ) -> Result<(), Reason>;

    /// Whether the sum of an ICMP message is right; of one that is longer than any that is sent it is not
    /// known, and taken for right. XDP, which has to do with no errors, does not look.
    fn is_sound(&self, headers: &Headers) -> bool;

    /// Where the kernel's routing sends what arrives as this packet does.
    fn route(&self, headers: &Headers, journey: &Journey) -> Route;

    /// The way of one that is too long for it, and the longest that it takes; `None` where there is
    /// none, or it is not known.
    fn narrow_way(&self, headers: &Headers, journey: &Journey) -> Option<(NextHop, u32)>;

    /// Bytes from the IP header on of the longest packet that will leave for this one; the segments
    /// that a super-packet will be cut to count alone.
    fn longest(&self, headers: &Headers) -> u32;

    /// Whether this hook can rewrite the packet and send it to `hop`; asked before the first write.
    fn can_finish(&mut self, headers: &Headers, hop: &NextHop) -> bool;

    /// Whether a socket of the gateway itself waits for this packet.
    fn has_socket(&self, headers: &Headers) -> bool;

    /// Whether a UDP socket of the gateway is connected to its sender.
    fn has_connection(&self, headers: &Headers) -> bool;

    /// Whether the payload is one line that `side` may say without the agent; see
    /// [`nat_common::harmless`].
    fn is_harmless(&mut self, headers: &Headers, side: Side) -> bool;

    /// Hands the packet to the agent, from its IPv4 header at `at` on. A copy needs more room in the
    /// ring, and is none where there is not: gives back whether it is.
    ///
    /// # Errors
    /// [`Reason::AlgTooLong`], [`Reason::AlgRingFull`] or [`Reason::FragmentsFull`].
    fn punt(&mut self, header: PuntHeader, at: usize) -> Result<bool, Reason>;

    /// The scale of windows that a SYN announces in the `length` bytes of TCP options at `at`; 0 where it
    /// announces none, and 0 where the hook does not read options.
    fn window_scale(&mut self, at: usize, length: usize) -> u8;

    /// Lets `edit` overwrite the `length` bytes of TCP options at `at` (at most
    /// [`tcp_options::MAX_OPTIONS`]), and says how the sum changed.
    ///
    /// # Errors
    /// [`Reason::Truncated`] or [`Reason::WriteFailed`].
    fn edit_options<E: OptionsEdit>(
        &mut self,
        at: usize,
        length: usize,
        edit: E,
    ) -> Result<Delta, Reason>;
}

/// A change of the TCP options. A trait and not a closure, because a closure that captures pointers
/// to map values is more than the verifier of older kernels follows.
pub trait OptionsEdit {
    /// Overwrites options in `area`, of which `length` bytes are in use.
    fn edit(&mut self, area: &mut [u8; tcp_options::BUFFER], length: usize);
}

/// From where to where a packet goes.
#[derive(Clone, Copy, Debug)]
pub struct Journey {
    /// Its source.
    pub src: [u8; 4],
    /// Its destination.
    pub dst: [u8; 4],
    /// Its source once it has left by a WAN: it takes the uplink of that if the kernel has a route
    /// there. All zero for one that leaves by no WAN.
    pub public: [u8; 4],
}

impl Journey {
    /// By whichever way the kernel says.
    #[inline(always)]
    pub const fn new(src: [u8; 4], dst: [u8; 4]) -> Self {
        Self { src, dst, public: [0; 4] }
    }

    /// The same with the address `public`.
    #[inline(always)]
    #[must_use]
    pub const fn behind(self, public: [u8; 4]) -> Self {
        Self { public, ..self }
    }
}

/// Where a packet leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// Number of the interface.
    pub ifindex: u32,
    /// The neighbour: a router, or the destination itself.
    pub neighbour: [u8; 4],
    /// Link addresses; `None` while the neighbour is not resolved.
    pub link: Option<Link>,
}

/// What the kernel's routing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Forward it; on that route packets of up to so many bytes are taken, 0 where the kernel does not
    /// say so while the neighbour is not resolved.
    Forward(NextHop, u32),
    /// It is for the gateway itself, or a broadcast.
    Local,
    /// It is too large for the interface it would leave by.
    TooBig,
    /// No route, or one that says no, or forwarding is turned off.
    Unreachable,
}
