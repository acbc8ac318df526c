//! Where the ends of a transfer are, and the gateway that has the rule.

use crate::{lab::Lab, netns::Namespace};

/// A lab, and what a set-up needs beside its three hosts.
#[derive(Clone, Copy, Debug)]
pub struct Site<'lab> {
    /// The lab.
    pub lab: &'lab Lab,
    /// Where the gateway that has the rule works.
    pub gateway: &'lab Namespace,
    /// A host inside that gateway beside the one of the lab.
    pub third: &'lab Namespace,
}

impl<'lab> Site<'lab> {
    /// The lab alone, whose host inside is its own neighbour.
    #[must_use]
    pub const fn of(lab: &'lab Lab) -> Self {
        Self { lab, gateway: &lab.gateway, third: &lab.inside }
    }
}
