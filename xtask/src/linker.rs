//! bpf-linker, built once for this tree.
//!
//! It has to use the same LLVM as the compiler whose bitcode it links, and the plainest way to that
//! is the very library which the compiler loads: no LLVM development package (0.7 GB) is needed, as
//! bpf-linker's build asks for nothing but a folder with a `lib/libLLVM.so`.
//!
//! Invariant: a linker whose library was since replaced is not used but built anew; its stamp names
//! the library's path, size and time.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::Context;

use crate::{tool::Tool, toolchain::Toolchain, workspace::Workspace};

const NAME: &str = "bpf-linker";
const VERSION: &str = "0.13.0";

/// Where the linker is, whether it was built yet or not.
pub fn path(workspace: &Workspace) -> PathBuf {
    Tool::path(workspace, NAME)
}

/// Builds the linker unless the one that is there fits the toolchain.
pub fn ensure(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    let library = &toolchain.llvm_library;
    let prefix = workspace.tools().join("llvm");
    let folder = link_folder(&prefix, library)?;
    let mut flags = OsString::from("-L\x1f");
    flags.push(&folder);
    flags.push("\x1f-Clink-arg=-Wl,-rpath,");
    flags.push(library.parent().unwrap_or(Path::new("/")));
    let linker = Tool {
        name: NAME,
        version: VERSION,
        features: Some(format!("llvm-{}", toolchain.llvm_major)),
        depends_on: describe(library)?,
        environment: vec![
            ("LLVM_PREFIX", prefix.into()),
            ("LIBRARY_PATH", folder.into()),
            ("CARGO_ENCODED_RUSTFLAGS", flags),
        ],
        duration: "1-2 minutes",
        is_urgent: true,
    };
    linker.ensure(workspace)
}

/// Makes `PREFIX/lib/libLLVM.so` point to the toolchain's library.
fn link_folder(prefix: &Path, library: &Path) -> anyhow::Result<PathBuf> {
    let folder = prefix.join("lib");
    let link = folder.join("libLLVM.so");
    if fs::read_link(&link).is_ok_and(|known| known == library) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)
        .and_then(|()| if link.is_symlink() { fs::remove_file(&link) } else { Ok(()) })
        .and_then(|()| symlink(library, &link))
        .with_context(|| format!("cannot make the link {}", link.display()))?;
    Ok(folder)
}

/// What tells one build of a library from another.
fn describe(library: &Path) -> anyhow::Result<String> {
    let context = || format!("cannot read size and time of {}", library.display());
    let file = fs::metadata(library).with_context(context)?;
    let time = file.modified().with_context(context)?.duration_since(UNIX_EPOCH)?.as_secs();
    Ok(format!("{}\n{} bytes\n{time}\n", library.display(), file.len()))
}
