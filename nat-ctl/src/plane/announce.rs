//! The announcement of an address by ARP: neighbours that know it by another station's link address,
//! such as the gateway that was here before, learn the new one at once and not when theirs is old.
//!
//! Invariant: one frame, as RFC 5227 (2.3) has it; it changes caches and asks nobody for an answer.

#![allow(unsafe_code, reason = "addresses of packet sockets, which no crate makes from numbers")]

use std::{io, mem::size_of, net::Ipv4Addr};

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::neighbours::LinkAddress;

const ETHERTYPE: [u8; 2] = [0x08, 0x06];
const BROADCAST: LinkAddress = [0xff; 6];
/// Ethernet, IPv4, the length of an address of each, request (RFC 826).
const REQUEST: [u8; 8] = [0, 1, 0x08, 0, 6, 4, 0, 1];

/// Says on the link of an interface that `address` is at `link`.
///
/// # Errors
/// What the kernel says.
pub fn announce(index: u32, link: LinkAddress, address: Ipv4Addr) -> io::Result<()> {
    // With protocol 0 nothing is received.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.send_to(&frame(link, address), &place(index)?).map(drop)
}

fn frame(link: LinkAddress, address: Ipv4Addr) -> Vec<u8> {
    let (address, nobody) = (address.octets(), [0; 6]);
    let ethernet = [&BROADCAST[..], &link, &ETHERTYPE];
    let arp = [&REQUEST[..], &link, &address, &nobody, &address];
    [ethernet.concat(), arp.concat()].concat()
}

/// The address of an interface for a packet socket.
fn place(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: the storage is large enough for any address, all zeros is one, and the whole of a
    // sockaddr_ll is written before its length is told.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let family = libc::AF_PACKET as libc::sa_family_t;
            let mut place: libc::sockaddr_ll = std::mem::zeroed();
            place.sll_family = family;
            place.sll_ifindex = index;
            storage.cast::<libc::sockaddr_ll>().write(place);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_an_arp_announcement() {
        let link = [2, 0, 0, 0, 0, 9];
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, // request
            2, 0, 0, 0, 0, 9, 203, 0, 113, 11, // sender
            0, 0, 0, 0, 0, 0, 203, 0, 113, 11, // target
        ];
        assert_eq!(frame(link, Ipv4Addr::new(203, 0, 113, 11)), expected);
    }
}
