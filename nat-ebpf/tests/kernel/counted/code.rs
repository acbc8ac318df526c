//! Instructions of eBPF (RFC 9669): what they read and write, and where they go on.

/// Registers as bits; the frame pointer is none of them, as it is never written.
pub type Registers = u16;

pub const ALL: Registers = 0x3ff;
const R0: Registers = 1;
/// What a call takes.
const ARGUMENTS: Registers = 0x3e;
/// What a call leaves nothing in.
const SCRATCH: Registers = R0 | ARGUMENTS;

// Classes of RFC 9669 section 2.3.
const LD: u8 = 0;
const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const ALU: u8 = 4;
const JMP: u8 = 5;
const JMP32: u8 = 6;
const ALU64: u8 = 7;
/// The second operand is a register.
const X: u8 = 8;
const MOV: u8 = 0xb0;
const JA: u8 = 0;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// A load of 64 bits, which has two places.
const LOAD: u8 = 0x18;
const MEM: u8 = 0x60;
const ATOMIC: u8 = 0xc0;
/// Eight bytes.
const DOUBLE: u8 = 0x18;
const FETCH: i32 = 1;
const EXCHANGE_IF: i32 = 0xf1;
/// The frame pointer.
const FRAME: u8 = 10;
/// `MAX_BPF_STACK` of include/linux/filter.h.
const STACK: i32 = 512;
/// `BPF_FUNC_tail_call` of include/uapi/linux/bpf.h.
const TAIL_CALL: i32 = 12;

/// An instruction, or half of one that has two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    pub dst: u8,
    pub src: u8,
    pub off: i16,
    pub imm: i32,
}

/// Where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Following,
    /// So many places behind the following one.
    Jump(i16),
    Either(i16),
    /// Nowhere; or, after a tail call that failed, at the following one.
    End,
    Ended,
}

impl Instruction {
    pub const SIZE: usize = 8;

    pub fn decode(bytes: &[u8]) -> Self {
        let [code, registers, a, b, imm @ ..]: [u8; Self::SIZE] =
            bytes.try_into().expect("eight bytes");
        let (dst, src) = (registers & 15, registers >> 4);
        Self { code, dst, src, off: i16::from_le_bytes([a, b]), imm: i32::from_le_bytes(imm) }
    }

    pub fn encode(self) -> [u8; Self::SIZE] {
        let [a, b] = self.off.to_le_bytes();
        let [c, d, e, f] = self.imm.to_le_bytes();
        [self.code, self.dst | self.src << 4, a, b, c, d, e, f]
    }

    /// Puts the address of a word of a map's value into a register.
    pub fn address(map: i32, word: usize, dst: u8) -> [Self; 2] {
        const BPF_PSEUDO_MAP_VALUE: u8 = 2;
        let half = Self { code: 0, dst: 0, src: 0, off: 0, imm: 8 * word as i32 };
        [Self { code: LOAD, dst, src: BPF_PSEUDO_MAP_VALUE, off: 0, imm: map }, half]
    }

    /// Adds a register to the word that it points to, in one step.
    pub fn add_itself(register: u8) -> Self {
        let code = STX | DOUBLE | ATOMIC;
        Self { code, dst: register, src: register, off: 0, imm: 0 }
    }

    /// Writes a register to the word that it points to.
    pub fn store_itself(register: u8) -> Self {
        Self { code: STX | DOUBLE | MEM, dst: register, src: register, off: 0, imm: 0 }
    }

    /// Keeps a register at a place of the stack.
    pub fn keep(register: u8, off: i16) -> Self {
        Self { code: STX | DOUBLE | MEM, dst: FRAME, src: register, off, imm: 0 }
    }

    /// Takes it back from there.
    pub fn take_back(register: u8, off: i16) -> Self {
        Self { code: LDX | DOUBLE | MEM, dst: register, src: FRAME, off, imm: 0 }
    }

    /// How far below the frame pointer it may reach.
    pub fn depth(self) -> i16 {
        let offset = match self.class() {
            LDX if self.src == FRAME => self.off.into(),
            ST | STX if self.dst == FRAME => self.off.into(),
            // Perhaps of a copy of the frame pointer; beside a whole frame there would be no room anyhow.
            ALU64 if self.code == ALU64 && self.imm > -STACK => self.imm,
            _ => 0,
        };
        offset.min(0) as i16
    }

    /// How far below the frame pointer it reaches for sure: by an access, or by a copy of the frame
    /// pointer that is among `copies`, registers as bits; these are brought up to date.
    pub fn reaches(self, copies: &mut Registers) -> i16 {
        let is_copy = *copies & bit(self.dst) != 0;
        let offset = match self.class() {
            LDX if self.src == FRAME => self.off.into(),
            ST | STX if self.dst == FRAME => self.off.into(),
            ALU64 if self.code == ALU64 && is_copy => self.imm,
            _ => 0,
        };
        if self.code == ALU64 | MOV | X && self.src == FRAME {
            *copies |= bit(self.dst);
        } else {
            *copies &= !self.writes();
        }
        offset.min(0) as i16
    }

    fn class(self) -> u8 {
        self.code & 7
    }

    fn operation(self) -> u8 {
        self.code & 0xf0
    }

    fn jumps(self, operation: u8) -> bool {
        self.class() == JMP && self.operation() == operation
    }

    fn is_atomic(self) -> bool {
        self.class() == STX && self.code & 0xe0 == ATOMIC
    }

    /// Whether the place behind it is its other half.
    pub fn is_wide(self) -> bool {
        self.code == LOAD
    }

    /// Whether it calls a helper of the kernel.
    pub fn is_helper_call(self) -> bool {
        self.jumps(CALL) && self.src == 0
    }

    /// Whether it calls a function of its own section, if no relocation says otherwise.
    pub fn is_local_call(self) -> bool {
        const BPF_PSEUDO_CALL: u8 = 1;
        self.jumps(CALL) && self.src == BPF_PSEUDO_CALL
    }

    pub fn next(self) -> Next {
        match self.class() {
            JMP if self.operation() == JA => Next::Jump(self.off),
            JMP if self.operation() == EXIT => Next::Ended,
            JMP if self.operation() == CALL => match (self.is_helper_call(), self.imm) {
                (true, TAIL_CALL) => Next::End,
                _ => Next::Following,
            },
            JMP32 if self.operation() == JA => panic!("a long jump: {self:?}"),
            JMP | JMP32 => Next::Either(self.off),
            _ => Next::Following,
        }
    }

    /// Registers that it reads, or may.
    pub fn reads(self) -> Registers {
        let (dst, src) = (bit(self.dst), bit(self.src));
        let second = if self.code & X != 0 { src } else { 0 };
        match self.class() {
            LD => 0,
            LDX => src,
            ST => dst,
            STX if self.is_atomic() && self.imm == EXCHANGE_IF => dst | src | R0,
            STX => dst | src,
            ALU | ALU64 if self.operation() == MOV => second,
            ALU | ALU64 => dst | second,
            _ if self.jumps(CALL) => ARGUMENTS,
            _ if self.jumps(EXIT) => R0,
            _ if self.jumps(JA) => 0,
            _ => dst | second,
        }
    }

    /// Registers that have nothing more of what they had before it.
    pub fn writes(self) -> Registers {
        match self.class() {
            LD | LDX | ALU | ALU64 => bit(self.dst),
            STX if self.is_atomic() && self.imm == EXCHANGE_IF => R0,
            STX if self.is_atomic() && self.imm & FETCH != 0 => bit(self.src),
            _ if self.jumps(CALL) => SCRATCH,
            _ => 0,
        }
    }
}

fn bit(register: u8) -> Registers {
    (1 << register) & ALL
}
