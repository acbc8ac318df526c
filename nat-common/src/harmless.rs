//! Lines of a control connection that need not wait for the FTP engine.
//!
//! Invariant: what is harmless announces nothing, is never rewritten, and changes nothing that the
//! other end could act on before a line that does wait: the engine reads a copy of it, in the order
//! of the stream, before any such line. What is not known to be harmless is not.

use crate::session::Side;

/// Longest harmless line, its end included: a command with the longest name of a file (NAME_MAX).
pub const LONGEST: usize = 512;
/// Shortest: a reply code, a blank and the end.
const SHORTEST: usize = 5;
/// From here on a byte may be a telnet command (RFC 854), which the engine reads past.
const TELNET: u8 = 0xf0;
/// Clears the bit by which small letters differ.
const UPPER: u32 = 0xdfdf_dfdf;
const UPPER_THREE: u32 = 0xdfdf_dfff;

/// Whether the first `length` bytes of `line`, the payload of a segment, are one harmless line that
/// `side` may say at the start of a line: a single line feed, at its end and behind CR, and a word
/// that is known.
#[inline(always)]
pub fn is_harmless(side: Side, line: &[u8; LONGEST], length: usize) -> bool {
    if !(SHORTEST..=LONGEST).contains(&length) {
        return false;
    }
    let mut before = 0;
    let mut at = 0;
    while at < LONGEST {
        let byte = line[at];
        if byte >= TELNET {
            return false;
        }
        at += 1;
        if byte == b'\n' {
            break;
        }
        before = byte;
    }
    at == length && before == b'\r' && is_known(side, [line[0], line[1], line[2], line[3], line[4]])
}

/// Whether a line that begins like this is known to be harmless. A caller has seen that it ends with
/// CR LF: where the word is shorter than it looks, CR stands in it.
#[inline(always)]
fn is_known(side: Side, start: [u8; 5]) -> bool {
    let [a, b, c, d, e] = start;
    let word = u32::from_be_bytes([a, b, c, d]);
    let ends = |byte| byte == b' ' || byte == b'\r';
    match side {
        Side::Originator if ends(d) => {
            is_short_command(u32::from_be_bytes([a, b, c, b' ']) & UPPER_THREE)
        }
        Side::Originator => ends(e) && is_command(word & UPPER),
        // A hyphen in the place of the blank says that more lines follow.
        Side::Responder => is_reply(word),
    }
}

const fn word(text: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*text)
}

/// Commands that only ask, name or move a file, or set how one is moved. PASV and EPSV announce
/// nothing by themselves, their replies do. Held are: PORT, EPRT and LPRT, which announce; AUTH and
/// CCC, behind which other bytes follow; USER, PASS, ACCT, REIN and QUIT, which begin and end a
/// login, and with it what was announced; ABOR, which comes with urgent data; HOST, SITE, STAT and
/// HELP, whose replies are anything; and every rare word.
#[inline(always)]
fn is_command(command: u32) -> bool {
    const PASV: u32 = word(b"PASV");
    const EPSV: u32 = word(b"EPSV");
    const RETR: u32 = word(b"RETR");
    const STOR: u32 = word(b"STOR");
    const APPE: u32 = word(b"APPE");
    const LIST: u32 = word(b"LIST");
    const NLST: u32 = word(b"NLST");
    const MLSD: u32 = word(b"MLSD");
    const MLST: u32 = word(b"MLST");
    const TYPE: u32 = word(b"TYPE");
    const SIZE: u32 = word(b"SIZE");
    const MDTM: u32 = word(b"MDTM");
    const REST: u32 = word(b"REST");
    const CDUP: u32 = word(b"CDUP");
    const DELE: u32 = word(b"DELE");
    const RNFR: u32 = word(b"RNFR");
    const RNTO: u32 = word(b"RNTO");
    const NOOP: u32 = word(b"NOOP");
    const SYST: u32 = word(b"SYST");
    matches!(
        command,
        PASV | EPSV
            | RETR
            | STOR
            | APPE
            | LIST
            | NLST
            | MLSD
            | MLST
            | TYPE
            | SIZE
            | MDTM
            | REST
            | CDUP
            | DELE
            | RNFR
            | RNTO
            | NOOP
            | SYST
    )
}

/// The same with three letters and a blank.
#[inline(always)]
fn is_short_command(command: u32) -> bool {
    const CWD: u32 = word(b"CWD ");
    const PWD: u32 = word(b"PWD ");
    const MKD: u32 = word(b"MKD ");
    const RMD: u32 = word(b"RMD ");
    matches!(command, CWD | PWD | MKD | RMD)
}

/// Replies of one line that say yes, or go on. Held are: 227 to 229, which announce; 220, 230, 232
/// and 221, which begin and end a login; 234, behind which TLS begins; 4yz and 5yz, which take back
/// what was announced; replies of several lines, and every rare code.
#[inline(always)]
fn is_reply(reply: u32) -> bool {
    const DATA_OPEN: u32 = word(b"125 ");
    const OPENING: u32 = word(b"150 ");
    const DONE: u32 = word(b"200 ");
    const STATUS: u32 = word(b"213 ");
    const SYSTEM: u32 = word(b"215 ");
    const CLOSING: u32 = word(b"226 ");
    const FILE_DONE: u32 = word(b"250 ");
    const PATH: u32 = word(b"257 ");
    const PASSWORD: u32 = word(b"331 ");
    const PENDING: u32 = word(b"350 ");
    matches!(
        reply,
        DATA_OPEN
            | OPENING
            | DONE
            | STATUS
            | SYSTEM
            | CLOSING
            | FILE_DONE
            | PATH
            | PASSWORD
            | PENDING
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(side: Side, text: &[u8]) -> bool {
        let mut line = [b'\n'; LONGEST];
        line[..text.len().min(LONGEST)].copy_from_slice(&text[..text.len().min(LONGEST)]);
        is_harmless(side, &line, text.len())
    }

    #[test]
    fn commands_and_replies_of_a_transfer_are_harmless() {
        for text in ["PASV", "epsv", "EPSV ALL", "Retr a b", "PWD", "cwd /x", "TYPE I", "NOOP"] {
            assert!(harmless(Side::Originator, format!("{text}\r\n").as_bytes()), "{text}");
        }
        for text in ["150 Opening (10,0,0,1,4,5)", "226 ok", "200 PORT ok", "250 ", "331 now"] {
            assert!(harmless(Side::Responder, format!("{text}\r\n").as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_announces_ends_or_revokes_is_not() {
        for text in [
            "PORT 1,2,3,4,5,6",
            "EPRT |1|1.2.3.4|5|",
            "LPRT 4,4",
            "AUTH TLS",
            "CCC",
            "REIN",
            "QUIT",
            "USER a",
            "PASS b",
            "ABOR",
            "HOST a",
            "PASVX",
            "PAS",
            "X",
            "RETRY a",
            "PW",
            " PASV",
            "RETR\ta",
            "226 ok",
            "P\x00SV",
            "CWDX a",
            "STOU",
        ] {
            assert!(!harmless(Side::Originator, format!("{text}\r\n").as_bytes()), "{text}");
        }
        for text in [
            "227 (1,2,3,4,5,6)",
            "228 x",
            "229 (|||5|)",
            "220 hi",
            "230 in",
            "234 go",
            "221 bye",
            "425 no",
            "550 no",
            "226-more",
            "226",
            "226\t",
            "1500 x",
            " 226 x",
            "NOOP",
            "2260 x",
        ] {
            assert!(!harmless(Side::Responder, format!("{text}\r\n").as_bytes()), "{text}");
        }
    }

    #[test]
    fn only_one_whole_line_without_telnet_commands_is() {
        for text in [
            &b"NOOP\r\nNOOP\r\n"[..],
            b"NOOP\n",
            b"NOOP",
            b"NOOP\r",
            b"NOOP\r\nx",
            b"NOOP \xff\r\n",
            b"NOOP \xf0\r\n",
            b"RETR a\nb\r\n",
            b"\r\n",
            b"",
            b"NOOP\n\r\n",
        ] {
            assert!(!harmless(Side::Originator, text), "{text:?}");
        }
        assert!(harmless(Side::Originator, b"RETR \xc3\xa4\xef\r\n"));
    }

    #[test]
    fn a_line_has_its_longest() {
        for (length, wanted) in [(LONGEST, true), (LONGEST + 1, false)] {
            let text = [&b"RETR "[..], &vec![b'a'; length - 7], b"\r\n"].concat();
            assert_eq!(harmless(Side::Originator, &text), wanted);
        }
    }
}
