//! One question to rtnetlink, answered at once.
//!
//! Invariant: the socket is opened for the question, in the namespace of this thread, and nothing
//! waits for longer than [`PATIENCE`].

use std::{io, os::fd::AsFd as _};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

/// Seconds; the kernel answers while it is asked.
const PATIENCE: i64 = 1;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One object.
    One,
    /// All of a kind.
    All,
}

/// The objects of the answer.
///
/// # Errors
/// What the kernel says.
pub fn ask(question: RouteNetlinkMessage, scope: Scope) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    let mut request = NetlinkMessage::from(question);
    request.header.flags = NLM_F_REQUEST
        | match scope {
            Scope::One => NLM_F_ACK,
            Scope::All => NLM_F_DUMP,
        };
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answers = vec![];
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(_) => return Ok(answers),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(answers),
                        Some(_) => Err(error.to_io()),
                    };
                }
                _ => {}
            }
            let length = (message.header.length as usize).next_multiple_of(4).max(1);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
