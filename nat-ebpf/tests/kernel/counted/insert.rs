//! Where counting goes: into each block, where a register holds nothing that is read again.

use super::{
    Executed,
    code::{ALL, Instruction, Next, Registers},
};
use std::collections::BTreeSet;

/// Kept on the stack where all are in use. No call takes it, so it is surely in use then, and written.
const KEPT: u8 = 9;

/// The counted instructions of a section, and where those have gone that stood there before.
pub struct Counted {
    pub code: Vec<Instruction>,
    /// New places of the old ones and of the section's end.
    pub moved: Vec<usize>,
    /// The same with what was inserted before each: where whoever goes there has to go now.
    pub entries: Vec<usize>,
}

/// Counts in `code`, in which functions begin at `starts`, by adding to the words of `map` that
/// `word_of` gives for each size of a block.
pub fn counts(
    code: &[Instruction],
    starts: &BTreeSet<usize>,
    map: i32,
    word_of: &mut dyn FnMut(Executed) -> usize,
) -> Counted {
    let halves = halves(code);
    let live = live(code, &halves);
    let mut inserted: Vec<Vec<Instruction>> = vec![Vec::new(); code.len()];
    let mut leaders: Vec<usize> = leaders(code, starts).into_iter().collect();
    leaders.push(code.len());
    for block in leaders.windows(2).map(|ends| ends[0]..ends[1]) {
        let whole = block.clone().filter(|at| !halves[*at]);
        let size = Executed {
            instructions: whole.clone().count() as u64,
            calls: block.clone().filter(|at| code[*at].is_helper_call()).count() as u64,
        };
        let (place, free) = whole
            .map(|at| (at, ALL & !live[at]))
            .find(|(_, free)| *free != 0)
            .unwrap_or((block.start, 0));
        let before = &mut inserted[place];
        let register = if free == 0 { KEPT } else { free.trailing_zeros() as u8 };
        let below = depth(code, &halves, starts, place) - 8;
        if free == 0 {
            assert!(live[place] & 1 << KEPT != 0);
            before.push(Instruction::keep(register, below));
        }
        if starts.contains(&block.start) {
            before.extend(Instruction::address(map, 0, register));
            before.push(Instruction::store_itself(register));
        }
        before.extend(Instruction::address(map, word_of(size), register));
        before.push(Instruction::add_itself(register));
        if free == 0 {
            before.push(Instruction::take_back(register, below));
        }
    }
    assemble(code, &halves, &inserted)
}

/// Where the stack of the function ends that has this place: a multiple of eight.
fn depth(code: &[Instruction], halves: &[bool], starts: &BTreeSet<usize>, at: usize) -> i16 {
    let first = starts.range(..=at).next_back().copied().unwrap_or(0);
    let end = starts.range(at + 1..).next().copied().unwrap_or(code.len());
    let depths = (first..end).filter(|at| !halves[*at]).map(|at| code[at].depth());
    depths.min().unwrap_or(0).div_euclid(8) * 8
}

/// The code with what was inserted, its jumps led to where their targets are.
fn assemble(code: &[Instruction], halves: &[bool], inserted: &[Vec<Instruction>]) -> Counted {
    let (mut all, mut moved, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for (instruction, before) in code.iter().zip(inserted) {
        entries.push(all.len());
        all.extend(before);
        moved.push(all.len());
        all.push(*instruction);
    }
    entries.push(all.len());
    moved.push(all.len());
    for at in (0..code.len()).filter(|at| !halves[*at]) {
        if let Next::Jump(off) | Next::Either(off) = code[at].next() {
            let distance = entries[target(at, off)] as isize - moved[at] as isize - 1;
            all[moved[at]].off = distance.try_into().expect("jumps reach so far");
        }
    }
    Counted { code: all, moved, entries }
}

/// Which places are the second half of an instruction.
fn halves(code: &[Instruction]) -> Vec<bool> {
    let mut halves = vec![false; code.len()];
    for at in 1..code.len() {
        halves[at] = code[at - 1].is_wide() && !halves[at - 1];
    }
    halves
}

/// Where blocks begin.
fn leaders(code: &[Instruction], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut leaders = starts.clone();
    leaders.insert(0);
    for (at, instruction) in code.iter().enumerate() {
        match instruction.next() {
            Next::Following => continue,
            Next::Jump(off) | Next::Either(off) => {
                leaders.insert(target(at, off));
            }
            Next::End | Next::Ended => {}
        }
        leaders.insert(at + 1);
    }
    leaders.remove(&code.len());
    leaders
}

/// For each place the registers that are read later on before they are written.
fn live(code: &[Instruction], halves: &[bool]) -> Vec<Registers> {
    let mut live = vec![0; code.len() + 1];
    loop {
        let mut changed = false;
        for at in (0..code.len()).rev() {
            let instruction = code[at];
            let before = if halves[at] {
                live[at + 1]
            } else {
                let after = match instruction.next() {
                    Next::Following | Next::End => live[at + 1],
                    Next::Jump(off) => live[target(at, off)],
                    Next::Either(off) => live[at + 1] | live[target(at, off)],
                    Next::Ended => 0,
                };
                after & !instruction.writes() | instruction.reads()
            };
            changed |= before != live[at];
            live[at] = before;
        }
        if !changed {
            return live;
        }
    }
}

fn target(at: usize, off: i16) -> usize {
    (at + 1).checked_add_signed(off.into()).expect("a jump inside the section")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// r0 = 0; r1 = 3; again: r0 += r1; r1 -= 1; if r1 != 0 goto again; exit
    const LOOP: [[u8; 8]; 6] = [
        [0xb7, 0, 0, 0, 0, 0, 0, 0],
        [0xb7, 1, 0, 0, 3, 0, 0, 0],
        [0x0f, 0x10, 0, 0, 0, 0, 0, 0],
        [0x17, 1, 0, 0, 1, 0, 0, 0],
        [0x55, 1, 0xfd, 0xff, 0, 0, 0, 0],
        [0x95, 0, 0, 0, 0, 0, 0, 0],
    ];

    #[test]
    fn each_turn_of_a_loop_is_counted_and_no_value_is_lost() {
        let code = LOOP.map(|bytes| Instruction::decode(&bytes));
        assert_eq!(code.map(Instruction::encode), LOOP);
        let mut sizes = Vec::new();
        let mut word_of = |size: Executed| {
            sizes.push(size.instructions);
            sizes.len()
        };
        let counted = counts(&code, &BTreeSet::from([0]), 7, &mut word_of);
        // Each before its first instruction, and before the first one the address as well.
        assert_eq!(sizes, [2, 3, 1]);
        for (number, at) in [0, 2, 5].into_iter().enumerate() {
            let [load, offset, add] = counted.code[counted.moved[at] - 3..][..3] else {
                unreachable!()
            };
            assert_eq!((load.imm, offset.imm), (7, 8 * (number as i32 + 1)));
            assert_eq!((add.dst, add.src), (load.dst, load.dst));
            let own = if number == 0 { 6 } else { 3 };
            assert_eq!(counted.moved[at] - counted.entries[at], own);
        }
        assert_eq!(counted.code.len(), code.len() + 12);
        let turn = counted.code[counted.entries[2]];
        assert!(turn.dst > 1, "r0 and r1 are in use: {turn:?}");
        let jump = counted.moved[4];
        assert_eq!(target(jump, counted.code[jump].off), counted.entries[2]);
    }
}
