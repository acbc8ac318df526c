//! Reads an address and a port out of a line, and writes others in their place.
//!
//! Invariant: a line is announced, refused or nothing; it is announced only when every number in it
//! has been checked, so nothing behind this file sees an octet of 999 or a port of 102215.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use super::{
    keyword::{self, Form, Verb, is_blank},
    refusal::Refusal,
};

/// What a line says about a data connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing, or nothing that can be understood: it passes as it is.
    Nothing,
    /// Something that must not be acted on.
    Refused(Refusal, Option<Stated>),
    /// An address and a port, or a port alone.
    Announced(Announcement),
}

/// A data port that a line announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// How it is written.
    pub form: Form,
    /// The address, where the form has one.
    pub stated: Option<Stated>,
    /// The port.
    pub port: u16,
    /// What [`Announcement::rewritten`] replaces, as offsets in the line.
    pub span: Range<usize>,
}

/// An address as it stands in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// The address.
    pub address: IpAddr,
    /// Where it stands.
    pub span: Range<usize>,
    /// What separates its octets.
    pub separator: Separator,
}

/// What separates the octets of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// As in PORT.
    Comma,
    /// As in EPRT.
    Dot,
}

impl Separator {
    /// An address in this form.
    pub fn write(self, address: IpAddr) -> Vec<u8> {
        let text = address.to_string();
        match self {
            Separator::Comma => text.replace('.', ",").into_bytes(),
            Separator::Dot => text.into_bytes(),
        }
    }
}

impl Announcement {
    /// The text for `span` that announces another address and port, in the plainest form there is.
    pub fn rewritten(&self, address: IpAddr, port: u16) -> Vec<u8> {
        let comma = |address| Separator::Comma.write(address);
        let [high, low] = port.to_be_bytes();
        let pair = format!("{high},{low}").into_bytes();
        match self.form {
            Form::Port => [&b"PORT "[..], &comma(address), b",", &pair].concat(),
            Form::Eprt => {
                let family = if address.is_ipv6() { 2 } else { 1 };
                format!("EPRT |{family}|{address}|{port}|").into_bytes()
            }
            Form::Lprt => [&b"LPRT 4,4,"[..], &comma(address), b",2,", &pair].concat(),
            Form::Pasv => [&comma(address)[..], b",", &pair].concat(),
            Form::Lpsv => [&b"4,4,"[..], &comma(address), b",2,", &pair].concat(),
            Form::Epsv => port.to_string().into_bytes(),
        }
    }
}

/// Reads a line of the client.
pub fn of_command(line: &[u8]) -> Reading {
    let Some(command) = keyword::command(line) else { return Reading::Nothing };
    match command.verb {
        Verb::Active(Form::Eprt) => eprt(line, command.at, command.argument_at),
        Verb::Active(form) => {
            let Some(run) = Run::at(line, command.argument_at) else { return Reading::Nothing };
            let trailing = line.get(run.span.end..).unwrap_or_default();
            let span = command.at..line.len();
            match trailing.iter().all(|byte| is_blank(*byte)) {
                true => run.read(form, span),
                false => Reading::Refused(Refusal::Malformed, run.address(form)),
            }
        }
        _ => Reading::Nothing,
    }
}

/// Reads a line of the server.
pub fn of_reply(line: &[u8]) -> Reading {
    let Some(reply) = keyword::reply(line) else { return Reading::Nothing };
    match reply.code {
        227 => list_in(line, reply.text_at, Form::Pasv),
        228 => list_in(line, reply.text_at, Form::Lpsv),
        229 => epsv(line, reply.text_at),
        _ => Reading::Nothing,
    }
}

/// The first list of the right length in free text, which may hold other numbers before it: RFC
/// 1123, 4.1.2.6 tells clients to scan for the digits, whatever surrounds them.
fn list_in(line: &[u8], from: usize, form: Form) -> Reading {
    let mut at = from;
    let mut refused = Reading::Nothing;
    while at < line.len() {
        let Some(run) = Run::at(line, at) else {
            at += 1;
            continue;
        };
        at = run.span.end;
        let span = run.span.clone();
        match run.read(form, span) {
            Reading::Nothing => {}
            Reading::Refused(Refusal::Malformed, stated) if refused == Reading::Nothing => {
                refused = Reading::Refused(Refusal::Malformed, stated);
            }
            Reading::Refused(Refusal::Malformed, _) => {}
            found => return found,
        }
    }
    refused
}

/// `(|||port|)` anywhere in the text, with any delimiter (RFC 2428, 3). With a protocol and an
/// address between the delimiters, which the RFC forbids, it is nothing.
fn epsv(line: &[u8], from: usize) -> Reading {
    for at in from..line.len() {
        let Some([a, b, c, rest @ ..]) = line.get(at..) else { break };
        if a != b || b != c || !a.is_ascii_punctuation() {
            continue;
        }
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || rest.get(digits) != Some(a) {
            continue;
        }
        let span = at + 3..at + 3 + digits;
        return match number(rest.get(..digits).unwrap_or_default()) {
            Some(port) => {
                Reading::Announced(Announcement { form: Form::Epsv, stated: None, port, span })
            }
            None => Reading::Refused(Refusal::OutOfRange, None),
        };
    }
    Reading::Nothing
}

/// `|1|address|port|` with any delimiter, or with 2 an address of IPv6 (RFC 2428, 2).
fn eprt(line: &[u8], verb_at: usize, at: usize) -> Reading {
    let argument = line.get(at..).unwrap_or_default();
    let Some(delimiter) = argument.first().filter(|byte| byte.is_ascii_graphic()) else {
        return Reading::Nothing;
    };
    let mut fields = argument.split(|byte| byte == delimiter);
    let (Some(_), Some(family), Some(address), Some(port), Some(rest)) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Reading::Nothing;
    };
    let address_at = at + 1 + family.len() + 1;
    let span = address_at..address_at + address.len();
    let stated = match family {
        b"2" => six(address, span.clone()).or_else(|| dotted(address, span)),
        _ => dotted(address, span),
    };
    let refused = |reason| Reading::Refused(reason, stated.clone());
    if fields.next().is_some() || !rest.iter().all(|byte| is_blank(*byte)) {
        return refused(Refusal::Malformed);
    }
    let is_six = stated.as_ref().is_some_and(|stated| stated.address.is_ipv6());
    if family != b"1" && !is_six {
        return refused(Refusal::OtherFamily);
    }
    let is_mapped = family == b"1" && address.contains(&b':');
    if stated.is_none() || is_mapped || port.is_empty() || !port.iter().all(u8::is_ascii_digit) {
        return refused(Refusal::Malformed);
    }
    match number(port) {
        Some(port) => {
            let span = verb_at..line.len();
            Reading::Announced(Announcement { form: Form::Eprt, stated, port, span })
        }
        None => refused(Refusal::OutOfRange),
    }
}

/// An IPv6 address in a field, unless it maps one of IPv4.
fn six(field: &[u8], span: Range<usize>) -> Option<Stated> {
    let address: Ipv6Addr = str::from_utf8(field).ok()?.parse().ok()?;
    let separator = Separator::Dot;
    address.to_ipv4_mapped().is_none().then_some(Stated {
        address: address.into(),
        span,
        separator,
    })
}

/// An IPv4 address in a field, alone or at the end of an IPv6 address that maps it.
fn dotted(field: &[u8], span: Range<usize>) -> Option<Stated> {
    let text = str::from_utf8(field).ok()?;
    let separator = Separator::Dot;
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(Stated { address: address.into(), span, separator });
    }
    let address = text.parse::<Ipv6Addr>().ok()?.to_ipv4_mapped()?.into();
    let tail = text.rfind(':')? + 1;
    let span = span.start + tail..span.end;
    text.get(tail..)?.contains('.').then_some(Stated { address, span, separator })
}

fn number(digits: &[u8]) -> Option<u16> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Most numbers that are kept of one list: LPRT with an IPv6 address has 21. One with more is malformed.
const RUN_NUMBERS: usize = 24;

/// Numbers with commas between them, and blanks around those.
struct Run {
    /// Each number, 256 standing for all above 255, and where it stands.
    numbers: Vec<(u16, Range<usize>)>,
    span: Range<usize>,
}

impl Run {
    /// The list that starts at `at`; `None` when no number starts there.
    fn at(line: &[u8], at: usize) -> Option<Run> {
        if at.checked_sub(1).and_then(|before| line.get(before)).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let mut numbers = Vec::new();
        let (mut next, mut last) = (at, at);
        loop {
            let digits = count(line, next, |byte| byte.is_ascii_digit());
            if digits == 0 {
                break;
            }
            let end = next + digits;
            let value = line
                .get(next..end)
                .unwrap_or_default()
                .iter()
                .fold(0, |value, digit| (value * 10 + u16::from(digit - b'0')).min(256));
            if numbers.len() < RUN_NUMBERS {
                numbers.push((value, next..end));
            }
            last = end;
            let comma = end + count(line, end, is_blank);
            if line.get(comma) != Some(&b',') {
                break;
            }
            next = comma + 1;
            next += count(line, next, is_blank);
        }
        (last > at).then_some(Run { numbers, span: at..last })
    }

    fn read(&self, form: Form, span: Range<usize>) -> Reading {
        let long = matches!(form, Form::Lprt | Form::Lpsv);
        let values: Vec<u16> = self.numbers.iter().map(|(value, _)| *value).collect();
        let stated = self.address(form);
        let (family, pair, rest) = match values.as_slice() {
            [_, _, _, _, high, low, rest @ ..] if !long => (4, [*high, *low], rest.len()),
            [family, 4, _, _, _, _, 2, high, low, rest @ ..] if long => {
                (*family, [*high, *low], rest.len())
            }
            [6, 16, ..] if long => (6, [0, 0], 0),
            _ => return Reading::Nothing,
        };
        let [high, low] = pair.map(u8::try_from);
        match (high, low) {
            _ if rest > 0 => Reading::Refused(Refusal::Malformed, stated),
            _ if family != 4 => Reading::Refused(Refusal::OtherFamily, stated),
            (Ok(high), Ok(low)) if stated.is_some() => {
                let port = u16::from_be_bytes([high, low]);
                Reading::Announced(Announcement { form, stated, port, span })
            }
            _ => Reading::Refused(Refusal::OutOfRange, stated),
        }
    }

    /// The address in the list, when its octets are octets.
    fn address(&self, form: Form) -> Option<Stated> {
        let skipped = if matches!(form, Form::Lprt | Form::Lpsv) { 2 } else { 0 };
        let [a, b, c, d] = self.numbers.get(skipped..skipped + 4)? else { return None };
        let octet = |number: &(u16, Range<usize>)| u8::try_from(number.0).ok();
        let address = Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?);
        let span = a.1.start..d.1.end;
        Some(Stated { address: address.into(), span, separator: Separator::Comma })
    }
}

fn count(line: &[u8], at: usize, belongs: fn(u8) -> bool) -> usize {
    line.get(at..).unwrap_or_default().iter().take_while(|byte| belongs(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(reading: Reading) -> (Option<IpAddr>, u16) {
        match reading {
            Reading::Announced(found) => (found.stated.map(|stated| stated.address), found.port),
            other => panic!("not announced: {other:?}"),
        }
    }

    #[test]
    fn numbers_before_the_address_are_passed_over() {
        let address = Some(Ipv4Addr::new(10, 0, 2, 2).into());
        for line in [
            "227 Mode 2 (10,0,2,2,4,5)",
            "227 1, 2, 3 go 10,0,2,2,4,5",
            "227 =10,0,2,2,4,5",
            "227 x (10 , 0,2,2, 4,5)",
        ] {
            assert_eq!(announced(of_reply(line.as_bytes())), (address, 1029), "{line}");
        }
    }

    #[test]
    fn what_is_no_list_of_the_right_length_is_nothing() {
        for line in
            ["227 Logout.", "227 50000", "227 (10,0,2", "229 (|1|10.0.2.2|5000|)", "228 (4)"]
        {
            assert_eq!(of_reply(line.as_bytes()), Reading::Nothing, "{line}");
        }
        for line in ["PORT", "PORT 1,2,3,4,5", "EPRT |1|10.0.1.2", "SITE PORT 1,2,3,4,5,6"] {
            assert_eq!(of_command(line.as_bytes()), Reading::Nothing, "{line}");
        }
    }

    #[test]
    fn what_no_address_or_port_can_be_is_refused() {
        use Refusal::*;
        for (line, reason) in [
            ("PORT 10,0,1,2,0,38891", OutOfRange),
            ("PORT 999,0,1,2,9,9", OutOfRange),
            ("PORT 10,0,1,2,164,37,9", Malformed),
            ("PORT 10,0,1,2,164,37 x", Malformed),
            ("EPRT |1|10.0.1.2|102215|", OutOfRange),
            ("EPRT |2|::ffff:10.0.1.2|45119|", OtherFamily),
            ("EPRT |1|10.0.1.2|5000|x", Malformed),
            ("EPRT |1|::ffff:10.0.1.2|5000|", Malformed),
            ("LPRT 6,16,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,2,9,9", OtherFamily),
        ] {
            match of_command(line.as_bytes()) {
                Reading::Refused(found, _) => assert_eq!(found, reason, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_end_of_a_list_that_is_too_long_is_none() {
        for length in [7, 23, 24, 25, 30, 31] {
            let line = format!("227 ({})", vec!["10"; length].join(","));
            let read = of_reply(line.as_bytes());
            let Reading::Refused(Refusal::Malformed, _) = read else {
                panic!("{length}: {read:?}")
            };
        }
    }

    #[test]
    fn a_mapped_address_is_found_where_it_stands() {
        let line = b"EPRT |2|::ffff:10.0.1.2|45119|";
        let Reading::Refused(_, Some(stated)) = of_command(line) else { panic!("not refused") };
        assert_eq!(line.get(stated.span), Some(&b"10.0.1.2"[..]));
    }

    #[test]
    fn an_address_of_ipv6_is_announced_with_a_2() {
        let (line, address) = (b"EPRT |2|2001:db8::5|45119|", "2001:db8::5".parse().unwrap());
        let Reading::Announced(found) = of_command(line) else { panic!("not announced") };
        assert_eq!(found.rewritten(address, found.port), line);
        assert_eq!(announced(Reading::Announced(found)), (Some(address), 45119));
        for line in ["EPRT |1|2001:db8::5|45119|", "EPRT |2|10.0.1.2|45119|"] {
            let read = of_command(line.as_bytes());
            assert!(matches!(read, Reading::Refused(..)), "{line}: {read:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (address, port) = (IpAddr::from([203, 0, 113, 1]), 40963);
        for line in ["port 1,2,3,4,5,6 ", "eprt #1#1.2.3.4#5#", "LPRT 4,4,1,2,3,4,2,5,6"] {
            let Reading::Announced(found) = of_command(line.as_bytes()) else { panic!("{line}") };
            let mut new = line.as_bytes().to_vec();
            new.splice(found.span.clone(), found.rewritten(address, port));
            assert_eq!(announced(of_command(&new)), (Some(address), port), "{line}");
        }
        for line in ["227 (1,2,3,4,5,6)", "228 (4,4,1,2,3,4,2,5,6)", "229 (|||5|)"] {
            let Reading::Announced(found) = of_reply(line.as_bytes()) else { panic!("{line}") };
            let mut new = line.as_bytes().to_vec();
            let stated = found.stated.as_ref().map(|_| address);
            new.splice(found.span.clone(), found.rewritten(address, port));
            assert_eq!(announced(of_reply(&new)), (stated, port), "{line}");
        }
    }
}
