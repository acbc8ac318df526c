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
}

const _: () = assert!(size_of::<Interface>() == 8);

impl Interface {
    /// An inside interface, with the address that its hosts have where they dial a public address of
    /// the gateway (all zero while there is none), and the number of that address in the map `ports`.
    pub const fn lan(public: [u8; 4], number: u16) -> Self {
        Self { role: 1, number, public }
    }

    /// A way out, with the address that inside hosts are hidden behind (all zero while it has none)
    /// and the number of that address in the map `ports`.
    pub const fn wan(public: [u8; 4], number: u16) -> Self {
        Self { role: 2, number, public }
    }

    /// What it is for; `None` for a code of a later version.
    #[inline(always)]
    pub const fn role(&self) -> Option<Role> {
        match self.role {
            1 => Some(Role::Lan),
            2 => Some(Role::Wan),
            _ => None,
        }
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
