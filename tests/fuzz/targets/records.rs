//! TLS records of a stream in any segments, beside a model that takes one byte after the other; and the
//! data plane's place in them.

use nat_common::watch::{Place, RECORD_HEADER, Watch, record_length};
use nat_ctl::alg::records::{Next, Records};

use super::cursor::Cursor;

/// Where the sender's numbers begin: they cross the border of their space.
const FIRST: u32 = 0u32.wrapping_sub(50);

/// What becomes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It ends within records.
    Records,
    /// Behind so many bytes a line begins.
    Line(usize),
    /// So it does with something that is none; a header that is cut may have passed in part.
    Unknown,
}

/// Follows a stream: its length in front of each cut, then its bytes.
pub fn run(data: &[u8]) {
    let mut cursor = Cursor(data);
    let cuts: Vec<usize> = (0..cursor.byte() % 16).map(|_| cursor.byte().into()).collect();
    let stream = cursor.0;
    let (boundaries, end) = model(stream);
    let segments = segments(stream, &cuts);
    assert_eq!(followed(&segments, &boundaries), end, "in {} segments", segments.len());
    check_data_plane(&segments, &boundaries, end);
}

/// Where records start, and what ends them, byte by byte.
fn model(stream: &[u8]) -> (Vec<usize>, End) {
    let (mut starts, mut header, mut left) = (vec![0], vec![], 0u32);
    for (at, byte) in stream.iter().enumerate() {
        if left > 0 {
            left -= 1;
        } else {
            if header.is_empty() && !(20..=24).contains(byte) {
                return (starts, if at > 0 { End::Line(at) } else { End::Unknown });
            }
            header.push(*byte);
            if let [kind, major, minor, high, low] = header[..] {
                let Some(length) = record_length([kind, major, minor, high, low]) else {
                    return (starts, End::Unknown);
                };
                left = length - RECORD_HEADER as u32;
                header.clear();
            }
        }
        if left == 0 && header.is_empty() {
            starts.push(at + 1);
        }
    }
    (starts, End::Records)
}

fn segments<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<(usize, &'a [u8])> {
    let (mut at, mut segments) = (0, vec![]);
    for cut in cuts.iter().copied().chain([stream.len()]) {
        let end = (at + cut).min(stream.len());
        if end > at {
            segments.push((at, &stream[at..end]));
        }
        at = end;
    }
    segments
}

/// What the engine makes of it.
fn followed(segments: &[(usize, &[u8])], starts: &[usize]) -> End {
    let mut records = Records::default();
    let mut next = 0;
    for (at, bytes) in segments {
        while next < at + bytes.len() {
            let rest = &bytes[next - at..];
            match records.next(rest) {
                Next::Record { here, ahead } => {
                    assert!(here > 0 && here <= rest.len() && (ahead == 0 || here == rest.len()));
                    next += here + ahead;
                    let known = next - records.cut();
                    let last = starts.last().is_some_and(|last| known > *last);
                    assert!(starts.contains(&known) || last, "{known} starts no record");
                }
                Next::Line => return End::Line(next),
                Next::Unknown => return End::Unknown,
            }
        }
    }
    assert!(records.is_sound());
    End::Records
}

/// A watch never passes a segment in which a line begins, nor loses a record: it passes what the model
/// knows to be records.
fn check_data_plane(segments: &[(usize, &[u8])], starts: &[usize], end: End) {
    let mut boundary = 0;
    for (at, bytes) in segments {
        let watch = Watch::records(FIRST, FIRST.wrapping_add(boundary));
        let length = bytes.len() as u32;
        let Place::Record(mut next) = watch.place(FIRST.wrapping_add(*at as u32), length) else {
            assert!(boundary as usize >= at + bytes.len(), "a record that is not seen");
            continue;
        };
        while next < length {
            let header = bytes.get(next as usize..).and_then(|rest| rest.first_chunk());
            let Some(record) = header.copied().and_then(record_length) else { return };
            let start = at + next as usize;
            assert!(starts.contains(&start), "{start} starts no record");
            assert!(!matches!(end, End::Line(line) if line <= start), "a line that is passed");
            next += record;
        }
        boundary = *at as u32 + next;
    }
}
