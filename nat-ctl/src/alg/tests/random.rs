//! Any dialogue in any segments, against the invariants of the engine.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::{super::*, FIRST, Lab, flow, hairpin};

/// Pieces of dialogue that lead to interesting places, and bytes that lead anywhere.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "PORT 10,0,1,2,9,9\r\n",
        "PORT 10,0,1,2,",
        "EPRT |1|10.0.1.2|5000|\r\n",
        "EPRT |1|",
        "PASV\r\n",
        "EPSV\r\n",
        "RETR a\r\n",
        "QUIT\r\n",
        "REIN\r\n",
        "AUTH TLS\r\n",
        "ABOR\r\n",
        "227 x (10,0,2,2,9,9).\r\n",
        "227 x (203,0,113,1,9,9)\r\n",
        "229 (|||5000|)\r\n",
        "227-x\r\n",
        "227 x (10,",
        "200 ok\r\n",
        "226 ok\r\n",
        "550 no\r\n",
        "150 go\r\n",
        "234 go\r\n",
        "\u{16}\u{3}\u{1}\u{0}\u{4}",
        "\u{17}\u{3}\u{3}\u{0}\u{0}",
        "220 hi\r\n",
        "10,0,1,2,",
        "203,0,113,20,",
        "9",
        ",",
        "|",
        "\r",
        "\n",
        "\r\n",
        "\u{ff}",
        " ",
    ]);
    prop_oneof![
        8 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any bytes in any segments: no panic, nothing changes that has left, no hole, what must fit
    /// fits, and a successor agrees.
    #[test]
    fn any_dialogue_keeps_the_invariants(
        flow in prop::sample::select(vec![flow(Side::Client), flow(Side::Server), hairpin::flow()]),
        steps in prop::collection::vec((any::<bool>(), piece(), 0u32..40), 1..60),
        image_at in 0usize..60,
    ) {
        let mut lab = Lab::with(Session::joined(flow, Arc::default()));
        let mut streams: [Vec<u8>; 2] = Default::default();
        let mut left: [Vec<u8>; 2] = Default::default();
        let mut open = BTreeSet::new();
        let mut shifts = [Corrections::IDENTITY; 2];
        for (index, (client, piece, back)) in steps.into_iter().enumerate() {
            if index == image_at {
                let image = lab.session.to_bytes().expect("it fits");
                lab.session = Session::from_bytes(&image, Arc::default()).expect("its own bytes");
            }
            let side = if client { Side::Client } else { Side::Server };
            let (own, peer) = (side as usize, side.other() as usize);
            // A sender repeats what it likes, and adds what is new.
            let from = streams[own].len().saturating_sub(back as usize);
            streams[own].extend_from_slice(&piece);
            let ack = FIRST[peer].wrapping_add(left[peer].len() as u32);
            let payload = streams[own][from..].to_vec();
            let commands = lab.say_at(side, from as u32, &payload, Some(ack));
            let mut taken = false;
            for command in &commands {
                match command {
                    Command::Emit(emit) => {
                        taken = true;
                        let seq = FIRST[own].wrapping_add(from as u32);
                        prop_assert_eq!(emit.seq, shifts[own].map_seq(seq));
                        prop_assert_eq!(emit.ack, Some(shifts[peer].map_ack(ack)));
                        let offset = emit.seq.wrapping_sub(FIRST[own]) as usize;
                        prop_assert!(offset <= left[own].len(), "a hole");
                        let known = (left[own].len() - offset).min(emit.payload.len());
                        prop_assert_eq!(&left[own][offset..offset + known], &emit.payload[..known]);
                        left[own].extend_from_slice(&emit.payload[known..]);
                    }
                    Command::Expect(made) => {
                        prop_assert!(made.key.to.port() >= 1024);
                        open.insert(made.key);
                    }
                    Command::Unexpect(key) => prop_assert!(open.remove(key)),
                    Command::SetCorrections { side, corrections } => {
                        shifts[*side as usize] = *corrections;
                    }
                    Command::Drop { .. } => taken = true,
                    Command::Log(_)
                    | Command::Watch { .. }
                    | Command::EndInspection(_)
                    | Command::Reset { .. }
                    | Command::ResumeInspection => {}
                }
            }
            prop_assert!(taken, "a segment without an end");
            prop_assert!(open.len() <= pinhole::PINHOLES);
            lab.session.to_bytes().expect("it fits");
            // What was not taken is not sent in this test: the sender goes back to what was.
            let read = (0..=streams[own].len()).rev().find(|at| {
                lab.session.has_read(side, FIRST[own].wrapping_add(*at as u32))
            });
            streams[own].truncate(read.unwrap_or(0));
        }
        lab.session.on_flow_end(&mut lab.gateway);
    }

    #[test]
    fn any_record_is_a_session_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut image = Lab::new(Side::Client).session.to_bytes().expect("it fits");
        let keep = bytes.len().min(image.len());
        image.truncate(keep);
        image.extend_from_slice(&bytes);
        if let Ok(session) = Session::from_bytes(&image, Arc::default()) {
            let mut lab = Lab::with(session);
            lab.client("PORT 10,0,1,2,9,9\r\n");
        }
    }
}
