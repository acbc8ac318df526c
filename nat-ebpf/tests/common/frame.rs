//! Frames from their description, with right checksums unless the description says otherwise.

use super::sums;

pub const ETHERNET: usize = 14;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub const ECHO_REPLY: u8 = 0;
pub const ECHO: u8 = 8;

/// More fragments; do not fragment.
pub const MORE: u16 = 0x2000;
pub const DONT: u16 = 0x4000;

/// A TCP option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    Nop,
    Mss(u16),
    SackPermitted,
    Timestamps(u32, u32),
    Mptcp([u8; 2]),
    Sack(u32, u32),
    Scale(u8),
}

impl Opt {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Nop => vec![1],
            Self::Scale(scale) => vec![3, 3, scale],
            Self::Mss(mss) => [&[2, 4][..], &mss.to_be_bytes()].concat(),
            Self::SackPermitted => vec![4, 2],
            Self::Timestamps(a, b) => [&[8, 10][..], &a.to_be_bytes(), &b.to_be_bytes()].concat(),
            Self::Mptcp([a, b]) => vec![30, 4, a, b],
            Self::Sack(a, b) => [&[5, 10][..], &a.to_be_bytes(), &b.to_be_bytes()].concat(),
        }
    }
}

/// The window of every segment.
pub const WINDOW: u16 = 64_240;

/// What an IPv4 packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        sport: u16,
        dport: u16,
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        options: Vec<Opt>,
    },
    Udp {
        sport: u16,
        dport: u16,
        summed: bool,
    },
    Icmp {
        kind: u8,
        identifier: u16,
    },
    Other {
        protocol: u8,
    },
}

/// An IPv4 packet in an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Flags and offset of the fragment.
    pub fragment: u16,
    /// Words of IPv4 options.
    pub options: u8,
    pub body: Body,
    pub payload: Vec<u8>,
    /// Bytes behind the packet.
    pub trailer: usize,
    /// By how much the transport checksum is wrong.
    pub damage: u16,
}

impl Spec {
    pub fn tcp(src: ([u8; 4], u16), dst: ([u8; 4], u16), flags: u8) -> Self {
        let (sport, dport) = (src.1, dst.1);
        let options = Vec::new();
        let body =
            Body::Tcp { sport, dport, sequence: 1000, acknowledgement: 2000, flags, options };
        Self::of(src.0, dst.0, body)
    }

    pub fn udp(src: ([u8; 4], u16), dst: ([u8; 4], u16)) -> Self {
        Self::of(src.0, dst.0, Body::Udp { sport: src.1, dport: dst.1, summed: true })
    }

    pub fn echo(src: [u8; 4], dst: [u8; 4], kind: u8, identifier: u16) -> Self {
        Self::of(src, dst, Body::Icmp { kind, identifier })
    }

    pub fn of(src: [u8; 4], dst: [u8; 4], body: Body) -> Self {
        let payload = Vec::new();
        Self {
            src,
            dst,
            ttl: 64,
            id: 0x1234,
            fragment: DONT,
            options: 0,
            body,
            payload,
            trailer: 0,
            damage: 0,
        }
    }

    pub fn with(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => TCP,
            Body::Udp { .. } => UDP,
            Body::Icmp { .. } => ICMP,
            Body::Other { protocol } => protocol,
        }
    }

    /// Bytes from the IPv4 header on.
    pub fn length(&self) -> usize {
        20 + usize::from(self.options) * 4 + self.segment().len()
    }

    /// Of a protocol without ports each piece is as good as a whole.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & 0x1fff != 0 && self.has_ports()
    }

    pub fn is_fragment(&self) -> bool {
        self.is_later_fragment() || self.fragment & MORE != 0 && self.has_ports()
    }

    fn has_ports(&self) -> bool {
        !matches!(self.body, Body::Other { .. })
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let segment = self.segment();
        let mut ip = vec![0x45 + self.options, 0x10];
        ip.extend((self.length() as u16).to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.protocol(), 0, 0]);
        ip.extend(self.src);
        ip.extend(self.dst);
        ip.extend(vec![1; usize::from(self.options) * 4]);
        let field = !sums::sum(&ip);
        ip[10..12].copy_from_slice(&field.to_be_bytes());
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend(ip);
        frame.extend(segment);
        frame.extend(vec![0xee; self.trailer]);
        frame
    }

    /// The frame with only the sum of the pseudo-header where the checksum of TCP or UDP is.
    pub fn build_left_to_device(&self) -> Vec<u8> {
        let mut frame = self.build();
        let start = ETHERNET + 20 + usize::from(self.options) * 4;
        let at = start + if self.protocol() == TCP { 16 } else { 6 };
        let sum = sums::pseudo(self.src, self.dst, self.protocol(), self.segment().len());
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn segment(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let at = match &self.body {
            Body::Tcp { sport, dport, sequence, acknowledgement, flags, options } => {
                let options: Vec<u8> = options.iter().flat_map(|option| option.bytes()).collect();
                let words = options.len().div_ceil(4);
                bytes.extend(sport.to_be_bytes());
                bytes.extend(dport.to_be_bytes());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                bytes.extend([(5 + words as u8) << 4, *flags]);
                bytes.extend(WINDOW.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(&options);
                bytes.resize(20 + words * 4, 0);
                bytes.extend(&self.payload);
                Some(16)
            }
            Body::Udp { sport, dport, summed } => {
                bytes.extend(sport.to_be_bytes());
                bytes.extend(dport.to_be_bytes());
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(&self.payload);
                summed.then_some(6)
            }
            Body::Icmp { kind, identifier } => {
                bytes.extend([*kind, 0, 0, 0]);
                bytes.extend(identifier.to_be_bytes());
                bytes.extend([0, 7]);
                bytes.extend(&self.payload);
                Some(2)
            }
            Body::Other { .. } => {
                bytes.extend(&self.payload);
                None
            }
        };
        // What a later fragment holds is in the middle of something.
        if let Some(at) = at.filter(|_| !self.is_later_fragment()) {
            let base = match self.protocol() {
                ICMP => 0,
                protocol => sums::pseudo(self.src, self.dst, protocol, bytes.len()),
            };
            let sum = sums::sum(&[&base.to_be_bytes()[..], &bytes].concat());
            let field = sums::sum(&[(!sum).to_be_bytes(), self.damage.to_be_bytes()].concat());
            let field = if self.protocol() == UDP && field == 0 { 0xffff } else { field };
            bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }
}
