//! New flows from inside: which public address and port they leave with.

use crate::{
    cut,
    headers::{Headers, Transport},
    packet::{Journey, NextHop, Packet, Route},
    pair::{self, Kin},
    path::Admission,
    refusal,
    tables::Tables,
};
use nat_common::{
    counter::Counter,
    expectation::ExpectationKey,
    flow::{FlowKey, Rewrite, Zone},
    hop::HopReference,
    interface::{Interface, Role},
    port::{Endpoint, Owner, Port, PortOwner},
    reason::Reason,
    rule::RuleId,
};

/// Attempts to make a flow: with the port of its mapping, and with shared ones when another CPU was
/// faster.
const TRIES: u32 = 3;

/// Admits a packet from inside that has no flow.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn admit<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &mut T,
    headers: &Headers,
    key: &FlowKey,
    now: u32,
) -> Result<Admission, Reason> {
    // The epoch comes before the route: of a route that changes in between the reference is void.
    let settings = tables.settings();
    let epoch = if settings.agent_alive(now) { Some(settings.epoch) } else { None };
    // To another inside network, or nowhere: the kernel knows what to do.
    let journey = Journey::new(headers.src, headers.dst);
    let (hop, mtu) = match packet.route(headers, &journey) {
        Route::Forward(hop, mtu) => (hop, mtu),
        Route::Local => return Ok(Admission::Local),
        // The flow is made, and then it is cut.
        Route::TooBig if cut::may_cut(packet, headers)? => {
            match packet.narrow_way(headers, &journey) {
                Some(way) => way,
                None => return Ok(Admission::Stack),
            }
        }
        Route::TooBig | Route::Unreachable => return Ok(Admission::Stack),
    };
    let Some(wan) = tables.interface(hop.ifindex) else { return Ok(Admission::Stack) };
    if !wan.is(Role::Wan) || headers.ttl <= 1 {
        return Ok(Admission::Stack);
    }
    headers.begins_flow()?;

    // Before a port is taken: a host at its limit takes none from others.
    refusal::open_host::<P, T>(tables, key.src())?;
    let made = leave(tables, headers, key, &wan, (hop, mtu, epoch), now);
    refusal::close_host::<P, T, _>(tables, key.src(), made)
}

/// Makes the flow of a packet that leaves by `wan`: to a hop that takes packets of so many bytes, in
/// this epoch.
#[inline(always)]
fn leave<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    key: &FlowKey,
    wan: &Interface,
    (hop, mtu, epoch): (NextHop, u32, Option<u32>),
    now: u32,
) -> Result<Admission, Reason> {
    let plan = plan(tables, headers, key, wan, now)?;
    let (mut port, number) = choose(tables, key, &plan)?;
    // A port that others share lets nobody in.
    let mut own = match plan.port {
        PublicPort::Mapped(_) if tables.settings().filters_by_address() => port,
        _ => None,
    };
    // A host with an address of its own leaves by the uplink of that, which its first packet finds.
    let uplink = tables.uplink(plan.address);
    let epoch = if uplink == 0 || uplink == hop.ifindex { epoch } else { None };
    let way = epoch.map_or(HopReference::NONE, |epoch| tables.refer(&hop, mtu, epoch));
    for _try in 0..TRIES {
        if let Some(port) = port {
            let rewrite = Rewrite::source(key, plan.address, port);
            match pair::make(tables, key, rewrite, plan.rule, plan.kin, way, now) {
                Ok(()) => {
                    if let Some(port) = own {
                        let public = Endpoint::new(key.protocol(), plan.address, port);
                        tables.note_contact(&public, key.dst(), now);
                    }
                    return Ok(Admission::Flow);
                }
                // Another inside endpoint has the answers of that remote end.
                Err(Reason::TupleTaken) if number.is_some() => {}
                Err(reason) => return Err(reason),
            }
        }
        let number = number.ok_or(Reason::TupleTaken)?;
        (port, own) = (Some(tables.shared_port(key, plan.address, number)?), None);
    }
    // Another CPU has taken it meanwhile, and the one after it.
    Err(Reason::FlowBusy)
}

/// The port that a flow leaves with, `None` where it has to share one; and, where it may, the number
/// of the address.
#[inline(always)]
fn choose<T: Tables>(
    tables: &mut T,
    key: &FlowKey,
    plan: &Plan,
) -> Result<(Option<Port>, Option<u32>), Reason> {
    let number = match plan.port {
        PublicPort::Own => return Ok((Some(key.sport()), None)),
        PublicPort::OwnIfFree if may_keep(tables, key, plan.address) => {
            return Ok((Some(key.sport()), tables.address_number(plan.address)));
        }
        PublicPort::OwnIfFree => {
            let number = tables.address_number(plan.address).ok_or(Reason::PortsExhausted)?;
            if tables.settings().maps_by_remote_end() {
                return Ok((None, Some(number)));
            }
            number
        }
        PublicPort::Shared(number) => return Ok((None, Some(number))),
        PublicPort::Mapped(number) => number,
    };
    match tables.public_port(key.source(), plan.address, number) {
        Ok(port) => Ok((Some(port), Some(number))),
        Err(Reason::PortsExhausted) => Ok((None, Some(number))),
        Err(reason) => Err(reason),
    }
}

/// How a flow leaves.
struct Plan {
    address: [u8; 4],
    port: PublicPort,
    rule: RuleId,
    kin: Kin,
}

#[derive(Clone, Copy)]
enum PublicPort {
    /// Its own: nobody else uses the address, or it is the host's.
    Own,
    /// Its own where nobody else has it: an FTP server that dials out from port 20.
    OwnIfFree,
    /// The one that the mapping gives, on the address with this number.
    Mapped(u32),
    /// One for this remote end, on the address with this number.
    Shared(u32),
}

/// Announced by an FTP session, to where nothing is translated, from a host with an address of its own,
/// or masqueraded.
#[inline(always)]
fn plan<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    key: &FlowKey,
    wan: &Interface,
    now: u32,
) -> Result<Plan, Reason> {
    let expected =
        ExpectationKey::new(Zone::Inside, key.protocol(), key.src(), key.dst(), key.dport());
    if let Some(expectation) = tables.take_expectation(&expected)
        && now < expectation.expires()
    {
        tables.count(Counter::Expected);
        return Ok(Plan {
            address: expectation.address(),
            port: PublicPort::OwnIfFree,
            rule: expectation.rule(),
            kin: Kin::Related(expectation.session()),
        });
    }
    if tables.is_exempt(key.dst()) {
        let (address, port, rule) = (key.src(), PublicPort::Own, RuleId::NONE);
        return Ok(Plan { address, port, rule, kin: Kin::Plain });
    }
    let settings = tables.settings();
    let kin = if headers.kind == Transport::Tcp && settings.is_control_port(key.dport()) {
        Kin::Control
    } else {
        Kin::Plain
    };
    if let Some(host) = tables.one_to_one(key.src()) {
        return Ok(Plan { address: host.public(), port: PublicPort::Own, rule: host.rule(), kin });
    }
    if settings.masquerade == 0 {
        return Err(Reason::NotMasqueraded);
    }
    // Without ports hosts behind one address cannot be told apart.
    if headers.kind == Transport::Other {
        return Err(Reason::Protocol);
    }
    let (address, number) = tables.hidden_behind(wan, key.src()).ok_or(Reason::NoPublicAddress)?;
    let port = match settings.maps_by_remote_end() {
        true => PublicPort::Shared(number),
        false => PublicPort::Mapped(number),
    };
    Ok(Plan { address, port, rule: RuleId::NONE, kin })
}

/// Whether the source port of `key` may be used on `address`.
///
/// System ports are never in the pool, so nobody claims them; several data connections of one host
/// share port 20, told apart by their remote ends, as the flow table does. Any other port is claimed.
#[inline(always)]
fn may_keep<T: Tables>(tables: &mut T, key: &FlowKey, address: [u8; 4]) -> bool {
    // Only a hint, so that the SYN need not be repeated: the insertion decides.
    let answer = key.answer(&Rewrite::source(key, address, key.sport()));
    if tables.flow(&answer).is_some() {
        return false;
    }
    let public = Endpoint::new(key.protocol(), address, key.sport());
    match tables.port_owner(&public) {
        // Its own port, by a forward of port 20 or by a mapping. What the sweep has marked is about
        // to be released, unless it is used before.
        Some(owner) if owner.is(key.src(), key.sport()) => match tables.address_number(address) {
            Some(number) if owner.is_idle() => {
                tables.swap_port(number, &public, owner, owner.idle(false))
            }
            Some(_) | None => true,
        },
        Some(_) => false,
        None if key.sport().is_system() => key.sport() != Port::NONE,
        None => {
            let owner = PortOwner::new(Owner::Expectation, key.src(), key.sport());
            tables.claim_port(&public, &owner).is_ok()
        }
    }
}
