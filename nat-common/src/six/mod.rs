//! IPv6: what is remembered of flows, fragments and rules. No port is rewritten, and addresses where a
//! prefix is, without a state: so one record with inside addresses is found by the packets of both
//! directions, and rules only let in.

mod control;
mod flow;
mod prefix;
mod rule;

pub use control::{Control6, Expectation6, Expectation6Key, Watch6Key};
pub use flow::{Flow6, Flow6Key, Fragment6Key, ICMPV6, Way6};
pub use prefix::{LONGEST_PREFIX, Prefix, PrefixKey};
pub use rule::{Allowed6Key, Endpoint6, Opening, opening_keys};

/// An IPv6 address, as on the wire.
pub type Address6 = [u8; 16];

/// Datagrams in fragments that are remembered at a time; the one that was used longest ago makes room.
pub const FRAGMENTED6: u32 = 4096;

/// Whether packets with this address never leave their link, or are no host's: multicast, link-local,
/// loopback, none (RFC 4291 section 2.4). They are the kernel's own, which forwards none of them.
#[inline(always)]
pub const fn stays(address: &Address6) -> bool {
    let [first, second, ..] = *address;
    let is_low = u128::from_be_bytes(*address) <= 1;
    first == 0xff || first == 0xfe && second & 0xc0 == 0x80 || is_low
}

/// Whether it is a unique local address (RFC 4193 section 3.1), which nobody outside has a route to.
#[inline(always)]
pub const fn is_unique_local(address: &Address6) -> bool {
    address[0] & 0xfe == 0xfc
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    #[test]
    fn addresses_of_a_link_and_of_groups_stay() {
        for (text, wanted) in [
            ("::", true),
            ("::1", true),
            ("::2", false),
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", false),
            ("ff02::1:ff00:1", true),
            ("fd00::1", false),
            ("2001:db8::1", false),
        ] {
            let address: Ipv6Addr = text.parse().unwrap();
            assert_eq!(stays(&address.octets()), wanted, "{text}");
        }
    }
}
