//! A dialogue as bytes: text stands for itself, and the few bytes that neither FTP nor telnet begins a
//! line with say what becomes of it. So a recorded dialogue is a script, and a fuzzer that joins, cuts
//! and repeats bytes makes another one of it.
//!
//! ```text
//!   setup | 0x81 "220 hi\r\n" | 0x80 "PORT 10,0,1," 0x82 "2,9,9\r\n" | ...
//!            ^ of the server     ^ of the client      ^ in two segments
//! ```

use nat_ctl::alg::Side;

use super::cursor::Cursor;

/// What follows is of the client; what stands before it leaves.
const CLIENT: u8 = 0x80;
/// The same of the server.
const SERVER: u8 = 0x81;
/// The segment ends here.
const CUT: u8 = 0x82;
/// The segment starts so many bytes earlier, and repeats them.
const BACK: u8 = 0x83;
/// The segment is lost.
const LOSE: u8 = 0x84;
/// The segment is held up on its way.
const HOLD: u8 = 0x85;
/// What is held up arrives.
const DELIVER: u8 = 0x86;
/// The segment ends its stream.
const FIN: u8 = 0x87;
/// The segment has this urgent pointer.
const URGENT: u8 = 0x88;
/// So many bytes stand for themselves.
const RAW: u8 = 0x89;
/// The gateway has no ports from now on, or has some again.
const PORTS: u8 = 0x8a;
/// Nobody may announce from now on, or may again.
const FULL: u8 = 0x8b;
/// What is received is not acknowledged from now on, or is again.
const SILENT: u8 = 0x8c;

/// Most steps of one script: the time of one is bounded.
const STEPS: usize = 200;
/// Most bytes of one stream.
const STREAM: usize = 8192;

/// A step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A segment.
    Segment(Piece),
    /// What is held up arrives.
    Deliver,
    /// Ports run out, or are there again.
    Ports,
    /// A quota is reached, or not any more.
    Full,
    /// Receivers stop acknowledging, or go on.
    Silent,
}

/// New bytes of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whose.
    pub side: Side,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// How many before them are repeated.
    pub back: usize,
    /// What becomes of the segment.
    pub fate: Fate,
    /// Whether it ends the stream.
    pub fin: bool,
    /// Its urgent pointer.
    pub urgent: Option<u16>,
}

/// What becomes of a segment on its way to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It does not.
    Lost,
    /// It does later.
    Held,
}

impl Piece {
    fn new(side: Side) -> Piece {
        Piece { side, bytes: vec![], back: 0, fate: Fate::Arrives, fin: false, urgent: None }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.back == 0 && !self.fin
    }
}

/// The steps of a script.
pub fn steps(script: &[u8]) -> Vec<Step> {
    let mut cursor = Cursor(script);
    let mut piece = Piece::new(Side::Server);
    let (mut steps, mut length) = (vec![], 0);
    while !cursor.is_empty() && steps.len() < STEPS && length < STREAM {
        let byte = cursor.byte();
        let side = match byte {
            CLIENT => Side::Client,
            SERVER => Side::Server,
            _ => piece.side,
        };
        if matches!(byte, CLIENT | SERVER | CUT | DELIVER | PORTS | FULL | SILENT) {
            let done = std::mem::replace(&mut piece, Piece::new(side));
            length += done.bytes.len();
            steps.extend((!done.is_empty()).then_some(Step::Segment(done)));
        }
        match byte {
            CLIENT | SERVER | CUT => {}
            BACK => piece.back = cursor.byte().into(),
            LOSE => piece.fate = Fate::Lost,
            HOLD => piece.fate = Fate::Held,
            FIN => piece.fin = true,
            URGENT => piece.urgent = Some(cursor.byte().into()),
            DELIVER => steps.push(Step::Deliver),
            PORTS => steps.push(Step::Ports),
            FULL => steps.push(Step::Full),
            SILENT => steps.push(Step::Silent),
            RAW => {
                let length = cursor.byte().into();
                piece.bytes.extend_from_slice(cursor.bytes(length));
            }
            byte => piece.bytes.push(byte),
        }
    }
    steps.extend((!piece.is_empty()).then_some(Step::Segment(piece)));
    steps
}
