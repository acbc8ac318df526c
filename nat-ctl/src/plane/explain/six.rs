//! A packet of IPv6: the path of IPv6 over a copy of its maps, and the outcome in the words of IPv4's.
//!
//! Invariant: told from what the packet path found and left behind, never decided anew.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddrV6},
};

use nat_common::{
    counter::Counter,
    flow::Zone,
    interface::Role,
    reason::Reason,
    rule::RuleId,
    six::{self, Flow6, Opening},
};
use nat_ebpf::{
    host::{HostPacket, Memory, State, Verdict, World, outside_egress, tc_ingress},
    six::Course,
};

use super::{
    asked::Asked,
    copy, frame, left, side_of,
    story::{Told, by_reason},
};
use crate::output::{ExplainView, PacketView, VerdictView};
use crate::plane::{
    error::Result,
    inspect::Inspector,
    route::{self, Way},
    six::Prefixes,
};
use crate::rules::Protocol;

impl Inspector {
    /// What would become of it, if it came in by the interface with this name and number.
    pub(super) fn explain6(
        &self,
        asked: &Asked<Ipv6Addr>,
        name: &str,
        index: u32,
    ) -> Result<ExplainView> {
        let mut zone = None;
        let routed = |dst: Ipv6Addr| route::of_packet(dst.into(), asked.src.into(), index);
        // The same packet with the destination that the gateway knows it by.
        let inside = Prefixes::read(self.maps())?.inside_of(asked.dst);
        let met = match routed(asked.dst) {
            Way::Local => *asked,
            Way::Forward { .. } | Way::None => Asked { dst: inside, ..*asked },
        };
        let before = copy::state6(self.maps(), &self.pins(), |state| {
            zone = side_of(state, index, name)?;
            Ok(met.key(zone.unwrap_or(Zone::Inside)))
        })?;
        let Some(zone) = zone else {
            return Ok(left(asked.view(), name, "IPv6 is the kernel's there"));
        };
        let way = routed(met.dst);
        let leads = |dst: Ipv6Addr, way: Way| {
            let course = match way {
                Way::Local => Course::Own,
                Way::Forward { index, .. } => Course::To(index),
                Way::None => Course::Nowhere,
            };
            (dst.octets(), 128, course)
        };
        let mut routes6 = vec![leads(asked.dst, routed(asked.dst)), leads(inside, routed(inside))];
        if let Way::Forward { index, .. } = way {
            // An answer comes in where the packet leaves.
            let back = route::of_packet(asked.src.into(), met.dst.into(), index);
            routes6.push(leads(asked.src, back));
        }
        let world = World { routes6, ..World::default() };
        let memory = Memory::from(before.clone());
        let mut packet = HostPacket::<true>::new(frame::of6(asked), index, &world);
        let mut verdict = tc_ingress(&mut packet, &mut memory.tables(), zone);
        let is_forwarded = memory.state().counted(Counter::Six) != before.counted(Counter::Six);
        if let (Zone::Inside, true, Way::Forward { index: out, .. }) = (zone, is_forwarded, way)
            && before.interfaces.get(&out).is_some_and(|interface| interface.is(Role::Wan))
        {
            packet.ifindex = out;
            verdict = outside_egress(&mut packet, &mut memory.tables(), index, 0);
        }
        let after = memory.state();
        let (view, reason) = match verdict {
            Verdict::Drop(reason) => (VerdictView::Dropped, Some(reason)),
            _ if is_forwarded => (VerdictView::Forwarded, None),
            _ if way == Way::Local => (VerdictView::Gateway, None),
            _ => (VerdictView::Kernel, None),
        };
        let [src, dst] = frame::ends6(&packet.frame);
        let leaves = match (view, way) {
            (VerdictView::Forwarded, Way::Forward { index, .. }) => {
                let view = Asked { src, dst, ..*asked }.view();
                Some(PacketView { interface: route::name(index), ..view })
            }
            _ => None,
        };
        let story = Story {
            before: &before,
            after: &after,
            asked,
            met: &met,
            leaves: leaves.as_ref(),
            zone,
            way,
            names: self.rule_names(),
        };
        let told = story.tell(view, reason);
        Ok(ExplainView {
            packet: PacketView { interface: Some(name.to_owned()), ..asked.view() },
            verdict: view,
            reason: reason.map(|reason| reason.name().to_owned()),
            rule: told.rule,
            leaves,
            because: told.because,
            change: told.change,
            note: told.note,
        })
    }
}

/// What there is to tell from.
struct Story<'a> {
    /// The maps as they are.
    before: &'a State,
    /// The maps as the packet would leave them.
    after: &'a State,
    asked: &'a Asked<Ipv6Addr>,
    /// The same to the destination that it has inside.
    met: &'a Asked<Ipv6Addr>,
    /// As it leaves.
    leaves: Option<&'a PacketView>,
    zone: Zone,
    /// Where the kernel would send it.
    way: Way,
    names: &'a BTreeMap<u32, String>,
}

impl Story<'_> {
    fn tell(&self, verdict: VerdictView, reason: Option<Reason>) -> Told {
        let mut told = Told::default();
        let asked = self.asked;
        if self.before.settings.ipv6 == 0 {
            told.because.push("[ipv6] of the configuration leaves IPv6 to the kernel".to_owned());
            return told;
        }
        if six::stays(&asked.src.octets()) || six::stays(&asked.dst.octets()) {
            told.because.push("its addresses are those of one link, or of a group".to_owned());
            return told;
        }
        self.translated(&mut told);
        let key = self.met.key(self.zone);
        let known = self.before.flows6.get(&key);
        told.because.push(match known {
            Some(_) => "a flow has this tuple".to_owned(),
            None => "no flow has this tuple".to_owned(),
        });
        if let Some(reason) = reason {
            self.dropped(reason, &mut told);
        } else if verdict != VerdictView::Forwarded {
            self.left(&mut told);
        } else if let Some(known) = known {
            self.known(known, &mut told);
        } else if let Some(made) = self.after.flows6.get(&key) {
            self.begun(made, &mut told);
        }
        told
    }

    fn translated(&self, told: &mut Told) {
        let Asked { src, dst, .. } = *self.asked;
        if self.met.dst != dst {
            told.because.push(format!("prefix: {dst} is {} inside", self.met.dst));
        }
        if let Some(leaves) = self.leaves.filter(|leaves| leaves.src != src) {
            told.because.push(format!("prefix: {src} is known outside as {}", leaves.src));
        }
    }

    fn known(&self, flow: &Flow6, told: &mut Told) {
        told.rule = self.names.get(&flow.rule().number()).cloned();
        told.because.push(match (flow.related_session(), &told.rule, flow.begun()) {
            (Some(id), _, _) => format!("it is a data connection of FTP session {}", id.number()),
            (None, Some(rule), _) => format!("it came in by rule '{rule}'"),
            (None, None, Zone::Inside) => "an inside host has begun it".to_owned(),
            (None, None, Zone::Outside) if flow.rule() == RuleId::NONE => {
                "it came in as an echo request, by [ipv6] echo".to_owned()
            }
            (None, None, Zone::Outside) => "it came in by a rule that is gone".to_owned(),
        });
        is_control(flow, told);
        // As the list has it, which tells what arrives.
        let asked = self.asked;
        let (src, sport) = match flow.begun() == self.zone {
            true => (asked.src, asked.sport),
            false => (self.met.dst, asked.dport),
        };
        told.change.push(format!(
            "'nat-ctl flows delete --src {src} --sport {sport}' ends the flow; rules that change do \
             not touch it"
        ));
    }

    fn begun(&self, flow: &Flow6, told: &mut Told) {
        told.rule = self.names.get(&flow.rule().number()).cloned();
        is_control(flow, told);
        match (&told.rule, flow.related_session()) {
            (_, Some(id)) => told.because.push(format!(
                "FTP session {} has announced it, for one connection: it begins a flow",
                id.number()
            )),
            (Some(rule), _) => {
                told.because.push(format!("rule '{rule}'{}: it begins a flow", self.opens()));
                told.change.push(format!("a change of rule '{rule}'"));
            }
            (None, _) => {
                told.because.push(match flow.begun() {
                    Zone::Inside => "inside hosts may dial: it begins a flow".to_owned(),
                    Zone::Outside => {
                        "[ipv6] echo lets echo requests in: it begins a flow".to_owned()
                    }
                });
                told.change.push("[ipv6] of the configuration".to_owned());
            }
        }
    }

    /// It is left to the kernel.
    fn left(&self, told: &mut Told) {
        told.because.push(
            match (self.way, self.zone) {
                (Way::Local, _) => {
                    "it is for an address of the gateway, whose own services need no rule"
                }
                (Way::None, _) => "the kernel has no route to its destination and tells the sender so",
                (Way::Forward { .. }, Zone::Inside) => {
                    "the kernel's routing does not lead it to a WAN: it goes its way"
                }
                (Way::Forward { .. }, Zone::Outside) => {
                    "the kernel's routing does not lead it to a LAN, and it forwarded IPv6 before the \
                     gateway came"
                }
            }
            .to_owned(),
        );
    }

    fn dropped(&self, reason: Reason, told: &mut Told) {
        if let Some(opening) = self.opening() {
            let number = opening.rule().number();
            told.rule = self.names.get(&number).cloned();
            let name = told.rule.clone().unwrap_or_else(|| format!("#{number}"));
            told.because.push(format!("rule '{name}'{}", self.opens()));
        } else if reason == Reason::Unsolicited {
            told.because.push("no rule or expectation waits for it".to_owned());
        }
        by_reason(reason, told);
        let Asked { protocol, dst, dport, .. } = *self.asked;
        if let (Reason::Unsolicited, Zone::Outside, Protocol::Tcp | Protocol::Udp) =
            (reason, self.zone, protocol)
        {
            let [public, to] = [dst, self.met.dst].map(|end| SocketAddrV6::new(end, dport, 0, 0));
            told.change.push(format!(
                "'nat-ctl forward add --name NAME --protocol {protocol} --public {public} --to {to}' \
                 lets it in"
            ));
        }
        if let (Reason::Unsolicited, Zone::Outside, Protocol::Icmp) = (reason, self.zone, protocol)
        {
            told.change.push("'echo = true' in [ipv6] of the configuration lets it in".to_owned());
        }
    }

    /// The opening that is found for it, where it comes from outside.
    fn opening(&self) -> Option<Opening> {
        let asked = self.asked;
        let Zone::Outside = self.zone else { return None };
        let port = asked.key(self.zone).inside_port();
        let keys = six::opening_keys(asked.number(), self.met.dst.octets(), port);
        keys.iter().find_map(|key| self.before.forwards6.get(key).copied())
    }

    /// ` opens tcp [2001:db8::5]:80 to those that it allows`.
    fn opens(&self) -> String {
        let Asked { protocol, dst, dport, .. } = *self.asked;
        let all = self.opening().is_none_or(|opening| opening.filter() == 0);
        let whom = if all { "all" } else { "those that it allows" };
        format!(" opens {protocol} {} to {whom}", SocketAddrV6::new(dst, dport, 0, 0))
    }
}

fn is_control(flow: &Flow6, told: &mut Told) {
    if flow.is_control() {
        told.because.push("it is an FTP control connection: lines go through the agent".to_owned());
    }
}
