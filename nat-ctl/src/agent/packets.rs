//! Packets for the tests of this folder, and a slow checksum that shares nothing with the fast one.

use proptest::prelude::*;

/// A packet by its fields.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub urgent: u16,
    pub ttl: u8,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Packet {
    /// An acknowledgement with PSH and the timestamps of Linux, to port 21.
    pub fn example() -> Self {
        Self {
            src: [10, 0, 1, 2],
            dst: [198, 51, 100, 7],
            sport: 40000,
            dport: 21,
            seq: 1000,
            ack: 2000,
            flags: 0x18,
            urgent: 0,
            ttl: 64,
            options: vec![1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4],
            payload: vec![],
        }
    }

    /// The packet, with right checksums.
    pub fn bytes(&self) -> Vec<u8> {
        assert!(self.options.len().is_multiple_of(4) && self.options.len() <= 40);
        let total = 40 + self.options.len() + self.payload.len();
        let mut bytes = vec![0x45, 0x10];
        bytes.extend((total as u16).to_be_bytes());
        bytes.extend([0xbe, 0xef, 0x40, 0, self.ttl, 6, 0, 0]);
        bytes.extend(self.src);
        bytes.extend(self.dst);
        bytes.extend(self.sport.to_be_bytes());
        bytes.extend(self.dport.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([((20 + self.options.len()) * 4) as u8, self.flags, 0x12, 0x34, 0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        seal(&mut bytes);
        bytes
    }
}

/// Writes both checksums of a packet without IP options.
pub fn seal(bytes: &mut [u8]) {
    bytes[10..12].fill(0);
    let header = reference(&bytes[..20]);
    bytes[10..12].copy_from_slice(&header.to_be_bytes());
    bytes[36..38].fill(0);
    let tcp = reference(&pseudo(bytes));
    bytes[36..38].copy_from_slice(&tcp.to_be_bytes());
}

/// Whether both checksums of a packet verify.
pub fn reference_checksum_is_right(bytes: &[u8]) -> bool {
    let ip = usize::from(bytes[0] & 15) * 4;
    reference(&bytes[..ip]) == 0 && reference(&pseudo(bytes)) == 0
}

fn pseudo(bytes: &[u8]) -> Vec<u8> {
    let ip = usize::from(bytes[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let segment = &bytes[ip..total];
    let mut data = bytes[12..20].to_vec();
    data.extend([0, 6]);
    data.extend((segment.len() as u16).to_be_bytes());
    data.extend(segment);
    data
}

/// RFC 1071 in 64-bit arithmetic over big-endian words.
fn reference(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += (u64::from(pair[0]) << 8) + u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Bytes that make carries and folds happen.
pub fn boundary_byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0u8), Just(0xff), Just(1), Just(0xfe), Just(0x80), any::<u8>()]
}
