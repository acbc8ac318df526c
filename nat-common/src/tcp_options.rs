//! Edits in the option area of a TCP header: the MSS and MPTCP of a control connection's SYN, and
//! SACK edges (RFC 9293 section 3.2, RFC 8684, RFC 2018); and what is read there of any SYN.
//!
//! The area is worked on in a buffer whose length is a power of two, so that a masked index can
//! never leave it; nothing is inserted or removed, options are overwritten in place.

use crate::{opaque::opaque, sequence::Round};

/// Most bytes of options: a data offset of 15 words less the fixed 20 bytes.
pub const MAX_OPTIONS: usize = 40;
/// Size of the buffer.
pub const BUFFER: usize = 64;

const MASK: usize = BUFFER - 1;
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK: u8 = 5;
const MPTCP: u8 = 30;

/// Most options that are looked at; a header that has more of them (all but filled with NOPs) is
/// left as it is past that point.
const MAX_COUNT: usize = 24;
/// Most SACK blocks that fit (RFC 2018 section 3).
const MAX_BLOCKS: usize = 4;

/// Where an option stands.
#[derive(Clone, Copy)]
struct Found {
    at: usize,
    length: usize,
}

/// An index that is within the buffer for the compiler and for the verifier alike. The compiler must
/// not know more of it, else it finds the mask needless by a comparison with another register, which
/// the verifier of Linux 6.1 can't follow.
#[inline(always)]
fn index(at: usize) -> usize {
    opaque(at as u64) as usize & MASK
}

#[inline(always)]
fn byte(buffer: &[u8; BUFFER], at: usize) -> u8 {
    buffer[index(at)]
}

/// Finds the first option of `kind` within the first `length` bytes of `buffer`.
#[inline(always)]
fn find(buffer: &[u8; BUFFER], length: usize, kind: u8) -> Option<Found> {
    let mut at = 0;
    for _ in 0..MAX_COUNT {
        at = index(at);
        if at + 1 >= length || at + 1 >= MAX_OPTIONS {
            return None;
        }
        match byte(buffer, at) {
            END => return None,
            NOP => at += 1,
            found => {
                let option = byte(buffer, at + 1) as usize;
                if option < 2 || at + option > length {
                    return None;
                }
                if found == kind {
                    return Some(Found { at, length: option });
                }
                at += option;
            }
        }
    }
    None
}

/// Lowers the MSS of a SYN to at most `most`, which fits the path, and then by `by`, not below `floor`.
/// Returns the MSS that now stands there; `None` when the option is missing.
#[inline(always)]
pub fn lower_mss(
    buffer: &mut [u8; BUFFER],
    length: usize,
    most: u16,
    by: u16,
    floor: u16,
) -> Option<u16> {
    let found = find(buffer, length, MSS)?;
    if found.length != 4 {
        return None;
    }
    let old = u16::from_be_bytes([byte(buffer, found.at + 2), byte(buffer, found.at + 3)]);
    let fits = if old < most { old } else { most };
    let lowered = fits.saturating_sub(by);
    let new = if lowered < floor { if fits < floor { fits } else { floor } } else { lowered };
    let [high, low] = new.to_be_bytes();
    buffer[index(found.at + 2)] = high;
    buffer[index(found.at + 3)] = low;
    Some(new)
}

/// The scale of windows that a SYN announces (RFC 7323 section 2.2), as it stands there; 0 when the
/// option is missing.
#[inline(always)]
pub fn window_scale(buffer: &[u8; BUFFER], length: usize) -> u8 {
    match find(buffer, length, WINDOW_SCALE) {
        Some(found) if found.length == 3 => byte(buffer, found.at + 2),
        Some(_) | None => 0,
    }
}

/// Overwrites an MPTCP option with NOPs: a control connection stays on one path.
#[inline(always)]
pub fn remove_mptcp(buffer: &mut [u8; BUFFER], length: usize) {
    let Some(found) = find(buffer, length, MPTCP) else { return };
    for offset in 0..MAX_OPTIONS {
        if offset < found.length {
            buffer[index(found.at + offset)] = NOP;
        }
    }
}

/// Edits the options of a SYN of a control connection: removes MPTCP and lowers the MSS as
/// [`lower_mss`] does. Returns the MSS that now stands there, or 0.
#[inline(always)]
pub fn edit_syn(buffer: &mut [u8; BUFFER], length: usize, most: u16, by: u16, floor: u16) -> u16 {
    remove_mptcp(buffer, length);
    lower_mss(buffer, length, most, by, floor).unwrap_or(0)
}

/// The MSS, where that is the first option, as nearly every sender has it; else `None`.
#[inline(always)]
pub const fn first_mss(option: [u8; 4]) -> Option<u16> {
    match option {
        [MSS, 4, high, low] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// Maps the edges of all SACK blocks by `map`, [`crate::sequence::Corrections::unmap`] of the stream that
/// they acknowledge: left edges round up, right edges down, so that no byte is reported that did not
/// arrive.
#[inline(always)]
pub fn map_sack(buffer: &mut [u8; BUFFER], length: usize, map: impl Fn(u32, Round) -> u32) {
    let Some(found) = find(buffer, length, SACK) else { return };
    for block in 0..MAX_BLOCKS {
        let at = found.at + 2 + block * 8;
        if 2 + (block + 1) * 8 > found.length {
            return;
        }
        let left = map(read(buffer, at), Round::Up);
        let right = map(read(buffer, at + 4), Round::Down);
        write(buffer, at, left);
        write(buffer, at + 4, right);
    }
}

#[inline(always)]
fn read(buffer: &[u8; BUFFER], at: usize) -> u32 {
    let at = index(at);
    let [a, b, c, d] = [at, (at + 1) & MASK, (at + 2) & MASK, (at + 3) & MASK];
    u32::from_be_bytes([buffer[a], buffer[b], buffer[c], buffer[d]])
}

#[inline(always)]
fn write(buffer: &mut [u8; BUFFER], at: usize, value: u32) {
    let [a, b, c, d] = value.to_be_bytes();
    let at = index(at);
    buffer[at] = a;
    buffer[(at + 1) & MASK] = b;
    buffer[(at + 2) & MASK] = c;
    buffer[(at + 3) & MASK] = d;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::Corrections;
    use proptest::prelude::*;

    fn buffer(options: &[u8]) -> ([u8; BUFFER], usize) {
        let mut buffer = [0xaa; BUFFER];
        buffer[..options.len()].copy_from_slice(options);
        (buffer, options.len())
    }

    #[test]
    fn the_mss_of_a_linux_syn_is_lowered_and_nothing_else_changes() {
        let syn = [2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
        let (mut area, length) = buffer(&syn);
        assert_eq!(lower_mss(&mut area, length, u16::MAX, 40, 64), Some(1420));
        let mut wanted = syn;
        wanted[2..4].copy_from_slice(&1420u16.to_be_bytes());
        assert_eq!(area[..length], wanted);
    }

    #[test]
    fn an_mss_is_never_lowered_below_the_floor_nor_raised() {
        let (mut area, length) = buffer(&[2, 4, 0, 90]);
        assert_eq!(lower_mss(&mut area, length, u16::MAX, 40, 64), Some(64));
        let (mut area, length) = buffer(&[2, 4, 0, 50]);
        assert_eq!(lower_mss(&mut area, length, u16::MAX, 40, 64), Some(50));
        let (mut area, length) = buffer(&[1, 1, 1, 1]);
        assert_eq!(lower_mss(&mut area, length, u16::MAX, 40, 64), None);
    }

    #[test]
    fn an_mss_is_lowered_to_what_fits_and_no_further() {
        for (announced, wanted) in [(1460u16, 1360), (1361, 1360), (1360, 1360), (536, 536), (0, 0)]
        {
            let [high, low] = announced.to_be_bytes();
            let (mut area, length) = buffer(&[1, 2, 4, high, low, 1]);
            assert_eq!(lower_mss(&mut area, length, 1360, 0, 0), Some(wanted));
            assert_eq!(first_mss([2, 4, high, low]), Some(announced));
        }
        assert_eq!(first_mss([1, 2, 4, 5]), None);
    }

    #[test]
    fn multipath_is_removed() {
        let mut syn = vec![2, 4, 5, 180, 30, 12];
        syn.extend([9; 10]);
        syn.extend([1, 3, 3, 7]);
        let (mut area, length) = buffer(&syn);
        remove_mptcp(&mut area, length);
        syn[4..16].fill(NOP);
        assert_eq!(area[..length], syn);
    }

    #[test]
    fn sack_edges_are_mapped_back() {
        let mut corrections = Corrections::default();
        corrections.push(1000, 20, 25).unwrap();
        let mut options = vec![1, 1, 5, 18];
        for edge in [1100u32, 1200, 1010, 1012] {
            options.extend(edge.to_be_bytes());
        }
        let (mut area, length) = buffer(&options);
        map_sack(&mut area, length, |edge, round| corrections.unmap(edge, round));
        assert_eq!(read(&area, 4), 1095);
        assert_eq!(read(&area, 8), 1195);
        assert_eq!(read(&area, 12), corrections.map_sack_left(1010));
        assert_eq!(read(&area, 16), corrections.map_sack_right(1012));
    }

    /// D-SACK (RFC 2883): the first block tells of bytes that came twice, below what is acknowledged.
    #[test]
    fn bytes_that_came_twice_are_told_to_who_has_sent_them() {
        let mut corrections = Corrections::default();
        corrections.push(1000, 20, 25).unwrap();
        for (twice, sent) in [
            // Before the line, the whole of it, with what stands around it, and behind it.
            ([900, 950], [900, 950]),
            ([1000, 1025], [1000, 1020]),
            ([990, 1035], [990, 1030]),
            ([1025, 1100], [1020, 1095]),
            // Its end alone, as a segment that starts inside it brings it: none of it is told of.
            ([1010, 1025], [1020, 1020]),
        ] {
            let mut options = vec![1, 1, 5, 18];
            for edge in [twice[0], twice[1], 1300u32, 1400] {
                options.extend(edge.to_be_bytes());
            }
            let (mut area, length) = buffer(&options);
            map_sack(&mut area, length, |edge, round| corrections.unmap(edge, round));
            assert_eq!([read(&area, 4), read(&area, 8)], sent, "{twice:?}");
            assert_eq!([read(&area, 12), read(&area, 16)], [1295, 1395]);
        }
    }

    #[test]
    fn a_scale_is_found_behind_other_options() {
        let found = |options: &[u8]| {
            let (buffer, length) = buffer(options);
            window_scale(&buffer, length)
        };
        assert_eq!(found(&[2, 4, 5, 180, 1, 3, 3, 7]), 7);
        assert_eq!(found(&[3, 3, 14]), 14);
        for none in [&[][..], &[2, 4, 5, 180], &[3, 4, 7, 7], &[0, 3, 3, 7], &[3, 3], &[3]] {
            assert_eq!(found(none), 0, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_keep_their_length_and_the_rest_of_the_buffer(
            options in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..6, Just(30)], 0..=40)
        ) {
            let (mut area, length) = buffer(&options);
            lower_mss(&mut area, length, u16::MAX, 40, 64);
            remove_mptcp(&mut area, length);
            let mut corrections = Corrections::default();
            corrections.push(5, 3, 4).unwrap();
            map_sack(&mut area, length, |edge, round| corrections.unmap(edge, round));
            prop_assert!(area[length..].iter().all(|byte| *byte == 0xaa));
        }
    }
}
