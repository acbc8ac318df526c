//! Other instructions for the sections of an object, and everything that names places in them.

use super::{code::Instruction, insert::Counted};
use std::collections::{BTreeMap, BTreeSet};

// Offsets and values of the ELF-64 object file format.
const SECTION_HEADERS: usize = 0x28;
const SECTION_COUNT: usize = 0x3c;
const NAMES_INDEX: usize = 0x3e;
const HEADER: usize = 64;
const SHT_SYMTAB: u32 = 2;
const SHT_REL: u32 = 9;
const SHF_EXECINSTR: u64 = 4;
const SYMBOL: usize = 24;
const RELOCATION: usize = 16;
const STT_FUNC: u8 = 2;
const STT_SECTION: u8 = 3;
/// `R_BPF_64_64`, which has a place in its instruction, and `R_BPF_64_32`, a call.
const R_BPF_64_64: u32 = 1;
const R_BPF_64_32: u32 = 10;

/// The object with what `change` makes of the instructions of each section, given where functions
/// begin in it.
pub fn rewrite(
    object: &[u8],
    mut change: impl FnMut(&[Instruction], &BTreeSet<usize>) -> Counted,
) -> Vec<u8> {
    let mut elf = Elf { bytes: object.to_vec() };
    let sections: Vec<usize> = (0..elf.count()).filter(|s| elf.is_code(*s)).collect();
    let mut changed: BTreeMap<usize, Counted> = sections
        .into_iter()
        .map(|section| {
            let code: Vec<_> =
                elf.content(section).chunks(Instruction::SIZE).map(Instruction::decode).collect();
            (section, change(&code, &elf.functions(section)))
        })
        .collect();
    elf.move_targets(&mut changed);
    elf.move_symbols(&changed);
    elf.move_debug_places(&changed);
    for (section, Counted { code, .. }) in &changed {
        let bytes: Vec<u8> = code.iter().flat_map(|instruction| instruction.encode()).collect();
        elf.replace(*section, &bytes);
    }
    elf.bytes
}

/// A function: its name, instructions, and which functions it calls or gives to a helper, by their
/// numbers.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub code: Vec<Instruction>,
    pub calls: Vec<usize>,
}

/// All functions of an object.
pub fn functions(object: &[u8]) -> Vec<Function> {
    let elf = Elf { bytes: object.to_vec() };
    let is_function = |symbol: &Symbol| symbol.kind == STT_FUNC && elf.is_code(symbol.section);
    let symbols: Vec<Symbol> = elf.symbols().into_iter().filter(is_function).collect();
    let number = |section: usize, place: usize| {
        symbols.iter().position(|symbol| (symbol.section, symbol.start) == (section, place))
    };
    let function = |symbol: &Symbol| {
        let places = symbol.start..symbol.start + symbol.places;
        let code = elf.content(symbol.section).chunks(Instruction::SIZE).map(Instruction::decode);
        let code: Vec<_> = code.collect();
        let mut calls = BTreeMap::new();
        for at in places.clone().filter(|at| code[*at].is_local_call()) {
            let target = (at + 1).strict_add_signed(code[at].imm as isize);
            calls.insert(at, number(symbol.section, target));
        }
        for at in elf.relocations(symbol.section) {
            let (place, named, kind) = elf.relocation(at);
            if !places.contains(&place) || !elf.is_code(named.section) {
                continue;
            }
            let imm = code[place].imm;
            let start = match (named.kind, kind) {
                (STT_SECTION, R_BPF_64_64) => imm as usize / Instruction::SIZE,
                (STT_SECTION, _) => (imm + 1) as usize,
                _ => named.start,
            };
            calls.insert(place, number(named.section, start));
        }
        Function {
            name: elf.symbol_name(symbol).to_owned(),
            code: code[places].to_vec(),
            calls: calls.into_values().map(|call| call.expect("a function")).collect(),
        }
    };
    symbols.iter().map(function).collect()
}

struct Elf {
    bytes: Vec<u8>,
}

/// A symbol: its kind, section, first place and number of places there.
struct Symbol {
    at: usize,
    kind: u8,
    section: usize,
    start: usize,
    places: usize,
}

impl Elf {
    /// Leads relocations, references and calls to where instructions are now.
    fn move_targets(&self, changed: &mut BTreeMap<usize, Counted>) {
        let entries: BTreeMap<usize, Vec<usize>> =
            changed.iter().map(|(section, counted)| (*section, counted.entries.clone())).collect();
        for (section, counted) in changed {
            let mut relocated = BTreeSet::new();
            for (place, symbol, kind) in self.relocations(*section).map(|at| self.relocation(at)) {
                relocated.insert(place);
                let instruction = &mut counted.code[counted.moved[place]];
                let Some(targets) = entries.get(&symbol.section) else { continue };
                // A function that the symbol names goes where the symbol goes.
                match (symbol.kind, kind) {
                    (STT_SECTION, R_BPF_64_64) => {
                        let place = instruction.imm as usize / Instruction::SIZE;
                        instruction.imm = (targets[place] * Instruction::SIZE) as i32;
                    }
                    (STT_SECTION, R_BPF_64_32) => {
                        instruction.imm = targets[(instruction.imm + 1) as usize] as i32 - 1;
                    }
                    _ => {}
                }
            }
            for at in (0..counted.moved.len() - 1).filter(|at| !relocated.contains(at)) {
                let here = counted.moved[at];
                let instruction = &mut counted.code[here];
                if instruction.is_local_call() {
                    let target = (at + 1).strict_add_signed(instruction.imm as isize);
                    let distance = counted.entries[target] as isize - here as isize - 1;
                    instruction.imm = distance as i32;
                }
            }
        }
    }

    /// Writes where relocations and symbols have gone.
    fn move_symbols(&mut self, changed: &BTreeMap<usize, Counted>) {
        for (section, counted) in changed {
            for at in self.relocations(*section).collect::<Vec<_>>() {
                let (place, ..) = self.relocation(at);
                self.set_u64(at, (counted.moved[place] * Instruction::SIZE) as u64);
            }
        }
        for symbol in self.symbols() {
            if symbol.kind == STT_FUNC
                && let Some(Counted { entries, .. }) = changed.get(&symbol.section)
            {
                let (start, end) = (entries[symbol.start], entries[symbol.start + symbol.places]);
                self.set_u64(symbol.at + 8, (start * Instruction::SIZE) as u64);
                self.set_u64(symbol.at + 16, ((end - start) * Instruction::SIZE) as u64);
            }
        }
    }

    /// Writes where functions and lines have gone, for the kernel: `.BTF.ext` (Documentation/bpf/btf.rst).
    fn move_debug_places(&mut self, changed: &BTreeMap<usize, Counted>) {
        let named = |name: &str| (0..self.count()).find(|s| self.name(*s) == name);
        let (btf, extension) = (named(".BTF").expect("BTF"), named(".BTF.ext").expect("BTF"));
        let (btf, base) = (self.offset(btf), self.offset(extension));
        let strings = btf + self.u32(btf + 4) + self.u32(btf + 16);
        let header = self.u32(base + 4);
        // Functions, lines and relocations by type, of which there are none.
        for field in [8, 16] {
            let (start, length) = (self.u32(base + field), self.u32(base + field + 4));
            let mut at = base + header + start;
            let end = at + length;
            let record = self.u32(at);
            at += 4;
            while at < end {
                let name = self.text(strings + self.u32(at));
                let records = self.u32(at + 4);
                let section = changed.iter().find(|(section, _)| self.name(**section) == name);
                let entries = &section.expect("a section of instructions").1.entries;
                at += 8;
                for _record in 0..records {
                    let place = entries[self.u32(at) / Instruction::SIZE] * Instruction::SIZE;
                    self.bytes[at..at + 4].copy_from_slice(&(place as u32).to_le_bytes());
                    at += record;
                }
            }
        }
    }

    /// Puts the content of a section behind all others.
    fn replace(&mut self, section: usize, content: &[u8]) {
        self.bytes.resize(self.bytes.len().next_multiple_of(Instruction::SIZE), 0);
        let (header, end) = (self.header(section), self.bytes.len());
        self.set_u64(header + 24, end as u64);
        self.set_u64(header + 32, content.len() as u64);
        self.bytes.extend(content);
    }

    fn is_code(&self, section: usize) -> bool {
        self.u64(self.header(section) + 8) & SHF_EXECINSTR != 0
    }

    /// Where functions begin.
    fn functions(&self, section: usize) -> BTreeSet<usize> {
        self.symbols()
            .into_iter()
            .filter(|symbol| symbol.kind == STT_FUNC && symbol.section == section)
            .map(|symbol| symbol.start)
            .collect()
    }

    fn symbols(&self) -> Vec<Symbol> {
        self.of_type(SHT_SYMTAB)
            .flat_map(|section| self.range(section).step_by(SYMBOL))
            .map(|at| self.symbol(at))
            .collect()
    }

    fn symbol(&self, at: usize) -> Symbol {
        let place = |field: usize| self.u64(at + field) as usize / Instruction::SIZE;
        let (start, places) = (place(8), place(16));
        Symbol { at, kind: self.bytes[at + 4] & 15, section: self.u16(at + 6), start, places }
    }

    fn symbol_name(&self, symbol: &Symbol) -> &str {
        let symbols = self.of_type(SHT_SYMTAB).next().expect("a table of symbols");
        let names = self.u32(self.header(symbols) + 40);
        self.text(self.offset(names) + self.u32(symbol.at))
    }

    /// Where the relocations of a section lie.
    fn relocations(&self, section: usize) -> impl Iterator<Item = usize> {
        self.of_type(SHT_REL)
            .filter(move |relocations| self.u32(self.header(*relocations) + 44) == section)
            .flat_map(|relocations| self.range(relocations).step_by(RELOCATION))
    }

    /// The place that it is for, its symbol, and its kind.
    fn relocation(&self, at: usize) -> (usize, Symbol, u32) {
        let symbols = self.of_type(SHT_SYMTAB).next().expect("a table of symbols");
        let symbol = self.symbol(self.offset(symbols) + self.u32(at + 12) * SYMBOL);
        (self.u64(at) as usize / Instruction::SIZE, symbol, self.u32(at + 8) as u32)
    }

    fn of_type(&self, kind: u32) -> impl Iterator<Item = usize> {
        (0..self.count()).filter(move |s| self.u32(self.header(*s) + 4) == kind as usize)
    }

    fn count(&self) -> usize {
        self.u16(SECTION_COUNT)
    }

    fn header(&self, section: usize) -> usize {
        self.u64(SECTION_HEADERS) as usize + section * HEADER
    }

    fn offset(&self, section: usize) -> usize {
        self.u64(self.header(section) + 24) as usize
    }

    fn range(&self, section: usize) -> std::ops::Range<usize> {
        let start = self.offset(section);
        start..start + self.u64(self.header(section) + 32) as usize
    }

    fn content(&self, section: usize) -> &[u8] {
        &self.bytes[self.range(section)]
    }

    fn name(&self, section: usize) -> &str {
        let names = self.offset(self.u16(NAMES_INDEX));
        self.text(names + self.u32(self.header(section)))
    }

    fn text(&self, at: usize) -> &str {
        let bytes = self.bytes[at..].split(|byte| *byte == 0).next().expect("at least one");
        str::from_utf8(bytes).expect("a name")
    }

    fn u16(&self, at: usize) -> usize {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().expect("two bytes")).into()
    }

    fn u32(&self, at: usize) -> usize {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes")) as usize
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    fn set_u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}
