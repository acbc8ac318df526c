//! cargo-deny: licences, bans and sources of all that is linked in. `deny.toml` has the rules.
//!
//! It is called a few times a day on one tree, so it is built without optimisation: the pinned
//! release's own profile (fat LTO, one unit) takes several times as long to build as all else here.

use std::process::Command;

use crate::{tool::Tool, workspace::Workspace};

const NAME: &str = "cargo-deny";
const VERSION: &str = "0.20.2";

/// Builds it unless it is there.
pub fn ensure(workspace: &Workspace) -> anyhow::Result<()> {
    let profile = [
        ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
        ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ];
    let deny = Tool {
        name: NAME,
        version: VERSION,
        features: None,
        depends_on: String::new(),
        environment: profile.map(|(name, value)| (name, value.into())).to_vec(),
        duration: "2-4 minutes",
        is_urgent: false,
    };
    deny.ensure(workspace)
}

/// The check of the whole workspace. Not among it are advisories: their database is fetched from a
/// server that may be out of reach, and a test must not fail by what the world learnt overnight.
pub fn check(workspace: &Workspace) -> Command {
    let mut check = Command::new(Tool::path(workspace, NAME));
    check
        .args(["--workspace", "check", "--hide-inclusion-graph"])
        .args(["licenses", "bans", "sources"])
        .current_dir(workspace.root());
    check
}
