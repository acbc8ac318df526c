//! `flows list`, written while the flows are being read.
//!
//! Invariant: JSON leaves as it comes, whatever the number of flows; only columns for people wait for
//! the last one, because its width counts too. A closed pipe ends the output without an error, and
//! the reading with it, a few hundred kilobytes later.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    sync::mpsc,
    thread,
};

use super::{
    flow_json::{self, Style},
    flow_line::FlowLine,
    printer::{Format, Printer, Tabular, without_broken_pipe},
};
use crate::error::Failure;

/// Takes one flow after the other, until it says that nobody wants more.
pub type Each<'a> = &'a mut dyn FnMut(&FlowLine<'_>) -> ControlFlow<()>;

/// Bytes that leave at once.
const ROOM: usize = 1 << 18;

/// So many times that much may wait to leave.
const AHEAD: usize = 2;

impl Printer {
    /// `flows list`, of the flows that `read` hands over.
    ///
    /// # Errors
    /// Where they can't be read; inside, where stdout can't be written.
    pub fn flows(
        &self,
        read: impl FnOnce(Each<'_>) -> Result<(), Failure>,
    ) -> Result<io::Result<()>, Failure> {
        let list = match self.format() {
            Format::Table => {
                let mut rows = vec![];
                read(&mut |flow| {
                    rows.push(flow.row());
                    ControlFlow::Continue(())
                })?;
                let mut text = vec![];
                let made = self.table(&mut text, FlowLine::COLUMNS, rows.into_iter());
                let mut out = io::stdout().lock();
                made.and_then(|()| out.write_all(&text)).and_then(|()| out.flush())
            }
            Format::Json => stream(io::stdout(), &ARRAY, read)?,
            Format::Jsonl => stream(io::stdout(), &LINES, read)?,
        };
        Ok(without_broken_pipe(list))
    }
}

/// What stands around flows.
struct Frame {
    style: Style,
    /// Before the first one.
    open: &'static str,
    /// Before every other.
    next: &'static str,
    /// After the last one.
    close: &'static str,
    /// In place of all where there is none.
    empty: &'static str,
}

const ARRAY: Frame =
    Frame { style: flow_json::PRETTY, open: "[\n  ", next: ",\n  ", close: "\n]\n", empty: "[]\n" };

const LINES: Frame =
    Frame { style: flow_json::COMPACT, open: "", next: "\n", close: "\n", empty: "" };

/// What was made of flows leaves in a thread of its own, while the next ones are read and made text of.
fn stream(
    out: impl Write + Send,
    frame: &Frame,
    read: impl FnOnce(Each<'_>) -> Result<(), Failure>,
) -> Result<io::Result<()>, Failure> {
    thread::scope(|scope| {
        let (leaving, texts) = mpsc::sync_channel(AHEAD);
        let (used, again) = mpsc::channel();
        let writer = scope.spawn(move || write_all(out, &texts, &used));
        let mut text = Vec::with_capacity(ROOM + 1024);
        let mut begun = false;
        let mut made = Ok(());
        read(&mut |flow| {
            let between = if std::mem::replace(&mut begun, true) { frame.next } else { frame.open };
            text.extend_from_slice(between.as_bytes());
            made = flow_json::write(&mut text, &frame.style, flow);
            let mut leaves = made.is_ok();
            if leaves && text.len() >= ROOM {
                let next = again.try_recv().unwrap_or_else(|_| Vec::with_capacity(ROOM + 1024));
                // Nobody takes it any more where a write has failed.
                leaves = leaving.send(std::mem::replace(&mut text, next)).is_ok();
            }
            if leaves { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        text.extend_from_slice(if begun { frame.close } else { frame.empty }.as_bytes());
        // As above.
        let _ = leaving.send(text);
        drop(leaving);
        let written = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(made.and(written))
    })
}

/// Writes what comes, and gives the memory back.
fn write_all(
    mut out: impl Write,
    texts: &mpsc::Receiver<Vec<u8>>,
    used: &mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    for mut text in texts {
        out.write_all(&text)?;
        text.clear();
        // After the last one nobody wants it.
        let _ = used.send(text);
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{
        printer::{Pretty, json, versioned},
        tests::flow,
    };

    fn listed(frame: &Frame, count: usize) -> String {
        let mut out = vec![];
        let view = flow();
        let read = |each: Each<'_>| {
            assert!((0..count).all(|_| each(&view.line()).is_continue()));
            Ok(())
        };
        stream(&mut out, frame, read).unwrap().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_list_is_the_array_that_the_library_would_write() {
        for count in 0..4 {
            let views = vec![flow(); count];
            let mut wanted = vec![];
            let views: Vec<_> = views.iter().map(versioned).collect();
            json(&mut wanted, &views, Pretty::Yes).unwrap();
            wanted.push(b'\n');
            assert_eq!(listed(&ARRAY, count), String::from_utf8(wanted).unwrap());
        }
    }

    #[test]
    fn lines_are_one_object_each() {
        assert_eq!(listed(&LINES, 0), "");
        let lines = listed(&LINES, 3);
        assert!(lines.ends_with("}\n"));
        for line in lines.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&object["version"], &object["protocol"]), (&1.into(), &"tcp".into()));
        }
        assert_eq!(lines.lines().count(), 3);
    }

    #[test]
    fn nobody_reads_on_for_a_closed_pipe() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let view = flow();
        let mut read = 0;
        let result = stream(Closed, &LINES, |each| {
            while each(&view.line()).is_continue() {
                read += 1;
            }
            Ok(())
        });
        assert_eq!(result.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(read * 200 < (AHEAD + 3) * ROOM, "{read}");
    }
}
