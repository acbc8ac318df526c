//! New flows from outside: expected ones, those that a forward or filtering by less than port lets in,
//! those of networks that are exempt from NAT, and the gateway's own.

use crate::{
    arrival,
    headers::{Headers, Transport},
    packet::{Journey, Packet, Route},
    pair::{self, Kin},
    path::Admission,
    tables::Tables,
};
use nat_common::{
    counter::Counter,
    expectation::{Expectation, ExpectationKey},
    flow::{FlowKey, Rewrite, TCP, Zone},
    hop::HopReference,
    interface::Role,
    port::Owner,
    reason::Reason,
    rule::{self, Forward, RuleId},
    tcp,
};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

/// Admits a packet from outside that has no flow.
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
    let expected = ExpectationKey::new(Zone::Outside, TCP, key.src(), key.dst(), key.dport());
    let entry = match announced(tables, headers, &expected, now) {
        Some(expectation) => Entry::announced(key, &expectation),
        None => match forward(tables, headers, key) {
            // An answer to a connection of the gateway itself, from a port that it shares with a
            // forward; a connection of an inside host would have its flow.
            Some(_) if is_answer(packet, headers) => return Ok(Admission::Stack),
            Some(forward) => enter(tables, headers, key, &forward)?,
            None => match mapped(tables, headers, key) {
                Some(entry) => entry,
                None => match led(packet, tables, headers)? {
                    Led::Kernel => return Ok(Admission::Stack),
                    Led::Inside => routed(tables, headers, key)?,
                },
            },
        },
    };
    if is_forged(packet, tables, headers) {
        return Err(Reason::NotAllowed);
    }
    if headers.kind == Transport::Tcp {
        pair::make_room(tables, key, &entry.rewrite);
    }
    let way = HopReference::NONE;
    pair::make(tables, key, entry.rewrite, entry.rule, entry.kin, way, now)?;
    Ok(Admission::Flow)
}

/// Whether its sender is none that an answer would go out to: it says to be the gateway itself, a
/// broadcast, or behind an inside interface, or no route leads there (RFC 2827 section 3, RFC 3704
/// section 2.2, RFC 1812 section 5.3.8).
#[inline(always)]
fn is_forged<P: Packet, T: Tables>(packet: &P, tables: &T, headers: &Headers) -> bool {
    // By whichever way: the uplink of an address would lead to inside addresses, too.
    let back = Journey::new(headers.dst, headers.src);
    let hop = match packet.route(headers, &back) {
        Route::Forward(hop, _) => hop,
        Route::Local | Route::Unreachable => return true,
        // Nothing says that the answer is as long.
        Route::TooBig => match packet.narrow_way(headers, &back) {
            Some((hop, _)) => hop,
            None => return false,
        },
    };
    // With one arm all is on one interface, and who is inside follows from the addresses.
    arrival::leads(tables, &hop, Role::Lan) && !arrival::leads(tables, &hop, Role::Wan)
}

/// How a flow enters.
pub struct Entry {
    /// What its packets leave with.
    pub rewrite: Rewrite,
    /// The rule that lets it in.
    pub rule: RuleId,
    /// What it is to FTP.
    pub kin: Kin,
}

impl Entry {
    /// As an FTP session has announced it.
    #[inline(always)]
    pub fn announced(key: &FlowKey, expectation: &Expectation) -> Self {
        Self {
            rewrite: Rewrite::destination(key, expectation.address(), expectation.port()),
            rule: expectation.rule(),
            kin: Kin::Related(expectation.session()),
        }
    }
}

/// What an FTP session has announced of a connection that begins. It is used with that.
#[inline(always)]
pub fn announced<T: Tables>(
    tables: &mut T,
    headers: &Headers,
    key: &ExpectationKey,
    now: u32,
) -> Option<Expectation> {
    if headers.kind != Transport::Tcp || !tcp::opens(headers.tcp.flags) {
        return None;
    }
    let expectation = tables.take_expectation(key)?;
    if now >= expectation.expires() {
        return None;
    }
    tables.count(Counter::Expected);
    Some(expectation)
}

/// The most exact forward for a packet.
#[inline(always)]
pub fn forward<T: Tables>(tables: &T, headers: &Headers, key: &FlowKey) -> Option<Forward> {
    if headers.kind == Transport::LaterFragment {
        return None;
    }
    let [exact, protocol, any] = rule::forward_keys(&key.destination());
    if let Some(forward) = tables.forward(&exact) {
        return Some(forward);
    }
    if let Some(forward) = tables.forward(&protocol) {
        return Some(forward);
    }
    tables.forward(&any)
}

/// Enters by a forward, if the forward lets that sender in.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn enter<T: Tables>(
    tables: &T,
    headers: &Headers,
    key: &FlowKey,
    forward: &Forward,
) -> Result<Entry, Reason> {
    if forward.filter() != 0 && !tables.allowed(forward.filter(), key.src()) {
        return Err(Reason::NotAllowed);
    }
    headers.begins_flow()?;
    let kin = if forward.is_for_encrypted() {
        Kin::Related(tables.encrypted(forward.rule(), key.src()).ok_or(Reason::NotAllowed)?)
    } else if forward.is_ftp() && headers.kind == Transport::Tcp {
        Kin::Control
    } else {
        Kin::Plain
    };
    Ok(Entry {
        rewrite: Rewrite::destination(key, forward.to(), forward.port_for(key.dport())),
        rule: forward.rule(),
        kin,
    })
}

/// Enters by the mapping of an inside endpoint, where its sender may (RFC 4787 section 5). Ports that are
/// shared lead to nobody but by their flows.
#[inline(always)]
fn mapped<T: Tables>(tables: &mut T, headers: &Headers, key: &FlowKey) -> Option<Entry> {
    let begins = match headers.kind {
        Transport::Tcp => tcp::opens(headers.tcp.flags),
        Transport::Udp => true,
        Transport::EchoRequest
        | Transport::EchoReply
        | Transport::IcmpError
        | Transport::IcmpOther
        | Transport::Other
        | Transport::FirstFragment
        | Transport::LaterFragment => false,
    };
    let settings = tables.settings();
    let lets_in = settings.lets_anybody_in()
        || settings.filters_by_address() && tables.is_contact(&key.destination(), key.src());
    if !begins || !lets_in {
        return None;
    }
    let number = tables.address_number(key.dst())?;
    let owner = tables.port_word(number, &key.destination());
    if owner.owner() != Some(Owner::Masquerade) {
        return None;
    }
    // What the sweep has marked is about to be released, unless it is used before.
    if owner.is_idle() && !tables.swap_port(number, &key.destination(), owner, owner.idle(false)) {
        return None;
    }
    Some(Entry {
        rewrite: Rewrite::destination(key, owner.inside(), owner.inside_port()),
        rule: RuleId::NONE,
        kin: Kin::Plain,
    })
}

/// Enters as it is, from a network that is exempt from NAT.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
fn routed<T: Tables>(tables: &T, headers: &Headers, key: &FlowKey) -> Result<Entry, Reason> {
    if !tables.is_exempt(key.src()) {
        return Err(Reason::Unsolicited);
    }
    headers.begins_flow()?;
    let rewrite = Rewrite::destination(key, key.dst(), key.dport());
    Ok(Entry { rewrite, rule: RuleId::NONE, kin: Kin::Plain })
}

/// Whether it goes on with a connection of the gateway itself.
#[inline(always)]
fn is_answer<P: Packet>(packet: &P, headers: &Headers) -> bool {
    match headers.kind {
        Transport::Tcp => !tcp::opens(headers.tcp.flags) && packet.has_socket(headers),
        Transport::Udp => packet.has_connection(headers),
        Transport::EchoRequest
        | Transport::EchoReply
        | Transport::IcmpError
        | Transport::IcmpOther
        | Transport::Other
        | Transport::FirstFragment
        | Transport::LaterFragment => false,
    }
}

/// A packet that nobody asked for, unless the gateway itself did.
///
/// # Errors
/// [`Reason::Unsolicited`].
#[inline(always)]
pub fn own<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    headers: &Headers,
) -> Result<Admission, Reason> {
    match led(packet, tables, headers)? {
        Led::Kernel => Ok(Admission::Stack),
        Led::Inside => Err(Reason::Unsolicited),
    }
}

/// Where a packet that no flow, rule or mapping knows would go.
enum Led {
    /// To the kernel, which it is for.
    Kernel,
    /// Straight to an inside host.
    Inside,
}

#[inline(always)]
fn led<P: Packet, T: Tables>(packet: &P, tables: &T, headers: &Headers) -> Result<Led, Reason> {
    // A DHCP server speaks to an address that the interface does not have yet (RFC 2131 section 4.1).
    if headers.kind == Transport::Udp
        && (headers.sport.number(), headers.dport.number()) == (DHCP_SERVER, DHCP_CLIENT)
    {
        return Ok(Led::Kernel);
    }
    match packet.route(headers, &Journey::new(headers.src, headers.dst)) {
        Route::Local => match headers.kind {
            Transport::Tcp | Transport::Udp => {
                if packet.has_socket(headers) {
                    Ok(Led::Kernel)
                } else {
                    Err(Reason::Unsolicited)
                }
            }
            // A flow or a forward was not found by its ports. What is left is the kernel's own:
            // ping, errors about its own connections, fragments that it puts together.
            Transport::EchoRequest
            | Transport::EchoReply
            | Transport::IcmpError
            | Transport::IcmpOther
            | Transport::Other
            | Transport::FirstFragment
            | Transport::LaterFragment => Ok(Led::Kernel),
        },
        Route::Forward(hop, _) => match arrival::leads(tables, &hop, Role::Lan) {
            true => Ok(Led::Inside),
            // Back to the outside, or to an interface that is not ours: as before the gateway came.
            false if tables.settings().routes_others != 0 => Ok(Led::Kernel),
            false => Err(Reason::Unsolicited),
        },
        Route::TooBig | Route::Unreachable => Err(Reason::Unsolicited),
    }
}
