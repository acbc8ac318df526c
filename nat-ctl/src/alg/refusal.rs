//! Why the engine makes no pinhole, or lets no segment pass: one word each, for counters and users.

use serde::{Deserialize, Serialize};

/// Why an announcement makes no expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// A port below 1024, or 0.
    SystemPort,
    /// An octet above 255 or a port above 65535.
    OutOfRange,
    /// More numbers than the form has, or text behind them.
    Malformed,
    /// An address family that this connection does not have.
    OtherFamily,
    /// The address of a third host.
    ForeignAddress,
    /// A reply to a command that was not given.
    Unsolicited,
    /// A command before the server has greeted.
    BeforeGreeting,
    /// A command while AUTH waits for its answer.
    AfterAuth,
    /// More commands wait for their reply than are kept.
    TooManyCommands,
    /// No public port is free.
    NoPublicPort,
    /// The client has as much announced as one may have.
    ClientFull,
    /// The client announces faster than one may.
    ClientTooFast,
    /// Part of the address had left before the line was complete.
    CutLine,
    /// Strict mode: nobody has logged in yet.
    NotLoggedIn,
    /// Strict mode: the command is one that nobody may give.
    DeniedCommand,
    /// Strict mode: the command before it has not been answered.
    Pipelined,
    /// Strict mode: a line feed without CR before it.
    LineEnd,
    /// Strict mode: the command is longer than any that is known.
    TooLong,
    /// Strict mode: an announcement without its numbers.
    Truncated,
    /// Strict mode: more behind the numbers than belongs there.
    TrailingBytes,
    /// Strict mode: a line that only the other end says.
    Spoofed,
    /// Strict mode: the first line is no FTP command.
    NotFtp,
}

impl Refusal {
    /// Every reason, for tables.
    pub const ALL: [Refusal; 22] = [
        Refusal::SystemPort,
        Refusal::OutOfRange,
        Refusal::Malformed,
        Refusal::OtherFamily,
        Refusal::ForeignAddress,
        Refusal::Unsolicited,
        Refusal::BeforeGreeting,
        Refusal::AfterAuth,
        Refusal::TooManyCommands,
        Refusal::NoPublicPort,
        Refusal::ClientFull,
        Refusal::ClientTooFast,
        Refusal::CutLine,
        Refusal::NotLoggedIn,
        Refusal::DeniedCommand,
        Refusal::Pipelined,
        Refusal::LineEnd,
        Refusal::TooLong,
        Refusal::Truncated,
        Refusal::TrailingBytes,
        Refusal::Spoofed,
        Refusal::NotFtp,
    ];

    /// The word in counters and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::SystemPort => "system-port",
            Refusal::OutOfRange => "out-of-range",
            Refusal::Malformed => "malformed",
            Refusal::OtherFamily => "other-family",
            Refusal::ForeignAddress => "foreign-address",
            Refusal::Unsolicited => "unsolicited",
            Refusal::BeforeGreeting => "before-greeting",
            Refusal::AfterAuth => "after-auth",
            Refusal::TooManyCommands => "too-many-commands",
            Refusal::NoPublicPort => "no-public-port",
            Refusal::ClientFull => "client-full",
            Refusal::ClientTooFast => "client-too-fast",
            Refusal::CutLine => "cut-line",
            Refusal::NotLoggedIn => "not-logged-in",
            Refusal::DeniedCommand => "denied-command",
            Refusal::Pipelined => "pipelined",
            Refusal::LineEnd => "line-end",
            Refusal::TooLong => "too-long",
            Refusal::Truncated => "truncated",
            Refusal::TrailingBytes => "trailing-bytes",
            Refusal::Spoofed => "spoofed",
            Refusal::NotFtp => "not-ftp",
        }
    }

    /// What happened, in a sentence for a person.
    pub const fn text(self) -> &'static str {
        match self {
            Refusal::SystemPort => "it names a port below 1024, where no data connection listens",
            Refusal::OutOfRange => "it holds a number that no address or port can have",
            Refusal::Malformed => "it has more than an address and a port",
            Refusal::OtherFamily => "it names an address family that this connection does not have",
            Refusal::ForeignAddress => "it names a third host (see ftp.foreign_address)",
            Refusal::Unsolicited => "no passive command waits for it",
            Refusal::BeforeGreeting => "the server has not greeted yet",
            Refusal::AfterAuth => "encryption is being negotiated",
            Refusal::TooManyCommands => "too many commands wait for a reply",
            Refusal::NoPublicPort => "no public port is free",
            Refusal::ClientFull => "its client has as much announced as one may have (see limits)",
            Refusal::ClientTooFast => "its client announces faster than one may (see limits)",
            Refusal::CutLine => "part of its address had left before the line was complete",
            Refusal::NotLoggedIn => "strict mode opens nothing before a login",
            Refusal::DeniedCommand => "the command is denied (see ftp.denied_commands)",
            Refusal::Pipelined => "the command before it has not been answered",
            Refusal::LineEnd => "the command does not end with CR LF",
            Refusal::TooLong => "the command is longer than 512 bytes",
            Refusal::Truncated => "its numbers are missing",
            Refusal::TrailingBytes => "more stands behind the numbers than belongs there",
            Refusal::Spoofed => "only the other end says that",
            Refusal::NotFtp => "the first line is no FTP command",
        }
    }

    /// Whether a session of strict mode is over with it. What the gateway lacks is nobody's fault, and
    /// who announces before a login gets the server's own answer.
    pub const fn ends_strict_sessions(self) -> bool {
        match self {
            Refusal::NoPublicPort
            | Refusal::ClientFull
            | Refusal::ClientTooFast
            | Refusal::CutLine
            | Refusal::NotLoggedIn => false,
            Refusal::SystemPort
            | Refusal::OutOfRange
            | Refusal::Malformed
            | Refusal::OtherFamily
            | Refusal::ForeignAddress
            | Refusal::Unsolicited
            | Refusal::BeforeGreeting
            | Refusal::AfterAuth
            | Refusal::TooManyCommands
            | Refusal::DeniedCommand
            | Refusal::Pipelined
            | Refusal::LineEnd
            | Refusal::TooLong
            | Refusal::Truncated
            | Refusal::TrailingBytes
            | Refusal::Spoofed
            | Refusal::NotFtp => true,
        }
    }
}

/// Why a segment was not passed on. The sender repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DropReason {
    /// Bytes before it have not arrived, so it cannot be known what they mean.
    Gap,
    /// A rewrite is needed, and every correction waits for its acknowledgement.
    EditsFull,
}

impl DropReason {
    /// The word in counters and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Gap => "ftp-gap",
            DropReason::EditsFull => "ftp-edits-full",
        }
    }
}

/// What is done about a line that names a third host. Neither makes a pinhole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignAddress {
    /// It counts as refused.
    #[default]
    Refuse,
    /// It is taken as meant, and passes uncounted.
    Pass,
}

/// Why lines are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum End {
    /// AUTH was accepted, or the client began with TLS. After CCC lines are read again.
    Encrypted,
    /// The first line of the client was no FTP command.
    NotFtp,
    /// A rule of strict mode was broken.
    Reset,
}

impl End {
    /// What that means for data connections, in the one sentence that users are told.
    pub const fn text(self) -> &'static str {
        match self {
            End::Encrypted => {
                "the control connection is encrypted, so the ports that it announces cannot be read: \
                 a passive server inside needs a declared passive range (--passive-range of its \
                 forward), an active client inside gets no data connection"
            }
            End::NotFtp => "its first line is no FTP command, so it is passed on unread",
            End::Reset => "it broke a rule of strict mode, so both its ends were reset",
        }
    }
}
