//! Ports, and who owns a public one.
//!
//! One owner table by protocol, address and port is shared by masquerade, expectations, forwards
//! and the gateway's own sockets. A reservation is the compare-and-swap of nobody for an owner;
//! there is no other way to own a port, and nothing checks first and takes later.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A TCP or UDP port, or an ICMP echo identifier. Host byte order, so that `bpftool map dump`
/// prints the number people know.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Port {
    // Named for `bpftool map dump`.
    number: u16,
}

impl Port {
    /// No port: the protocol has none, or any is meant.
    pub const NONE: Self = Self { number: 0 };

    /// A port by its number.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self { number }
    }

    /// From the two bytes of a header.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self { number: u16::from_be_bytes(bytes) }
    }

    /// As the two bytes of a header.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 2] {
        self.number.to_be_bytes()
    }

    /// The number.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        self.number
    }

    /// Whether only privileged programs bind it (RFC 6335 section 6: system ports).
    #[inline(always)]
    pub const fn is_system(self) -> bool {
        self.number < 1024
    }
}

/// An address and a port of a protocol: the key of the owner table.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Endpoint {
    address: [u8; 4],
    port: Port,
    protocol: u8,
    padding: u8,
}

const _: () = assert!(size_of::<Endpoint>() == 8);

impl Endpoint {
    /// The endpoint of `protocol` (an IANA protocol number) at `address` and `port`.
    #[inline(always)]
    pub const fn new(protocol: u8, address: [u8; 4], port: Port) -> Self {
        Self { address, port, protocol, padding: 0 }
    }

    /// As a word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        zerocopy::transmute!(self)
    }

    /// From a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        zerocopy::transmute!(word)
    }

    /// IPv4 address.
    pub const fn address(&self) -> [u8; 4] {
        self.address
    }

    /// Port, or identifier.
    pub const fn port(&self) -> Port {
        self.port
    }

    /// IANA protocol number.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// Why a public port is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Masquerade of an inside endpoint.
    Masquerade,
    /// A forward leads in here.
    Forward,
    /// An announced FTP data connection, and the flow that came of it.
    Expectation,
    /// A socket of the gateway itself.
    Gateway,
    /// Flows of any inside endpoints, told apart by their remote ends.
    Shared,
}

impl Owner {
    /// The word in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Masquerade => "masquerade",
            Self::Forward => "forward",
            Self::Expectation => "expectation",
            Self::Gateway => "gateway",
            Self::Shared => "shared",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Masquerade => 1,
            Self::Forward => 2,
            Self::Expectation => 3,
            Self::Gateway => 4,
            Self::Shared => 5,
        }
    }
}

/// The owner of a public port: one word, so that one compare-and-swap of 0 for it is the claim. For a
/// port of the masquerade it is at the same time the endpoint-independent mapping (RFC 4787 section
/// 4.1): who looks for the public port of an inside endpoint finds the word that names it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortOwner {
    inside: [u8; 4],
    inside_port: Port,
    owner: u8,
    idle: u8,
}

const _: () = assert!(size_of::<PortOwner>() == 8);

impl PortOwner {
    /// Nobody.
    pub const NONE: Self = Self { inside: [0; 4], inside_port: Port::NONE, owner: 0, idle: 0 };

    /// Whoever has a flow by it.
    pub const SHARED: Self = Self::new(Owner::Shared, [0; 4], Port::NONE);

    /// `inside` at `inside_port` owns the port.
    #[inline(always)]
    pub const fn new(owner: Owner, inside: [u8; 4], inside_port: Port) -> Self {
        Self { inside, inside_port, owner: owner.code(), idle: 0 }
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        zerocopy::transmute!(word)
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        zerocopy::transmute!(self)
    }

    /// Why it is taken; `None` where it is not, and for a code of a later version.
    #[inline(always)]
    pub const fn owner(&self) -> Option<Owner> {
        match self.owner {
            1 => Some(Owner::Masquerade),
            2 => Some(Owner::Forward),
            3 => Some(Owner::Expectation),
            4 => Some(Owner::Gateway),
            5 => Some(Owner::Shared),
            _ => None,
        }
    }

    /// Whether nobody owns it.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.owner == 0
    }

    /// The inside host; all zero for the gateway.
    #[inline(always)]
    pub const fn inside(&self) -> [u8; 4] {
        self.inside
    }

    /// Its port.
    #[inline(always)]
    pub const fn inside_port(&self) -> Port {
        self.inside_port
    }

    /// The same, seen without use: the sweep marks it, whoever uses it takes the mark away, and what
    /// still has it at the next pass is released.
    #[inline(always)]
    pub const fn idle(self, idle: bool) -> Self {
        Self { idle: idle as u8, ..self }
    }

    /// Whether the sweep has marked it.
    #[inline(always)]
    pub const fn is_idle(&self) -> bool {
        self.idle != 0
    }

    /// Whether that very inside endpoint owns it.
    #[inline(always)]
    pub fn is(&self, inside: [u8; 4], port: Port) -> bool {
        self.inside == inside && self.inside_port == port
    }
}

/// Public addresses whose ports lie in the map `ports`, by number; those of other addresses lie in
/// `other_ports`.
pub const PORT_ADDRESSES: u32 = 8;

/// Ports of each numbered address in the map `ports`: 2^16 of each of three protocols.
pub const PORTS_PER_ADDRESS: u32 = 3 << 16;

/// The place of `public` in the map `ports`, on the address with this number; `None` for a protocol
/// without ports.
#[inline(always)]
pub const fn place(number: u32, public: &Endpoint) -> Option<u32> {
    let protocol = match public.protocol() {
        crate::flow::TCP => 0,
        crate::flow::UDP => 1,
        crate::flow::ICMP => 2,
        _ => return None,
    };
    Some(number.wrapping_mul(PORTS_PER_ADDRESS) + (protocol << 16) + public.port().number() as u32)
}

/// Inclusive range of ports.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortRange {
    first: Port,
    last: Port,
}

const _: () = assert!(size_of::<PortRange>() == 4);

impl PortRange {
    /// `first..=last`, or `None` when that is empty or has port 0 in it.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last {
            return None;
        }
        Some(Self { first: Port::new(first), last: Port::new(last) })
    }

    /// Lowest port.
    pub const fn first(&self) -> u16 {
        self.first.number
    }

    /// Highest port.
    pub const fn last(&self) -> u16 {
        self.last.number
    }

    /// Number of ports; 0 for the unused places of a [`Pool`].
    #[inline(always)]
    pub const fn len(&self) -> u32 {
        if self.first.number == 0 {
            0
        } else {
            self.last.number as u32 - self.first.number as u32 + 1
        }
    }

    /// Whether it is an unused place of a [`Pool`].
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `port` lies in it.
    #[inline(always)]
    pub const fn contains(&self, port: Port) -> bool {
        !self.is_empty() && self.first.number <= port.number && port.number <= self.last.number
    }
}

/// Ranges in a [`Pool`].
pub const POOL_RANGES: usize = 4;

/// The ports that masquerade and expectations may take.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Pool {
    ranges: [PortRange; POOL_RANGES],
}

const _: () = assert!(size_of::<Pool>() == 16);

impl Pool {
    /// A pool of ranges that do not overlap.
    pub const fn new(ranges: [PortRange; POOL_RANGES]) -> Self {
        Self { ranges }
    }

    /// The ranges, unused places included.
    pub const fn ranges(&self) -> &[PortRange; POOL_RANGES] {
        &self.ranges
    }

    /// Number of ports.
    #[inline(always)]
    pub const fn len(&self) -> u32 {
        let [a, b, c, d] = &self.ranges;
        a.len() + b.len() + c.len() + d.len()
    }

    /// Whether no port is in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `port` may be taken.
    #[inline(always)]
    pub const fn contains(&self, port: Port) -> bool {
        let [a, b, c, d] = &self.ranges;
        a.contains(port) || b.contains(port) || c.contains(port) || d.contains(port)
    }

    /// The port number `index` of the pool, counted through its ranges; `None` past the end.
    #[inline(always)]
    pub const fn port(&self, index: u32) -> Option<Port> {
        let [a, b, c, d] = &self.ranges;
        let (range, rest) = if index < a.len() {
            (a, index)
        } else {
            let index = index - a.len();
            if index < b.len() {
                (b, index)
            } else {
                let index = index - b.len();
                if index < c.len() { (c, index) } else { (d, index - c.len()) }
            }
        };
        if rest < range.len() { Some(Port::new(range.first.number + rest as u16)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range() -> impl Strategy<Value = PortRange> {
        prop_oneof![
            Just(PortRange::default()),
            (1u16.., any::<u16>()).prop_map(|(first, more)| {
                PortRange::new(first, first.saturating_add(more % 300)).unwrap()
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_index_is_one_port_of_the_pool(ranges in prop::array::uniform4(range())) {
            let pool = Pool::new(ranges);
            let listed: Vec<u16> = (0..pool.len()).map(|i| pool.port(i).unwrap().number()).collect();
            let wanted: Vec<u16> =
                ranges.iter().filter(|r| !r.is_empty()).flat_map(|r| r.first()..=r.last()).collect();
            prop_assert_eq!(&listed, &wanted);
            prop_assert_eq!(pool.port(pool.len()), None);
            prop_assert_eq!(pool.is_empty(), wanted.is_empty());
            for port in [0u16, 1, 1023, 1024, 65535].into_iter().chain(listed.first().copied()) {
                prop_assert_eq!(pool.contains(Port::new(port)), wanted.contains(&port));
            }
        }
    }

    #[test]
    fn a_port_on_the_wire_is_big_endian_and_system_below_1024() {
        assert_eq!(Port::new(0x1234).to_wire(), [0x12, 0x34]);
        assert_eq!(Port::from_wire([0x12, 0x34]), Port::new(0x1234));
        assert!(Port::new(0).is_system() && Port::new(1023).is_system());
        assert!(!Port::new(1024).is_system() && !Port::new(65535).is_system());
    }

    #[test]
    fn owners_are_words_that_say_what_they_were_made_of() {
        for (owner, name) in [
            (Owner::Masquerade, "masquerade"),
            (Owner::Forward, "forward"),
            (Owner::Expectation, "expectation"),
            (Owner::Gateway, "gateway"),
            (Owner::Shared, "shared"),
        ] {
            let port = PortOwner::new(owner, [10, 0, 1, 2], Port::new(5000));
            assert_eq!((port.owner(), owner.name(), port.is_none()), (Some(owner), name, false));
            assert_eq!((port.inside(), port.inside_port().number()), ([10, 0, 1, 2], 5000));
            assert!(port.is([10, 0, 1, 2], Port::new(5000)) && !port.is_idle());
            assert!(!port.is([10, 0, 1, 3], Port::new(5000)));
            assert!(!port.is([10, 0, 1, 2], Port::new(5001)));
            assert_eq!(PortOwner::from_word(port.word()), port);
            assert!(port.idle(true).is_idle() && port.idle(true).idle(false) == port);
        }
        assert_eq!((PortOwner::NONE.owner(), PortOwner::NONE.word()), (None, 0));
    }

    #[test]
    fn every_port_of_a_numbered_address_has_a_place_of_its_own() {
        let mut places = std::collections::HashSet::new();
        for number in 0..PORT_ADDRESSES {
            for protocol in [1, 6, 17] {
                for port in [0, 1, 1023, 1024, 65535] {
                    let public = Endpoint::new(protocol, [203, 0, 113, 1], Port::new(port));
                    let place = place(number, &public).unwrap();
                    assert!(place < PORT_ADDRESSES * PORTS_PER_ADDRESS && places.insert(place));
                }
            }
        }
        assert_eq!(place(0, &Endpoint::new(47, [203, 0, 113, 1], Port::NONE)), None);
    }

    #[test]
    fn a_range_is_never_empty_nor_has_port_zero() {
        assert_eq!(PortRange::new(0, 10), None);
        assert_eq!(PortRange::new(11, 10), None);
        assert_eq!(PortRange::new(65535, 65535).unwrap().len(), 1);
        assert_eq!(PortRange::new(1, 65535).unwrap().len(), 65535);
    }
}
