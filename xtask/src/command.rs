//! Running other programs: said before, checked after.
//!
//! Invariant: no program is started whose failure is not looked at, and an error names the whole
//! command line.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// The cargo that started this program.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Removes what an outer `cargo run` or the user's shell would otherwise hand on to a cargo of
/// another toolchain: flags and wrappers meant for the host, and library folders of the outer
/// compiler.
pub fn isolate(command: &mut Command) {
    for variable in [
        "CARGO",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(variable);
    }
}

/// Runs a command with our own output; fails unless it ends with status 0.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status}), see its output above");
    }
    Ok(())
}

/// Runs a command quietly and gives what it wrote; its own errors are shown on failure.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = line(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, errors.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote no valid UTF-8"))
}

/// Runs a command and hands on what it wrote, errors first, line by line; fails unless it ends with
/// status 0.
pub fn run_kept(command: &mut Command, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let line = line(command);
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start `{line}`"))?;
    for text in [&output.stderr, &output.stdout] {
        String::from_utf8_lossy(text).lines().for_each(&mut *say);
    }
    if !output.status.success() {
        bail!("`{line}` failed ({}), see its output above", output.status);
    }
    Ok(())
}

/// The command as typed, for messages: program name without folder, then its arguments.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = OsString::from(program.file_name().unwrap_or(program.as_os_str()));
    for argument in command.get_args() {
        line.push(" ");
        line.push(argument);
    }
    line.to_string_lossy().into_owned()
}

/// Looks a program up as a shell would, and in the folders of system programs, which are not on
/// the PATH of everyone.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
