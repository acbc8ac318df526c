//! Prefixes of IPv6 that are translated (NPTv6, RFC 6296): map `prefixes`.
//!
//! Invariant: a translated address has the sum of the one before, so that no checksum that covers it
//! changes; and the way back leads to the address that it came from.
//!
//! ```text
//!   /48 or shorter   prefix | subnet | interface identifier     the subnet is adjusted
//!   /49 to /64       prefix   subnet | w4 : w5 : w6 : w7         the first of these that is not all ones
//! ```
//!
//! All ones and zero are the same number in this arithmetic, so a word of all ones has no way back.

use super::Address6;
use crate::checksum::{Delta, Sum};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The longest prefix: an interface identifier is nobody's to replace (RFC 6296 section 3.5).
pub const LONGEST_PREFIX: u8 = 64;
/// Prefixes up to this length leave whole subnets (RFC 6296 section 3.4).
const SUBNET_AT: u8 = 48;
/// The scope of public addresses, which are known on every interface.
const PUBLIC: u32 = 0;
/// The scope of inside addresses, whichever WAN they leave by.
const INSIDE: u32 = u32::MAX;

/// Data of a key of the map `prefixes` (a longest-prefix trie): whose view, then the address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PrefixKey {
    scope: [u8; 4],
    address: Address6,
}

const _: () = assert!(size_of::<PrefixKey>() == 20);

impl PrefixKey {
    /// Bits before the address.
    pub const SCOPE_BITS: u32 = 32;

    /// An inside address that leaves by the WAN with this number.
    #[inline(always)]
    pub const fn leaving(wan: u32, inside: Address6) -> Self {
        Self { scope: wan.to_be_bytes(), address: inside }
    }

    /// A public address.
    #[inline(always)]
    pub const fn public(address: Address6) -> Self {
        Self { scope: PUBLIC.to_be_bytes(), address }
    }

    /// An inside address that some WAN translates.
    #[inline(always)]
    pub const fn inside(address: Address6) -> Self {
        Self { scope: INSIDE.to_be_bytes(), address }
    }

    /// The WAN of one that leaves; `None` for the others.
    pub const fn wan(&self) -> Option<u32> {
        match u32::from_be_bytes(self.scope) {
            PUBLIC | INSIDE => None,
            wan => Some(wan),
        }
    }

    /// The address.
    #[inline(always)]
    pub const fn address(&self) -> Address6 {
        self.address
    }

    /// Puts another address in its place.
    #[inline(always)]
    pub const fn set_address(&mut self, address: Address6) {
        self.address = address;
    }

    /// Whose view it is: equal for keys that may match.
    pub const fn scope(&self) -> [u8; 4] {
        self.scope
    }
}

/// Value of the map `prefixes`: how an address below one prefix becomes one below another.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Prefix {
    /// Upper half of the other prefix.
    network: [u8; 8],
    /// Bits of that half that an address keeps.
    kept: [u8; 8],
    /// The interface of the pair.
    wan: u32,
    /// What is added to a word, as in a sum.
    adjustment: [u8; 2],
    /// Whether the subnet is that word: 1 or 0.
    subnet: u16,
}

const _: () = assert!(size_of::<Prefix>() == 24);

impl Prefix {
    /// From the prefix `from` to the prefix `to`, both of so many bits, 1 to [`LONGEST_PREFIX`], of the
    /// WAN with this number.
    pub const fn new(from: Address6, to: Address6, bits: u8, wan: u32) -> Self {
        let kept = match u64::MAX.checked_shr(bits as u32) {
            Some(kept) => kept,
            None => 0,
        };
        let [from, to] = [halves(from)[0], halves(to)[0]];
        let from = (u64::from_be_bytes(from) & !kept).to_be_bytes();
        let network = (u64::from_be_bytes(to) & !kept).to_be_bytes();
        let [a, b, c, d, e, f, g, h] = from;
        let [i, j, k, l, m, n, o, p] = network;
        let delta = Delta::NONE
            .word([i, j], [a, b])
            .word([k, l], [c, d])
            .word([m, n], [e, f])
            .word([o, p], [g, h]);
        let adjustment = Sum::from_raw(delta.raw()).folded().to_ne_bytes();
        Self {
            network,
            kept: kept.to_be_bytes(),
            wan,
            adjustment,
            subnet: (bits <= SUBNET_AT) as u16,
        }
    }

    /// The interface of the pair.
    #[inline(always)]
    pub const fn wan(&self) -> u32 {
        self.wan
    }

    /// An address below the one prefix as it is below the other; `None` where no word is left that could
    /// be adjusted.
    #[inline(always)]
    pub const fn translate(&self, address: Address6) -> Option<Address6> {
        let [high, low] = halves(address);
        let kept = u64::from_ne_bytes(high) & u64::from_ne_bytes(self.kept);
        let high = (kept | u64::from_ne_bytes(self.network)).to_ne_bytes();
        if self.subnet != 0 {
            let [a, b, c, d, e, f, g, h] = high;
            return match self.adjust([g, h]) {
                Some([g, h]) => Some(whole([a, b, c, d, e, f, g, h], low)),
                None => None,
            };
        }
        let [a, b, c, d, e, f, g, h] = low;
        let low = if let Some([a, b]) = self.adjust([a, b]) {
            [a, b, c, d, e, f, g, h]
        } else if let Some([c, d]) = self.adjust([c, d]) {
            [a, b, c, d, e, f, g, h]
        } else if let Some([e, f]) = self.adjust([e, f]) {
            [a, b, c, d, e, f, g, h]
        } else if let Some([g, h]) = self.adjust([g, h]) {
            [a, b, c, d, e, f, g, h]
        } else {
            return None;
        };
        Some(whole(high, low))
    }

    /// A word less what the other prefix adds to the sum; `None` for all ones. Never all ones.
    #[inline(always)]
    const fn adjust(&self, word: [u8; 2]) -> Option<[u8; 2]> {
        if let [0xff, 0xff] = word {
            return None;
        }
        let sum = u16::from_ne_bytes(word) as u32 + u16::from_ne_bytes(self.adjustment) as u32;
        let sum = (sum & 0xffff) + (sum >> 16);
        Some(if sum == 0xffff { [0, 0] } else { (sum as u16).to_ne_bytes() })
    }
}

#[inline(always)]
const fn halves(address: Address6) -> [[u8; 8]; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]]
}

#[inline(always)]
const fn whole(high: [u8; 8], low: [u8; 8]) -> Address6 {
    let [a, b, c, d, e, f, g, h] = high;
    let [i, j, k, l, m, n, o, p] = low;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;
    use proptest::{prelude::*, sample::select};

    fn address(text: &str) -> Address6 {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    fn pair(inside: &str, public: &str, bits: u8) -> [Prefix; 2] {
        let (inside, public) = (address(inside), address(public));
        [Prefix::new(inside, public, bits, 3), Prefix::new(public, inside, bits, 3)]
    }

    #[test]
    fn the_example_of_the_rfc_comes_out_and_goes_back() {
        // RFC 6296 section 3.6.
        let [out, back] = pair("fd01:203:405::", "2001:db8:1::", 48);
        let (inside, public) = (address("fd01:203:405:1::1234"), address("2001:db8:1:d550::1234"));
        assert_eq!(out.translate(inside), Some(public));
        assert_eq!(back.translate(public), Some(inside));
        assert_eq!(u16::from_be_bytes(out.adjustment), 0xd54f);
    }

    #[test]
    fn a_subnet_of_all_ones_has_no_way_back_and_goes_nowhere() {
        let [out, back] = pair("fd01:203:405::", "2001:db8:1::", 48);
        assert_eq!(out.translate(address("fd01:203:405:ffff::1")), None);
        assert_eq!(back.translate(address("2001:db8:1:ffff::1")), None);
        // What would become all ones becomes zero.
        let zero = address("fd01:203:405:2ab0::1");
        assert_eq!(out.translate(zero), Some(address("2001:db8:1::1")));
        assert_eq!(back.translate(address("2001:db8:1::1")), Some(zero));
    }

    #[test]
    fn under_a_longer_prefix_the_first_word_that_is_not_all_ones_is_adjusted() {
        let [out, back] = pair("fd00:0:0:1::", "2001:db8:0:2::", 64);
        for (text, index) in [
            ("fd00:0:0:1::9", 4),
            ("fd00:0:0:1:ffff:1:2:3", 5),
            ("fd00:0:0:1:ffff:ffff:2:3", 6),
            ("fd00:0:0:1:ffff:ffff:ffff:3", 7),
        ] {
            let before = address(text);
            let after = out.translate(before).unwrap();
            assert_eq!(after[..8], address("2001:db8:0:2::")[..8], "{text}");
            for word in 4..8 {
                let same = after[word * 2..word * 2 + 2] == before[word * 2..word * 2 + 2];
                assert_eq!(same, word != index, "{text}, word {word}");
            }
            assert_eq!(back.translate(after), Some(before), "{text}");
        }
        assert_eq!(out.translate(address("fd00:0:0:1:ffff:ffff:ffff:ffff")), None);
    }

    #[test]
    fn each_view_of_an_address_is_its_own() {
        let inside = address("fd00:1:2:3::1");
        let leaving = PrefixKey::leaving(3, inside);
        assert_eq!((leaving.wan(), leaving.address()), (Some(3), inside));
        let keys = [leaving, PrefixKey::leaving(4, inside)];
        let keys = keys.into_iter().chain([PrefixKey::public(inside), PrefixKey::inside(inside)]);
        let scopes: std::collections::BTreeSet<_> = keys.map(|key| key.scope()).collect();
        assert_eq!(scopes.len(), 4);
        assert_eq!(PrefixKey::public(inside).wan(), None);
        assert_eq!(PrefixKey::inside(inside).wan(), None);
    }

    /// Words where carries happen, and others.
    fn word() -> impl Strategy<Value = u16> {
        prop_oneof![
            select(vec![0u16, 1, 0xff, 0xfe, 0xff00, 0x7fff, 0x8000, 0xfffe, 0xffff, 0xffff]),
            any::<u16>()
        ]
    }

    fn words() -> impl Strategy<Value = [u16; 8]> {
        prop::array::uniform8(word())
    }

    fn octets(words: [u16; 8]) -> Address6 {
        Ipv6Addr::from(words).octets()
    }

    /// The sum of an address in this arithmetic, by division.
    fn sum(words: [u16; 8]) -> u32 {
        words.iter().map(|word| u32::from(*word)).sum::<u32>() % 0xffff
    }

    /// The obvious reference: the prefix replaced as a number, and the word tried out for which the sum
    /// comes out.
    fn reference(from: [u16; 8], network: u128, bits: u32) -> Option<[u16; 8]> {
        let mask = u128::MAX << (128 - bits);
        let replaced = u128::from_be_bytes(octets(from)) & !mask | network & mask;
        let mut to = Ipv6Addr::from(replaced).segments();
        let places = if bits <= 48 { 3..4 } else { 4..8 };
        let place = places.into_iter().find(|place| from[*place] != 0xffff)?;
        let wanted = sum(from);
        to[place] = (0..0xffff).find(|word| {
            to[place] = *word;
            sum(to) == wanted
        })?;
        Some(to)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn a_translation_is_the_reference_and_its_way_back_is_exact(
            inside in words(), public in words(), host in words(),
            bits in prop_oneof![select(vec![1u8, 16, 47, 48, 49, 56, 63, 64]), 1u8..=64],
        ) {
            let mask = u128::MAX << (128 - u32::from(bits));
            let number = |words: [u16; 8]| u128::from_be_bytes(octets(words));
            let from = number(inside) & mask | number(host) & !mask;
            let from = Ipv6Addr::from(from).segments();
            let [out, back] = [(inside, public), (public, inside)]
                .map(|(from, to)| Prefix::new(octets(from), octets(to), bits, 1));
            let wanted = reference(from, number(public), bits.into());
            let found = out.translate(octets(from));
            prop_assert_eq!(found, wanted.map(octets));
            if let Some(to) = found {
                let segments = Ipv6Addr::from(to).segments();
                prop_assert_eq!(sum(segments), sum(from));
                // Zero and all ones sum up alike, of which the way back gives zero.
                prop_assert_eq!(back.translate(to), Some(octets(from)));
                // What a header's checksum was it is.
                let whole = |address: &Address6| Sum::ZERO.bytes(address).folded() % 0xffff;
                prop_assert_eq!(whole(&to), whole(&octets(from)));
            }
        }
    }
}
