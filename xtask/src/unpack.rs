//! Packages that are unpacked into the tools folder instead of installed: servers that would start,
//! emulators that would push out others, kernels that would become the one to boot.
//!
//! Invariant: what was downloaded is gone once it is unpacked, so a folder that is there is from a
//! run that was killed, and is emptied first.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{apt::Apt, command};

/// Files of packages, in a folder of their own.
pub struct Downloads {
    folder: PathBuf,
}

impl Downloads {
    /// Downloads packages by name, below the folder that they will be unpacked into.
    pub fn of<S: AsRef<str>>(apt: &mut Apt, names: &[S], target: &Path) -> anyhow::Result<Self> {
        let folder = target.join("download");
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
            }
            _ => {}
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
        apt.download(&names, &folder)?;
        Ok(Self { folder })
    }

    /// What the packages depend on, in the words of their control files.
    pub fn depends(&self) -> anyhow::Result<String> {
        let ask = |package| {
            command::output(Command::new("dpkg-deb").arg("-f").arg(package).arg("Depends"))
                .map(|depends| depends.trim().to_owned())
        };
        Ok(self.packages()?.iter().map(ask).collect::<Result<Vec<_>, _>>()?.join(", "))
    }

    /// Unpacks them and removes the downloads.
    pub fn unpack(self, target: &Path) -> anyhow::Result<()> {
        for package in self.packages()? {
            command::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(target))?;
        }
        let folder = &self.folder;
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    fn packages(&self) -> anyhow::Result<Vec<PathBuf>> {
        let folder = &self.folder;
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.with_context(|| format!("cannot list {}", folder.display()))?;
        if entries.is_empty() {
            bail!("apt-get has put nothing into {}", folder.display());
        }
        Ok(entries.iter().map(fs::DirEntry::path).collect())
    }
}
