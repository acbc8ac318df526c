//! The ends of a control connection over IPv6, and of what it announces, in the words of the engine and of
//! the maps.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use nat_common::{
    flow::{TCP, Zone},
    port::Port,
    session::SessionId,
    six::{Address6, Expectation6Key, Flow6, Flow6Key},
};

use crate::alg;

/// The control connection of a flow in the words of the engine. Its inside port is the public one.
pub fn control_flow(
    session: SessionId,
    key: &Flow6Key,
    flow: &Flow6,
    public: Ipv6Addr,
) -> alg::ControlFlow {
    let end = |address: Address6, port: Port| {
        SocketAddr::new(Ipv6Addr::from(address).into(), port.number())
    };
    let inside = end(key.inside(), key.inside_port());
    let outside = end(key.outside(), key.outside_port());
    let (side, client, server) = match flow.begun() {
        Zone::Inside => (alg::Side::Client, inside, outside),
        Zone::Outside => (alg::Side::Server, outside, inside),
    };
    let public = SocketAddr::new(public.into(), inside.port());
    let (session, inside) = (session.number(), side);
    alg::ControlFlow { session, inside, client, server, public, client_public: None }
}

/// The key of an expectation in its map: it arrives from the side of who dials, and leads to the inside
/// address that the public one stands for.
pub fn expectation_key(control: &alg::ControlFlow, key: &alg::ExpectationKey) -> Expectation6Key {
    let zone = match control.course(key.from) {
        alg::Course::Inward => Zone::Outside,
        // What turns back is of IPv4: nothing else has another address to be dialled by.
        alg::Course::Outward | alg::Course::Turned => Zone::Inside,
    };
    let port = Port::new(key.to.port());
    let to = match key.to.ip() {
        to if to == control.public.ip() => control.address(control.inside),
        to => to,
    };
    Expectation6Key::new(zone, TCP, octets(key.from), octets(to), port)
}

/// An announcement is of the family of its session, and so are the addresses here.
fn octets(address: IpAddr) -> Address6 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
