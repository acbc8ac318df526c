//! What one client may announce: in a session, in all of them, in a second.

use nat_common::rule::RuleId;

use super::{super::*, Ports, expected, flow, outside, refusals};

/// Sessions of one client, and a second.
struct Crowd {
    sessions: Sessions,
    gateway: Ports,
    sent: [u32; 4],
}

impl Crowd {
    fn new(quota: Quota) -> Crowd {
        let mut sessions = Sessions::new(Policy { quota, ..Policy::default() });
        for session in 1..4 {
            sessions.pick_up(ControlFlow { session, ..flow(Side::Client) }, RuleId::NONE);
        }
        let mut crowd = Crowd { sessions, gateway: Ports::default(), sent: [0; 4] };
        // The end of the line under way.
        (1..4).for_each(|session| drop(crowd.say(session, "\r\n", 0)));
        crowd
    }

    fn say(&mut self, session: u32, text: &str, now: u32) -> Vec<Command> {
        let seq = self.sent[session as usize];
        self.sent[session as usize] += text.len() as u32;
        let payload = text.as_bytes();
        let segment =
            Segment { side: Side::Client, seq, ack: None, payload, fin: false, urgent: None };
        self.sessions.on_segment(session, &segment, &mut self.gateway, now).expect("a session")
    }

    /// PORT and a transfer, so that the next PORT does not replace it. Why it was refused.
    fn announce(&mut self, session: u32, port: u8, now: u32) -> Option<Refusal> {
        let commands = self.say(session, &format!("PORT 10,0,1,2,9,{port}\r\n"), now);
        self.say(session, "RETR x\r\n", now);
        assert_eq!(outside(&commands), format!("PORT 203,0,113,1,9,{port}\r\n"));
        assert_eq!(expected(&commands).len() + refusals(&commands).len(), 1);
        refusals(&commands).first().copied()
    }
}

#[test]
fn all_sessions_of_a_client_count_together_and_an_end_makes_room() {
    let mut crowd = Crowd::new(Quota { per_client: 3, ..Quota::default() });
    assert_eq!([1, 2, 3].map(|it| crowd.announce(it, it as u8, 10)), [None; 3]);
    assert_eq!(crowd.announce(1, 4, 10), Some(Refusal::ClientFull));
    crowd.sessions.end(2, &mut crowd.gateway);
    assert_eq!(crowd.announce(1, 5, 10), None);
    assert_eq!(crowd.announce(1, 6, 10), Some(Refusal::ClientFull));
    // What is over twice makes room once.
    crowd.sessions.finish(3, &mut crowd.gateway);
    crowd.sessions.end(3, &mut crowd.gateway);
    assert_eq!(crowd.announce(1, 7, 10), None);
    assert_eq!(crowd.announce(1, 8, 10), Some(Refusal::ClientFull));
}

#[test]
fn a_client_that_is_too_fast_is_served_a_second_later() {
    let mut crowd = Crowd::new(Quota { per_second: 1, ..Quota::default() });
    assert_eq!([1, 2].map(|it| crowd.announce(it, it as u8, 10)), [None; 2]);
    assert_eq!(crowd.announce(3, 3, 10), Some(Refusal::ClientTooFast));
    assert_eq!(crowd.announce(3, 4, 11), None);
    // A line that is cut where its address begins counts when it is promised.
    crowd.say(1, "PORT 10,0", 12);
    assert_eq!(expected(&crowd.say(1, ",1,2,9,9\r\n", 12)).len(), 1);
    crowd.say(1, "PORT 10,0", 12);
    assert_eq!(refusals(&crowd.say(1, ",1,2,9,9\r\n", 12)), [Refusal::CutLine]);
}

#[test]
fn the_oldest_of_a_session_makes_way() {
    let mut crowd = Crowd::new(Quota { per_session: 2, ..Quota::default() });
    assert_eq!([1, 2].map(|port| crowd.announce(1, port, 10)), [None; 2]);
    let commands = crowd.say(1, "PORT 10,0,1,2,9,3\r\n", 10);
    assert_eq!(super::revoked(&commands), [9 * 256 + 1]);
}
