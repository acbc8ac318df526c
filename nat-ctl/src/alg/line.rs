//! Where lines end in a direction, and the line that is not complete yet.
//!
//! Invariant: nothing that starts a segment is taken for the start of a line unless the bytes
//! before it ended one.

use serde::{Deserialize, Serialize};

use super::flow::Side;

/// Bytes that are remembered of a line that has not ended with its segment.
pub const PARTIAL_BYTES: usize = 256;

/// Bytes that are read of a line that has.
const LINE_BYTES: usize = 1024;

/// Where a direction stands within its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineState {
    ending: Ending,
    /// The first bytes of the line that have passed already.
    partial: Vec<u8>,
    /// How many have passed.
    passed: u32,
    /// The last of them.
    last: u8,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ending {
    /// LF, with or without CR before it. So it is with servers: their texts come out of files.
    LineFeed,
    /// Not known before the first line of the client.
    Unknown,
    /// CR LF; a bare LF belongs to a file name. A client keeps the way of its first line.
    CarriageReturn,
}

/// A complete line without its end, or the bytes that are there of an incomplete one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The bytes, from the start of the line on.
    pub text: Vec<u8>,
    /// How many bytes of the line had left before this segment.
    pub passed: usize,
    /// Whether the line is longer than what is kept of it.
    pub truncated: bool,
}

impl LineState {
    /// At the start of a line of `side`.
    pub fn new(side: Side) -> LineState {
        let ending = match side {
            Side::Client => Ending::Unknown,
            Side::Server => Ending::LineFeed,
        };
        LineState { ending, partial: Vec::new(), passed: 0, last: 0 }
    }

    /// Within a line whose beginning was not seen, so that nothing of it is understood. Where a client's
    /// ends is certain only at CR LF: a bare LF may belong to a name.
    pub fn within(side: Side) -> LineState {
        let ending = match side {
            Side::Client => Ending::CarriageReturn,
            Side::Server => Ending::LineFeed,
        };
        LineState { ending, partial: Vec::new(), passed: 1, last: 0 }
    }

    /// Length of the rest of the line at the start of `bytes`, its end included; `None` when it
    /// does not end there.
    pub fn length(&self, bytes: &[u8]) -> Option<usize> {
        let mut before = self.last;
        for (index, byte) in bytes.iter().enumerate() {
            let ends = match self.ending {
                Ending::LineFeed | Ending::Unknown => *byte == b'\n',
                Ending::CarriageReturn => *byte == b'\n' && before == b'\r',
            };
            if ends {
                return Some(index + 1);
            }
            before = *byte;
        }
        None
    }

    /// The line so far with `bytes` behind it.
    pub fn with(&self, bytes: &[u8]) -> Line {
        let passed = self.passed as usize;
        let mut text = self.partial.clone();
        let mut truncated = passed > text.len();
        if !truncated {
            text.extend(bytes.iter().take(LINE_BYTES.saturating_sub(text.len())));
            truncated = text.len() < passed + bytes.len();
        }
        Line { text, passed, truncated }
    }

    /// The line that ends with `bytes`, without its end.
    pub fn ended_by(&self, bytes: &[u8]) -> Line {
        let mut line = self.with(bytes);
        if !line.truncated && line.text.last() == Some(&b'\n') {
            line.text.pop();
            if line.text.last() == Some(&b'\r') {
                line.text.pop();
            }
        }
        line
    }

    /// `bytes` have passed, and the line has not ended.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.passed as usize == self.partial.len() {
            let room = PARTIAL_BYTES.saturating_sub(self.partial.len());
            self.partial.extend(bytes.iter().take(room));
        }
        self.passed = self.passed.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Whether a line feed stands in `bytes` without CR before it.
    pub fn has_bare_feed(&self, bytes: &[u8]) -> bool {
        let before = std::iter::once(&self.last).chain(bytes);
        before.zip(bytes).any(|(before, byte)| *byte == b'\n' && *before != b'\r')
    }

    /// Whether the next byte starts a line.
    pub fn is_at_start(&self) -> bool {
        self.passed == 0
    }

    /// The next byte starts a line, whatever there was.
    pub fn restart(&mut self) {
        self.partial.clear();
        (self.passed, self.last) = (0, 0);
    }

    /// The line has ended with `bytes`.
    pub fn end(&mut self, bytes: &[u8]) {
        if self.ending == Ending::Unknown {
            let before = match bytes {
                [.., before, b'\n'] => *before,
                _ => self.last,
            };
            self.ending = if before == b'\r' { Ending::CarriageReturn } else { Ending::LineFeed };
        }
        self.restart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_ends_lines_by_crlf_may_have_a_line_feed_in_a_name() {
        let mut state = LineState::new(Side::Client);
        assert_eq!(state.length(b"USER a\r\nPWD\r\n"), Some(8));
        state.end(b"USER a\r\n");
        assert_eq!(state.length(b"RETR x\nPORT\r\n"), Some(13));
        assert_eq!(state.length(b"RETR x\n"), None);
    }

    #[test]
    fn a_client_that_ends_lines_by_line_feed_keeps_to_it() {
        let mut state = LineState::new(Side::Client);
        state.end(b"USER a\n");
        assert_eq!(state.length(b"PASV\nRETR x\n"), Some(5));
    }

    #[test]
    fn an_end_cut_in_its_middle_is_an_end() {
        let mut state = LineState::new(Side::Client);
        state.extend(b"USER a\r");
        assert_eq!(state.length(b"\n"), Some(1));
        assert_eq!(state.with(b"\n").text, b"USER a\r\n");
        assert_eq!(state.ended_by(b"\n").text, b"USER a");
        state.end(b"\n");
        assert_eq!(state.ending, Ending::CarriageReturn);
    }

    #[test]
    fn a_long_line_is_remembered_by_its_first_bytes() {
        let mut state = LineState::new(Side::Server);
        state.extend(&[b'a'; 300]);
        state.extend(b"b");
        let line = state.with(b"c\n");
        assert_eq!((line.text.len(), line.passed, line.truncated), (256, 301, true));
    }
}
