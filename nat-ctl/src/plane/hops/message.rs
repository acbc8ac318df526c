//! Messages of rtnetlink, as far as next hops need them.
//!
//! Read here and not by a library that knows all attributes: these come by the thousand when a
//! network changes, and an attribute that nobody needs must not make a message unreadable.
//!
//! Invariant: pure; a message that is cut short or not understood is passed over, never guessed at.
//!
//! ```text
//!   nlmsghdr  length 32 | type 16 | flags 16 | sequence 32 | port 32
//!   then      ndmsg or ifinfomsg, then attributes: length 16 | type 16 | value, padded to 4
//! ```

use nix::libc;

use crate::plane::neighbours::{Device, Key, LinkAddress, Neighbour};

const HEADER: usize = 16;
const NEIGHBOUR: usize = 12;
const DEVICE: usize = 16;
const ATTRIBUTE: usize = 4;

/// What the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A device is there, like this.
    Device(u32, Device),
    /// A device is gone.
    DeviceGone(u32),
    /// A neighbour is known, like this.
    Neighbour(Key, Neighbour),
    /// A neighbour was removed.
    NeighbourGone(Key),
    /// The end of a list.
    Done,
    /// A request was refused, with this errno; 0 acknowledges it.
    Answer(i32),
}

/// A message and the number of the request that it answers; 0 for none.
pub type Numbered = (u32, Message);

/// The messages of a datagram, those that matter here.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Numbered> {
    std::iter::from_fn(move || {
        loop {
            let length = number(datagram, 0)? as usize;
            let message = datagram.get(..length).filter(|message| message.len() >= HEADER)?;
            datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
            let sequence = number(message, 8)?;
            if let Some(body) = message.get(HEADER..)
                && let Some(found) = read(half(message, 4)?, body)
            {
                return Some((sequence, found));
            }
        }
    })
}

fn read(kind: u16, body: &[u8]) -> Option<Message> {
    match kind {
        libc::RTM_NEWLINK => device(body).map(|(index, device)| Message::Device(index, device)),
        libc::RTM_DELLINK => device(body).map(|(index, _)| Message::DeviceGone(index)),
        libc::RTM_NEWNEIGH => neighbour(body).map(|(key, found)| Message::Neighbour(key, found)),
        libc::RTM_DELNEIGH => neighbour(body).map(|(key, _)| Message::NeighbourGone(key)),
        DONE => Some(Message::Done),
        // Netlink answers with the negative errno.
        ERROR => Some(Message::Answer((number(body, 0)? as i32).saturating_neg())),
        _ => None,
    }
}

const DONE: u16 = libc::NLMSG_DONE as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;

fn device(body: &[u8]) -> Option<(u32, Device)> {
    // A bridge reports its ports with a family of its own; those are not devices that come or go.
    if i32::from(*body.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let (index, flags) = (number(body, 4)?, number(body, 8)?);
    let mut device = Device { link: None, mtu: 0, flags: flags & Device::FLAGS, master: 0 };
    for (kind, value) in attributes(body.get(DEVICE..)?) {
        match kind {
            libc::IFLA_ADDRESS => device.link = value.try_into().ok(),
            libc::IFLA_MTU => device.mtu = number(value, 0)?,
            libc::IFLA_MASTER => device.master = number(value, 0)?,
            _ => {}
        }
    }
    Some((index, device))
}

fn neighbour(body: &[u8]) -> Option<(Key, Neighbour)> {
    let (ifindex, state, flags) = (number(body, 4)?, half(body, 8)?, *body.get(10)?);
    // A bridge tells of its stations in the same group; and who answers for others is no neighbour.
    if i32::from(*body.first()?) != libc::AF_INET || flags & libc::NTF_PROXY != 0 {
        return None;
    }
    let (mut address, mut link): (Option<[u8; 4]>, Option<LinkAddress>) = (None, None);
    for (kind, value) in attributes(body.get(NEIGHBOUR..)?) {
        match kind {
            libc::NDA_DST => address = value.try_into().ok(),
            libc::NDA_LLADDR => link = value.try_into().ok(),
            _ => {}
        }
    }
    Some((Key { ifindex, address: address? }, Neighbour { state, link }))
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let value = bytes.get(ATTRIBUTE..length)?;
        let kind = half(bytes, 2)? & libc::NLA_TYPE_MASK as u16;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

/// Asks for a list of all neighbours.
pub fn list_neighbours(sequence: u32) -> Vec<u8> {
    let mut body = [0; NEIGHBOUR];
    body[0] = libc::AF_INET as u8;
    message(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, sequence, &body)
}

/// Asks for a list of all devices, without their statistics.
pub fn list_devices(sequence: u32) -> Vec<u8> {
    let skip = (libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes();
    let body = [&[0; DEVICE][..], &attribute(libc::IFLA_EXT_MASK, &skip)].concat();
    message(libc::RTM_GETLINK, libc::NLM_F_DUMP, sequence, &body)
}

/// Tells the kernel that a packet has used a neighbour: NTF_USE, see neigh_event_send in
/// net/core/neighbour.c. It has to exist.
pub fn use_neighbour(key: &Key) -> Vec<u8> {
    let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
    body.extend(key.ifindex.to_ne_bytes());
    body.extend(libc::NUD_NONE.to_ne_bytes());
    body.extend([libc::NTF_USE, 0]);
    body.extend(attribute(libc::NDA_DST, &key.address));
    message(libc::RTM_NEWNEIGH, 0, 0, &body)
}

/// Gives a neighbour a link address for good, as an operator does.
#[cfg(test)]
pub fn set_neighbour(key: &Key, link: LinkAddress) -> Vec<u8> {
    let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
    body.extend(key.ifindex.to_ne_bytes());
    body.extend(libc::NUD_PERMANENT.to_ne_bytes());
    body.extend([0, 0]);
    body.extend(attribute(libc::NDA_DST, &key.address));
    let [a, b, c, d, e, f] = link;
    let mut link = attribute(libc::NDA_LLADDR, &[a, b, c, d, e, f, 0, 0]);
    link[..2].copy_from_slice(&10_u16.to_ne_bytes());
    body.extend(link);
    message(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, 0, &body)
}

fn message(kind: u16, flags: i32, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// With a value of a multiple of 4 bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = ((ATTRIBUTE + value.len()) as u16).to_ne_bytes();
    [&length[..], &kind.to_ne_bytes(), value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { ifindex: 3, address: [203, 0, 113, 10] };
    const LINK: LinkAddress = [2, 0, 0, 0, 0, 1];

    fn neighbour(kind: u16, family: i32, flags: u8) -> Vec<u8> {
        let mut body = vec![family as u8, 0, 0, 0, 3, 0, 0, 0];
        body.extend(libc::NUD_STALE.to_ne_bytes());
        body.extend([flags, 1]);
        body.extend(attribute(libc::NDA_DST, &KEY.address));
        // An attribute of 6 bytes is padded.
        body.extend([10, 0, 2, 0]);
        body.extend(LINK);
        body.extend([0, 0]);
        // NDA_CACHEINFO, which nobody needs here.
        body.extend(attribute(3, &[7; 16]));
        message(kind, 0, 9, &body)
    }

    fn device(family: i32) -> Vec<u8> {
        let mut body = vec![family as u8, 0, 1, 0, 3, 0, 0, 0];
        body.extend((libc::IFF_UP as u32 | libc::IFF_PROMISC as u32).to_ne_bytes());
        body.extend([0; 4]);
        body.extend([10, 0, 1, 0]);
        body.extend(LINK);
        body.extend([0, 0]);
        body.extend(attribute(libc::IFLA_MTU, &1500_u32.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_MASTER, &8_u32.to_ne_bytes()));
        message(libc::RTM_NEWLINK, 0, 0, &body)
    }

    #[test]
    fn a_datagram_of_several_messages_is_read_to_its_end() {
        let mut datagram = neighbour(libc::RTM_NEWNEIGH, libc::AF_INET, 0);
        datagram.extend(message(libc::RTM_NEWROUTE, 0, 0, &[0; 40]));
        datagram.extend(device(libc::AF_UNSPEC));
        datagram.extend(message(DONE, 0, 4, &[0; 4]));
        datagram.extend(message(ERROR, 0, 5, &(-libc::ENOENT).to_ne_bytes()));
        let known = Neighbour { state: libc::NUD_STALE, link: Some(LINK) };
        let up = libc::IFF_UP as u32;
        let found: Vec<_> = messages(&datagram).collect();
        let expected = [
            (9, Message::Neighbour(KEY, known)),
            (0, Message::Device(3, Device { link: Some(LINK), mtu: 1500, flags: up, master: 8 })),
            (4, Message::Done),
            (5, Message::Answer(libc::ENOENT)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn stations_of_a_bridge_and_proxies_are_no_neighbours() {
        for datagram in [
            neighbour(libc::RTM_NEWNEIGH, libc::AF_BRIDGE, 0),
            neighbour(libc::RTM_NEWNEIGH, libc::AF_INET6, 0),
            neighbour(libc::RTM_NEWNEIGH, libc::AF_INET, libc::NTF_PROXY),
            device(libc::AF_BRIDGE),
        ] {
            assert_eq!(messages(&datagram).count(), 0);
        }
        let gone = neighbour(libc::RTM_DELNEIGH, libc::AF_INET, 0);
        assert!(messages(&gone).eq([(9, Message::NeighbourGone(KEY))]));
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_not_guessed_at() {
        let whole = neighbour(libc::RTM_NEWNEIGH, libc::AF_INET, 0);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length} bytes");
        }
        // Cut, but with a length that says so: only what is whole counts.
        for length in HEADER..whole.len() {
            let mut cut = whole[..length].to_vec();
            cut[..4].copy_from_slice(&(length as u32).to_ne_bytes());
            for (_, found) in messages(&cut) {
                let Message::Neighbour(key, found) = found else { panic!("{found:?}") };
                assert_eq!(key, KEY);
                assert!(found.link.is_none_or(|link| link == LINK));
            }
        }
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of 0 ends it");
    }
}
