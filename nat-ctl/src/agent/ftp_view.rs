//! What users see of an FTP session.

use crate::{
    alg::{Facts, Session},
    output::{FtpMode, FtpSessionView, FtpTransferView},
};

/// Commands by which the server is asked to dial.
const ACTIVE: [&str; 3] = ["PORT", "EPRT", "LPRT"];

/// The view of a session that is `age` seconds old and came in by `rule`, with its last transfer. Bytes
/// are not known here.
pub fn view(
    session: &Session,
    age: u32,
    rule: Option<String>,
    transfer: Option<&FtpTransferView>,
) -> FtpSessionView {
    let flow = session.flow();
    let Facts { user, mode, command, file, state } = session.facts();
    let state = match session.ended() {
        None => state,
        Some(crate::alg::End::Encrypted) => "encrypted",
        Some(crate::alg::End::NotFtp) => "not-ftp",
        Some(crate::alg::End::Reset) => "reset",
    };
    FtpSessionView {
        id: flow.session.into(),
        client: flow.client.to_string(),
        server: flow.server.to_string(),
        public: flow.public.to_string(),
        user,
        state: state.to_owned(),
        encrypted: session.ended() == Some(crate::alg::End::Encrypted),
        note: session.ended().map(|end| end.text().to_owned()),
        mode: mode.map(|mode| match ACTIVE.contains(&mode) {
            true => FtpMode::Active,
            false => FtpMode::Passive,
        }),
        command,
        file,
        bytes: 0,
        rate: transfer.map_or(0, |transfer| transfer.rate),
        result: transfer.map(|transfer| transfer.result),
        age_s: age.into(),
        rule,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alg::{ControlFlow, Segment, Side};
    use std::net::{IpAddr, SocketAddr};

    /// Nothing in these lines asks for a port.
    struct Nobody;

    impl crate::alg::Gateway for Nobody {
        fn claim(&mut self, _: &crate::alg::PortRequest) -> Option<u16> {
            None
        }

        fn release(&mut self, _: SocketAddr) {}

        fn is_inside(&self, address: IpAddr) -> bool {
            matches!(address, IpAddr::V4(address) if address.is_private())
        }
    }

    #[test]
    fn a_session_shows_its_ends_its_user_and_its_last_command() {
        let socket = |address: [u8; 4], port| SocketAddr::new(address.into(), port);
        let flow = ControlFlow {
            session: 7,
            inside: Side::Client,
            client: socket([10, 0, 1, 2], 40000),
            server: socket([198, 51, 100, 7], 21),
            public: socket([203, 0, 113, 1], 50000),
            client_public: None,
        };
        let mut session = Session::new(flow, Default::default());
        let mut say = |side, seq, payload| {
            let segment = Segment { side, seq, ack: None, payload, fin: false, urgent: None };
            session.on_segment(&segment, &mut Nobody);
        };
        say(Side::Server, 1, b"220 hello\r\n");
        say(Side::Client, 1, b"USER anna\r\n");
        say(Side::Server, 12, b"331 and?\r\n");
        say(Side::Client, 12, b"PASS sesame\r\n");
        let view = view(&session, 5, Some("ftp".to_owned()), None);
        assert_eq!((view.id, view.age_s, view.rule.as_deref()), (7, 5, Some("ftp")));
        assert_eq!(view.client, "10.0.1.2:40000");
        assert_eq!(
            (view.server.as_str(), view.public.as_str()),
            ("198.51.100.7:21", "203.0.113.1:50000")
        );
        assert_eq!((view.user.as_deref(), view.state.as_str()), (Some("anna"), "login"));
        assert_eq!(
            (view.command.as_deref(), view.encrypted, view.mode),
            (Some("PASS"), false, None)
        );
    }
}
