//! The flows of IPv6 in the map `flows6`.
//!
//! Invariant: a flow that a packet has used since it was looked at is not ended. It is taken out, which
//! says what it was at that instant, and put back if it was used; packets that come in between find
//! none, and TCP repeats.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    path::Path,
};

use nat_common::{
    flow::{Direction, Zone},
    lifetime::Timeouts,
    six::{Flow6, Flow6Key},
};

use crate::plane::{
    clock::Now,
    error::{PlaneError, Result},
    sweep::DataLine,
    whole::Whole,
};

/// The map.
#[derive(Debug)]
pub struct Flows6(Whole<Flow6Key, Flow6>);

/// What a look at all of them has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that are left.
    pub left: u64,
    /// Flows that were over.
    pub expired: u64,
    /// Directions of data connections, those that were over included.
    pub data: Vec<DataLine>,
}

impl Flows6 {
    /// The one that is pinned in `pins`.
    ///
    /// # Errors
    /// As [`Whole::open`].
    pub fn open(pins: &Path) -> Result<Self> {
        Whole::open(pins, "flows6").map(Self)
    }

    /// Most flows.
    pub fn room(&self) -> u64 {
        self.0.room().into()
    }

    /// How many there are.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn used(&self) -> Result<u64> {
        let mut used = 0;
        self.each(|_, _| used += 1)?;
        Ok(used)
    }

    /// One of them.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn find(&self, key: &Flow6Key) -> Result<Option<Flow6>> {
        self.0.find(key).map_err(refused)
    }

    /// Hands over each of them.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn each(&self, each: impl FnMut(&Flow6Key, &Flow6)) -> Result<()> {
        self.0.each(each).map_err(refused)
    }

    /// Ends what has been idle for its lifetime.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn sweep(&self, timeouts: &Timeouts, now: Now) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut over = vec![];
        self.each(|key, flow| {
            swept.data.extend(data_lines(key, flow));
            if is_over(key, flow, timeouts, now) {
                over.push(*key);
            } else {
                swept.left += 1;
            }
        })?;
        for key in over {
            let ended = self.end_if(&key, |flow| is_over(&key, flow, timeouts, now));
            match ended.map_err(refused)? {
                true => swept.expired += 1,
                false => swept.left += 1,
            }
        }
        Ok(swept)
    }

    /// Notes that both ends of a flow were reset; packets that come at that instant find none.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn reset(&self, key: &Flow6Key) -> Result<()> {
        let reset = self.0.take(key).and_then(|found| match found {
            Some(flow) => self.0.add(key, &flow.reset()).map(drop),
            None => Ok(()),
        });
        reset.map_err(refused)
    }

    /// Ends a flow, whoever uses it; whether it was there.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn end(&self, key: &Flow6Key) -> Result<bool> {
        self.end_if(key, |_| true).map_err(refused)
    }

    fn end_if(&self, key: &Flow6Key, ends: impl FnOnce(&Flow6) -> bool) -> io::Result<bool> {
        match self.0.take(key)? {
            Some(flow) if !ends(&flow) => {
                // A packet may have begun it anew in between: then that one counts.
                self.0.add(key, &flow)?;
                Ok(false)
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }
}

fn refused(error: io::Error) -> PlaneError {
    PlaneError::refused("read the flows of IPv6")(error)
}

/// Both directions of what an FTP session has announced.
fn data_lines(key: &Flow6Key, flow: &Flow6) -> impl Iterator<Item = DataLine> + use<> {
    let (begun, created) = (flow.begun(), flow.created());
    let (address, port) = match begun {
        Zone::Inside => (key.outside(), key.outside_port()),
        Zone::Outside => (key.inside(), key.inside_port()),
    };
    let to = SocketAddr::new(Ipv6Addr::from(address).into(), port.number());
    let bytes = [flow.way(begun).bytes, flow.way(begun.other()).bytes];
    let sessions = flow.related_session().into_iter();
    sessions.flat_map(move |session| {
        let directions = [Direction::Original, Direction::Reply].into_iter().zip(bytes);
        directions.map(move |(direction, bytes)| DataLine {
            session,
            to,
            created,
            direction,
            bytes,
        })
    })
}

/// Seconds in which a flow ends, if nothing uses it.
pub fn expires(key: &Flow6Key, flow: &Flow6, timeouts: &Timeouts, now: Now) -> u32 {
    let seconds = timeouts.seconds(flow.lifetime(key.protocol()));
    seconds.saturating_sub(now.since(flow.last()))
}

fn is_over(key: &Flow6Key, flow: &Flow6, timeouts: &Timeouts, now: Now) -> bool {
    expires(key, flow, timeouts, now) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{flow, port::Port, record::Use, rule::RuleId, six::ICMPV6, tcp};

    #[test]
    fn a_flow_is_over_when_its_later_direction_has_been_idle_for_its_lifetime() {
        let timeouts = Timeouts::default();
        let open = tcp::SYN | tcp::ACK;
        for (protocol, seen, seconds) in [
            (flow::TCP, 0, timeouts.tcp_transitory),
            (flow::TCP, open, timeouts.tcp_established),
            (flow::UDP, 0, timeouts.udp),
            (ICMPV6, 0, timeouts.icmp),
            (50, 0, timeouts.udp),
        ] {
            let port = Port::new(1);
            let key = Flow6Key::new(Zone::Inside, protocol, [1; 16], port, [2; 16], port);
            let first = Use { now: 50, bytes: 60, ..Use::default() };
            let mut flow = Flow6::new(Zone::Inside, RuleId::NONE, first);
            flow.outbound.seen = seen;
            flow.inbound.seen = seen;
            flow.inbound.last = 100;
            let over = |at| is_over(&key, &flow, &timeouts, Now::at(at));
            assert!(!over(99 + seconds), "{protocol}");
            assert!(over(100 + seconds), "{protocol}");
        }
    }
}
