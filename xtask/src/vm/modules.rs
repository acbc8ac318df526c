//! Modules of the guest's kernel, and those that they need.
//!
//! The names are read from the modules themselves (`depends=` in their section `.modinfo`), so
//! neither depmod here nor modprobe there is needed.
//!
//! Invariant: a module stands behind all that it depends on, so that each can be inserted by itself
//! in this order.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Files of the modules of `wanted` and of what they need, in the order of insertion; one that is
/// built into the kernel has none.
pub fn closure(folder: &Path, wanted: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = BTreeMap::new();
    collect(&folder.join("kernel"), &mut files)?;
    let list = folder.join("modules.builtin");
    let builtin = fs::read_to_string(&list)
        .with_context(|| format!("cannot read {}", list.display()))?
        .lines()
        .map(|line| name(Path::new(line)))
        .collect();
    let mut search = Search { files, builtin, found: vec![] };
    wanted.iter().try_for_each(|module| search.visit(module))?;
    Ok(search.found)
}

struct Search {
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
    found: Vec<PathBuf>,
}

impl Search {
    /// Depth first; modules depend on each other without circles.
    fn visit(&mut self, module: &str) -> anyhow::Result<()> {
        if self.builtin.iter().any(|name| name == module) {
            return Ok(());
        }
        let file = self.files.get(module);
        let file = file.with_context(|| format!("this kernel has no module {module}"))?.clone();
        if self.found.contains(&file) {
            return Ok(());
        }
        let bytes =
            fs::read(&file).with_context(|| format!("cannot read module {}", file.display()))?;
        depends(&bytes).iter().try_for_each(|needed| self.visit(needed))?;
        self.found.push(file);
        Ok(())
    }
}

/// Files of modules below a folder, by name.
fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let context = || format!("cannot list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            files.insert(name(&path), path);
        }
    }
    Ok(())
}

/// A module's name from its file's: the kernel takes `-` and `_` for the same.
fn name(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

/// What a module says that it depends on.
fn depends(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|part| part == FIELD) else {
        return vec![];
    };
    let value = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).replace('-', "_");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_a_module() {
        assert_eq!(depends(b"x\0depends=virtio,net-failover\0y"), ["virtio", "net_failover"]);
        assert!(depends(b"x\0depends=\0y").is_empty());
        assert!(depends(b"nothing").is_empty());
    }
}
