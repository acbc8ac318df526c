//! The plainest reading of a line that names an inside address: it must not be seen outside.
//!
//! It knows lines as RFC 959 and 2428 write them, and no others; those the engine must always find.

use nat_ctl::alg::Side;

/// Longest line that is looked at: of one that is cut the engine keeps 256 bytes.
const LONGEST: usize = 200;

/// A line in what `side`, whose address is `inside` with points, has sent, that announces that address.
pub fn find(side: Side, sent: &[u8], inside: &str) -> Option<String> {
    let lines = lines(side, sent);
    // What stands within a reply of several lines is text, whatever it looks like.
    let begins_text = |line: &String| {
        let code = line.as_bytes();
        code.len() > 3 && code.iter().take(3).all(u8::is_ascii_digit) && code[3] == b'-'
    };
    let commas = inside.replace('.', ",");
    match side {
        Side::Client => lines.into_iter().find(|line| {
            let port = line.strip_prefix("PORT ").is_some_and(|list| is_list(list, &commas));
            let head = format!("EPRT |1|{inside}|");
            let eprt = line.strip_prefix(&head).and_then(|rest| rest.strip_suffix('|'));
            port || eprt.is_some_and(is_number)
        }),
        Side::Server => lines.into_iter().take_while(|line| !begins_text(line)).find(|line| {
            let list = line.strip_prefix("227 Entering Passive Mode (");
            let list = list.and_then(|list| list.split_once(')'));
            list.is_some_and(|(list, _)| is_list(list, &commas))
        }),
    }
}

/// Lines that have ended. A client that ends its first one by CR LF has line feeds in names.
fn lines(side: Side, sent: &[u8]) -> Vec<String> {
    let text: String = sent.iter().map(|byte| char::from(*byte)).collect();
    let first = text.split_inclusive('\n').next().unwrap_or_default();
    let end = if side == Side::Client && first.ends_with("\r\n") { "\r\n" } else { "\n" };
    let whole = text.split_inclusive(end).filter(|line| line.ends_with(end));
    let short = whole.filter(|line| line.len() < LONGEST);
    short.map(|line| line.trim_end_matches(['\r', '\n']).to_owned()).collect()
}

/// `address,p,p` with octets.
fn is_list(list: &str, address: &str) -> bool {
    let pair = list.strip_prefix(address).and_then(|rest| rest.strip_prefix(','));
    pair.and_then(|pair| pair.split_once(',')).is_some_and(|(high, low)| {
        is_number(high) && is_number(low) && high.len() <= 3 && low.len() <= 3
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}
