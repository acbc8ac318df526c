//! What the guest is made of that the host has no use for: emulator, kernel, busybox, wg.
//!
//! All of it is unpacked, not installed: a kernel package would change what the host boots next, the
//! emulator's package pushes other ones out, and busybox-static excludes busybox.
//!
//! Invariant: the stamp is written last, so a folder has all packages that its stamp names.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, bail};

use crate::{apt::Apt, unpack::Downloads, workspace::Workspace};

/// Debian's kernel for guests; depends on the package of the release that is current.
const KERNEL: &str = "linux-image-cloud-amd64";
/// The emulator, the programs of the guest's first process, and `wg`.
const PROGRAMS: [&str; 3] = ["qemu-system-x86", "busybox-static", "wireguard-tools"];

/// Where the unpacked packages are.
pub struct Supplies {
    root: PathBuf,
    /// Release of the kernel, as `uname -r` names it.
    pub release: String,
}

/// Downloads and unpacks what is missing.
pub fn ensure(workspace: &Workspace, apt: &mut Apt) -> anyhow::Result<()> {
    let (root, stamp) = (root(workspace), stamp(workspace));
    let unpacked = fs::read_to_string(&stamp).unwrap_or_default();
    let missing = missing(&unpacked);
    let has_kernel = unpacked.lines().any(is_kernel);
    if missing.is_empty() && has_kernel {
        return Ok(());
    }
    if !Apt::is_here() {
        bail!("the guest is made of Debian's packages, and there is no apt-get on this machine");
    }
    // A program that the host has installed is wanted here all the same.
    let mut names = apt.closure(&missing)?;
    names.extend(missing.into_iter().map(str::to_owned));
    if !has_kernel {
        let meta = Downloads::of(apt, &[KERNEL], &root)?;
        names.push(image_package(&meta.depends()?)?.to_owned());
        meta.unpack(&root)?;
    }
    names.retain(|name| !unpacked.lines().any(|line| line == name));
    names.sort();
    names.dedup();
    Downloads::of(apt, &names, &root)?.unpack(&root)?;
    let all: Vec<_> = unpacked.lines().chain(names.iter().map(String::as_str)).collect();
    fs::write(&stamp, all.join("\n")).with_context(|| format!("cannot write {}", stamp.display()))
}

/// What [`ensure`] has unpacked.
pub fn find(workspace: &Workspace) -> anyhow::Result<Supplies> {
    let root = root(workspace);
    let modules = root.join("lib/modules");
    let first = fs::read_dir(&modules)
        .with_context(|| format!("cannot list {}", modules.display()))?
        .next();
    let entry = first.with_context(|| format!("{} is empty: remove it", modules.display()))?;
    let name = entry.with_context(|| format!("cannot list {}", modules.display()))?.file_name();
    Ok(Supplies { root, release: name.to_string_lossy().into_owned() })
}

impl Supplies {
    /// The kernel's image.
    pub fn kernel(&self) -> PathBuf {
        self.root.join(format!("boot/vmlinuz-{}", self.release))
    }

    /// Folder of the kernel's modules.
    pub fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// The busybox that needs no library.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// The program that gives WireGuard interfaces their keys and peers.
    pub fn wireguard(&self) -> PathBuf {
        self.root.join("usr/bin/wg")
    }

    /// The emulator, told where its libraries, modules and firmware are.
    pub fn emulator(&self) -> Command {
        let unpacked = |folder: &str| self.root.join(folder);
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(unpacked);
        let joined = libraries.each_ref().map(|folder| folder.display().to_string()).join(":");
        let mut emulator = Command::new(unpacked("usr/bin/qemu-system-x86_64"));
        emulator
            .env("LD_LIBRARY_PATH", joined)
            .env("QEMU_MODULE_DIR", unpacked("usr/lib/x86_64-linux-gnu/qemu"));
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            emulator.arg("-L").arg(unpacked(folder));
        }
        emulator
    }
}

fn root(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("vm")
}

fn stamp(workspace: &Workspace) -> PathBuf {
    root(workspace).join("stamp")
}

/// Those of [`PROGRAMS`] that a stamp does not name.
fn missing(stamp: &str) -> Vec<&'static str> {
    PROGRAMS.into_iter().filter(|name| !stamp.lines().any(|line| line == *name)).collect()
}

/// Whether a package is a kernel.
fn is_kernel(name: &str) -> bool {
    name.starts_with("linux-image-")
}

/// The package of the kernel itself, from what the one without a version depends on.
fn image_package(depends: &str) -> anyhow::Result<&str> {
    let names = depends.split([',', '|']).filter_map(|name| name.split_whitespace().next());
    let mut images = names.filter(|name| is_kernel(name));
    images.next().with_context(|| format!("{KERNEL} depends on no kernel: {depends}"))
}

#[cfg(test)]
mod tests {
    use super::{image_package, missing};

    #[test]
    fn a_folder_of_an_older_list_lacks_what_is_new_on_it() {
        assert_eq!(missing("busybox-static\nqemu-system-x86"), ["wireguard-tools"]);
        assert_eq!(missing("").len(), 3);
    }

    #[test]
    fn the_kernel_is_found_among_dependencies() {
        let depends = "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)";
        assert_eq!(image_package(depends).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert!(image_package("kmod").is_err());
    }
}
