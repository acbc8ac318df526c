//! What a successor finds of a session, which anything may have written: a session, or an error, and no
//! session that panics.

use std::sync::Arc;

use nat_ctl::alg::{Segment, Session, Side};

use super::{
    cursor::Cursor,
    ports::Ports,
    script::{self, Step},
    session::policy,
};

/// Runs a script with the session that stands before it.
pub fn run(data: &[u8]) {
    let mut cursor = Cursor(data);
    let policy = policy(cursor.byte());
    let length = cursor.short();
    let Ok(mut session) = Session::from_bytes(cursor.bytes(length.into()), Arc::clone(&policy))
    else {
        return;
    };
    let mut ports = Ports { is_lenient: true, ..Ports::default() };
    let mut next = [Side::Client, Side::Server].map(|side| session.line_starts(side));
    for step in script::steps(cursor.0) {
        let Step::Segment(piece) = step else { continue };
        let at = next[piece.side as usize].get_or_insert(0);
        let segment = Segment {
            side: piece.side,
            seq: at.wrapping_sub(piece.back as u32),
            ack: None,
            payload: &piece.bytes,
            fin: piece.fin,
            urgent: piece.urgent,
        };
        session.on_segment(&segment, &mut ports);
        *at = at.wrapping_add(piece.bytes.len() as u32);
    }
    if let Ok(image) = session.to_bytes() {
        let heir = Session::from_bytes(&image, policy).expect("its own record");
        assert_eq!(heir.to_bytes().ok(), Some(image));
    }
    session.on_flow_end(&mut ports);
}
