//! IPv4 packets in pieces (RFC 791 section 3.2), and later fragments translated.
//!
//! Invariant: the pieces of a packet are a packet as its sender might have cut it: joined they give the
//! same bytes, and each header has its own right checksum.

use nat_common::{
    checksum::Sum,
    flow::{TCP, UDP},
    fragment::Fragmented,
    reason::Reason,
};

const FIXED_HEADER: usize = 20;
/// Don't fragment, more fragments, and the offset in units of 8 bytes.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const UNIT: usize = 8;
/// Bit of an IPv4 option that is in every piece (RFC 791 section 3.1).
const COPIED: u8 = 0x80;
const END: u8 = 0;
const NOP: u8 = 1;

/// A packet whose lengths agree.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    header: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Reads a packet from its IPv4 header on; what follows is padding.
    pub fn of(packet: &'a [u8]) -> Option<Self> {
        let length = usize::from(packet.first()? & 15) * 4;
        let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let (header, payload) = packet.get(..total)?.split_at_checked(length)?;
        (header.len() >= FIXED_HEADER && header[0] >> 4 == 4).then_some(Self { header, payload })
    }

    /// IANA protocol number.
    pub fn protocol(&self) -> u8 {
        self.at(9)
    }

    /// Source address.
    pub fn src(&self) -> [u8; 4] {
        [12, 13, 14, 15].map(|at| self.at(at))
    }

    /// Destination address.
    pub fn dst(&self) -> [u8; 4] {
        [16, 17, 18, 19].map(|at| self.at(at))
    }

    /// Identification.
    pub fn identification(&self) -> u16 {
        u16::from_be_bytes([self.at(4), self.at(5)])
    }

    /// Flags and offset.
    fn fragment(&self) -> u16 {
        u16::from_be_bytes([self.at(6), self.at(7)])
    }

    fn at(&self, index: usize) -> u8 {
        self.header.get(index).copied().unwrap_or_default()
    }

    /// The header of pieces that do not begin with the packet: options that are not copied are left out.
    fn later_header(&self) -> Vec<u8> {
        let (fixed, mut options) = self.header.split_at(FIXED_HEADER);
        let mut header = fixed.to_vec();
        while let [kind, rest @ ..] = options
            && *kind != END
        {
            let length = match (*kind, rest.first()) {
                (NOP, _) => 1,
                (_, Some(length)) if *length >= 2 => usize::from(*length),
                _ => break,
            };
            let Some((option, after)) = options.split_at_checked(length) else { break };
            if kind & COPIED != 0 {
                header.extend_from_slice(option);
            }
            options = after;
        }
        header.resize(header.len().next_multiple_of(4), END);
        let words = (header.len() / 4) as u8;
        put(&mut header, 0, &[0x40 | words]);
        header
    }
}

/// The pieces of a packet of which none is longer than `mtu`; a packet that fits is its only one. A
/// transport checksum that was left to a device is made first. `None` where no piece could hold anything.
pub fn pieces(mut packet: Vec<u8>, mtu: Option<usize>) -> Option<Vec<Vec<u8>>> {
    finish(&mut packet)?;
    let ip = Ipv4::of(&packet)?;
    let mtu = mtu.unwrap_or(usize::MAX);
    if ip.header.len() + ip.payload.len() <= mtu {
        return Some(vec![packet]);
    }
    let room = mtu.checked_sub(ip.header.len())? / UNIT * UNIT;
    if room == 0 {
        return None;
    }
    let later = ip.later_header();
    let first = ip.fragment() & OFFSET;
    let count = ip.payload.len().div_ceil(room);
    let piece = |(index, bytes): (usize, &[u8])| {
        let header = if index == 0 { ip.header } else { &later };
        let mut piece = [header, bytes].concat();
        let offset = first.checked_add(u16::try_from(index * room / UNIT).ok()?)?;
        let more = if index + 1 < count { MORE } else { ip.fragment() & MORE };
        let total = u16::try_from(piece.len()).ok()?;
        put(&mut piece, 2, &total.to_be_bytes());
        put(&mut piece, 6, &(offset & OFFSET | more).to_be_bytes());
        sum_header(&mut piece, header.len());
        Some(piece)
    };
    ip.payload.chunks(room).enumerate().map(piece).collect()
}

/// A later fragment as it leaves.
///
/// # Errors
/// [`Reason::TtlExpired`] and [`Reason::BadHeader`].
pub fn translate(mut packet: Vec<u8>, known: &Fragmented) -> Result<Vec<u8>, Reason> {
    let ip = Ipv4::of(&packet).ok_or(Reason::BadHeader)?;
    let (length, ttl) = (ip.header.len(), ip.at(8));
    if ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    put(&mut packet, 4, &known.identification().to_be_bytes());
    put(&mut packet, 8, &[ttl - 1]);
    put(&mut packet, 12, known.addresses().as_flattened());
    sum_header(&mut packet, length);
    Ok(packet)
}

/// Makes the checksum of a whole segment that has only the sum of the pseudo-header in its place.
fn finish(packet: &mut [u8]) -> Option<()> {
    let ip = Ipv4::of(packet)?;
    let at = match ip.protocol() {
        TCP => 16,
        UDP => 6,
        _ => return Some(()),
    };
    if ip.fragment() & (MORE | OFFSET) != 0 {
        return Some(());
    }
    let length = u16::try_from(ip.payload.len()).ok()?;
    let pseudo = Sum::ZERO.pseudo_header(ip.src(), ip.dst(), ip.protocol(), length);
    let field = [*ip.payload.get(at)?, *ip.payload.get(at + 1)?];
    if u16::from_ne_bytes(field) != pseudo.folded() {
        return Some(());
    }
    let mut segment = ip.payload.to_vec();
    put(&mut segment, at, &[0; 2]);
    let sum = match pseudo.bytes(&segment).field() {
        0 if ip.protocol() == UDP => 0xffff,
        sum => sum,
    };
    let at = ip.header.len() + at;
    put(packet, at, &sum.to_ne_bytes());
    Some(())
}

fn sum_header(packet: &mut [u8], length: usize) {
    put(packet, 10, &[0; 2]);
    let sum = Sum::ZERO.bytes(packet.get(..length).unwrap_or_default()).field();
    put(packet, 10, &sum.to_ne_bytes());
}

/// Overwrites bytes of a packet that has been found to be that long.
fn put(bytes: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat_common::{
        flow::{FlowKey, Rewrite, Zone},
        port::Port,
    };
    use proptest::prelude::*;

    const DONT: u16 = 0x4000;

    /// A packet with a right header checksum.
    fn packet(fragment: u16, options: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let header = FIXED_HEADER + options.len();
        let mut ip = vec![0x40 | (header / 4) as u8, 0x10];
        ip.extend(((header + payload.len()) as u16).to_be_bytes());
        ip.extend([0xab, 0xcd]);
        ip.extend(fragment.to_be_bytes());
        ip.extend([64, protocol, 0, 0, 203, 0, 113, 1, 198, 51, 100, 1]);
        ip.extend(options);
        ip.extend(payload);
        sum_header(&mut ip, header);
        ip
    }

    /// The plain sum of all words, which the code under test does not use.
    fn residue(bytes: &[u8]) -> u32 {
        let words =
            bytes.chunks(2).map(|it| u32::from(it[0]) << 8 | u32::from(*it.get(1).unwrap_or(&0)));
        words.sum::<u32>() % 0xffff
    }

    /// Puts pieces together, by their offsets.
    fn join(pieces: &[Vec<u8>], base: u16) -> Vec<u8> {
        let mut payload = vec![];
        for piece in pieces {
            let ip = Ipv4::of(piece).unwrap();
            assert_eq!(residue(ip.header), 0, "a right header");
            assert_eq!(usize::from((ip.fragment() & OFFSET) - base) * UNIT, payload.len());
            payload.extend_from_slice(ip.payload);
        }
        payload
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let whole = packet(0, &[], 47, &[7; 100]);
        assert_eq!(pieces(whole.clone(), Some(120)), Some(vec![whole.clone()]));
        assert_eq!(pieces(whole.clone(), None), Some(vec![whole]));
    }

    #[test]
    fn a_piece_holds_whole_units_and_some_of_the_options() {
        // Router alert is in every piece, record route in the first one (RFC 791 section 3.1).
        let options = [NOP, 0x94, 4, 0, 0, 7, 3, 4];
        let cut = pieces(packet(0, &options, 47, &[7; 100]), Some(80)).unwrap();
        assert_eq!(cut.len(), 3);
        assert_eq!(cut[0].len(), 28 + 48);
        assert_eq!(cut[0][20..28], options);
        assert_eq!((cut[1][0], cut[1].len()), (0x46, 24 + 48));
        assert_eq!(cut[1][20..24], [0x94, 4, 0, 0]);
        assert_eq!(join(&cut, 0), [7; 100]);
        assert_eq!(pieces(packet(0, &options, 47, &[7; 100]), Some(35)), None);
    }

    #[test]
    fn a_checksum_left_to_a_device_is_made() {
        for (protocol, at) in [(UDP, 6), (TCP, 16)] {
            let mut payload = vec![0x5a; 301];
            let pseudo =
                Sum::ZERO.pseudo_header([203, 0, 113, 1], [198, 51, 100, 1], protocol, 301);
            payload[at..at + 2].copy_from_slice(&pseudo.folded().to_ne_bytes());
            let cut = pieces(packet(0, &[], protocol, &payload), Some(100)).unwrap();
            let joined = join(&cut, 0);
            let mut whole = vec![203, 0, 113, 1, 198, 51, 100, 1, 0, protocol, 1, 45];
            whole.extend(&joined);
            assert_eq!(residue(&whole), 0);
            // Made once, it is not made again.
            let again = pieces(packet(0, &[], protocol, &joined), Some(100)).unwrap();
            assert_eq!(join(&again, 0), joined);
        }
    }

    #[test]
    fn a_later_fragment_leaves_as_its_first_one_did() {
        let key = FlowKey::new(
            Zone::Inside,
            UDP,
            [10, 0, 1, 2],
            Port::new(5),
            [198, 51, 100, 1],
            Port::new(6),
        );
        let rewrite = Rewrite::source(&key, [203, 0, 113, 9], Port::new(7));
        let known = Fragmented::new([key.sport(), key.dport()], &rewrite, 0x1234, (3, 1500), 9);
        let out = translate(packet(185, &[], UDP, &[1; 40]), &known).unwrap();
        let ip = Ipv4::of(&out).unwrap();
        assert_eq!((ip.src(), ip.dst()), ([203, 0, 113, 9], [198, 51, 100, 1]));
        assert_eq!((ip.identification(), ip.fragment(), ip.at(8)), (0x1234, 185, 63));
        assert_eq!(residue(ip.header), 0);
        assert_eq!(ip.payload, [1; 40]);
        let mut old = packet(185, &[], UDP, &[1; 40]);
        old[8] = 1;
        assert_eq!(translate(old, &known), Err(Reason::TtlExpired));
    }

    proptest! {
        #[test]
        fn pieces_of_anything_join_to_it(
            payload in prop::collection::vec(any::<u8>(), 1..3000),
            mtu in 28usize..1600,
            fragment in prop_oneof![Just(0u16), Just(MORE), Just(MORE | 185), Just(370), Just(DONT)],
        ) {
            let whole = packet(fragment, &[], 47, &payload);
            let cut = pieces(whole.clone(), Some(mtu)).unwrap();
            prop_assert_eq!(join(&cut, fragment & OFFSET), payload);
            for (index, piece) in cut.iter().enumerate() {
                prop_assert!(piece.len() <= mtu.max(whole.len().min(mtu)));
                let more = index + 1 < cut.len() || fragment & MORE != 0;
                let ip = Ipv4::of(piece).unwrap();
                prop_assert_eq!(ip.fragment() & MORE != 0, more);
                prop_assert_eq!(ip.identification(), 0xabcd);
            }
        }

        #[test]
        fn any_bytes_may_come(bytes in prop::collection::vec(any::<u8>(), 0..80), mtu in 0usize..90) {
            let _ = pieces(bytes, Some(mtu));
        }
    }
}
