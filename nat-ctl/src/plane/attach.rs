//! The programs on the interfaces.
//!
//! Invariant: what is attached is pinned at once (or, on kernels without tcx, stands in a filter
//! with a fixed place), so that it survives the agent; and what is there already is replaced in its
//! place, never removed and added, so that no packet passes in between.
//!
//! ```text
//!   LAN   ingress: xdp_inside,  tc_inside
//!   WAN   ingress: xdp_outside, tc_outside      egress: tc_outside_egress (guard)
//!
//!   both  ingress: tc_one_armed                egress: tc_one_armed_egress
//!
//!   without an Ethernet header
//!   LAN   ingress: tc_inside_bare
//!   WAN   ingress: tc_outside_bare              egress: tc_outside_egress_bare
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{
    pin::PinError,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
        xdp::XdpLink,
    },
    util::KernelVersion,
};

use super::error::{Kernel, PlaneError, Result};
use super::hook::Choice;
use super::object::Object;
use super::pins;
use super::state::{Attached, Side};
use crate::options::Instance;
use crate::output::InterfaceMode;

/// Place of our filters on kernels without tcx: priority and handle are ours by being unusual.
pub const PRIORITY: u16 = 20_033;
const HANDLE: TcHandle = TcHandle::new(0, 0x4e41);

/// First kernel with tcx links (commit e420bed02507).
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// A classifier of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Classifier {
    name: &'static str,
    at: TcAttachType,
}

const LAN: &[Classifier] = &[Classifier { name: "tc_inside", at: TcAttachType::Ingress }];
/// The guard comes first: nothing is translated before what is not translated is caught.
const WAN: &[Classifier] = &[
    Classifier { name: "tc_outside_egress", at: TcAttachType::Egress },
    Classifier { name: "tc_outside", at: TcAttachType::Ingress },
];

const BOTH: &[Classifier] = &[
    Classifier { name: "tc_one_armed_egress", at: TcAttachType::Egress },
    Classifier { name: "tc_one_armed", at: TcAttachType::Ingress },
];

const BARE_LAN: &[Classifier] = &[Classifier { name: "tc_inside_bare", at: TcAttachType::Ingress }];
const BARE_WAN: &[Classifier] = &[
    Classifier { name: "tc_outside_egress_bare", at: TcAttachType::Egress },
    Classifier { name: "tc_outside_bare", at: TcAttachType::Ingress },
];

/// The programs of all roles.
pub const CLASSIFIERS: [&str; 3] = ["tc_inside", "tc_outside_egress", "tc_outside"];
/// Those of interfaces whose packets have no Ethernet header.
pub const BARE_CLASSIFIERS: [&str; 3] =
    ["tc_inside_bare", "tc_outside_egress_bare", "tc_outside_bare"];
/// Those of an interface that is on both sides.
pub const ONE_ARMED_CLASSIFIERS: [&str; 2] = ["tc_one_armed_egress", "tc_one_armed"];
/// The same for XDP.
pub const XDP_PROGRAMS: [&str; 2] = ["xdp_inside", "xdp_outside"];

/// One on both sides has an Ethernet header: others are refused before.
fn classifiers(side: Side, bare: bool) -> &'static [Classifier] {
    match (side, bare) {
        (Side::Lan, false) => LAN,
        (Side::Wan, false) => WAN,
        (Side::Both, _) => BOTH,
        (Side::Lan, true) => BARE_LAN,
        (Side::Wan, true) => BARE_WAN,
    }
}

/// One on both sides gets none.
fn xdp_program(side: Side) -> &'static str {
    match side {
        Side::Lan => "xdp_inside",
        Side::Wan | Side::Both => "xdp_outside",
    }
}

/// Where a program of an interface is pinned. By number: bpffs takes no dots, and names change.
fn pin(instance: &Instance, index: u32, program: &str) -> PathBuf {
    pins::links(instance).join(format!("{index}_{program}"))
}

/// Why a program is not on an interface.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Tc(#[from] TcError),
    #[error(transparent)]
    System(#[from] io::Error),
}

/// An interface that gets programs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub index: u32,
    /// What it is for.
    pub side: Side,
    /// Whether its packets have no Ethernet header.
    pub bare: bool,
}

/// Attaches the programs of one interface, or replaces those that are there.
///
/// # Errors
/// [`PlaneError::Conflict`] where another program has the only place; else what the kernel says.
pub fn attach(
    object: &mut Object,
    instance: &Instance,
    to: Place<'_>,
    choice: Choice,
) -> Result<Attached> {
    let Place { name, index, side, bare } = to;
    object.stages()?;
    for classifier in classifiers(side, bare) {
        let program = object.classifier(classifier.name)?;
        let path = pin(instance, index, classifier.name);
        let what = format!("attach {} to {name}", classifier.name);
        if has_tcx() {
            attach_tcx(program, name, classifier.at, &path)
        } else {
            attach_filter(program, name, classifier.at)
        }
        .map_err(PlaneError::refused(what))?;
    }
    let (mode, reason) = match choice {
        Choice::Tc(reason) => {
            pins::unlink(&pin(instance, index, xdp_program(side)))?;
            (InterfaceMode::Tc, reason)
        }
        Choice::Must(reason) => {
            attach_native(object, instance, index, side)?
                .map_err(|error| refuse_xdp(name, &error))?;
            (InterfaceMode::Xdp, reason)
        }
        Choice::Try(reason) => match attach_native(object, instance, index, side)? {
            Ok(()) => (InterfaceMode::Xdp, reason),
            Err(error) => {
                (InterfaceMode::Tc, format!("the driver refused native XDP: {}", error.text()))
            }
        },
    };
    Ok(Attached { name: name.to_owned(), index, side, mode, reason, bare, lost: false })
}

/// Whether links of this kernel can be on TC hooks.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|current| current >= TCX_SINCE)
}

fn attach_tcx(
    program: &mut SchedClassifier,
    name: &str,
    at: TcAttachType,
    path: &Path,
) -> Result<(), AttachError> {
    if let Ok(pinned) = PinnedLink::from_pin(path) {
        let replaced = SchedClassifierLink::try_from(FdLink::from(pinned))
            .map_err(AttachError::from)
            .and_then(|link| Ok(program.attach_to_link(link)?));
        // A link whose interface has gone stays pinned but leads nowhere: it is made anew.
        if replaced.is_ok() {
            return Ok(());
        }
        remove_stale(path)?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(name, at, options)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    keep(link, path)
}

fn attach_filter(
    program: &mut SchedClassifier,
    name: &str,
    at: TcAttachType,
) -> Result<(), AttachError> {
    match tc::qdisc_add_clsact(name) {
        Err(error) if error.code() != Some(nix::libc::EEXIST) => return Err(error.into()),
        _ => {}
    }
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
    let fresh = program.attach_with_options(name, at, TcAttachOptions::Netlink(options));
    let id = match fresh {
        Err(error) if error.code() == Some(nix::libc::EEXIST) => {
            let link = SchedClassifierLink::attached(name, at, PRIORITY, HANDLE, None)?;
            program.attach_to_link(link)?
        }
        other => other?,
    };
    // A filter belongs to the interface; the handle here would take it away when dropped.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// The outer error is about the program, the inner one about the interface.
fn attach_native(
    object: &mut Object,
    instance: &Instance,
    index: u32,
    side: Side,
) -> Result<Result<(), AttachError>> {
    object.xdp_stages()?;
    let program = object.xdp(xdp_program(side))?;
    let path = pin(instance, index, xdp_program(side));
    Ok(attach_xdp(program, index, &path))
}

fn attach_xdp(program: &mut Xdp, index: u32, path: &Path) -> Result<(), AttachError> {
    if let Ok(pinned) = PinnedLink::from_pin(path) {
        let replaced = XdpLink::try_from(FdLink::from(pinned))
            .map_err(AttachError::from)
            .and_then(|link| Ok(program.attach_to_link(link)?));
        if replaced.is_ok() {
            return Ok(());
        }
        remove_stale(path)?;
    }
    let id = program.attach_to_if_index(index, XdpMode::Driver)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    keep(link, path)
}

fn keep(link: FdLink, path: &Path) -> Result<(), AttachError> {
    Ok(link.pin(path).map(drop)?)
}

fn remove_stale(path: &Path) -> Result<(), AttachError> {
    Ok(std::fs::remove_file(path)?)
}

fn refuse_xdp(name: &str, error: &AttachError) -> PlaneError {
    let what = format!("attach native XDP to {name}");
    match error.code() {
        Some(nix::libc::EBUSY | nix::libc::EEXIST) => PlaneError::Conflict(format!(
            "{what}: another XDP program is there: detach it (`ip link set dev {name} xdp off`), \
             or use --mode tc"
        )),
        Some(nix::libc::EPERM | nix::libc::EACCES) => PlaneError::Permission { what },
        _ => PlaneError::Refused {
            what,
            why: format!(
                "{}: the driver may have no native XDP, or not at this MTU: use --mode auto or tc",
                error.text()
            ),
        },
    }
}

/// Removes pinned links that are none of `kept`: of interfaces that left the configuration, and XDP
/// where TC is wanted now.
///
/// # Errors
/// Where a pin can't be removed.
pub fn drop_others(instance: &Instance, kept: &[Attached]) -> Result<()> {
    let wanted: Vec<PathBuf> = kept
        .iter()
        .flat_map(|interface| {
            let tc = classifiers(interface.side, interface.bare)
                .iter()
                .map(|classifier| classifier.name);
            let xdp = (interface.mode == InterfaceMode::Xdp).then(|| xdp_program(interface.side));
            tc.chain(xdp).map(|program| pin(instance, interface.index, program))
        })
        .collect();
    let folder = pins::links(instance);
    for name in pins::list(&folder)? {
        let path = folder.join(name);
        if !wanted.contains(&path) {
            pins::unlink(&path)?;
        }
    }
    Ok(())
}

/// Removes the filters of an interface, where this kernel has filters in place of links; no error
/// where the interface or the filter is gone.
///
/// # Errors
/// Where the kernel refuses.
pub fn detach_filters(interface: &Attached) -> Result<()> {
    if has_tcx() {
        return Ok(());
    }
    // The guard last: nothing may pass that is no longer translated.
    for classifier in classifiers(interface.side, interface.bare).iter().rev() {
        let place = (&interface.name, classifier.at, PRIORITY, HANDLE);
        let Ok(link) = SchedClassifierLink::attached(place.0, place.1, place.2, place.3, None)
        else {
            continue;
        };
        match aya::programs::Link::detach(link) {
            Err(error) if !matches!(error.code(), Some(nix::libc::ENOENT | nix::libc::EINVAL)) => {
                let what = format!("detach {} from {}", classifier.name, interface.name);
                return Err(PlaneError::refused(what)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
