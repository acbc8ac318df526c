//! The maps `stages` and `xdp_stages`: which program goes on where another one ends.
//!
//! Invariant: a stage is in its map before a program that jumps to it is attached. The maps are
//! pinned: the kernel empties such a map when nobody in user space has it any more.

use std::path::Path;

use aya::{
    maps::{Map, MapData, MapError, ProgramArray},
    programs::ProgramError,
};
use nat_common::layout::Stage;

use super::error::{PlaneError, Result};
use super::maps;
use super::object::Object;

/// Fills `stages`, in place of the programs of a predecessor.
///
/// # Errors
/// Where the verifier refuses a program, or the kernel the map.
pub fn fill(object: &mut Object, pins: &Path) -> Result<()> {
    let mut map: ProgramArray<MapData> = maps::open(pins, "stages", Map::ProgramArray)?;
    for stage in Stage::ALL {
        let program = object.classifier(stage.program())?;
        let what = || format!("make {} a stage", stage.program());
        let fd = program.fd().map_err(PlaneError::refused::<ProgramError>(what()))?;
        map.set(stage as u32, fd, 0).map_err(PlaneError::refused::<MapError>(what()))?;
    }
    Ok(())
}

/// The same for `xdp_stages`, before the first interface with XDP.
///
/// # Errors
/// See [`fill`].
pub fn fill_xdp(object: &mut Object, pins: &Path) -> Result<()> {
    let mut map: ProgramArray<MapData> = maps::open(pins, "xdp_stages", Map::ProgramArray)?;
    for stage in Stage::ALL {
        let Some(name) = stage.xdp_program() else { continue };
        let what = || format!("make {name} a stage");
        let fd = object.xdp(name)?.fd().map_err(PlaneError::refused::<ProgramError>(what()))?;
        map.set(stage as u32, fd, 0).map_err(PlaneError::refused::<MapError>(what()))?;
    }
    Ok(())
}
