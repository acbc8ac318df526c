//! Child processes: short ones with a time limit, long ones that end with their guard.
//!
//! Invariant: no process is waited for without a limit, and none is ended but by its own id.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait;

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// Time from start to end.
    pub elapsed: Duration,
}

impl Finished {
    /// Itself, where the command ended with success; else an error with its complaint.
    pub fn checked(self, what: &str) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        bail!("{what}: {}: {}", self.status, tail(said.trim(), 2000))
    }

    /// Exit status as a number; 128 + signal where a signal ended it, as shells say it.
    #[must_use]
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }
}

/// Runs a command to its end; past `limit` it is killed and that is the error.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    run_on(command, Stdio::null(), limit)
}

/// The same for a command that reads something.
pub fn run_on(command: &mut Command, input: Stdio, limit: Duration) -> Result<Finished> {
    let what = describe(command);
    let start = Instant::now();
    let mut child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{what}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let ended = wait::until(limit, &format!("the end of `{what}`"), || {
        child.try_wait().context("wait for a child")
    });
    if ended.is_err() {
        // It may have ended by itself in between; then there is nothing to kill.
        let _ = child.kill();
        let _ = child.wait();
    }
    let elapsed = start.elapsed();
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().unwrap_or_default());
    let status =
        ended.with_context(|| format!("it said: {}{}", tail(&stdout, 800), tail(&stderr, 800)))?;
    Ok(Finished { status, stdout, stderr, elapsed })
}

/// Runs a command that has to succeed, and gives back what it printed.
pub fn must(command: &mut Command) -> Result<String> {
    let what = describe(command);
    Ok(run(command, Duration::from_secs(20))?.checked(&what)?.stdout)
}

/// A server or agent at work; ended (SIGTERM, then SIGKILL) when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own with its output in the file `log`.
    pub fn spawn(command: &mut Command, name: &str, log: &Path) -> Result<Self> {
        let what = describe(command);
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share a log file")?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start `{what}`"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// Waits until a look at the world says that it is ready; its early end is an error with its output.
    pub fn ready(
        &mut self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut(&str) -> Result<bool>,
    ) -> Result<()> {
        let what = format!("{} {what}", self.name);
        let result = wait::until_true(limit, &what, || {
            if let Some(status) = self.child.try_wait().context("look after a child")? {
                bail!("{} ended early: {status}", self.name);
            }
            look(&self.output())
        });
        result.with_context(|| format!("{} said: {}", self.name, tail(&self.output(), 1500)))
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(limit, &what, || self.child.try_wait().context("wait for a child"))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("look after a child")
    }

    /// SIGTERM, and its end within `limit`.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait().context("look after a child")? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Lets it work on after this program's end.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("a process id beyond i32")?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        // A test may have stopped it; it ends only once it goes on.
        let _ = self.signal(Signal::SIGCONT);
        let start = Instant::now();
        // Not `wait::until`: an interrupted run must still leave its children time to end.
        while start.elapsed() < Duration::from_secs(5) {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(3));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last `limit` bytes or so of a text, whole characters only.
#[must_use]
pub fn tail(text: &str, limit: usize) -> &str {
    let start = (text.len().saturating_sub(limit)..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(text.len());
    &text[start..]
}

fn describe(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What arrived before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
