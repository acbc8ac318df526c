//! Writes a view in the format that was asked for.
//!
//! Invariant: one call, one write to a buffered stdout; what a closed pipe swallows is no error.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use crate::api::VERSION;

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON value: an array for a list.
    Json,
    /// One JSON object a line.
    Jsonl,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Rows for people.
pub(super) trait Tabular {
    /// Title of each column; a title that starts with `>` is aligned to the right.
    const COLUMNS: &'static [&'static str];
    /// The cells of one row.
    fn row(&self) -> Vec<String>;
    /// A sentence about it, below the table.
    fn note(&self) -> Option<String> {
        None
    }
}

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    format: Format,
    styled: bool,
}

#[derive(Serialize)]
pub(super) struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    view: &'a T,
}

pub(super) fn versioned<T>(view: &T) -> Versioned<'_, T> {
    Versioned { version: VERSION, view }
}

impl Printer {
    /// Looks at stdout where colour is left to it.
    pub fn new(format: Format, color: Color) -> Self {
        let styled = match color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: any value but the empty one counts.
            Color::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { format, styled }
    }

    /// The format that was asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// A list: rows, an array, or a line for each.
    pub(super) fn rows<T: Serialize + Tabular>(&self, views: &[T]) -> io::Result<()> {
        self.list(views, |out| {
            self.table(out, T::COLUMNS, views.iter().map(Tabular::row))?;
            let notes = views.iter().filter_map(Tabular::note);
            notes.enumerate().try_for_each(|(number, note)| {
                let space = if number == 0 { "\n" } else { "" };
                writeln!(out, "{space}{note}")
            })
        })
    }

    /// A list: an array, or a line for each; `people` writes it for the table format.
    pub(super) fn list<T: Serialize>(
        &self,
        views: &[T],
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.write(|out| match self.format {
            Format::Json => {
                let views: Vec<_> = views.iter().map(versioned).collect();
                json_line(out, &views, Pretty::Yes)
            }
            Format::Jsonl => {
                views.iter().try_for_each(|view| json_line(out, &versioned(view), Pretty::No))
            }
            Format::Table => people(out),
        })
    }

    /// One object; `people` writes it for the table format.
    pub(super) fn object<T: Serialize>(
        &self,
        view: &T,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.write(|out| match self.format {
            Format::Json => json_line(out, &versioned(view), Pretty::Yes),
            Format::Jsonl => json_line(out, &versioned(view), Pretty::No),
            Format::Table => people(out),
        })
    }

    /// One event of a command that goes on: written at once, a line of JSON in both formats for scripts.
    pub(super) fn line<T: Serialize>(
        &self,
        view: &T,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = match self.format {
            Format::Json | Format::Jsonl => json_line(&mut out, &versioned(view), Pretty::No),
            Format::Table => people(&mut out),
        };
        // Whoever reads has seen enough when the pipe is closed: the command ends with it.
        written.and_then(|()| out.flush())
    }

    /// Columns with titles, without lines; nothing below the titles where there is no row.
    pub(super) fn table(
        &self,
        out: &mut dyn Write,
        columns: &[&str],
        rows: impl Iterator<Item = Vec<String>>,
    ) -> io::Result<()> {
        let mut table = Table::new();
        // A row stays on its line whatever the width, so that grep and copying work.
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.styled {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let title =
            |text: &&str| Cell::new(text.trim_start_matches('>')).add_attribute(Attribute::Bold);
        table.set_header(columns.iter().map(title));
        for row in rows {
            table.add_row(row);
        }
        for (index, text) in columns.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if text.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
    }

    /// Text that stands out on a terminal.
    pub(super) fn bold(&self, text: &str) -> String {
        if self.styled { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn write(&self, body: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = body(&mut out).and_then(|()| out.flush());
        if written.is_err() {
            // The rest of the buffer has no reader either: it must not be tried again.
            let _ = out.into_parts();
        }
        without_broken_pipe(written)
    }
}

/// Whoever reads the output may have seen enough.
pub(super) fn without_broken_pipe(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[derive(Clone, Copy)]
pub(super) enum Pretty {
    Yes,
    No,
}

fn json_line(out: &mut dyn Write, view: &impl Serialize, pretty: Pretty) -> io::Result<()> {
    json(out, view, pretty)?;
    out.write_all(b"\n")
}

/// JSON without a line break at its end.
pub(super) fn json(out: &mut dyn Write, view: &impl Serialize, pretty: Pretty) -> io::Result<()> {
    match pretty {
        Pretty::Yes => serde_json::to_writer_pretty(out, view)?,
        Pretty::No => serde_json::to_writer(out, view)?,
    }
    Ok(())
}
