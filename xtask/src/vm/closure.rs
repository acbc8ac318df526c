//! A program with the libraries that it needs, as the dynamic linker of this machine names them.
//!
//! Invariant: a library keeps its path, so the guest's linker finds it where this one did.

use std::{path::Path, process::Command};

use crate::command;

/// Paths of the libraries of a program, its linker included; none for a static one.
pub fn libraries(program: &Path) -> anyhow::Result<Vec<String>> {
    // ldd fails on a program without libraries; that the program is there was seen before.
    let mut ldd = Command::new("ldd");
    Ok(command::output(ldd.arg(program)).map(|text| paths(&text)).unwrap_or_default())
}

/// Either `name => path (address)` or `path (address)`; `linux-vdso.so.1` is no file.
fn paths(text: &str) -> Vec<String> {
    let words = text.lines().filter_map(|line| {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        path.split_whitespace().next()
    });
    words.filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::paths;

    #[test]
    fn files_are_taken_from_the_linkers_list() {
        let text = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(paths(text), ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
