//! A hash map of the data plane that is read as a whole: many entries a system call, where aya asks
//! twice for each.
//!
//! Invariant: keys and values have the sizes that the kernel copies; that is checked when the map is
//! opened.
#![allow(unsafe_code, reason = "commands of bpf(2) that aya does not have")]

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use aya::maps::{MapData, MapError};
use nix::libc;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::error::{PlaneError, Result};

// Commands and flags of bpf(2), include/uapi/linux/bpf.h.
const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const TAKE: libc::c_long = 21;
const LOOKUP_BATCH: libc::c_long = 24;
const NOEXIST: u64 = 1;
/// Entries a call, at first: a bucket with more of them asks for more.
const TOGETHER: u32 = 4096;

/// The map, opened for its keys and values.
#[derive(Debug)]
pub struct Whole<K, V> {
    map: OwnedFd,
    entries: u32,
    of: PhantomData<(K, V)>,
}

/// The part of `union bpf_attr` for one element.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part for many.
#[repr(C)]
#[derive(Default)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

impl<K, V> Whole<K, V>
where
    K: FromBytes + IntoBytes + KnownLayout + Copy,
    V: FromBytes + IntoBytes + KnownLayout + Copy,
{
    /// Opens the map that is pinned as `name` in `pins`.
    ///
    /// # Errors
    /// [`PlaneError::NotFound`] where there is none, [`PlaneError::Refused`] where it has other sizes.
    pub fn open(pins: &Path, name: &str) -> Result<Self> {
        let path = pins.join(name);
        let what = format!("open the map {}", path.display());
        let data = MapData::from_pin(&path).map_err(|error| {
            if super::maps::is(&error, libc::ENOENT) {
                return PlaneError::NotFound(format!(
                    "{what}: there is no data plane: start it with `nat-ctl run`"
                ));
            }
            PlaneError::refused::<MapError>(&what)(error)
        })?;
        let info = data.info().map_err(PlaneError::refused(&what))?;
        if info.key_size() as usize != size_of::<K>()
            || info.value_size() as usize != size_of::<V>()
        {
            let why = "its keys or values have other sizes: it is of another version".to_owned();
            return Err(PlaneError::Refused { what, why });
        }
        let map = data.fd().as_fd().try_clone_to_owned();
        let map = map.map_err(PlaneError::file("open", path))?;
        Ok(Self { map, entries: info.max_entries(), of: PhantomData })
    }

    /// Most entries.
    pub fn room(&self) -> u32 {
        self.entries
    }

    /// Hands over every entry that is there all the while, once; what is added or removed meanwhile
    /// may be missed.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn each(&self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut room = TOGETHER.min(self.entries.max(1));
        let mut keys = vec![K::new_zeroed(); room as usize];
        let mut values = vec![V::new_zeroed(); room as usize];
        // The place in the map, which is the kernel's to read.
        let (mut from, mut to) = (0u32, 0u32);
        let mut first = true;
        loop {
            let mut batch = Batch {
                from: if first { 0 } else { (&raw const from) as u64 },
                to: (&raw mut to) as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: room,
                map: self.number(),
                ..Batch::default()
            };
            // SAFETY: both arrays have room for `count` entries, `from` and `to` for the bucket number
            // that hash maps have there; all live during the call, and any bytes are valid in them.
            let said = unsafe { call(LOOKUP_BATCH, &mut batch) };
            let is_last = match said {
                Ok(()) => false,
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT) => true,
                    // A bucket has more entries than there is room for: the same again.
                    Some(libc::ENOSPC) if room < self.entries => {
                        room = room.saturating_mul(2).min(self.entries);
                        keys.resize(room as usize, K::new_zeroed());
                        values.resize(room as usize, V::new_zeroed());
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            for (key, value) in keys.iter().zip(&values).take(batch.count as usize) {
                each(key, value);
            }
            if is_last {
                return Ok(());
            }
            from = to;
            first = false;
        }
    }

    /// An entry.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn find(&self, key: &K) -> io::Result<Option<V>> {
        self.read(LOOKUP, key)
    }

    /// Takes an entry out: what it was at the very end.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        self.read(TAKE, key)
    }

    fn read(&self, command: libc::c_long, key: &K) -> io::Result<Option<V>> {
        let mut value = V::new_zeroed();
        let mut element = Element {
            map: self.number(),
            key: std::ptr::from_ref(key) as u64,
            value: (&raw mut value) as u64,
            ..Element::default()
        };
        // SAFETY: key and value have the sizes of the map, and live during the call.
        match unsafe { call(command, &mut element) } {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds an entry, unless there is one of that key.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn add(&self, key: &K, value: &V) -> io::Result<bool> {
        let mut element = Element {
            map: self.number(),
            key: std::ptr::from_ref(key) as u64,
            value: std::ptr::from_ref(value) as u64,
            flags: NOEXIST,
            ..Element::default()
        };
        // SAFETY: as above.
        match unsafe { call(UPDATE, &mut element) } {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn number(&self) -> u32 {
        // A descriptor is never negative.
        self.map.as_raw_fd().unsigned_abs()
    }
}

/// bpf(2).
///
/// # Safety
/// What the attributes point to is as the command takes it, and lives during the call.
unsafe fn call<A>(command: libc::c_long, attributes: &mut A) -> io::Result<()> {
    let at = std::ptr::from_mut(attributes);
    // SAFETY: the attributes have the size that is given; what they point to is the caller's.
    match unsafe { libc::syscall(libc::SYS_bpf, command, at, size_of::<A>()) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
