//! bpf-linker, built once for this tree.
//!
//! It has to use the same LLVM as the compiler whose bitcode it links, and the plainest way to that
//! is the very library which the compiler loads: no LLVM development package (0.7 GB) is needed, as
//! bpf-linker's build asks for nothing but a folder with a `lib/libLLVM.so`.
//!
//! Invariant: a linker whose library was since replaced is not used but built anew. The stamp beside
//! it names the version, and the library's path, size and time.

use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, bail};

use crate::{command, toolchain::Toolchain, workspace::Workspace};

/// The release that this tree was tested with.
const VERSION: &str = "0.13.0";

/// Where the linker is, whether it was built yet or not.
pub fn path(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/bpf-linker")
}

/// Builds the linker unless the one that is there fits the toolchain.
pub fn ensure(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    let stamp_file = workspace.tools().join("bpf-linker.stamp");
    let stamp = stamp(&toolchain.llvm_library)?;
    let known = fs::read_to_string(&stamp_file).unwrap_or_default();
    if path(workspace).is_file() && known == stamp {
        return Ok(());
    }
    eprintln!(
        "xtask: building bpf-linker {VERSION} for LLVM {} (1-2 minutes)",
        toolchain.llvm_major
    );
    install(workspace, toolchain)?;
    fs::write(&stamp_file, stamp).with_context(|| format!("cannot write {}", stamp_file.display()))
}

/// What the linker depends on, as text to compare.
fn stamp(library: &Path) -> anyhow::Result<String> {
    let describe = || format!("cannot read the time of {}", library.display());
    let file = fs::metadata(library).with_context(describe)?;
    let time = file.modified().with_context(describe)?.duration_since(UNIX_EPOCH)?.as_secs();
    Ok(format!("bpf-linker {VERSION}\n{}\n{} bytes\n{time}\n", library.display(), file.len()))
}

/// `cargo install` into the tools folder, with the toolchain's own libLLVM as the only LLVM.
fn install(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    let prefix = workspace.tools().join("llvm");
    let folder = prefix.join("lib");
    let link = folder.join("libLLVM.so");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if link.is_symlink() {
        fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
    }
    symlink(&toolchain.llvm_library, &link)
        .with_context(|| format!("cannot make the link {}", link.display()))?;

    let Some(library_folder) = toolchain.llvm_library.parent() else {
        bail!("{} is in no folder", toolchain.llvm_library.display());
    };
    let mut flags = b"-L\x1f".to_vec();
    flags.extend(folder.as_os_str().as_bytes());
    flags.extend(b"\x1f-Clink-arg=-Wl,-rpath,");
    flags.extend(library_folder.as_os_str().as_bytes());

    let target = workspace.tools().join("build");
    let mut install = command::cargo();
    install
        .args(["install", "bpf-linker", "--quiet", "--locked", "--force", "--version", VERSION])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{}", toolchain.llvm_major))
        .arg("--root")
        .arg(workspace.tools())
        .arg("--target-dir")
        .arg(&target)
        .env("LLVM_PREFIX", &prefix)
        .env("LIBRARY_PATH", &folder)
        .env("CARGO_ENCODED_RUSTFLAGS", std::ffi::OsStr::from_bytes(&flags))
        .current_dir(workspace.tools());
    command::run(&mut install)?;
    fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))
}
