//! What Linux nf_nat_ftp can't do and ours must: each row of the second table of the project's FTP
//! requirements, word for word through both gateways. Linux is known to fail each of them, so a row
//! that Linux passes says nothing and fails here too.

use std::{
    net::{SocketAddrV4, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nat_tests::{
    dialogue::{Dialogue, End, announced, padding, port, write_apart},
    gateway::{Gateway, Kind, Mode, Rule},
    lab::{INSIDE, Lab, WAN},
    netns::Lifetime,
    requirements,
};

/// For what has to happen; on an idle machine it takes milliseconds.
const LIMIT: Duration = Duration::from_secs(3);
/// For what must not happen, or what Linux does not do.
const IN_VAIN: Duration = Duration::from_millis(700);

/// A row: who is inside, and what has to come true.
struct Row {
    name: &'static str,
    inside: End,
    check: fn(&mut Dialogue<'_>, Duration) -> Result<()>,
}

const ROWS: &[Row] = &[
    Row { name: "PORT cut within its address", inside: End::Client, check: port_cut },
    Row { name: "EPRT, a byte a segment", inside: End::Client, check: eprt_by_bytes },
    Row { name: "227 cut within its address", inside: End::Server, check: pasv_cut },
    Row { name: "229 cut within its port", inside: End::Server, check: epsv_cut },
    Row { name: "LF alone ends the lines", inside: End::Client, check: line_feeds },
    Row { name: "a blank behind the numbers", inside: End::Client, check: trailing_blank },
    Row { name: "two blanks before them", inside: End::Client, check: two_blanks },
    Row { name: "blanks between them", inside: End::Client, check: blanks_between },
    Row {
        name: "a command that is not the first in its segment",
        inside: End::Client,
        check: second_command,
    },
    Row { name: "200 and 227 in one segment", inside: End::Server, check: two_replies },
    Row { name: "a 227 of two lines", inside: End::Server, check: two_lines },
    Row { name: "PORT as the very first bytes", inside: End::Client, check: first_bytes },
    Row { name: "telnet commands before PORT", inside: End::Client, check: telnet },
    Row { name: "a digit in the text of a 227", inside: End::Server, check: digit_in_text },
    Row { name: "the server states the public address", inside: End::Server, check: states_public },
    Row { name: "a full segment that grows", inside: End::Client, check: full_segment },
    Row { name: "a 227 that comes again, its port held", inside: End::Server, check: repeated },
    Row { name: "PORT names another host inside", inside: End::Client, check: third_host },
    Row { name: "PORT names port 22", inside: End::Client, check: system_port },
    Row { name: "an octet of 258", inside: End::Client, check: octet_out_of_range },
    Row { name: "the control connection is closed", inside: End::Client, check: closed },
    Row { name: "two PORTs, each for a transfer", inside: End::Client, check: two_ports },
    Row { name: "a 227 without numbers", inside: End::Server, check: no_numbers },
    Row { name: "a 229 with protocol and address", inside: End::Server, check: fields_in_229 },
];

#[test]
fn rows_that_linux_fails_pass_through_ours() {
    let Some(binary) = requirements::met_with_binary("rows beside Linux") else { return };
    for kind in [Kind::NatCtl(Mode::Tc), Kind::Linux] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let mut gateway = Gateway::start(&lab, kind, &binary).expect("a gateway");
        let rule = Rule::ForwardFtp { name: "ftp".into(), public: WAN, to: INSIDE };
        gateway.add(&rule).expect("a forward");
        let limit = if kind == Kind::Linux { IN_VAIN } else { LIMIT };
        for row in ROWS {
            let passed = Dialogue::open(&lab, row.inside)
                .and_then(|mut dialogue| (row.check)(&mut dialogue, limit));
            match (kind, passed) {
                (Kind::NatCtl(_), Err(error)) => {
                    panic!("{}: {error:#}\n{}", row.name, gateway.diagnosis());
                }
                (Kind::Linux, Ok(())) => panic!("{}: Linux passes it", row.name),
                _ => {}
            }
        }
    }
}

#[test]
fn what_both_pass_says_that_the_rows_can_fail() {
    let Some(binary) = requirements::met_with_binary("a row for both") else { return };
    for kind in [Kind::NatCtl(Mode::Tc), Kind::Linux] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let mut gateway = Gateway::start(&lab, kind, &binary).expect("a gateway");
        let rule = Rule::ForwardFtp { name: "ftp".into(), public: WAN, to: INSIDE };
        gateway.add(&rule).expect("a forward");
        let mut client = Dialogue::open(&lab, End::Client).expect("a connection");
        active(&mut client, LIMIT, |port| vec![port]).expect("PORT");
        let mut server = Dialogue::open(&lab, End::Server).expect("a connection");
        passive(&mut server, LIMIT, "PASV\r\n", |pasv| vec![pasv]).expect("227");
    }
}

fn port_cut(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    active(dialogue, limit, |line| split(&line, 12))
}

fn eprt_by_bytes(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    let listener = dialogue.listen(End::Client)?;
    let line = format!("EPRT |1|{INSIDE}|{}|\r\n", port(&listener)?);
    write_apart(dialogue, End::Client, &line.as_bytes().chunks(1).collect::<Vec<_>>())?;
    opens(dialogue, End::Client, &listener, limit)
}

fn pasv_cut(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    passive(dialogue, limit, "PASV\r\n", |line| split(&line, 30))
}

fn epsv_cut(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    exchange(dialogue, End::Client, "EPSV\r\n", limit)?;
    let listener = dialogue.listen(End::Server)?;
    let line = format!("229 Entering Extended Passive Mode (|||{}|)\r\n", port(&listener)?);
    let at = line.rfind("|)").context("a port")? - 2;
    let parts = split(&line, at);
    write_apart(dialogue, End::Server, &parts.iter().map(String::as_bytes).collect::<Vec<_>>())?;
    opens(dialogue, End::Server, &listener, limit)
}

fn line_feeds(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    for (end, line) in
        [(End::Server, "220 here\n"), (End::Client, "USER u\n"), (End::Server, "230 in\n")]
    {
        exchange(dialogue, end, line, limit)?;
    }
    let listener = dialogue.listen(End::Client)?;
    let line = port_line(&listener)?.replace("\r\n", "\n");
    dialogue.write(End::Client, line.as_bytes())?;
    opens(dialogue, End::Client, &listener, limit)
}

fn trailing_blank(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    active(dialogue, limit, |line| vec![line.replace("\r\n", " \r\n")])
}

fn two_blanks(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    active(dialogue, limit, |line| vec![line.replace("PORT ", "PORT  ")])
}

fn blanks_between(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    active(dialogue, limit, |line| vec![line.replace(',', ", ")])
}

fn second_command(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    active(dialogue, limit, |line| vec![format!("NOOP\r\n{line}")])
}

fn two_replies(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    passive(dialogue, limit, "TYPE I\r\nPASV\r\n", |line| vec![format!("200 ok\r\n{line}")])
}

fn two_lines(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    passive(dialogue, limit, "PASV\r\n", |line| vec![format!("227-As you wish\r\n{line}")])
}

fn first_bytes(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    exchange(dialogue, End::Server, "220 here\r\n", limit)?;
    let listener = dialogue.listen(End::Client)?;
    dialogue.write(End::Client, port_line(&listener)?.as_bytes())?;
    opens(dialogue, End::Client, &listener, limit)
}

fn telnet(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    let listener = dialogue.listen(End::Client)?;
    let line = [&b"\xff\xf4\xff\xf2"[..], port_line(&listener)?.as_bytes()].concat();
    dialogue.write(End::Client, &line)?;
    opens(dialogue, End::Client, &listener, limit)
}

fn digit_in_text(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    passive(dialogue, limit, "PASV\r\n", |line| vec![line.replace("Mode", "Mode 2, as asked")])
}

fn states_public(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    exchange(dialogue, End::Client, "PASV\r\n", limit)?;
    let listener = dialogue.listen(End::Server)?;
    let line = pasv_line(SocketAddrV4::new(WAN, port(&listener)?));
    exchange(dialogue, End::Server, &line, limit)?;
    dialogue.data(End::Client, announced(&line, WAN)?, &listener, limit)
}

fn full_segment(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    let full = dialogue.full_segment(End::Client)?;
    active(dialogue, limit, |line| vec![padding(full - line.len()) + &line])
}

/// Another session of the same server has announced the same port; what this one hears of its own does not
/// depend on how often it is sent.
fn repeated(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    let listener = dialogue.listen(End::Server)?;
    let line = pasv_line(SocketAddrV4::new(INSIDE, port(&listener)?));
    let mut other = dialogue.beside()?;
    for session in [&mut other, &mut *dialogue] {
        session.log_in()?;
        exchange(session, End::Client, "PASV\r\n", limit)?;
    }
    other.write(End::Server, line.as_bytes())?;
    last_address(&mut other, End::Client, limit)?;
    dialogue.unacknowledged(|dialogue| dialogue.write(End::Server, line.as_bytes()))?;
    opens(dialogue, End::Server, &listener, limit)?;
    exchange(dialogue, End::Client, "NOOP\r\n", limit)?;
    exchange(dialogue, End::Server, "200 fine\r\n", limit)
}

fn third_host(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    dialogue.write(End::Client, b"PORT 10,0,1,77,19,136\r\n")?;
    let line = String::from_utf8_lossy(&dialogue.line(End::Server, limit)?).into_owned();
    ensure!(!line.contains("10,0,1,77"), "the outside reads `{}`", line.trim_end());
    Ok(())
}

fn system_port(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    let listener = dialogue.listen_on(End::Client, 22)?;
    dialogue.write(End::Client, b"PORT 10,0,1,2,0,22\r\n")?;
    closed_to(dialogue, &listener, 22, limit)
}

fn octet_out_of_range(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    let listener = dialogue.listen(End::Client)?;
    let line = port_line(&listener)?.replace("10,0,1,2", "10,0,1,258");
    dialogue.write(End::Client, line.as_bytes())?;
    closed_to(dialogue, &listener, port(&listener)?, limit)
}

fn closed(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    let listener = dialogue.listen(End::Client)?;
    dialogue.write(End::Client, port_line(&listener)?.as_bytes())?;
    let to = last_address(dialogue, End::Server, limit)?;
    dialogue.close(limit)?;
    // One try only: it would use the pinhole up.
    ensure!(dialogue.data(End::Server, to, &listener, IN_VAIN).is_err(), "the pinhole is there");
    Ok(())
}

fn two_ports(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    // Pipelined: the server serves the first when it has both.
    let mut announced = Vec::new();
    for file in ["one", "two"] {
        let listener = dialogue.listen(End::Client)?;
        dialogue.write(End::Client, port_line(&listener)?.as_bytes())?;
        announced.push((last_address(dialogue, End::Server, limit)?, listener));
        exchange(dialogue, End::Client, &format!("RETR {file}\r\n"), limit)?;
    }
    for (to, listener) in announced {
        exchange(dialogue, End::Server, "200 ok\r\n", limit)?;
        exchange(dialogue, End::Server, "150 here it comes\r\n", limit)?;
        dialogue.data(End::Server, to, &listener, limit)?;
        exchange(dialogue, End::Server, "226 done\r\n", limit)?;
    }
    Ok(())
}

fn no_numbers(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    exchange(dialogue, End::Client, "QUIT\r\n", limit)?;
    exchange(dialogue, End::Server, "227 Logout.\r\n", limit)
}

fn fields_in_229(dialogue: &mut Dialogue<'_>, limit: Duration) -> Result<()> {
    dialogue.log_in()?;
    exchange(dialogue, End::Client, "EPSV\r\n", limit)?;
    exchange(dialogue, End::Server, "229 Extended (|1|203.0.113.9|5000|)\r\n", limit)
}

/// The client, inside, says PORT as `say` has it; the server, outside, reaches it.
fn active(
    dialogue: &mut Dialogue<'_>,
    limit: Duration,
    say: impl Fn(String) -> Vec<String>,
) -> Result<()> {
    dialogue.log_in()?;
    let listener = dialogue.listen(End::Client)?;
    let parts = say(port_line(&listener)?);
    write_apart(dialogue, End::Client, &parts.iter().map(String::as_bytes).collect::<Vec<_>>())?;
    opens(dialogue, End::Client, &listener, limit)
}

/// The client, outside, sends `commands`; the server, inside, says a 227 as `say` has it.
fn passive(
    dialogue: &mut Dialogue<'_>,
    limit: Duration,
    commands: &str,
    say: impl Fn(String) -> Vec<String>,
) -> Result<()> {
    dialogue.log_in()?;
    dialogue.write(End::Client, commands.as_bytes())?;
    dialogue.lines_to(End::Server, limit, |line| line == "PASV\r\n")?;
    let listener = dialogue.listen(End::Server)?;
    let parts = say(pasv_line(SocketAddrV4::new(INSIDE, port(&listener)?)));
    write_apart(dialogue, End::Server, &parts.iter().map(String::as_bytes).collect::<Vec<_>>())?;
    opens(dialogue, End::Server, &listener, limit)
}

/// What the outside end has been told leads to `listener`, and shows no inside address.
fn opens(
    dialogue: &mut Dialogue<'_>,
    inside: End,
    listener: &TcpListener,
    limit: Duration,
) -> Result<()> {
    let to = last_address(dialogue, inside.other(), limit)?;
    ensure!(*to.ip() == WAN, "the address outside is {}", to.ip());
    dialogue.data(inside.other(), to, listener, limit)
}

/// The address in the line that the outside end reads.
fn last_address(dialogue: &mut Dialogue<'_>, end: End, limit: Duration) -> Result<SocketAddrV4> {
    let is_it = |line: &str| announced(line, WAN).is_ok();
    let lines = dialogue.lines_to(end, limit, is_it)?;
    announced(lines.last().context("no line")?, WAN)
}

/// The line arrives without an inside address, and leads nobody to `listener`.
fn closed_to(
    dialogue: &mut Dialogue<'_>,
    listener: &TcpListener,
    port: u16,
    limit: Duration,
) -> Result<()> {
    let line = String::from_utf8_lossy(&dialogue.line(End::Server, limit)?).into_owned();
    ensure!(!line.contains("10,0,1,2,"), "the outside reads `{}`", line.trim_end());
    let mut ports = vec![port];
    ports.extend(announced(&line, WAN).map(|to| to.port()));
    for port in ports {
        if dialogue.data(End::Server, SocketAddrV4::new(WAN, port), listener, IN_VAIN).is_ok() {
            bail!("port {port} leads to the inside");
        }
    }
    Ok(())
}

/// One end says a line that has to arrive as it is.
fn exchange(dialogue: &mut Dialogue<'_>, end: End, line: &str, limit: Duration) -> Result<()> {
    dialogue.write(end, line.as_bytes())?;
    let heard = dialogue.line(end.other(), limit)?;
    ensure!(heard == line.as_bytes(), "{line:?} came as {:?}", String::from_utf8_lossy(&heard));
    Ok(())
}

fn split(line: &str, at: usize) -> Vec<String> {
    let (head, tail) = line.split_at(at);
    vec![head.to_owned(), tail.to_owned()]
}

fn port_line(listener: &TcpListener) -> Result<String> {
    let [a, b, c, d] = INSIDE.octets();
    let [high, low] = port(listener)?.to_be_bytes();
    Ok(format!("PORT {a},{b},{c},{d},{high},{low}\r\n"))
}

fn pasv_line(at: SocketAddrV4) -> String {
    let ([a, b, c, d], [high, low]) = (at.ip().octets(), at.port().to_be_bytes());
    format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low}).\r\n")
}
