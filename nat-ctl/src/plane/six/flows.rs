//! The flows of IPv6 in the map `flows6`.
//!
//! Invariant: a flow that a packet has used since it was looked at is not ended ([`super::ending`]); packets
//! that come in between find none, and TCP repeats.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    path::Path,
};

use nat_common::{
    flow::{Direction, TCP, Zone},
    lifetime::Timeouts,
    six::{Flow6, Flow6Key},
    tcp,
};

use super::ending::end_all;
use crate::plane::{
    clock::Now,
    error::{PlaneError, Result},
    sweep::{DataLine, Opened, Pressure, Tally},
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
    /// Flows that nobody had answered, and that had to make room for others.
    pub hurried: u64,
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

    /// Ends what has been idle for its lifetime, and where the table is nearly full then, what nobody has
    /// answered, the oldest first. Counts what is left by host, known by these seeds, in `tally`, which has begun.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn sweep(
        &self,
        timeouts: &Timeouts,
        tally: &mut Tally,
        seeds: [u64; 2],
        now: Now,
    ) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut pressure = Pressure::default();
        let mut over = vec![];
        let age = |flow: &Flow6| now.since(flow.created());
        let opened = |key: &Flow6Key, flow: &Flow6| Opened::of6(key, flow, seeds);
        self.each(|key, flow| {
            swept.data.extend(data_lines(key, flow));
            if is_over(key, flow, timeouts, now) {
                over.push(*key);
                return;
            }
            swept.left += 1;
            tally.add(opened(key, flow));
            if is_unanswered(key, flow) {
                pressure.meets(age(flow));
            }
        })?;
        let is_over = |key: &Flow6Key, flow: &Flow6| is_over(key, flow, timeouts, now);
        end_all(&self.0, &over, is_over, |key, flow, has_ended| {
            if has_ended {
                swept.expired += 1;
            } else {
                swept.left += 1;
                tally.add(opened(key, flow));
            }
        })
        .map_err(refused)?;
        pressure.settle(swept.left, self.room(), 1);
        if pressure.is_on() {
            let mut old = vec![];
            self.each(|key, flow| {
                if is_unanswered(key, flow) && pressure.meets(age(flow)) {
                    old.push(*key);
                }
            })?;
            end_all(&self.0, &old, is_unanswered, |key, flow, has_ended| {
                if has_ended {
                    swept.hurried += 1;
                    swept.left = swept.left.saturating_sub(1);
                    tally.take(opened(key, flow));
                }
            })
            .map_err(refused)?;
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
        self.0.take(key).map(|flow| flow.is_some()).map_err(refused)
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

/// Whether nobody has taken it up: there is no answer yet, or of TCP the initiator has not acknowledged one.
fn is_unanswered(key: &Flow6Key, flow: &Flow6) -> bool {
    match key.protocol() {
        TCP => flow.way(flow.begun()).seen & tcp::ACK == 0,
        _ => flow.way(flow.begun().other()).packets == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{flow, port::Port, record::Use, rule::RuleId, six::ICMPV6, tcp};

    #[test]
    fn a_flow_is_unanswered_until_somebody_answers_and_of_tcp_until_the_handshake_is_complete() {
        let port = Port::new(1);
        for begun in [Zone::Inside, Zone::Outside] {
            for (protocol, steps) in [
                (flow::UDP, [true, true, false]),
                (ICMPV6, [true, true, false]),
                (50, [true, true, false]),
                (TCP, [true, true, true]),
            ] {
                let key = Flow6Key::new(begun, protocol, [1; 16], port, [2; 16], port);
                let by = |seen| Use { now: 50, bytes: 60, seen, ..Use::default() };
                let (syn, both) = (by(tcp::SYN), by(tcp::SYN | tcp::ACK));
                let flow = Flow6::new(begun, RuleId::NONE, syn);
                let again = flow.used(begun, syn);
                let answered = again.used(begun.other(), both);
                let seen = [flow, again, answered].map(|flow| is_unanswered(&key, &flow));
                assert_eq!(seen, steps, "{protocol}");
                assert!(!is_unanswered(&key, &answered.used(begun, by(tcp::ACK))), "{protocol}");
            }
        }
    }

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
