//! Interfaces of the gateway, by number.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What an interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Inside hosts are behind it.
    Lan,
    /// The way out; its address is the public one.
    Wan,
}

/// Value of the `interfaces` map; the key is the interface number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Interface {
    role: u16,
    number: u16,
    public: [u8; 4],
    /// Where its public addresses are in the map `paired`, where it has several to hide hosts behind,
    first: u16,
    /// and how many.
    paired: u16,
}

const _: () = assert!(size_of::<Interface>() == 12);

/// Bits of [`Interface::role`].
const LAN: u16 = 1;
const WAN: u16 = 2;

impl Interface {
    /// An inside interface, with the address that its hosts have where they dial a public address of
    /// the gateway (all zero while there is none), and the number of that address in the map `ports`.
    pub const fn lan(public: [u8; 4], number: u16) -> Self {
        Self { role: LAN, number, public, first: 0, paired: 0 }
    }

    /// A way out, with the address that inside hosts are hidden behind (all zero while it has none)
    /// and the number of that address in the map `ports`.
    pub const fn wan(public: [u8; 4], number: u16) -> Self {
        Self { role: WAN, number, public, first: 0, paired: 0 }
    }

    /// The same on both sides: inside hosts are behind the way out, too.
    pub const fn one_armed(self) -> Self {
        Self { role: LAN | WAN, ..self }
    }

    /// The same, with hosts shared out among `paired` places of the map `paired` from `first` on; none is
    /// the address above for all of them.
    pub const fn pairing(self, first: u16, paired: u16) -> Self {
        Self { first, paired, ..self }
    }

    /// The place in the map `paired` of the address that `host` is hidden behind; `None` where all hosts
    /// have the same. A host keeps its place (paired pooling, RFC 4787 REQ-2), and hosts with addresses in
    /// a row have one after the other.
    #[inline(always)]
    pub const fn place(&self, host: [u8; 4]) -> Option<u32> {
        match u32::from_be_bytes(host).checked_rem(self.paired as u32) {
            Some(turn) => Some(self.first as u32 + turn),
            None => None,
        }
    }

    /// Whether it is on that side; a gateway with one arm is on both.
    #[inline(always)]
    pub const fn is(&self, side: Role) -> bool {
        let bit = match side {
            Role::Lan => LAN,
            Role::Wan => WAN,
        };
        self.role & bit != 0
    }

    /// The public address that hosts are hidden behind, if there is one, and its number in the map
    /// `ports`.
    #[inline(always)]
    pub const fn public(&self) -> Option<([u8; 4], u32)> {
        match self.public {
            [0, 0, 0, 0] => None,
            public => Some((public, self.number as u32)),
        }
    }
}

/// Places of the map `paired`: those of each WAN in a row.
pub const PAIRED: u32 = 64;

/// Value of the `paired` map: a public address that some hosts are hidden behind.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Paired {
    /// The address; all zero in a place that is not used.
    pub address: [u8; 4],
    /// Its number in the map `ports`.
    pub number: u32,
}

const _: () = assert!(size_of::<Paired>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_shared_out_and_each_keeps_its_place() {
        let wan = Interface::wan([203, 0, 113, 1], 3);
        assert_eq!(wan.place([10, 0, 1, 2]), None);
        let wan = wan.pairing(8, 3);
        let places: Vec<_> = (0..7).map(|last| wan.place([10, 0, 1, last])).collect();
        let first = places[0].expect("a place");
        assert!((8..11).contains(&first));
        for (turn, place) in (0..).zip(&places) {
            assert_eq!(*place, Some(8 + (first - 8 + turn) % 3));
        }
        assert_eq!(wan.pairing(8, 1).place([10, 0, 1, 200]), Some(8));
        assert_eq!(wan.public(), Some(([203, 0, 113, 1], 3)));
    }

    #[test]
    fn an_interface_is_on_its_side_and_a_single_one_on_both() {
        let sides = |interface: Interface| [Role::Lan, Role::Wan].map(|side| interface.is(side));
        let wan = Interface::wan([203, 0, 113, 1], 3);
        assert_eq!(sides(Interface::default()), [false, false]);
        assert_eq!(sides(Interface::lan([0; 4], 0)), [true, false]);
        assert_eq!((sides(wan), sides(wan.one_armed())), ([false, true], [true, true]));
        assert_eq!(wan.one_armed().public(), wan.public());
    }
}
