//! What the agent says on stderr.
//!
//! Invariant: one line an event; arguments of PASS and ACCT never get here, the engine masks them.
//! Who logs never waits for whoever reads: lines go through a bounded queue to a thread that writes
//! them, and what finds it full is counted and told of.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait for stderr: a few seconds of a terminal.
const LINES: usize = 4096;
/// Behind a line others follow, as a rule: for so long they are waited for, so that one wake-up of the
/// thread and one write are enough for all of them.
const LINGER: Duration = Duration::from_millis(5);
/// Lines of one write.
const TOGETHER: usize = 256;
/// How long the end of the agent waits for lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Looks for room in a full queue in that time.
const TRIES: u32 = 100;

/// Logging is on. Dropped, it sees to it that what was said is written.
#[derive(Debug)]
pub struct Log {
    queue: Queue,
    /// Nothing is ever sent; it ends with the thread.
    written: Option<Receiver<()>>,
}

/// Starts logging: what happens to FTP sessions always, with `-v` what the agent does, with `-vv`
/// every segment.
///
/// # Errors
/// Where no thread can be started.
pub fn start(verbose: u8) -> io::Result<Log> {
    let level = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let log = Log::to(io::stderr())?;
    // Fails where a program that uses this library logs already; then that goes on.
    let _set = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(log.queue.clone())
        .with_target(false)
        .try_init();
    Ok(log)
}

impl Log {
    fn to(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, lines) = sync_channel(LINES);
        let (alive, written) = sync_channel(0);
        let lost = Arc::new(AtomicU64::new(0));
        let queue = Queue { sender, lost: Arc::clone(&lost) };
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            write(target, &lines, &lost);
            drop(alive);
        })?;
        Ok(Self { queue, written: Some(written) })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The logger that was set keeps its end of the queue for ever, so an empty line ends it.
        let told = (0..TRIES).any(|_| {
            let told = self.queue.sender.try_send(Vec::new()).is_ok();
            if !told {
                thread::sleep(LAST_WORDS / TRIES);
            }
            told
        });
        if told && let Some(written) = self.written.take() {
            // It ends, or whoever reads stderr has stopped: neither is to be acted on.
            let _ = written.recv_timeout(LAST_WORDS);
        }
    }
}

/// Where lines go in.
#[derive(Clone, Debug)]
struct Queue {
    sender: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl Write for Queue {
    /// A whole line, as the logger gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(line.to_vec()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Writes lines until an empty one comes. What stderr does not take is nobody's to be told.
fn write(mut target: impl Write, lines: &Receiver<Vec<u8>>, lost: &AtomicU64) {
    let mut is_last = false;
    while !is_last && let Ok(mut text) = lines.recv() {
        is_last = text.is_empty();
        if !is_last {
            thread::sleep(LINGER);
        }
        for line in lines.try_iter().take(TOGETHER) {
            is_last |= line.is_empty();
            text.extend_from_slice(&line);
        }
        let _ = target.write_all(&text);
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(target, "{lost} lines were not written: stderr is too slow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, mpsc};

    /// Takes nothing before it is told to.
    struct Slow {
        go: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The sender that is gone lets everything through.
            let _ = self.go.recv();
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_lost_is_told_of() {
        let (go, told) = mpsc::channel();
        let taken = Arc::new(Mutex::new(vec![]));
        let log = Log::to(Slow { go: told, taken: Arc::clone(&taken) }).unwrap();
        let mut queue = log.queue.clone();
        // Nothing is read: neither the queue's bound nor the writer holds this up.
        for _ in 0..2 * LINES {
            queue.write_all(b"line\n").unwrap();
        }
        drop(go);
        // Room for the word that ends it.
        while queue.sender.try_send(b"last\n".to_vec()).is_err() {
            thread::yield_now();
        }
        drop(log);
        let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().any(|line| line.ends_with("stderr is too slow")), "{}", lines.len());
        assert!(lines.iter().filter(|line| **line == "line").count() >= LINES);
        assert!(lines.contains(&"last"));
    }
}
