//! The folder in bpffs where maps and links of an instance are pinned.
//!
//! Invariant: what is pinned there has the layout of this version, or nothing is touched. The
//! version is written last when the maps are made, so that half-made maps are told from whole ones.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapInfo};
use nat_common::layout;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::error::{PlaneError, Result};
use super::grow::tables;
use super::object::Sizes;
use crate::options::Instance;

/// What is pinned for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// Nothing.
    Nothing,
    /// Maps whose making was not completed: no program can use them yet.
    Partly,
    /// Maps of this version.
    Whole,
}

/// Mounts bpffs where it isn't mounted.
///
/// # Errors
/// Where mounting is not permitted.
pub fn mount_bpffs() -> Result<()> {
    let path = Path::new(layout::BPFFS);
    match statfs(path) {
        Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => return Ok(()),
        Ok(_) | Err(_) => {}
    }
    fs::create_dir_all(path).map_err(PlaneError::file("make the folder", path))?;
    mount(Some("bpf"), path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
        .map_err(PlaneError::refused(format!("mount bpffs at {}", path.display())))
}

/// Makes the folders of an instance.
///
/// # Errors
/// Where bpffs does not let us.
pub fn make(instance: &Instance) -> Result<()> {
    let links = links(instance);
    fs::create_dir_all(&links).map_err(PlaneError::file("make the folder", links))
}

/// Folder of the pinned links.
pub fn links(instance: &Instance) -> PathBuf {
    instance.pins().join("links")
}

/// Which map pins there are, and whether they can be taken over.
///
/// # Errors
/// [`PlaneError::Conflict`] for a layout of another version.
pub fn look(instance: &Instance) -> Result<Pinned> {
    let pins = instance.pins();
    let any = super::maps::NAMES.iter().any(|name| pins.join(name).exists());
    if !any {
        return Ok(Pinned::Nothing);
    }
    let path = pins.join("layout");
    if !path.exists() {
        return Ok(Pinned::Partly);
    }
    let what = format!("read the version of the layout in {}", path.display());
    let data = MapData::from_pin(&path).map_err(PlaneError::refused(&what))?;
    let map: Array<_, u32> = Map::Array(data).try_into().map_err(PlaneError::refused(&what))?;
    match map.get(&0, 0).map_err(PlaneError::refused(&what))? {
        0 => Ok(Pinned::Partly),
        layout::VERSION => Ok(Pinned::Whole),
        other => Err(PlaneError::Conflict(format!(
            "take over instance '{instance}': its maps have layout {other}, this binary has {}: \
             remove them with `nat-ctl --instance {instance} down` first",
            layout::VERSION
        ))),
    }
}

/// Whether the pinned maps have the sizes that are wanted now; the flow table may yet have to grow.
///
/// # Errors
/// [`PlaneError::Conflict`] names the map that has another size.
pub fn check_sizes(instance: &Instance, sizes: &Sizes) -> Result<()> {
    for (name, wanted) in sizes.each() {
        let path = instance.pins().join(name);
        let info = MapInfo::from_pin(&path)
            .map_err(PlaneError::refused(format!("read the size of {}", path.display())))?;
        let found = info.max_entries();
        let may_grow = name == tables::NOW && found < wanted;
        if found != wanted && !may_grow {
            return Err(PlaneError::Conflict(format!(
                "take over instance '{instance}': its map {name} has {found} entries and the \
                 configuration asks for {wanted}: put the limits and public addresses back, or \
                 end its flows with `nat-ctl --instance {instance} down`"
            )));
        }
    }
    Ok(())
}

/// Names in a folder; none where the folder does not exist.
///
/// # Errors
/// Where it exists and can't be read.
pub fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(PlaneError::file("read the folder", folder)(error)),
    };
    let mut names = vec![];
    for entry in entries {
        let entry = entry.map_err(PlaneError::file("read the folder", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Removes the links of an instance: what they hold is detached at once. The guards go last.
///
/// # Errors
/// Where a pin can't be removed.
pub fn remove_links(instance: &Instance) -> Result<usize> {
    let folder = links(instance);
    let mut names = list(&folder)?;
    names.sort_by_key(|name| name.ends_with("egress"));
    for name in &names {
        unlink(&folder.join(name))?;
    }
    Ok(names.len())
}

/// Removes all maps and folders of an instance; what is gone already is no error.
///
/// # Errors
/// Where a pin can't be removed.
pub fn remove_maps(instance: &Instance) -> Result<usize> {
    let folder = instance.pins();
    remove_folder(&links(instance))?;
    let names = list(&folder)?;
    // The version goes first: from then on the rest is known to be incomplete.
    unlink(&folder.join("layout"))?;
    for name in &names {
        unlink(&folder.join(name))?;
    }
    remove_folder(&folder)?;
    Ok(names.len())
}

/// Removes one pin; no error where it is gone.
///
/// # Errors
/// Where bpffs refuses.
pub fn unlink(path: &Path) -> Result<()> {
    gone_is_fine(fs::remove_file(path)).map_err(PlaneError::file("remove the pin", path))
}

fn remove_folder(path: &Path) -> Result<()> {
    gone_is_fine(fs::remove_dir(path)).map_err(PlaneError::file("remove the folder", path))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
