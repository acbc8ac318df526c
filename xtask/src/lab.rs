//! The main job in a lab of network namespaces: the program of the package `nat-tests`.
//!
//! It is built and started here rather than linked in: a mistake in a test must not take away the
//! commands that build and check the tree.

use std::process::Command;

use crate::{command, workspace::Workspace};

/// What the lab is to do.
pub struct Options<'a> {
    /// Leave it up at the end.
    pub keep: bool,
    /// Every server and client, and Linux beside.
    pub large: bool,
    /// Only cases whose line contains this text.
    pub filter: Option<&'a str>,
}

/// Builds the lab and runs it with the agent that was built.
pub fn command(workspace: &Workspace, options: &Options) -> Command {
    let mut lab = command::cargo();
    lab.args(["run", "--package", "nat-tests", "--bin", "nat-tests", "--", "--binary"])
        .arg(workspace.agent())
        .current_dir(workspace.root());
    if options.keep {
        lab.arg("--keep");
    }
    if options.large {
        lab.arg("--large");
    }
    lab.args(options.filter);
    lab
}
