//! The parsers of lines, each beside an oracle that knows one form and is written in another way: by
//! splitting text, where they walk over bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nat_ctl::alg::{
    Side,
    announcement::{self, Announcement, Reading},
    keyword,
    opening::{self, Promised},
};

/// Telnet commands begin here (RFC 854); what stands behind them is for a test of its own.
const TELNET: u8 = 0xf0;

/// Reads a line of the client, or of the server.
pub fn run(data: &[u8]) {
    let Some((kind, line)) = data.split_first() else { return };
    let side = if kind & 1 == 0 { Side::Client } else { Side::Server };
    let reading = match side {
        Side::Client => announcement::of_command(line),
        Side::Server => announcement::of_reply(line),
    };
    check_cuts(side, line);
    if let Reading::Announced(found) = &reading {
        check_rewritten(side, line, found);
    }
    let masked = keyword::masked(line);
    assert!(!masked.chars().any(|char| char.is_control()), "{masked:?}");
    if line.iter().any(|byte| *byte >= TELNET) {
        return;
    }
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    check_secret(&text, &masked);
    let wanted = match side {
        Side::Client => command(&text),
        Side::Server => reply(&text),
    };
    let read = match &reading {
        Reading::Announced(found) => {
            Some((found.stated.as_ref().map(|stated| stated.address), found.port))
        }
        Reading::Nothing | Reading::Refused(..) => None,
    };
    assert_eq!(read, wanted, "{text:?} is read as {reading:?}");
}

/// What is written in the place of an announcement is read back.
fn check_rewritten(side: Side, line: &[u8], found: &Announcement) {
    let address = match found.stated.as_ref().map(|stated| stated.address) {
        Some(IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        Some(IpAddr::V4(_)) | None => Ipv4Addr::new(203, 0, 113, 1).into(),
    };
    let mut again = line.to_vec();
    again.splice(found.span.clone(), found.rewritten(address, 40963));
    let reading = match side {
        Side::Client => announcement::of_command(&again),
        Side::Server => announcement::of_reply(&again),
    };
    let Reading::Announced(read) = reading else { panic!("{again:?} announces nothing") };
    assert_eq!((read.form, read.port), (found.form, 40963));
    assert_eq!(read.stated.map(|stated| stated.address), found.stated.as_ref().map(|_| address));
}

/// What begins in a line that is cut stands within what is there of it.
fn check_cuts(side: Side, line: &[u8]) {
    let own = [IpAddr::from([10, 0, 1, 2])];
    for end in 0..=line.len() {
        let part = &line[..end];
        if let Some(found) = opening::find(side, part, &own) {
            for port in [Promised::Nothing, Promised::Port(1024), Promised::Own] {
                let span = found.span(part, port);
                assert!(span.start <= span.end && span.end <= end, "{span:?} of {part:?}");
            }
            assert!(!found.text(IpAddr::from([203, 0, 113, 1]), 1024).is_empty());
        }
    }
}

/// A password is never shown.
fn check_secret(text: &str, masked: &str) {
    let Some((word, argument)) = text.split_once(' ') else { return };
    let is_secret = ["PASS", "ACCT", "ADAT"].iter().any(|secret| word.eq_ignore_ascii_case(secret));
    if is_secret && argument.len() >= 8 && argument.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        assert!(!masked.contains(argument), "{masked:?}");
    }
}

type Found = Option<(Option<IpAddr>, u16)>;

const BLANKS: [char; 2] = [' ', '\t'];

fn command(text: &str) -> Found {
    let text = text.trim_start_matches(BLANKS);
    let (word, argument) = text.split_once(BLANKS)?;
    let argument = argument.trim_matches(BLANKS);
    match word.to_ascii_uppercase().as_str() {
        "PORT" => short(argument),
        "LPRT" => long(argument),
        "EPRT" => eprt(argument),
        _ => None,
    }
}

fn reply(text: &str) -> Found {
    let text = text.trim_start_matches(BLANKS);
    let (code, rest) = text.split_at_checked(3)?;
    let rest = rest.strip_prefix([' ', '-'])?;
    match code {
        // The first list that has the right length decides, whatever its numbers are.
        "227" => {
            lists(rest).into_iter().find(|list| numbers(list).len() == 6).and_then(|it| short(&it))
        }
        "228" => lists(rest).into_iter().find(|list| is_long(list)).and_then(|it| long(&it)),
        "229" => epsv(rest),
        _ => None,
    }
}

fn numbers(list: &str) -> Vec<Option<u8>> {
    list.split(',').map(octet).collect()
}

/// An address with its length and a port with its, or the beginning of one of IPv6.
fn is_long(list: &str) -> bool {
    matches!(numbers(list)[..], [_, Some(4), _, _, _, _, Some(2), _, _] | [Some(6), Some(16), ..])
}

/// Every list of numbers in a text: what is between other characters, with blanks only around commas.
fn lists(text: &str) -> Vec<String> {
    let mut squeezed = text.to_owned();
    loop {
        let tighter = [" ,", "\t,", ", ", ",\t"]
            .iter()
            .fold(squeezed.clone(), |text, wide| text.replace(wide, ","));
        if tighter == squeezed {
            break;
        }
        squeezed = tighter;
    }
    let parts = squeezed.split(|char: char| !(char.is_ascii_digit() || char == ','));
    // An empty number parts two lists.
    parts
        .flat_map(|part| part.split(",,"))
        .map(|part| part.trim_matches(',').to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

/// Numbers with commas between them.
fn octets<const N: usize>(list: &str) -> Option<[u8; N]> {
    let octets: Option<Vec<u8>> = list.split(',').map(octet).collect();
    octets?.try_into().ok()
}

fn octet(part: &str) -> Option<u8> {
    let part = part.trim_matches(BLANKS);
    let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match part.trim_start_matches('0') {
        "" => is_number.then_some(0),
        digits => is_number.then(|| digits.parse().ok())?,
    }
}

fn short(list: &str) -> Found {
    let [a, b, c, d, high, low] = octets(list)?;
    Some((Some(IpAddr::from([a, b, c, d])), u16::from_be_bytes([high, low])))
}

fn long(list: &str) -> Found {
    let [4, 4, a, b, c, d, 2, high, low] = octets(list)? else { return None };
    Some((Some(IpAddr::from([a, b, c, d])), u16::from_be_bytes([high, low])))
}

fn eprt(argument: &str) -> Found {
    let delimiter = argument.chars().next().filter(char::is_ascii_graphic)?;
    let fields: Vec<&str> = argument.split(delimiter).collect();
    let ["", family, address, port, ""] = fields[..] else { return None };
    let address = match family {
        "1" => IpAddr::V4(address.parse().ok()?),
        "2" => {
            let address: Ipv6Addr = address.parse().ok()?;
            address.to_ipv4_mapped().is_none().then_some(IpAddr::V6(address))?
        }
        _ => return None,
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    Some((Some(address), digits.then(|| port.parse().ok()).flatten()?))
}

/// The first place where a delimiter stands three times before a number and once behind it.
fn epsv(text: &str) -> Found {
    let characters: Vec<char> = text.chars().collect();
    for at in 0..characters.len() {
        let rest: String = characters[at..].iter().collect();
        let Some(delimiter) = rest.chars().next().filter(char::is_ascii_punctuation) else {
            continue;
        };
        let Some(behind) = rest.strip_prefix(&String::from(delimiter).repeat(3)) else { continue };
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        if !digits.is_empty() && behind[digits.len()..].starts_with(delimiter) {
            return digits.parse().ok().map(|port| (None, port));
        }
    }
    None
}
