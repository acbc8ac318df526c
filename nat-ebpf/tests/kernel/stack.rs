//! How deep the frames of a program and of what it calls are together, as the strictest kernel counts
//! them: a program that this kernel takes must not fail on that one.

use crate::{
    counted::elf::{self, Function},
    lab,
};

/// `MAX_BPF_STACK` of include/linux/filter.h.
const STACK: u32 = 512;
/// What `check_max_stack_depth` of kernel/bpf/verifier.c rounds each frame up to; less where the JIT
/// compiler knows frames of its own (from 6.9 on).
const ROUNDING: u32 = 32;
/// As many calls follow each other (`MAX_CALL_FRAMES`).
const CALLS: usize = 8;

/// Bytes of a frame. Instructions are read in their order, so a copy of the frame pointer that another
/// path has made may count too: never too little.
fn frame(function: &Function) -> u32 {
    let mut copies = 0;
    let deepest = function.code.iter().map(|it| it.reaches(&mut copies)).min().unwrap_or(0);
    u32::from(deepest.unsigned_abs()).max(1).next_multiple_of(ROUNDING)
}

/// The deepest way down from a function, and its frames.
fn deepest(functions: &[Function], at: usize, calls: usize) -> (u32, String) {
    assert!(calls <= CALLS, "{} calls itself", functions[at].name);
    let function = &functions[at];
    let below = function.calls.iter().map(|call| deepest(functions, *call, calls + 1)).max();
    let (rest, names) = below.unwrap_or_default();
    let own = frame(function);
    (own + rest, format!("{} {own} {names}", function.name))
}

#[test]
fn frames_fit_the_stack_of_the_strictest_kernel() {
    lab::run("frames_fit_the_stack_of_the_strictest_kernel", |object| {
        let functions = elf::functions(&object);
        let named = |name: &str| functions.iter().position(|function| function.name == name);
        assert!(functions[named("tc_inside_rare").expect("a program")].calls.len() > 2);
        assert!(frame(&functions[named("nat_find").expect("a function")]) >= ROUNDING);
        for at in 0..functions.len() {
            let (depth, names) = deepest(&functions, at, 1);
            println!("{depth} {names}");
            assert!(depth <= STACK, "{depth} bytes of stack: {names}");
        }
    });
}
