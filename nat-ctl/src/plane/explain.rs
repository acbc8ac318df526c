//! What would become of a packet: the packet path itself, run over a copy of the live maps.
//!
//! Invariant: the decision is that of the code that runs in the kernel ([`nat_ebpf::path`], on its host
//! in user space); here a packet is made for it, the maps are copied, and the outcome is put into
//! words. Nothing is written to any map.
//!
//! ```text
//!   maps, flows of these ends --copy--> State --+
//!   routes, sockets ------------------> World --+--> tc_ingress (and the guard) --> verdict, new flow
//!   question -------------------------> frame --+                                      |
//!                                                     story: by which rule, what would change it
//! ```

mod asked;
mod copy;
mod frame;
mod six;
mod story;
mod world;

use std::net::Ipv4Addr;

use nat_common::{flow::Zone, interface::Role};
use nat_ebpf::{
    host::{HostPacket, Memory, State, Verdict, World, outside_egress, tc_ingress},
    one_armed,
};
use nix::net::if_::if_nametoindex;

use asked::{Asked, Packet};

use super::error::{PlaneError, Result};
use super::inspect::Inspector;
use super::route::{self, Way};
use crate::output::{ExplainView, PacketView, Question, VerdictView};

impl Inspector {
    /// What would become of a packet that comes in now.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] where it comes in by no interface of the gateway.
    pub fn explain(&self, question: &Question) -> Result<ExplainView> {
        let (name, index) = arrival(question)?;
        match Packet::of(question)? {
            Packet::V4(asked) => self.explain4(&asked, &name, index),
            Packet::V6(asked) => self.explain6(&asked, &name, index),
        }
    }

    fn explain4(&self, asked: &Asked<Ipv4Addr>, name: &str, index: u32) -> Result<ExplainView> {
        let state = copy::state(self.maps(), &self.pins(), asked)?;
        let Some(zone) = zone_of(&state, index, name, asked)? else {
            return Ok(left(asked.view(), name, "both its ends are inside"));
        };
        let key = asked.key(zone);
        let world = world::of(&state, &key, index);
        let memory = Memory::from(state.clone());
        let mut packet = HostPacket::<true>::new(frame::of(asked), index, &world);
        let mut verdict = tc_ingress(&mut packet, &mut memory.tables(), zone);
        let way = route::of_packet(asked.dst.into(), asked.src.into(), index);
        if let (Verdict::Pass, Way::Forward { index: out, .. }) = (verdict, way)
            && state.interfaces.get(&out).is_some_and(|interface| interface.is(Role::Wan))
        {
            // What the kernel would forward to a WAN meets the guard there.
            verdict = outside_egress(&mut packet, &mut memory.tables(), index, 0);
        }
        let leaves = match verdict {
            Verdict::Forward(hop) => {
                let mut leaves = frame::read(&packet.frame, asked.protocol);
                leaves.interface = route::name(hop.ifindex);
                Some(leaves)
            }
            Verdict::Pass | Verdict::Punted | Verdict::Drop(_) => None,
        };
        let after = memory.state();
        let story =
            story::Story { before: &state, after: &after, key, way, names: self.rule_names() };
        let told = story.tell(verdict);
        Ok(ExplainView {
            packet: PacketView { interface: Some(name.to_owned()), ..asked.view() },
            verdict: match (verdict, way) {
                (Verdict::Forward(_), _) => VerdictView::Forwarded,
                (Verdict::Punted, _) => VerdictView::Agent,
                (Verdict::Drop(_), _) => VerdictView::Dropped,
                (Verdict::Pass, Way::Local) => VerdictView::Gateway,
                (Verdict::Pass, Way::Forward { .. } | Way::None) => VerdictView::Kernel,
            },
            reason: match verdict {
                Verdict::Drop(reason) => Some(reason.name().to_owned()),
                Verdict::Forward(_) | Verdict::Pass | Verdict::Punted => None,
            },
            rule: told.rule,
            leaves,
            because: told.because,
            change: told.change,
            note: told.note,
        })
    }
}

/// The side that packets come from by an interface; `None` for one that is on both sides, where their
/// addresses decide.
fn side_of(state: &State, index: u32, name: &str) -> Result<Option<Zone>> {
    let interface = state.interfaces.get(&index).ok_or_else(|| not_ours(name))?;
    match [Role::Lan, Role::Wan].map(|role| interface.is(role)) {
        [true, false] => Ok(Some(Zone::Inside)),
        [false, true] => Ok(Some(Zone::Outside)),
        [true, true] => Ok(None),
        [false, false] => Err(not_ours(name)),
    }
}

/// The side that a packet comes from; `None` for one that stays inside.
fn zone_of(state: &State, index: u32, name: &str, asked: &Asked<Ipv4Addr>) -> Result<Option<Zone>> {
    if let Some(zone) = side_of(state, index, name)? {
        return Ok(Some(zone));
    }
    let (memory, world) = (Memory::from(state.clone()), World::default());
    let packet = HostPacket::<true>::new(frame::of(asked), index, &world);
    // Its headers are whole.
    Ok(one_armed::arrives(&packet, &memory.tables()).ok().flatten())
}

/// A packet that the kernel has, for that reason.
fn left(packet: PacketView, name: &str, why: &str) -> ExplainView {
    ExplainView {
        packet: PacketView { interface: Some(name.to_owned()), ..packet },
        verdict: VerdictView::Kernel,
        reason: None,
        rule: None,
        leaves: None,
        because: vec![format!("{name} is WAN and LAN in one"), why.to_owned()],
        change: vec![],
        note: None,
    }
}

/// Name and number of the interface that the packet comes in by.
fn arrival(question: &Question) -> Result<(String, u32)> {
    let name = match &question.interface {
        Some(name) => name.clone(),
        None => route::interface_to(question.src).ok_or_else(|| {
            PlaneError::NotFound(format!(
                "explain a packet from {}: no route leads there, so it is not known where it comes \
                 in: say --interface IF",
                question.src
            ))
        })?,
    };
    match if_nametoindex(name.as_str()) {
        Ok(index) => Ok((name, index)),
        Err(_) => Err(PlaneError::NotFound(format!(
            "explain a packet on '{name}': there is no such interface: 'ip link' shows those of this \
             network namespace"
        ))),
    }
}

fn not_ours(name: &str) -> PlaneError {
    PlaneError::NotFound(format!(
        "explain a packet on '{name}': it is no interface of the gateway, and what comes in there is \
         left to the kernel: 'nat-ctl status' shows those that are"
    ))
}
