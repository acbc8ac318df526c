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
    let (inside, client, public) = match (original.zone(), reply.zone()) {
        // As the server sees it: the client is whoever dials from its public address.
        (Zone::Inside, Zone::Inside) => {
            (alg::Side::Server, reply.destination(), original.destination())
        }
        (Zone::Inside, Zone::Outside) => {
            (alg::Side::Client, original.source(), reply.destination())
        }
        (Zone::Outside, _) => (alg::Side::Server, original.source(), original.destination()),
    };
    alg::ControlFlow {
        session: id.number(),
        inside,
        client: address(client),
        server: address(reply.source()),
        public: address(public),
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

/// The key of an expectation in its map.
pub fn expectation_key(expectation: &alg::Expectation) -> expectation::ExpectationKey {
    let zone = match expectation.translation {
        alg::Translation::Inbound(_) => Zone::Outside,
        alg::Translation::Outbound(_) => Zone::Inside,
    };
    let alg::ExpectationKey { from, to } = expectation.key;
    let port = Port::new(to.port());
    expectation::ExpectationKey::new(zone, TCP, octets(from), octets(to.ip()), port)
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
        assert_eq!(flow.client, socket(PUBLIC, 50000));
        assert_eq!(flow.server, socket([10, 0, 1, 9], 2121));
        assert_eq!(rewrite(&session, Side::Originator), turned);
        assert_eq!(rewrite(&session, Side::Responder), Rewrite::answer(&original));
    }

    #[test]
    fn an_expectation_arrives_from_the_side_that_it_is_for() {
        let key = alg::ExpectationKey { from: REMOTE.into(), to: socket(PUBLIC, 50001) };
        let translation = alg::Translation::Inbound(socket(HOST, 4000));
        let inbound = alg::Expectation { key, translation };
        assert_eq!(expectation_key(&inbound).zone(), Zone::Outside);
        let session = opened(FlowKey::default(), FlowKey::default(), RuleId::new(7));
        let value = expectation(&inbound, SessionId::new(2), &session, 99);
        assert_eq!((value.address(), value.port()), (HOST, Port::new(4000)));
        assert_eq!((value.rule(), value.expires()), (RuleId::new(7), 99));

        let key = alg::ExpectationKey { from: HOST.into(), to: socket(REMOTE, 50001) };
        let outbound =
            alg::Expectation { key, translation: alg::Translation::Outbound(PUBLIC.into()) };
        assert_eq!(expectation_key(&outbound).zone(), Zone::Inside);
        assert_eq!(expectation(&outbound, SessionId::new(2), &session, 9).address(), PUBLIC);
    }
}
