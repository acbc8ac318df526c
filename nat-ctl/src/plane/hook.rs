//! Which hook an interface gets, and why.
//!
//! Invariant: pure; the answer is a function of what is asked for and of what the driver can do.
//! Generic XDP is never chosen: it rewrites packets after the kernel has copied them.

use super::features::Features;
use crate::options::Mode;

/// What is known of an interface before anything is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its kind as `ip -d link` names it, where it is not a NIC: `veth`, `bridge`, ...
    pub kind: Option<String>,
    /// Whether its packets have no Ethernet header.
    pub bare: bool,
    /// Whether it is on both sides.
    pub one_armed: bool,
    /// What its driver says of XDP; `None` where the kernel (before 6.3) can't say.
    pub features: Option<Features>,
}

/// What to do with an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// TC, for this reason.
    Tc(String),
    /// XDP, for this reason; where the driver refuses, TC for the reason that it gives.
    Try(String),
    /// XDP, for this reason; where the driver refuses, that is the operator's error.
    Must(String),
}

/// Chooses the hook of `device` by the mode that the operator asked for.
pub fn choose(mode: Mode, device: &Device) -> Choice {
    match (mode, &device.kind, device.features) {
        _ if device.bare => Choice::Tc("its packets have no Ethernet header".to_owned()),
        _ if device.one_armed => {
            Choice::Tc("it is on both sides: which one a packet is from TC finds out".to_owned())
        }
        (Mode::Tc, ..) => Choice::Tc("mode tc was asked for".to_owned()),
        (Mode::Xdp, ..) => Choice::Must("mode xdp was asked for".to_owned()),
        (Mode::Auto, Some(kind), _) => {
            Choice::Tc(format!("{kind} is a virtual device: TC keeps its packets whole (GSO)"))
        }
        (Mode::Auto, None, Some(features)) if features.can_receive() => {
            Choice::Try("the driver has native XDP with redirect".to_owned())
        }
        (Mode::Auto, None, Some(_)) => Choice::Tc("the driver has no native XDP".to_owned()),
        (Mode::Auto, None, None) => Choice::Try("the driver took the program natively".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(kind: Option<&str>, features: Option<u64>) -> Device {
        let kind = kind.map(str::to_owned);
        Device { kind, bare: false, one_armed: false, features: features.map(Features::of) }
    }

    #[test]
    fn what_only_tc_can_do_gets_tc_whatever_is_asked_for() {
        for mode in [Mode::Auto, Mode::Xdp, Mode::Tc] {
            let bare = Device { bare: true, ..device(Some("tun"), Some(u64::MAX)) };
            assert!(matches!(choose(mode, &bare), Choice::Tc(why) if why.contains("no Ethernet")));
            let both = Device { one_armed: true, ..device(None, Some(u64::MAX)) };
            assert!(matches!(choose(mode, &both), Choice::Tc(why) if why.contains("both sides")));
        }
    }

    #[test]
    fn a_virtual_device_gets_tc_unless_xdp_is_asked_for() {
        for kind in ["veth", "bridge", "tun", "vlan"] {
            let device = device(Some(kind), Some(u64::MAX));
            assert!(
                matches!(choose(Mode::Auto, &device), Choice::Tc(why) if why.starts_with(kind))
            );
            assert!(matches!(choose(Mode::Xdp, &device), Choice::Must(_)));
        }
    }

    #[test]
    fn a_driver_is_believed_where_it_can_say_and_tried_where_it_cannot() {
        assert!(matches!(choose(Mode::Auto, &device(None, Some(0))), Choice::Tc(_)));
        assert!(matches!(choose(Mode::Auto, &device(None, Some(1))), Choice::Tc(_)));
        assert!(matches!(choose(Mode::Auto, &device(None, Some(3))), Choice::Try(_)));
        assert!(matches!(choose(Mode::Auto, &device(None, None)), Choice::Try(_)));
        assert!(matches!(choose(Mode::Tc, &device(None, Some(7))), Choice::Tc(_)));
    }
}
