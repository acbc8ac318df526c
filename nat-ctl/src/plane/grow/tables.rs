//! The pins of flow tables: which there are says how far a growth had come.
//!
//! ```text
//!   flows                   at rest
//!   flows        flows_new  the larger table is made; nobody uses it
//!   flows_before flows_new  nobody uses it yet
//!   flows_before flows      flows are on their way from the one to the other
//!   flows                   at rest
//! ```

use std::{fs, path::Path};

use crate::plane::{
    error::{PlaneError, Result},
    pins,
};

/// The table that packets use.
pub const NOW: &str = "flows";
/// The one from which flows move to it.
pub const BEFORE: &str = "flows_before";
/// The one that takes over next.
pub const NEXT: &str = "flows_new";

/// Makes the next table the one of now, and that the one before. It may have been done in part.
///
/// # Errors
/// Where bpffs refuses.
pub fn shift(pins: &Path) -> Result<()> {
    if !pins.join(NEXT).exists() {
        return Ok(());
    }
    if pins.join(NOW).exists() {
        rename(pins, NOW, BEFORE)?;
    }
    rename(pins, NEXT, NOW)
}

/// Undoes a growth that nobody has seen yet. Whether there is one that has to be brought to its end.
///
/// # Errors
/// Where bpffs refuses.
pub fn recover(pins: &Path) -> Result<bool> {
    let has = |name: &str| pins.join(name).exists();
    if has(BEFORE) && !has(NOW) {
        rename(pins, BEFORE, NOW)?;
    }
    pins::unlink(&pins.join(NEXT))?;
    Ok(has(BEFORE))
}

fn rename(pins: &Path, from: &str, to: &str) -> Result<()> {
    let path = pins.join(from);
    fs::rename(&path, pins.join(to)).map_err(PlaneError::file("rename the pin", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder with these files, each with its name in it.
    fn folder(test: &str, names: &[&str]) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tables-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in names {
            fs::write(folder.join(name), name).unwrap();
        }
        folder
    }

    /// What each pin stands for now; removes all of it.
    fn pinned(folder: &Path) -> Vec<(String, String)> {
        let mut names = pins::list(folder).unwrap();
        names.sort_unstable();
        let read = |name: &String| fs::read_to_string(folder.join(name)).unwrap();
        let pinned = names.iter().map(|name| (name.clone(), read(name))).collect();
        fs::remove_dir_all(folder).unwrap();
        pinned
    }

    fn stands(name: &str, table: &str) -> (String, String) {
        (name.to_owned(), table.to_owned())
    }

    #[test]
    fn a_growth_that_ended_at_any_point_is_undone_or_known_to_go_on() {
        let whole = [stands(NOW, NOW)];
        for (number, names) in [&[NOW][..], &[NOW, NEXT]].into_iter().enumerate() {
            let pins = folder(&format!("whole{number}"), names);
            assert!(!recover(&pins).unwrap());
            assert_eq!(pinned(&pins), whole);
        }
        let pins = folder("half", &[BEFORE, NEXT]);
        assert!(!recover(&pins).unwrap());
        assert_eq!(pinned(&pins), [stands(NOW, BEFORE)]);
        let pins = folder("moving", &[BEFORE, NOW]);
        assert!(recover(&pins).unwrap());
        assert_eq!(pinned(&pins), [stands(NOW, NOW), stands(BEFORE, BEFORE)]);
    }

    #[test]
    fn the_next_table_takes_over_once() {
        let pins = folder("shift", &[NOW, NEXT]);
        shift(&pins).unwrap();
        shift(&pins).unwrap();
        assert_eq!(pinned(&pins), [stands(NOW, NEXT), stands(BEFORE, NOW)]);
        let pins = folder("rest", &[BEFORE, NEXT]);
        shift(&pins).unwrap();
        assert_eq!(pinned(&pins), [stands(NOW, NEXT), stands(BEFORE, BEFORE)]);
    }
}
