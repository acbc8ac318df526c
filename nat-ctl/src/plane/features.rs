//! What a driver says of XDP: the generic netlink family `netdev` (Linux 6.3 and later,
//! Documentation/netlink/specs/netdev.yaml).
//!
//! Invariant: "cannot say" is not "cannot do": it is `None`, and the caller probes.

use std::io;

use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

use super::error::{PlaneError, Result};

/// linux/genetlink.h: the controller, its request for a family, and the attributes of that.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// linux/netdev.h: NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_FEATURES.
const DEVICE_GET: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_FEATURES: u16 = 3;

/// Bits of enum netdev_xdp_act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features(u64);

impl Features {
    const BASIC: u64 = 1;
    const REDIRECT: u64 = 2;
    const TRANSMIT: u64 = 4;

    /// From the bits of the kernel.
    pub const fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether a program on this interface may redirect what arrives.
    pub const fn can_receive(self) -> bool {
        self.0 & Self::BASIC != 0 && self.0 & Self::REDIRECT != 0
    }

    /// Whether others may redirect to this interface now. A veth can only while its peer polls
    /// (an XDP program or GRO there), so this changes while the gateway runs.
    pub const fn can_transmit(self) -> bool {
        self.0 & Self::TRANSMIT != 0
    }
}

/// What the driver of the interface with this number can do; `None` where the kernel can't say.
///
/// # Errors
/// Where there is no generic netlink at all.
pub fn of(index: u32) -> Result<Option<Features>> {
    let what = || format!("ask for the XDP features of interface {index}");
    let mut socket = Socket::new(NETLINK_GENERIC).map_err(PlaneError::refused(what()))?;
    socket.bind_auto().map_err(PlaneError::refused(what()))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(PlaneError::refused(what()))?;
    let family = ask(&socket, CONTROLLER, GET_FAMILY, (FAMILY_NAME, b"netdev\0"), FAMILY_ID)
        .map_err(PlaneError::refused(what()))?;
    let Some([low, high]) = family.as_deref().and_then(|id| <[u8; 2]>::try_from(id).ok()) else {
        return Ok(None);
    };
    let family = u16::from_ne_bytes([low, high]);
    let index = (DEVICE_INDEX, &index.to_ne_bytes()[..]);
    let bits = ask(&socket, family, DEVICE_GET, index, DEVICE_FEATURES)
        .map_err(PlaneError::refused(what()))?;
    let bits = bits.as_deref().and_then(|bits| <[u8; 8]>::try_from(bits).ok());
    Ok(bits.map(|bits| Features::of(u64::from_ne_bytes(bits))))
}

/// One request with one attribute, and one attribute of the answer; `None` where the kernel answers
/// with an error (no such family, no such device).
fn ask(
    socket: &Socket,
    family: u16,
    command: u8,
    (kind, value): (u16, &[u8]),
    wanted: u16,
) -> io::Result<Option<Vec<u8>>> {
    /// Headers of netlink (netlink(7)) and of generic netlink.
    const HEADERS: usize = 16 + 4;
    const REQUEST: u16 = 1;
    let length = u16::try_from(4 + value.len()).map_err(io::Error::other)?;
    let mut message = vec![];
    message.extend([0; 4]);
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let total = u32::try_from(message.len()).map_err(io::Error::other)?;
    if let Some(place) = message.first_chunk_mut() {
        *place = total.to_ne_bytes();
    }
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // NLMSG_ERROR is 2, and has no generic header; an answer has the number of the family.
    let answered = answer.get(4..6).is_some_and(|kind| kind == family.to_ne_bytes());
    let attributes = match answer.get(HEADERS..) {
        Some(attributes) if answered => attributes,
        _ => return Ok(None),
    };
    let found = NlasIterator::new(attributes).flatten().find(|found| found.kind() == wanted);
    Ok(found.map(|found| found.value().to_vec()))
}
