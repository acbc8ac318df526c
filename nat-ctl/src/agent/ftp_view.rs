//! What users see of an FTP session.

use crate::{
    alg::{Facts, Session},
    output::{FtpMode, FtpSessionView},
};

/// Commands by which the server is asked to dial.
const ACTIVE: [&str; 3] = ["PORT", "EPRT", "LPRT"];

/// The view of a session that is `age` seconds old and came in by `rule`. Bytes are not known here.
pub fn view(session: &Session, age: u32, rule: Option<String>) -> FtpSessionView {
    let flow = session.flow();
    let Facts { user, mode, command, file, state } = session.facts();
    let state = match session.ended() {
        None => state,
        Some(crate::alg::End::Encrypted) => "encrypted",
        Some(crate::alg::End::NotFtp) => "not-ftp",
    };
    FtpSessionView {
        id: flow.session.into(),
        client: flow.client.to_string(),
        server: flow.server.to_string(),
        public: flow.public.to_string(),
        user,
        state: state.to_owned(),
        encrypted: session.ended() == Some(crate::alg::End::Encrypted),
        mode: mode.map(|mode| match ACTIVE.contains(&mode) {
            true => FtpMode::Active,
            false => FtpMode::Passive,
        }),
        command,
        file,
        bytes: 0,
        age_s: age.into(),
        rule,
    }
}
