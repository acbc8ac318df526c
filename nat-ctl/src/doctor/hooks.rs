//! Programs of others on the hooks of an interface.
//!
//! Invariant: programs of any gateway of this kind are none of others. Kernels without tcx have
//! filters alone.

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp},
    tc::{TcAttribute, TcHandle, TcMessage},
};
use nix::net::if_::if_nametoindex;

use crate::plane::{
    BARE_CLASSIFIERS, CLASSIFIERS, ONE_ARMED_CLASSIFIERS, OWN_FILTER, XDP_PROGRAMS,
    ask::{Scope, ask},
};

/// One phrase for each program that is not ours.
pub fn others(interface: &str) -> Vec<String> {
    let Ok(index) = if_nametoindex(interface) else { return vec![] };
    let mut found = vec![];
    found.extend(xdp(index));
    for (at, hook, parent) in [
        (TcAttachType::Ingress, "ingress", TcHandle { major: 0xffff, minor: 0xfff2 }),
        (TcAttachType::Egress, "egress", TcHandle { major: 0xffff, minor: 0xfff3 }),
    ] {
        found.extend(tcx(interface, at, hook));
        found.extend(filters(index, hook, parent));
    }
    found
}

/// The XDP program of an interface.
fn xdp(index: u32) -> Option<String> {
    let mut question = LinkMessage::default();
    question.header.index = index;
    let answers = ask(RouteNetlinkMessage::GetLink(question), Scope::One).ok()?;
    let id = answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => link.attributes.iter().find_map(|attribute| {
            let LinkAttribute::Xdp(about) = attribute else { return None };
            about.iter().find_map(|attribute| match attribute {
                LinkXdp::ProgId(id) => Some(*id),
                _ => None,
            })
        }),
        _ => None,
    })?;
    let mut programs = loaded_programs().flatten();
    let program = programs.find(|program| program.id() == id);
    let name = program.as_ref().and_then(|program| program.name_as_str()).unwrap_or("").to_owned();
    (!is_ours(&name)).then(|| format!("XDP program '{name}' (id {id})"))
}

fn tcx(interface: &str, at: TcAttachType, hook: &str) -> Vec<String> {
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, at) else { return vec![] };
    let mut found = vec![];
    for program in programs {
        let name = program.name_as_str().unwrap_or_default();
        if !is_ours(name) {
            found.push(format!("tcx {hook} program '{name}' (id {})", program.id()));
        }
    }
    found
}

/// Filters of a clsact qdisc.
fn filters(index: u32, hook: &str, parent: TcHandle) -> Vec<String> {
    let mut question = TcMessage::default();
    question.header.index = i32::try_from(index).unwrap_or_default();
    question.header.parent = parent;
    let Ok(answers) = ask(RouteNetlinkMessage::GetTrafficFilter(question), Scope::All) else {
        return vec![];
    };
    let mut found: Vec<String> = vec![];
    for answer in answers {
        let RouteNetlinkMessage::NewTrafficFilter(filter) = answer else { continue };
        // The high half of what goes with a filter is its priority (linux/pkt_sched.h).
        let priority = filter.header.info >> 16;
        if priority == u32::from(OWN_FILTER) {
            continue;
        }
        let kind = filter.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        });
        let phrase =
            format!("tc {hook} filter of kind {} at priority {priority}", kind.unwrap_or("?"));
        if !found.contains(&phrase) {
            found.push(phrase);
        }
    }
    found
}

/// The kernel keeps 15 characters of a name (BPF_OBJ_NAME_LEN).
fn is_ours(name: &str) -> bool {
    let own = CLASSIFIERS.iter().chain(&BARE_CLASSIFIERS).chain(&ONE_ARMED_CLASSIFIERS);
    let mut own = own.chain(&XDP_PROGRAMS);
    !name.is_empty() && own.any(|own| own.get(..15).unwrap_or(own) == name)
}
