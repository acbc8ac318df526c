//! The compiler for eBPF: a rustc that has the source of `core` beside it.
//!
//! The BPF target is built from source (`-Z build-std=core`), as no toolchain ships it ready-made.
//! rustup's `rust-src` component has that source, and so have Debian's `rust-web-src` package, which
//! comes with its own recent compiler in /usr/bin and leaves rustup's alone. They are looked for in
//! this order; a toolchain is never changed, only found or, from Debian, installed.
//!
//! Invariant: a [`Toolchain`] has source, a release that can build this workspace, and a libLLVM of
//! a major version that bpf-linker knows.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::command;

/// Oldest usable release: `rust-version` of the workspace.
const OLDEST_RELEASE: (u32, u32) = (1, 95);

/// LLVM majors for which the pinned bpf-linker has a feature.
const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// A compiler that can build the eBPF object.
pub struct Toolchain {
    /// `rustc` itself, no rustup proxy.
    pub rustc: PathBuf,
    /// The cargo of the same toolchain: `build-std` wants the two to agree.
    pub cargo: PathBuf,
    /// Major version of its LLVM.
    pub llvm_major: u32,
    /// The shared libLLVM that the linker must use too.
    pub llvm_library: PathBuf,
}

impl Toolchain {
    /// Whether it is the distribution's, and not rustup's.
    pub fn is_of_system(&self) -> bool {
        self.rustc == Path::new("/usr/bin/rustc")
    }
}

/// No compiler on this machine can build the eBPF object.
#[derive(Debug)]
pub struct NoToolchain {
    /// Compilers that have the source, and why each is of no use.
    refused: Vec<String>,
}

impl fmt::Display for NoToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no Rust toolchain with the source of core that eBPF is built from")?;
        for refused in &self.refused {
            write!(f, "; {refused}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoToolchain {}

/// Finds a usable toolchain among rustup's and the system's.
pub fn find() -> Result<Toolchain, NoToolchain> {
    let mut refused = Vec::new();
    for root in roots() {
        if !root.join("bin/rustc").is_file() || !has_source(&root) {
            continue;
        }
        match inspect(&root) {
            Ok(toolchain) => return Ok(toolchain),
            Err(error) => refused.push(format!("{} is of no use: {error:#}", root.display())),
        }
    }
    Err(NoToolchain { refused })
}

/// Folders with `bin/rustc`, in the order of preference: rustup's stable ones, as they are what this
/// tree is tested with, rustup's others, the system's.
fn roots() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup")));
    let mut roots: Vec<_> = home
        .and_then(|home| fs::read_dir(home.join("toolchains")).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    roots.sort_by_key(|root| (!root.to_string_lossy().contains("stable"), root.clone()));
    roots.extend(["/usr/local", "/usr"].map(PathBuf::from));
    roots
}

/// Whether the source of the standard library lies where cargo looks for it.
fn has_source(root: &Path) -> bool {
    root.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// Asks a compiler for its release and LLVM, and finds that LLVM's library.
fn inspect(root: &Path) -> anyhow::Result<Toolchain> {
    let rustc = root.join("bin/rustc");
    let cargo = root.join("bin/cargo");
    if !cargo.is_file() {
        bail!("it has no cargo beside it");
    }
    let mut question = Command::new(&rustc);
    command::isolate(&mut question);
    let version = command::output(question.arg("-vV"))?;
    let field = |name: &str| {
        version
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .with_context(|| format!("rustc -vV names no {name}"))
    };
    let release = field("release")?.to_owned();
    let [major, minor] = numbers(&release)?;
    if (major, minor) < OLDEST_RELEASE {
        bail!("rustc {release} is older than {}.{}", OLDEST_RELEASE.0, OLDEST_RELEASE.1);
    }
    let [llvm_major, _] = numbers(field("LLVM version")?)?;
    if !LLVM_MAJORS.contains(&llvm_major) {
        bail!("rustc {release} has LLVM {llvm_major}, bpf-linker takes {LLVM_MAJORS:?}");
    }
    let llvm_library = llvm_library(root, llvm_major)?;
    Ok(Toolchain { rustc, cargo, llvm_major, llvm_library })
}

/// The first two numbers of a version.
fn numbers(version: &str) -> anyhow::Result<[u32; 2]> {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok([major, minor]),
        _ => bail!("cannot read the version `{version}`"),
    }
}

/// The shared libLLVM that this rustc loads: in rustup's toolchain, or among the system's.
fn llvm_library(root: &Path, major: u32) -> anyhow::Result<PathBuf> {
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    let folders = [root.join("lib"), root.join(multiarch), root.join("lib64")];
    let start = format!("libLLVM.so.{major}");
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut libraries: Vec<_> = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| {
            file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .collect();
    libraries.sort();
    libraries.into_iter().next().with_context(|| {
        format!(
            "no shared libLLVM {major} in {}",
            folders.map(|f| f.display().to_string()).join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn release_of_a_nightly_has_two_numbers() {
        assert_eq!(numbers("1.97.0-nightly").unwrap(), [1, 97]);
        assert_eq!(numbers("22.1.8").unwrap(), [22, 1]);
    }

    #[test]
    fn text_without_numbers_is_no_version() {
        assert!(numbers("unknown").is_err());
        assert!(numbers("22").is_err());
    }
}
