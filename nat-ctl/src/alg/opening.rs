//! Lines that are cut while they announce an address.
//!
//! Invariant: no byte of an inside address leaves, and nothing is held back. As soon as an argument
//! begins, a whole new one leaves in its place, with a public port that was claimed without knowing
//! the inside port; what follows of the old argument is swallowed. Where ports are not translated only a new
//! address leaves, and the port follows as it comes. The pinhole is made when the line
//! is complete, and what the receiver has of it until then is a line that has not ended.

use std::{net::IpAddr, ops::Range};

use serde::{Deserialize, Serialize};

use super::{
    announcement::{self, Announcement, Reading, Separator},
    flow::Side,
    keyword::{self, Form, Verb, is_blank},
    refusal::Refusal,
};

/// An argument that has begun in a line that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// How it is written.
    pub form: Form,
    /// Where it starts in the line.
    pub at: usize,
    /// Where it ends, if it has ended.
    pub end: Option<usize>,
    /// The port it announces, if it has ended.
    pub port: Option<u16>,
    /// The address family that EPRT names: a digit.
    family: u8,
    /// What stands around the fields of EPRT.
    delimiter: u8,
}

/// Which port has been announced with an argument that had only begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Promised {
    /// None that counts: the line will be refused.
    Nothing,
    /// This public one, which was claimed.
    Port(u16),
    /// The line's own, which follows its address.
    Own,
}

/// What has left in the place of an argument, until the line is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// How it is written.
    pub form: Form,
    /// Where it starts in the line.
    pub at: u16,
    /// The public port.
    pub port: Promised,
    /// Whether the argument goes on.
    pub grows: bool,
}

impl Opening {
    fn new(form: Form, at: usize) -> Opening {
        Opening { form, at, end: None, port: None, family: 0, delimiter: 0 }
    }

    /// Why no pinhole may come of it, in a session between ends like `address`: EPRT names another address
    /// family.
    pub fn refusal(&self, address: IpAddr) -> Option<Refusal> {
        let family = if address.is_ipv6() { b'2' } else { b'1' };
        let is_other = self.form == Form::Eprt && self.family != family;
        is_other.then_some(Refusal::OtherFamily)
    }

    /// Whether an address can be told from the port behind it, so that it can be replaced alone.
    pub fn is_address_apart(&self) -> bool {
        self.form == Form::Eprt && !is_of_address(self.delimiter)
    }

    /// Where what is replaced stands, as far as it is there, with the port or without.
    pub fn span(&self, line: &[u8], port: Promised) -> Range<usize> {
        let argument = line.get(self.at..).unwrap_or_default();
        self.at..self.end.unwrap_or(self.at + swallows(self.form, port, argument))
    }

    /// The text that leaves in the place of the argument.
    pub fn text(&self, address: IpAddr, port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        match self.form {
            Form::Eprt => {
                let delimiter = char::from(self.delimiter);
                format!("{address}{delimiter}{port}{delimiter}").into_bytes()
            }
            Form::Epsv => port.to_string().into_bytes(),
            Form::Port | Form::Pasv => {
                let pair = format!(",{high},{low}").into_bytes();
                [Separator::Comma.write(address), pair].concat()
            }
            Form::Lprt | Form::Lpsv => {
                let pair = format!(",2,{high},{low}").into_bytes();
                [&b"4,4,"[..], &Separator::Comma.write(address), &pair].concat()
            }
        }
    }
}

impl Promise {
    /// How many of the next bytes still belong to the argument.
    pub fn swallows(&self, bytes: &[u8]) -> usize {
        swallows(self.form, self.port, bytes)
    }

    /// Whether the complete line announces where it was promised to.
    pub fn is_kept_by(&self, found: &Announcement) -> bool {
        let at = usize::from(self.at);
        found.form == self.form && found.span.start <= at && at < found.span.end
    }
}

/// Whether a byte may stand in an address of either family, as EPRT has it.
fn is_of_address(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
}

fn swallows(form: Form, port: Promised, bytes: &[u8]) -> usize {
    let belongs: fn(u8) -> bool = match form {
        Form::Eprt if port == Promised::Own => is_of_address,
        Form::Eprt => |byte| !matches!(byte, b'\r' | b'\n'),
        Form::Epsv => |byte| byte.is_ascii_digit(),
        Form::Port | Form::Pasv | Form::Lprt | Form::Lpsv => {
            |byte| byte.is_ascii_digit() || byte == b',' || is_blank(byte)
        }
    };
    bytes.iter().take_while(|byte| belongs(**byte)).count()
}

/// Looks for an argument in the bytes that are there of a line. `own` are the addresses that its
/// sender may state; in the free text of a reply, only a number that begins one of them counts.
pub fn find(side: Side, line: &[u8], own: &[IpAddr]) -> Option<Opening> {
    match side {
        Side::Client => in_command(line),
        Side::Server => in_reply(line, own),
    }
}

fn in_command(line: &[u8]) -> Option<Opening> {
    let command = keyword::command(line)?;
    let mut opening = Opening::new(Form::Port, command.argument_at);
    match (command.verb, command.argument) {
        (Verb::Active(form @ (Form::Port | Form::Lprt)), [b'0'..=b'9', ..]) => opening.form = form,
        (Verb::Active(Form::Eprt), [a, family @ b'0'..=b'9', b, _, ..]) if a == b => {
            opening.form = Form::Eprt;
            opening.at += 3;
            opening.family = *family;
            opening.delimiter = *a;
        }
        _ => return None,
    }
    Some(opening)
}

fn in_reply(line: &[u8], own: &[IpAddr]) -> Option<Opening> {
    // A list that text follows has ended: its port is known.
    if let Reading::Announced(Announcement { form, span, port, .. }) = announcement::of_reply(line)
        && span.end < line.len()
    {
        let opening = Opening::new(form, span.start);
        return Some(Opening { end: Some(span.end), port: Some(port), ..opening });
    }
    let reply = keyword::reply(line)?;
    let (form, before) = match reply.code {
        227 => (Form::Pasv, ""),
        228 => (Form::Lpsv, "4,4,"),
        229 => return in_epsv(line, reply.text_at),
        _ => return None,
    };
    let text = line.get(reply.text_at..)?;
    let listed = |byte: &u8| byte.is_ascii_digit() || *byte == b',' || is_blank(*byte);
    let tail = text.len() - text.iter().rev().take_while(|byte| listed(byte)).count();
    let tail = text.get(tail..)?;
    let starts = tail.iter().position(u8::is_ascii_digit)?;
    let tail = tail.get(starts..)?;
    // Numbers of the text may stand before it, with blanks between: look at each beginning.
    (0..tail.len()).find_map(|skip| {
        let candidate = tail.get(skip..)?;
        let at = line.len() - candidate.len();
        let digit = |at: usize| line.get(at).is_some_and(u8::is_ascii_digit);
        if !digit(at) || at.checked_sub(1).is_some_and(digit) {
            return None;
        }
        let plain: Vec<u8> = candidate.iter().copied().filter(|byte| !is_blank(*byte)).collect();
        let begins = own.iter().any(|address| {
            let wanted = format!("{before}{address},").replace('.', ",");
            let common = plain.len().min(wanted.len());
            plain.get(..common) == wanted.as_bytes().get(..common)
        });
        begins.then_some(Opening::new(form, at))
    })
}

/// The digits at the end of a 229, behind three times the same delimiter. There is no address in it,
/// but a digit of the port that has left can't be taken back.
fn in_epsv(line: &[u8], from: usize) -> Option<Opening> {
    let digits = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let at = line.len() - digits;
    let before = line.get(from..at).filter(|_| digits > 0)?;
    let [.., a, b, c] = before else { return None };
    (a == b && b == c && a.is_ascii_punctuation()).then(|| Opening::new(Form::Epsv, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const OWN: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1))];

    fn at(side: Side, line: &str) -> Option<usize> {
        find(side, line.as_bytes(), &OWN).map(|opening| opening.at)
    }

    #[test]
    fn an_argument_opens_with_its_first_byte() {
        assert_eq!(at(Side::Client, "PORT "), None);
        assert_eq!(at(Side::Client, "PORT 1"), Some(5));
        assert_eq!(at(Side::Client, "EPRT |1|"), None);
        assert_eq!(at(Side::Client, "EPRT |1|1"), Some(8));
        assert_eq!(at(Side::Client, "EPRT |2|:"), Some(8));
        assert_eq!(at(Side::Client, "RETR 10,0"), None);
    }

    #[test]
    fn an_address_is_replaced_alone_where_its_port_stays() {
        let line = b"EPRT |2|fd00::1|50";
        let found = find(Side::Client, line, &OWN).expect("an argument");
        assert!(found.is_address_apart());
        assert_eq!(found.span(line, Promised::Own), 8..15);
        assert_eq!(found.span(line, Promised::Port(5000)), 8..18);
        assert_eq!(found.refusal(OWN[0]), Some(Refusal::OtherFamily));
        assert_eq!(found.refusal("2001:db8::1".parse().unwrap()), None);
        let found = find(Side::Client, b"EPRT :2:f", &OWN).expect("an argument");
        assert!(!found.is_address_apart());
    }

    #[test]
    fn in_free_text_only_the_own_address_opens() {
        assert_eq!(at(Side::Server, "227 Entering Passive Mode ("), None);
        assert_eq!(at(Side::Server, "227 Entering Passive Mode (1"), Some(27));
        assert_eq!(at(Side::Server, "227 Mode 2 (10, 0, 2, 2, 7"), Some(12));
        assert_eq!(at(Side::Server, "227 Mode 2, 10,0"), Some(12));
        assert_eq!(at(Side::Server, "227 Mode (7"), None);
        assert_eq!(at(Side::Server, "226 Mode (1"), None);
    }

    #[test]
    fn an_argument_that_has_ended_gives_its_port() {
        let found = find(Side::Server, b"227 (10,0,2,2,4,5)", &OWN).expect("an argument");
        assert_eq!((found.at, found.end, found.port), (5, Some(17), Some(1029)));
        let found = find(Side::Server, b"229 (|||1029|", &OWN).expect("an argument");
        assert_eq!((found.at, found.end, found.port), (8, Some(12), Some(1029)));
    }

    #[test]
    fn a_port_opens_with_its_first_digit() {
        let found = find(Side::Server, b"229 Mode 2 (|||10", &OWN).expect("an argument");
        assert_eq!((found.at, found.end, found.port), (15, None, None));
        assert_eq!(swallows(found.form, Promised::Nothing, b"29|)\r\n"), 2);
        for line in ["229 Mode (|||", "229 Mode (|| |1", "229 Mode 2", "229 |1", "229 x   1"] {
            assert_eq!(at(Side::Server, line), None, "{line}");
        }
    }
}
