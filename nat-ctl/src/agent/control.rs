//! A session of the data plane in the words of the FTP engine, and back.
//!
//! Invariant: pure, and made from the tuples of the record alone, which never change while its
//! place is taken: a successor of the agent comes to the same.
//!
//! ```text
//!   client inside:   original  client -> server      reply  server -> public
//!   server inside:   original  client -> public      reply  server -> client
//!   both inside:     original  client -> public      reply  server -> public of the client
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nat_common::{
    expectation,
    flow::{FlowKey, Rewrite, TCP, Zone},
    port::{Endpoint, Port},
    rule::RuleId,
    session::{Session, SessionId, Side},
};

use crate::alg;

/// What tells a session from another one that has the same place later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    original: FlowKey,
    reply: FlowKey,
    /// The rule that made it.
    pub rule: RuleId,
    /// Seconds of the monotonic clock when it was made.
    pub created: u32,
}

impl Identity {
    /// Of a record.
    pub fn of(session: &Session) -> Self {
        Self {
            original: *session.original(),
            reply: *session.reply(),
            rule: session.rule(),
            created: session.created(),
        }
    }
}

/// The control flow of a record.
pub fn flow(id: SessionId, session: &Session) -> alg::ControlFlow {
    let (original, reply) = (session.original(), session.reply());
    let (inside, public, client_public) = match (original.zone(), reply.zone()) {
        (Zone::Inside, Zone::Inside) => {
            (alg::Side::Server, original.destination(), Some(reply.destination()))
        }
        (Zone::Inside, Zone::Outside) => (alg::Side::Client, reply.destination(), None),
        (Zone::Outside, _) => (alg::Side::Server, original.destination(), None),
    };
    alg::ControlFlow {
        session: id.number(),
        inside,
        client: address(original.source()),
        server: address(reply.source()),
        public: address(public),
        client_public: client_public.map(address),
    }
}

/// The key of what `side` sends, on arrival.
pub fn key(session: &Session, side: Side) -> &FlowKey {
    match side {
        Side::Originator => session.original(),
        Side::Responder => session.reply(),
    }
}

/// The tuple that packets of `side` leave with: the way back of what the other side sends.
pub fn rewrite(session: &Session, side: Side) -> Rewrite {
    Rewrite::answer(key(session, side.other()))
}

/// The key of an expectation of this session in its map.
pub fn expectation_key(
    flow: &alg::ControlFlow,
    key: &alg::ExpectationKey,
) -> expectation::ExpectationKey {
    let alg::ExpectationKey { from, to } = key;
    let (src, dst, port) = (octets(*from), octets(to.ip()), Port::new(to.port()));
    let zone = match flow.course(*from) {
        alg::Course::Turned => return expectation::ExpectationKey::turning(TCP, src, dst, port),
        alg::Course::Inward => Zone::Outside,
        alg::Course::Outward => Zone::Inside,
    };
    expectation::ExpectationKey::new(zone, TCP, src, dst, port)
}

/// Its value, until `expires`.
pub fn expectation(
    expectation: &alg::Expectation,
    id: SessionId,
    session: &Session,
    expires: u32,
) -> expectation::Expectation {
    let rule = session.rule();
    match expectation.translation {
        alg::Translation::Inbound(to) => expectation::Expectation::inbound(
            octets(to.ip()),
            Port::new(to.port()),
            id,
            rule,
            expires,
        ),
        alg::Translation::Outbound(public) => {
            expectation::Expectation::outbound(octets(public), id, rule, expires)
        }
        alg::Translation::Turned { dials: _, to, public } => expectation::Expectation::turned(
            octets(to.ip()),
            Port::new(to.port()),
            octets(public),
            id,
            rule,
            expires,
        ),
    }
}

/// An endpoint as the standard library writes it.
pub fn address(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(endpoint.address()).into(), endpoint.port().number())
}

/// An address as maps of IPv4 have it. An announcement is of the family of its session, so no other comes
/// here; one that did would be nobody's.
pub fn octets(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: [u8; 4] = [10, 0, 1, 2];
    const REMOTE: [u8; 4] = [198, 51, 100, 7];
    const PUBLIC: [u8; 4] = [203, 0, 113, 1];

    fn opened(original: FlowKey, reply: FlowKey, rule: RuleId) -> Session {
        let mut session = Session::default();
        session.open(&original, &reply, rule, 5);
        session
    }

    fn socket(address: [u8; 4], port: u16) -> SocketAddr {
        SocketAddr::new(address.into(), port)
    }

    #[test]
    fn a_client_inside_is_known_outside_by_its_public_port() {
        let original =
            FlowKey::new(Zone::Inside, TCP, HOST, Port::new(40000), REMOTE, Port::new(21));
        let out = Rewrite::source(&original, PUBLIC, Port::new(50000));
        let session = opened(original, original.answer(&out), RuleId::NONE);
        let flow = flow(SessionId::new(3), &session);
        assert_eq!((flow.session, flow.inside), (4, alg::Side::Client));
        assert_eq!((flow.client, flow.server), (socket(HOST, 40000), socket(REMOTE, 21)));
        assert_eq!(flow.public, socket(PUBLIC, 50000));
        assert_eq!(rewrite(&session, Side::Originator), out);
        assert_eq!(rewrite(&session, Side::Responder), Rewrite::answer(&original));
    }

    #[test]
    fn a_server_inside_is_known_outside_by_its_forward() {
        let original =
            FlowKey::new(Zone::Outside, TCP, REMOTE, Port::new(40000), PUBLIC, Port::new(2121));
        let inward = Rewrite::destination(&original, HOST, Port::new(21));
        let session = opened(original, original.answer(&inward), RuleId::new(7));
        let flow = flow(SessionId::new(0), &session);
        assert_eq!((flow.session, flow.inside), (1, alg::Side::Server));
        assert_eq!((flow.client, flow.server), (socket(REMOTE, 40000), socket(HOST, 21)));
        assert_eq!(flow.public, socket(PUBLIC, 2121));
        assert_eq!(rewrite(&session, Side::Originator), inward);
    }

    #[test]
    fn a_client_beside_the_server_is_known_by_its_public_port() {
        let original =
            FlowKey::new(Zone::Inside, TCP, HOST, Port::new(40000), PUBLIC, Port::new(21));
        let turned = Rewrite::hairpin(PUBLIC, Port::new(50000), [10, 0, 1, 9], Port::new(2121));
        let session = opened(original, original.answer(&turned), RuleId::new(7));
        let flow = flow(SessionId::new(0), &session);
        assert_eq!((flow.inside, flow.public), (alg::Side::Server, socket(PUBLIC, 21)));
        assert_eq!((flow.client, flow.server), (socket(HOST, 40000), socket([10, 0, 1, 9], 2121)));
        assert_eq!(flow.seen(alg::Side::Client), socket(PUBLIC, 50000));
        assert_eq!(flow.seen(alg::Side::Server), socket(PUBLIC, 21));
        assert_eq!(rewrite(&session, Side::Originator), turned);
        assert_eq!(rewrite(&session, Side::Responder), Rewrite::answer(&original));
    }

    #[test]
    fn an_expectation_arrives_from_the_side_that_it_is_for() {
        let (id, server) = (SessionId::new(2), [10, 0, 1, 9]);
        let original =
            |zone, src, dst| FlowKey::new(zone, TCP, src, Port::new(40000), dst, Port::new(21));
        let dialled = original(Zone::Outside, REMOTE, PUBLIC);
        let inward = Rewrite::destination(&dialled, HOST, Port::new(21));
        let session = opened(dialled, dialled.answer(&inward), RuleId::new(7));
        let from_outside = flow(id, &session);
        let key = alg::ExpectationKey { from: REMOTE.into(), to: socket(PUBLIC, 50001) };
        let translation = alg::Translation::Inbound(socket(HOST, 4000));
        let inbound = alg::Expectation { key, translation };
        assert_eq!(expectation_key(&from_outside, &key).zone(), Zone::Outside);
        let value = expectation(&inbound, id, &session, 99);
        assert_eq!((value.address(), value.port()), (HOST, Port::new(4000)));
        assert_eq!((value.rule(), value.expires()), (RuleId::new(7), 99));

        let key = alg::ExpectationKey { from: HOST.into(), to: socket(REMOTE, 50001) };
        let outbound =
            alg::Expectation { key, translation: alg::Translation::Outbound(PUBLIC.into()) };
        let found = expectation_key(&from_outside, &key);
        assert_eq!((found.zone(), found.turns_back()), (Zone::Inside, false));
        assert_eq!(expectation(&outbound, id, &session, 9).address(), PUBLIC);

        let dialled = original(Zone::Inside, HOST, PUBLIC);
        let turned = Rewrite::hairpin(PUBLIC, Port::new(50000), server, Port::new(21));
        let session = opened(dialled, dialled.answer(&turned), RuleId::new(7));
        let key = alg::ExpectationKey { from: server.into(), to: socket(PUBLIC, 4000) };
        let (dials, to) = (alg::Side::Server, socket(HOST, 4000));
        let translation = alg::Translation::Turned { dials, to, public: PUBLIC.into() };
        let found = expectation_key(&flow(id, &session), &key);
        assert!(found.turns_back());
        assert_eq!((found.src(), found.dst(), found.dport()), (server, PUBLIC, Port::new(4000)));
        let value = expectation(&alg::Expectation { key, translation }, id, &session, 9);
        assert_eq!(
            (value.address(), value.port(), value.public()),
            (HOST, Port::new(4000), PUBLIC)
        );
    }
}
