//! Sockets of rtnetlink: two that listen, one that asks.
//!
//! Of routes, rules and addresses only that something changed is of interest: that socket has the
//! smallest buffer, and what does not fit is no loss. Devices and neighbours are followed one by one.
//! Nothing here waits for the kernel: it answers a request while the request is made.
//!
//! Invariant: a socket stays in the namespace in which it was opened. The listeners are opened before
//! the first list is asked for, so that no change falls in between.
#![allow(unsafe_code, reason = "the runtime has to be promised that a descriptor stays open")]

use std::{collections::BTreeMap, io, os::fd::AsFd as _};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    libc,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

use super::message::{self, Message};
use crate::plane::{
    error::{PlaneError, Result},
    neighbours::{Device, Key, Neighbour},
};

/// Changes that can lead packets elsewhere and that nobody has to know more of.
const ROUTING: [u32; 5] = [
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_NEXTHOP,
    libc::RTNLGRP_IPV4_NETCONF,
];
/// Devices and neighbours.
const SURROUNDINGS: [u32; 2] = [libc::RTNLGRP_LINK, libc::RTNLGRP_NEIGH];

/// A message of one device with all that it can say.
const DATAGRAM: usize = 64 * 1024;
/// Some thousand messages about neighbours.
const ROOM: usize = 4 << 20;
/// Lists that were cut short by a change are asked for again so many times.
const TRIES: usize = 3;
/// Bytes of requests that are sent at once; a socket takes 200 KB.
const BATCH: usize = 16 * 1024;

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<Socket>,
}

/// What a look at a listener has given.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A datagram of this many bytes.
    Datagram(usize),
    /// More than there was room for, which is lost.
    TooMuch,
    /// Nothing more for now.
    Nothing,
}

impl Listener {
    /// One for the routing; needs a tokio runtime, as all listeners do.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn routing() -> Result<Self> {
        Self::open(&ROUTING, 0)
    }

    /// One for devices and neighbours.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn surroundings() -> Result<Self> {
        Self::open(&SURROUNDINGS, ROOM)
    }

    fn open(groups: &[u32], room: usize) -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            // The kernel has a least size of its own (SOCK_MIN_RCVBUF).
            setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &room)?;
            groups.iter().try_for_each(|group| socket.add_membership(*group))?;
            // SAFETY: the socket keeps its descriptor open and the same for as long as it lives, and
            // it lives in the `AsyncFd`, of which only shared references are used.
            Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        let socket = open().map_err(PlaneError::refused::<io::Error>("listen to netlink"))?;
        Ok(Self { socket })
    }

    /// Waits until there is something. Safe to cancel.
    pub async fn ready(&self) {
        // An error is that of a runtime which is about to end.
        let _ready = self.socket.readable().await;
    }

    /// The next datagram, at once or not at all.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn hear(&self, buffer: &mut [u8]) -> Result<Heard> {
        let mut receive = |socket: &Socket| {
            socket.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT | libc::MSG_TRUNC)
        };
        // The runtime has to learn that the socket is empty; but what it believes of a socket that is
        // not is from before this process was stopped, if it was.
        let mut result = self.socket.try_io(Interest::READABLE, &mut receive);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            result = receive(self.socket.get_ref());
        }
        match result {
            Ok(length) if length > buffer.len() => Ok(Heard::TooMuch),
            Ok(length) => Ok(Heard::Datagram(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Heard::TooMuch),
            Err(error) => Err(PlaneError::refused("listen to netlink")(error)),
        }
    }
}

/// A socket that asks.
#[derive(Debug)]
pub struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    /// Opens one.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            let limit = TimeVal::new(1, 0);
            setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &limit)?;
            Ok(socket)
        };
        let socket = open().map_err(PlaneError::refused::<io::Error>("open a netlink socket"))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// All devices by number.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn devices(&mut self) -> Result<BTreeMap<u32, Device>> {
        let listed = self.list(message::list_devices);
        let listed = listed.map_err(PlaneError::refused("list interfaces"))?;
        let devices = listed.into_iter().filter_map(|message| match message {
            Message::Device(index, device) => Some((index, device)),
            _ => None,
        });
        Ok(devices.collect())
    }

    /// All IPv4 neighbours.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn neighbours(&mut self) -> Result<BTreeMap<Key, Neighbour>> {
        let listed = self.list(message::list_neighbours);
        let listed = listed.map_err(PlaneError::refused("list neighbours"))?;
        let neighbours = listed.into_iter().filter_map(|message| match message {
            Message::Neighbour(key, neighbour) => Some((key, neighbour)),
            _ => None,
        });
        Ok(neighbours.collect())
    }

    /// Has the kernel check neighbours, as if packets had used them. One that has gone meanwhile is
    /// none that could be checked: no answer is waited for.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn check(&mut self, neighbours: &[Key]) -> Result<()> {
        let requests = neighbours.iter().map(message::use_neighbour);
        self.send(requests).map_err(PlaneError::refused("check neighbours"))
    }

    /// Sends requests to which no answer is waited for.
    pub(super) fn send(&mut self, requests: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let mut requests = requests.peekable();
        while requests.peek().is_some() {
            let mut batch = vec![];
            while batch.len() < BATCH
                && let Some(request) = requests.next()
            {
                batch.extend(request);
            }
            self.socket.send(&batch, 0)?;
            while self.socket.recv(&mut &mut self.buffer[..], libc::MSG_DONTWAIT).is_ok() {}
        }
        Ok(())
    }

    fn list(&mut self, request: fn(u32) -> Vec<u8>) -> io::Result<Vec<Message>> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.list_once(request) {
                // NLM_F_DUMP_INTR is not looked at: what changes meanwhile is said to the listener.
                Err(error) if error.raw_os_error() == Some(libc::EINTR) && tries < TRIES => {}
                result => return result,
            }
        }
    }

    fn list_once(&mut self, request: fn(u32) -> Vec<u8>) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.socket.send(&request(self.sequence), 0)?;
        let mut listed = vec![];
        loop {
            let length = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let datagram = self.buffer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            for (sequence, message) in message::messages(datagram) {
                match message {
                    // What belongs to an earlier request is not ours.
                    _ if sequence != self.sequence => {}
                    Message::Done => return Ok(listed),
                    Message::Answer(code) => return Err(io::Error::from_raw_os_error(code)),
                    message => listed.push(message),
                }
            }
        }
    }
}

/// A buffer that takes any message.
pub fn buffer() -> Vec<u8> {
    vec![0; DATAGRAM]
}
