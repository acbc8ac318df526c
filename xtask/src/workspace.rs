//! Where things lie in the tree.
//!
//! Invariant: tools that take minutes to build are outside of `target/`, so `cargo clean` keeps
//! them; the eBPF object has one path, whatever `CARGO_TARGET_DIR` says, because the build script
//! of `nat-ctl` looks for it there.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The tree that this program was compiled in.
pub struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace around this crate. `CARGO_MANIFEST_DIR` is asked at run time first, so that a
    /// tree that was moved or copied together with its `target/` doesn't work on the old one.
    pub fn here() -> Self {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        Self { root }
    }

    /// Top of the tree: the folder of the workspace's `Cargo.toml`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Tools built for this tree only; ignored by git, kept by `cargo clean`.
    pub fn tools(&self) -> PathBuf {
        self.root.join(".tools")
    }

    /// Cargo's target folder for the eBPF object: its own, so that no lock is shared with host
    /// builds and nothing of theirs is rebuilt.
    pub fn bpf_target(&self) -> PathBuf {
        self.root.join("target/bpf/build")
    }

    /// The object that `nat-ctl` includes.
    pub fn bpf_object(&self) -> PathBuf {
        self.root.join("target/bpf/nat-ebpf.o")
    }

    /// The programs of the bench itself.
    pub fn bench_object(&self) -> PathBuf {
        self.root.join("target/bpf/nat-bench.o")
    }

    /// Those of its programs that work on the maps of a gateway; the bench looks for them beside the
    /// others.
    pub fn probe_object(&self) -> PathBuf {
        self.root.join("target/bpf/nat-probe.o")
    }

    /// The agent, as built by `cargo build --release`.
    pub fn agent(&self) -> PathBuf {
        self.target().join("release/nat-ctl")
    }

    /// The lab, as built by `cargo build`.
    pub fn lab(&self) -> PathBuf {
        self.target().join("debug/nat-tests")
    }

    /// Cargo's target folder.
    fn target(&self) -> PathBuf {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        self.root.join(target)
    }
}
