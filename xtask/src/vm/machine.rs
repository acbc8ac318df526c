//! The emulated machine, seen through its serial console.
//!
//! Invariant: it ends with this function: by itself, or killed at the deadline or on an error.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::supplies::Supplies;

/// A NIC of the guest: its hub, which is one network segment, and the last byte of its address.
struct Nic {
    hub: u32,
    address: u32,
}

/// Client and gateway's LAN on one hub, gateway's WAN and server on the other, and there a second NIC
/// for the WAN (`guest/nics.sh`).
const NICS: [Nic; 5] = [
    Nic { hub: 0, address: 1 },
    Nic { hub: 0, address: 2 },
    Nic { hub: 1, address: 3 },
    Nic { hub: 1, address: 4 },
    Nic { hub: 1, address: 5 },
];

/// Emulated in software: KVM is there on too few of the machines that run checks, and fails after it
/// was chosen where it is nested badly. No display, no monitor, the console on our pipe.
///
/// A kernel copies and clears memory by `rep movsb` and `rep stosb` where the processor says that
/// these are fast (`erms`, `fsrm`). The emulator goes through them byte by byte, and the verifier does
/// little else than to copy its states.
const MACHINE: &str = "-machine q35 -accel tcg,thread=multi -cpu max,-erms,-fsrm -smp 2 -m 1536 \
                       -nodefaults -display none -serial stdio -no-reboot -nic none";

/// `panic=-1` ends the machine when the kernel gives up. Without `rep_good`, which a kernel finds out
/// by itself, it copies by plain moves (arch/x86/lib/memcpy_64.S).
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet loglevel=4 panic=-1 clearcpuid=rep_good";

/// Boots a kernel with a file system, hands each line of its console on, and waits for its end.
pub fn run(
    supplies: &Supplies,
    image: &Path,
    deadline: Duration,
    mut line: impl FnMut(&str),
) -> anyhow::Result<()> {
    let end = Instant::now() + deadline;
    let mut emulator = supplies.emulator();
    emulator.args(MACHINE.split_whitespace());
    emulator.arg("-kernel").arg(supplies.kernel()).arg("-initrd").arg(image);
    emulator.args(["-append", KERNEL_OPTIONS]);
    for (number, Nic { hub, address }) in NICS.iter().enumerate() {
        let name = format!("n{number}");
        emulator.args(["-netdev", &format!("hubport,id={name},hubid={hub}")]);
        let mac = format!("02:00:00:00:00:{address:02x}");
        emulator.args(["-device", &format!("virtio-net-pci,netdev={name},mac={mac},romfile=")]);
    }
    let child = emulator.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut guard = Guard(child.context("cannot start qemu-system-x86_64")?);
    let console = guard.0.stdout.take().context("the emulator has no console")?;
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut bytes = vec![];
        // An error is the end of the console like its end itself; who reads looks for verdicts.
        while console.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if send.send(text).is_err() {
                return;
            }
        }
    });
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                bail!("the guest has not ended within {} s and was killed", deadline.as_secs());
            }
        }
    }
    let status = guard.0.wait().context("cannot wait for qemu-system-x86_64")?;
    if !status.success() {
        bail!("qemu-system-x86_64 failed ({status}), see its output above");
    }
    Ok(())
}

/// Kills the emulator unless it has ended.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // One that has ended is no error, and there is nothing to do about another one.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
