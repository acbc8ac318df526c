//! The guest's file system: agent, lab, what they call, modules, and the scripts that start them.
//!
//! Invariant: every program of the host comes with its libraries; busybox stands in only for what
//! no program of the host does, by links to its name. The first process is bash, as busybox's shell
//! prefers its own `ip` to the one on the PATH.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{Options, archive::Archive, closure, modules, supplies::Supplies};
use crate::{command, workspace::Workspace};

/// Programs that are taken from this machine.
const PROGRAMS: [&str; 14] = [
    "bash",
    "bpftool",
    "curl",
    "ethtool",
    "ip",
    "lftp",
    "nft",
    "nsenter",
    "pure-ftpd",
    "setpriv",
    "tc",
    "tcpdump",
    "timeout",
    "vsftpd",
];

/// What busybox does in the guest.
const APPLETS: [&str; 18] = [
    "cat", "cmp", "dmesg", "grep", "head", "insmod", "kill", "ls", "mkdir", "mount", "ping",
    "poweroff", "rm", "sed", "sleep", "tail", "uname", "wc",
];

/// Modules: pairs of devices, hooks, bad lines, NICs with native XDP, VLANs, bonds and tunnels. BPF
/// itself is built in.
const MODULES: [&str; 11] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "sch_netem",
    "virtio_pci",
    "virtio_net",
    "af_packet",
    "8021q",
    "bonding",
    "ipip",
    "wireguard",
];

/// Servers run as users with less rights, and pure-ftpd asks for one of its own.
const USERS: &str = "root:x:0:0::/root:/bin/bash\ndaemon:x:1:1::/tmp:/bin/bash\n\
                     ftp:x:100:65534::/tmp:/bin/bash\nnobody:x:65534:65534::/:/bin/bash\n";
const GROUPS: &str = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n";

/// Packs the file system and gives back the archive's path.
pub fn pack(
    workspace: &Workspace,
    supplies: &Supplies,
    options: &Options,
) -> anyhow::Result<PathBuf> {
    let mut image = Image(Archive::default());
    for folder in ["dev", "proc", "sys", "tmp", "run", "root", "srv", "modules", "lib64"] {
        image.0.folder(folder);
    }
    image.0.file("init", include_bytes!("guest/init.sh"));
    image.0.file("checks/nics", include_bytes!("guest/nics.sh"));
    image.0.file("filter", options.filter.as_bytes());
    image.0.file("etc/passwd", USERS.as_bytes());
    image.0.file("etc/group", GROUPS.as_bytes());
    image.copy("bin/busybox", &supplies.busybox())?;
    for applet in APPLETS {
        image.0.link(&format!("bin/{applet}"), "busybox");
    }
    image.0.link("bin/sh", "bash");
    for program in PROGRAMS {
        let file = command::find(program).with_context(|| format!("cannot find {program}"))?;
        image.program(program, &file)?;
    }
    image.program("wg", &supplies.wireguard())?;
    image.program("nat-ctl", &workspace.agent())?;
    image.program("nat-tests", &workspace.lab())?;
    let files = modules::closure(&supplies.modules(), &MODULES)?;
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // By number, as the guest inserts them in the order of their names.
        image.copy(&format!("modules/{number:02}-{name}"), file)?;
    }
    write(workspace, &image.0.finish())
}

struct Image(Archive);

impl Image {
    /// A program of the host, in the one folder that the guest's PATH names.
    fn program(&mut self, name: &str, file: &Path) -> anyhow::Result<()> {
        self.copy(&format!("bin/{name}"), file)?;
        for library in closure::libraries(file)? {
            let name = library.trim_start_matches('/');
            if !self.0.has(name) {
                self.copy(name, Path::new(&library))?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, name: &str, file: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.0.file(name, &bytes);
        Ok(())
    }
}

fn write(workspace: &Workspace, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = workspace.root().join("target/vm");
    let file = folder.join("initramfs.cpio");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, bytes))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
