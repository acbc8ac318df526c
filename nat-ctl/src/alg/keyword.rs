//! The words of FTP that mean something to a gateway: one table of verbs, one of replies.

use serde::{Deserialize, Serialize};

/// What a command is to the gateway, and so what its reply will mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Announces the client's data port: PORT (RFC 959), EPRT (RFC 2428), LPRT (RFC 1639).
    Active(Form),
    /// Asks for the server's data port.
    Passive,
    /// Moves a file or a listing over the data connection.
    Transfer,
    /// Asks for encryption (RFC 4217).
    Auth,
    /// The user's name.
    User,
    /// Its argument is secret.
    Secret,
    /// Starts the session anew (RFC 959, 4.1.1).
    Reinitialise,
    /// Ends it.
    Quit,
    /// Answered out of turn, with one reply or two: no reply is expected for it.
    Abort,
    /// Any other command.
    Other,
}

/// How an address and a port are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// `PORT 10,0,1,2,162,71`
    Port,
    /// `EPRT |1|10.0.1.2|41543|`
    Eprt,
    /// `LPRT 4,4,10,0,1,2,2,162,71`
    Lprt,
    /// `227 Entering Passive Mode (10,0,2,2,162,71).`
    Pasv,
    /// `228 Entering Long Passive Mode (4,4,10,0,2,2,2,162,71)`
    Lpsv,
    /// `229 Entering Extended Passive Mode (|||41543|)`
    Epsv,
}

impl Form {
    /// The command that is named to users.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Port => "PORT",
            Form::Eprt => "EPRT",
            Form::Lprt => "LPRT",
            Form::Pasv => "PASV",
            Form::Lpsv => "LPSV",
            Form::Epsv => "EPSV",
        }
    }
}

/// RFC 959, 1639, 2228, 2389, 2428, 2640, 3659, 4217, 7151, and what clients send besides.
const VERBS: &[(&str, Verb)] = &[
    ("PORT", Verb::Active(Form::Port)),
    ("EPRT", Verb::Active(Form::Eprt)),
    ("LPRT", Verb::Active(Form::Lprt)),
    ("PASV", Verb::Passive),
    ("EPSV", Verb::Passive),
    ("LPSV", Verb::Passive),
    ("CPSV", Verb::Passive),
    ("SPSV", Verb::Passive),
    ("RETR", Verb::Transfer),
    ("STOR", Verb::Transfer),
    ("STOU", Verb::Transfer),
    ("APPE", Verb::Transfer),
    ("LIST", Verb::Transfer),
    ("NLST", Verb::Transfer),
    ("MLSD", Verb::Transfer),
    ("AUTH", Verb::Auth),
    ("USER", Verb::User),
    ("PASS", Verb::Secret),
    ("ACCT", Verb::Secret),
    ("REIN", Verb::Reinitialise),
    ("QUIT", Verb::Quit),
    ("ABOR", Verb::Abort),
    ("ADAT", Verb::Secret),
    ("ALLO", Verb::Other),
    ("AVBL", Verb::Other),
    ("CCC", Verb::Other),
    ("CDUP", Verb::Other),
    ("CLNT", Verb::Other),
    ("COMB", Verb::Other),
    ("CONF", Verb::Secret),
    ("CSID", Verb::Other),
    ("CWD", Verb::Other),
    ("DELE", Verb::Other),
    ("ENC", Verb::Secret),
    ("EPSW", Verb::Other),
    ("FEAT", Verb::Other),
    ("HELP", Verb::Other),
    ("HOST", Verb::Other),
    ("LANG", Verb::Other),
    ("MDTM", Verb::Other),
    ("MFCT", Verb::Other),
    ("MFF", Verb::Other),
    ("MFMT", Verb::Other),
    ("MIC", Verb::Secret),
    ("MKD", Verb::Other),
    ("MLST", Verb::Other),
    ("MODE", Verb::Other),
    ("NOOP", Verb::Other),
    ("OPTS", Verb::Other),
    ("PBSZ", Verb::Other),
    ("PRET", Verb::Other),
    ("PROT", Verb::Other),
    ("PWD", Verb::Other),
    ("REST", Verb::Other),
    ("RMD", Verb::Other),
    ("RNFR", Verb::Other),
    ("RNTO", Verb::Other),
    ("SITE", Verb::Other),
    ("SIZE", Verb::Other),
    ("SMNT", Verb::Other),
    ("STAT", Verb::Other),
    ("STRU", Verb::Other),
    ("SYST", Verb::Other),
    ("THMB", Verb::Other),
    ("TYPE", Verb::Other),
    ("XCUP", Verb::Other),
    ("XCWD", Verb::Other),
    ("XMKD", Verb::Other),
    ("XPWD", Verb::Other),
    ("XRMD", Verb::Other),
];

/// A command line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// The word as it stands in the table; `None` for one that is not there.
    pub name: Option<&'static str>,
    /// What it means.
    pub verb: Verb,
    /// The word as the client has written it.
    pub word: &'a [u8],
    /// Offset of the word in the line, behind telnet commands and blanks.
    pub at: usize,
    /// Offset of the argument.
    pub argument_at: usize,
    /// The argument, trailing blanks included.
    pub argument: &'a [u8],
}

/// A reply line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Whether a hyphen says that more lines follow (RFC 959, 4.2).
    pub continues: bool,
    /// Offset of the text behind the code and its separator.
    pub text_at: usize,
}

/// Takes a line of the client apart. `None` when it holds no word.
pub fn command(line: &[u8]) -> Option<Command<'_>> {
    let at = word_at(line);
    let rest = line.get(at..)?;
    let length = rest.iter().position(|byte| is_blank(*byte)).unwrap_or(rest.len());
    let word = rest.get(..length).filter(|word| !word.is_empty())?;
    let behind = rest.get(length..)?;
    let blanks = behind.iter().take_while(|byte| is_blank(**byte)).count();
    let (name, verb) = VERBS
        .iter()
        .find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word))
        .map_or((None, Verb::Other), |(name, verb)| (Some(*name), *verb));
    let argument = behind.get(blanks..)?;
    // EPSV ALL (RFC 2428, 4) is a promise to use nothing else; it is answered 200.
    let all = name == Some("EPSV") && argument.trim_ascii().eq_ignore_ascii_case(b"ALL");
    let verb = if all { Verb::Other } else { verb };
    Some(Command { name, verb, word, at, argument_at: at + length + blanks, argument })
}

/// Takes a line of the server apart. `None` when it does not start with a code.
pub fn reply(line: &[u8]) -> Option<Reply> {
    let at = word_at(line);
    let rest = line.get(at..)?;
    let (code, behind) = rest.split_at_checked(3)?;
    if !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = code.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    let (continues, separator) = match behind.first() {
        None => (false, 0),
        Some(b' ') => (false, 1),
        Some(b'-') => (true, 1),
        Some(_) => return None,
    };
    Some(Reply { code, continues, text_at: at + 3 + separator })
}

/// Behind telnet commands and blanks. A client that aborts sends IAC IP IAC DM before ABOR (RFC
/// 959, 4.1.3; RFC 854), in urgent data that may leave part of it to stand alone.
fn word_at(line: &[u8]) -> usize {
    let mut bytes = line.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            // WILL, WON'T, DO, DON'T take an option.
            0xfb..=0xfe => {
                bytes.next();
            }
            0xf0..=0xff | b' ' | b'\t' => {}
            _ => return at,
        }
    }
    line.len()
}

/// What separates words.
pub const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The line for people: control characters and secrets hidden, at most `MASKED_BYTES` of it. A line feed
/// within may hide another command.
pub fn masked(line: &[u8]) -> String {
    const MASKED_BYTES: usize = 200;
    let parts: Vec<Vec<u8>> = line.split(|byte| *byte == b'\n').map(without_secret).collect();
    let shown = parts.join(&b'\n');
    printable(shown.get(..MASKED_BYTES).unwrap_or(&shown))
}

fn without_secret(line: &[u8]) -> Vec<u8> {
    match command(line) {
        Some(Command { verb: Verb::Secret, argument_at, .. }) => {
            let head = line.get(..argument_at).unwrap_or(line);
            [head, b"****"].concat()
        }
        _ => line.to_vec(),
    }
}

/// Bytes from the wire as text that is safe on a terminal.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_is_found_behind_telnet_commands_and_in_any_case() {
        let command = command(b"\xff\xf4\xff\xf2pOrT  1,2").expect("a command");
        assert_eq!(command.name, Some("PORT"));
        assert_eq!((command.at, command.argument_at, command.argument), (4, 10, &b"1,2"[..]));
        let optioned = super::command(b"\xff\xfb\x01NOOP").expect("a command");
        assert_eq!(optioned.name, Some("NOOP"));
        assert_eq!(super::command(b"\xff\xf4 "), None);
    }

    #[test]
    fn a_reply_is_three_digits_and_a_separator() {
        assert_eq!(reply(b"227 x"), Some(Reply { code: 227, continues: false, text_at: 4 }));
        assert_eq!(reply(b"227-x"), Some(Reply { code: 227, continues: true, text_at: 4 }));
        assert_eq!(reply(b"227"), Some(Reply { code: 227, continues: false, text_at: 3 }));
        assert_eq!(reply(b"2271"), None);
        assert_eq!(reply(b" -rw-r--r--"), None);
    }

    #[test]
    fn secrets_are_masked() {
        assert_eq!(masked(b"pass sesame"), "pass ****");
        assert_eq!(masked(b"ACCT\tsesame"), "ACCT\t****".replace('\t', "\u{fffd}"));
        assert_eq!(masked(b"RETR pass"), "RETR pass");
        assert_eq!(masked(b"PWD\nPASS sesame"), "PWD\u{fffd}PASS ****");
    }

    #[test]
    fn every_verb_is_listed_once() {
        for (index, (name, _)) in VERBS.iter().enumerate() {
            assert!(VERBS.iter().skip(index + 1).all(|(other, _)| other != name), "{name}");
        }
    }
}
