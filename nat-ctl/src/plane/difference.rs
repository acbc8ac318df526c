//! A map brought to wanted contents by the difference alone.
//!
//! Invariant: an entry that stays is not touched, what is new is there before what is old goes; a
//! packet never meets an empty map.

use std::collections::BTreeMap;

use aya::{Pod, maps::MapError};
use zerocopy::{Immutable, IntoBytes};

use super::maps::{self, Hash};

/// Writes what is missing or different, then removes what is not wanted.
///
/// # Errors
/// Where the kernel refuses.
pub fn apply<K, V>(map: &mut Hash<K, V>, wanted: &BTreeMap<K, V>) -> Result<(), MapError>
where
    K: Pod + Ord,
    V: Pod + IntoBytes + Immutable,
{
    write(map, wanted)?;
    remove_others(map, wanted)
}

/// The first half: everything wanted is there.
///
/// # Errors
/// Where the kernel refuses.
pub fn write<K, V>(map: &mut Hash<K, V>, wanted: &BTreeMap<K, V>) -> Result<(), MapError>
where
    K: Pod + Ord,
    V: Pod + IntoBytes + Immutable,
{
    for (key, value) in wanted {
        let found = maps::optional(map.get(key, 0))?;
        if found.is_none_or(|found| found.as_bytes() != value.as_bytes()) {
            map.insert(key, value, 0)?;
        }
    }
    Ok(())
}

/// The second half: nothing else is.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove_others<K: Pod + Ord, V: Pod>(
    map: &mut Hash<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<(), MapError> {
    let found: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for key in found {
        if !wanted.contains_key(&key) {
            maps::remove(map, &key)?;
        }
    }
    Ok(())
}
