//! The flows of IPv6 as output has them, and their end.
//!
//! Invariant: the same fields in the same words as those of IPv4: what arrives at the gateway. Where no
//! prefix is translated the answer is the original turned round.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    ops::ControlFlow,
};

use nat_common::{
    flow::{TCP, Zone},
    host,
    six::{Flow6, Flow6Key},
    tcp,
};

use super::{Inspector, Names, refused};
use crate::output::{End, ExpectationView, FlowFilter, FlowLine};
use crate::plane::{
    clock::{self, Now},
    error::Result,
    flow_memory,
    host_memory::{HostMemory, Listed},
    six,
};
use crate::rules::{Alg, FlowProtocol, Protocol};

impl Inspector {
    /// Hands over those that match, until that says that nobody wants more.
    pub(super) fn each_flow6(
        &self,
        filter: &FlowFilter,
        now: Now,
        names: &Names<'_>,
        mut each: impl FnMut(&Flow6Key, &FlowLine<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut wanted = ControlFlow::Continue(());
        let seen = Seen { now, names, prefixes: &six::Prefixes::read(&self.maps)? };
        self.maps.flows6.each(|key, flow| {
            if wanted.is_continue() {
                wanted = self.with_line6(key, flow, &seen, |line| match filter.matches(line) {
                    true => each(key, line),
                    false => ControlFlow::Continue(()),
                });
            }
        })
    }

    /// Ends those that match; gives back how many.
    pub(super) fn delete_flows6(&self, filter: &FlowFilter) -> Result<u64> {
        let mut found = vec![];
        self.each_flow6(filter, clock::now(), &Names::of(self), |key, _| {
            found.push(*key);
            ControlFlow::Continue(())
        })?;
        let mut deleted = 0;
        for key in found {
            deleted += u64::from(self.maps.flows6.end(&key)?);
        }
        Ok(deleted)
    }

    /// Hosts with flows of IPv6 that they have opened. The map has no addresses, so they are those of the flows.
    pub(super) fn hosts6(&self) -> Result<Vec<(Ipv6Addr, Listed)>> {
        let seeds = flow_memory::geometry(&self.pins())?.seeds;
        let mut addresses = HashMap::new();
        self.maps.flows6.each(|key, flow| {
            if flow.begun() == Zone::Inside {
                let who = host::who6(host::words6(&key.inside()), seeds);
                addresses.insert(who, Ipv6Addr::from(key.inside()));
            }
        })?;
        let hosts = HostMemory::open6(&self.pins())?;
        let address = |listed: Listed| Some((*addresses.get(&listed.who)?, listed));
        Ok(hosts.listed().filter_map(address).collect())
    }

    /// The expectations that nobody has used yet.
    pub(super) fn expectations6(&self) -> Result<Vec<ExpectationView>> {
        let now = clock::now();
        let prefixes = six::Prefixes::read(&self.maps)?;
        let mut views = vec![];
        for entry in self.maps.expectations6.iter() {
            let (key, found) = entry.map_err(refused("expectations of IPv6"))?;
            let Some(protocol) = Protocol::from_number(key.protocol()) else { continue };
            let expires = found.expires().saturating_sub(now.seconds());
            if expires == 0 {
                continue;
            }
            let (to, dport) = (Ipv6Addr::from(key.dst()), key.dport().number());
            views.push(ExpectationView {
                protocol,
                src: IpAddr::from(key.src()),
                dst: prefixes.public_of(to).into(),
                dport,
                to: to.into(),
                to_port: dport,
                expires_s: expires.into(),
                session: found.session().number().into(),
            });
        }
        Ok(views)
    }

    fn with_line6<T>(
        &self,
        key: &Flow6Key,
        flow: &Flow6,
        seen: &Seen<'_>,
        each: impl FnOnce(&FlowLine<'_>) -> T,
    ) -> T {
        let Seen { now, names, prefixes } = *seen;
        let number = flow.rule().number();
        let unknown = format!("#{number}");
        let rule = (number != 0).then(|| names.name(number).unwrap_or(&unknown));
        each(&FlowLine {
            protocol: FlowProtocol::from_number(key.protocol()),
            state: state(key, flow),
            original: end(key, flow, flow.begun(), prefixes),
            reply: end(key, flow, flow.begun().other(), prefixes),
            age_s: now.since(flow.created()).into(),
            idle_s: now.since(flow.last()).into(),
            expires_s: six::expires(key, flow, &self.timeouts, now).into(),
            alg: flow.is_control().then_some(Alg::Ftp),
            rule,
            related_to: flow.related_session().map(|session| session.number().into()),
        })
    }
}

/// What a flow is seen with.
struct Seen<'a> {
    now: Now,
    names: &'a Names<'a>,
    prefixes: &'a six::Prefixes,
}

fn state(key: &Flow6Key, flow: &Flow6) -> &'static str {
    let [original, reply] = flow.seen();
    match (key.protocol(), flow.way(flow.begun().other()).packets) {
        (TCP, _) => tcp::State::of(original, reply).name(),
        (_, 0) => "unreplied",
        (_, 1..) => "replied",
    }
}

/// What arrives from `zone`.
fn end(key: &Flow6Key, flow: &Flow6, zone: Zone, prefixes: &six::Prefixes) -> End {
    let inside = Ipv6Addr::from(key.inside());
    let known = match zone {
        Zone::Inside => inside,
        Zone::Outside => prefixes.public_of(inside),
    };
    let inside = (IpAddr::from(known), key.inside_port().number());
    let outside = (IpAddr::from(key.outside()), key.outside_port().number());
    let ((src, sport), (dst, dport)) = match zone {
        Zone::Inside => (inside, outside),
        Zone::Outside => (outside, inside),
    };
    let way = flow.way(zone);
    End { src, sport, dst, dport, packets: way.packets, bytes: way.bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{flow::UDP, port::Port, record::Use, rule::RuleId};

    #[test]
    fn a_flow_is_told_from_who_has_begun_it() {
        let (here, there) = ([1; 16], [2; 16]);
        let (port, service) = (Port::new(40_000), Port::new(53));
        let key = Flow6Key::new(Zone::Outside, UDP, there, port, here, service);
        let first = Use { now: 100, bytes: 60, ..Use::default() };
        let mut flow = Flow6::new(Zone::Outside, RuleId::new(3), first);
        assert_eq!(state(&key, &flow), "unreplied");
        flow.outbound.packets = 2;
        flow.outbound.bytes = 200;
        assert_eq!(state(&key, &flow), "replied");
        let none = six::Prefixes::default();
        let original = end(&key, &flow, flow.begun(), &none);
        assert_eq!((original.src, original.sport), (there.into(), 40_000));
        assert_eq!((original.dst, original.dport), (here.into(), 53));
        assert_eq!((original.packets, original.bytes), (1, 60));
        let reply = end(&key, &flow, flow.begun().other(), &none);
        assert_eq!((reply.src, reply.dst), (original.dst, original.src));
        assert_eq!((reply.packets, reply.bytes), (2, 200));
    }
}
