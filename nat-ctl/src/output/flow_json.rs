//! A flow as JSON, written for speed: a table may have millions.
//!
//! Invariant: byte for byte what `serde_json` makes of the same flow with `"version": 1` in front:
//! what stands between two values is constant, and the values are numbers, addresses and words.

use std::{io, io::Write, net::IpAddr};

use super::flow_line::FlowLine;
use super::view::End;

/// What stands before each value of a flow, and at its end.
pub(super) struct Style {
    /// Before the version.
    open: &'static str,
    /// Before protocol, state, and what the initiator sends.
    head: [&'static str; 3],
    /// Before source, its port, destination, its port, packets and bytes.
    end: [&'static str; 6],
    /// Before what the answer looks like; before ages, kind, rule and session; after all.
    tail: [&'static str; 8],
}

/// In one line.
pub(super) const COMPACT: Style = Style {
    open: r#"{"version":"#,
    head: [r#","protocol":""#, r#"","state":"#, r#","original":{"#],
    end: [
        r#""src":""#,
        r#"","sport":"#,
        r#","dst":""#,
        r#"","dport":"#,
        r#","packets":"#,
        r#","bytes":"#,
    ],
    tail: [
        r#"},"reply":{"#,
        r#"},"age_s":"#,
        r#","idle_s":"#,
        r#","expires_s":"#,
        r#","alg":"#,
        r#","rule":"#,
        r#","related_to":"#,
        "}",
    ],
};

/// A line for each value, in an array.
pub(super) const PRETTY: Style = Style {
    open: "{\n    \"version\": ",
    head: [",\n    \"protocol\": \"", "\",\n    \"state\": ", ",\n    \"original\": {"],
    end: [
        "\n      \"src\": \"",
        "\",\n      \"sport\": ",
        ",\n      \"dst\": \"",
        "\",\n      \"dport\": ",
        ",\n      \"packets\": ",
        ",\n      \"bytes\": ",
    ],
    tail: [
        "\n    },\n    \"reply\": {",
        "\n    },\n    \"age_s\": ",
        ",\n    \"idle_s\": ",
        ",\n    \"expires_s\": ",
        ",\n    \"alg\": ",
        ",\n    \"rule\": ",
        ",\n    \"related_to\": ",
        "\n  }",
    ],
};

/// Appends a flow to `out`.
///
/// # Errors
/// Where a name is no text that JSON can hold, which no name is.
pub(super) fn write(out: &mut Vec<u8>, style: &Style, flow: &FlowLine<'_>) -> io::Result<()> {
    let [protocol, state, original] = style.head;
    let [reply, age, idle, expires, alg, rule, related, close] = style.tail;
    text(out, style.open);
    number(out, crate::api::VERSION.into());
    text(out, protocol);
    match flow.protocol.name() {
        Some(name) => text(out, name),
        None => number(out, flow.protocol.number().into()),
    }
    text(out, state);
    quoted(out, flow.state)?;
    text(out, original);
    end(out, style, &flow.original)?;
    text(out, reply);
    end(out, style, &flow.reply)?;
    for (before, seconds) in [(age, flow.age_s), (idle, flow.idle_s), (expires, flow.expires_s)] {
        text(out, before);
        number(out, seconds);
    }
    text(out, alg);
    match flow.alg {
        Some(alg) => quoted(out, &alg.to_string())?,
        None => text(out, "null"),
    }
    text(out, rule);
    match flow.rule {
        Some(rule) => quoted(out, rule)?,
        None => text(out, "null"),
    }
    text(out, related);
    match flow.related_to {
        Some(session) => number(out, session),
        None => text(out, "null"),
    }
    text(out, close);
    Ok(())
}

fn end(out: &mut Vec<u8>, style: &Style, end: &End) -> io::Result<()> {
    let [src, sport, dst, dport, packets, bytes] = style.end;
    text(out, src);
    address(out, end.src)?;
    text(out, sport);
    number(out, end.sport.into());
    text(out, dst);
    address(out, end.dst)?;
    text(out, dport);
    number(out, end.dport.into());
    text(out, packets);
    number(out, end.packets);
    text(out, bytes);
    number(out, end.bytes);
    Ok(())
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, number: u64) {
    text(out, itoa::Buffer::new().format(number));
}

fn address(out: &mut Vec<u8>, address: IpAddr) -> io::Result<()> {
    let address = match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => return write!(out, "{address}"),
    };
    let mut digits = itoa::Buffer::new();
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        text(out, digits.format(octet));
    }
    Ok(())
}

/// A word in quotes; what has to be escaped in it is left to the library.
fn quoted(out: &mut Vec<u8>, word: &str) -> io::Result<()> {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if word.bytes().all(plain) {
        out.push(b'"');
        text(out, word);
        out.push(b'"');
        return Ok(());
    }
    serde_json::to_writer(out.by_ref(), word).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::printer::{Pretty, json, versioned},
        rules::{Alg, FlowProtocol},
    };
    use proptest::{option, prelude::*};

    fn an_end() -> BoxedStrategy<End> {
        let edge = prop_oneof![Just(0), Just(9), Just(10), Just(u64::MAX), any::<u64>()];
        let octet = prop_oneof![Just(0_u8), Just(9), Just(99), Just(100), Just(255), any::<u8>()];
        let segment = prop_oneof![Just(0_u16), Just(1), Just(0xffff), any::<u16>()];
        let address = prop_oneof![
            proptest::array::uniform4(octet).prop_map(IpAddr::from),
            proptest::array::uniform8(segment).prop_map(IpAddr::from),
        ]
        // As a type of its own it would take more of the stack than there is.
        .boxed();
        (address.clone(), any::<u16>(), address, any::<u16>(), edge.clone(), edge)
            .prop_map(|(src, sport, dst, dport, packets, bytes)| End {
                src,
                sport,
                dst,
                dport,
                packets,
                bytes,
            })
            .boxed()
    }

    fn serialized(value: &impl serde::Serialize, pretty: Pretty) -> String {
        let mut out = vec![];
        json(&mut out, value, pretty).unwrap();
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn a_flow_is_written_as_the_library_would(
            protocol in prop_oneof![Just(6), Just(17), Just(1), Just(58), any::<u8>()]
                .prop_map(FlowProtocol::from_number),
            state in prop_oneof![Just("established"), Just(""), Just("a\"b\\c\n\u{7f}\u{e9}")],
            ends in (an_end(), an_end()),
            seconds in (any::<u64>(), any::<u32>(), any::<u8>()),
            alg in option::of(prop_oneof![Just(Alg::Ftp), Just(Alg::None)]),
            rule in option::of("\\PC{0,8}"),
            related_to in option::of(any::<u64>()),
        ) {
            let flow = FlowLine {
                protocol,
                state,
                original: ends.0,
                reply: ends.1,
                age_s: seconds.0,
                idle_s: seconds.1.into(),
                expires_s: seconds.2.into(),
                alg,
                rule: rule.as_deref(),
                related_to,
            };
            let mut written = vec![];
            write(&mut written, &COMPACT, &flow).unwrap();
            prop_assert_eq!(
                String::from_utf8(written).unwrap(),
                serialized(&versioned(&flow), Pretty::No)
            );
            let mut written = b"[\n  ".to_vec();
            write(&mut written, &PRETTY, &flow).unwrap();
            written.extend_from_slice(b"\n]");
            prop_assert_eq!(
                String::from_utf8(written).unwrap(),
                serialized(&[versioned(&flow)], Pretty::Yes)
            );
        }
    }
}
