//! A router that translates nothing: the kernel's forwarding alone.

use anyhow::Result;

use crate::netns::Namespace;

const FORWARDING: &str = "net.ipv4.ip_forward";

/// Forwarding that is on until this ends.
#[derive(Debug)]
pub struct Router<'lab> {
    namespace: &'lab Namespace,
    left: bool,
}

impl<'lab> Router<'lab> {
    pub(super) fn start_in(namespace: &'lab Namespace) -> Result<Self> {
        namespace.sysctl(FORWARDING, "1")?;
        Ok(Self { namespace, left: false })
    }

    pub(super) fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        if !self.left {
            let _ = self.namespace.sysctl(FORWARDING, "0");
        }
    }
}
