//! Servers with two addresses: one for control connections, another for data.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    time::Duration,
};

use nat_tests::{
    dialogue::{Dialogue, End, announced, port},
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, INSIDE_DEVICE, Lab, OUTSIDE, OUTSIDE_DEVICE, WAN},
    netns::{Lifetime, Namespace},
    requirements,
    session::{accept, connect},
};
use socket2::{Domain, Socket, Type};

const LIMIT: Duration = Duration::from_secs(10);
/// The other address of the server outside, and of the one inside.
const OUTSIDE_DATA: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 12);
const INSIDE_DATA: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 12);

fn gateway<'a>(lab: &'a Lab, mode: Mode, tables: &str) -> Option<NatCtl<'a>> {
    let binary = requirements::met_with_binary("data addresses")?;
    for (host, address, device) in
        [(&lab.outside, OUTSIDE_DATA, OUTSIDE_DEVICE), (&lab.inside, INSIDE_DATA, INSIDE_DEVICE)]
    {
        host.ip(&format!("address add {address}/24 dev {device}")).expect("an address");
    }
    let mut gateway = NatCtl::prepare(lab, mode, &binary).expect("a gateway");
    gateway.configure(tables).expect("a configuration");
    gateway.run(&[]).expect("a start");
    Some(gateway)
}

fn both() -> String {
    format!(
        "[ftp.data_addresses]\n\"{OUTSIDE}\" = [\"{OUTSIDE_DATA}\"]\n\"{INSIDE}\" = [\"{INSIDE_DATA}\"]\n"
    )
}

/// Dials `to` from an address of the namespace.
fn dial(from: &Namespace, own: Ipv4Addr, to: SocketAddrV4, limit: Duration) -> Option<TcpStream> {
    from.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddrV4::new(own, 0).into()).expect("an address");
        socket.connect_timeout(&to.into(), limit).ok().map(|()| socket.into())
    })
    .expect("the namespace")
}

fn carries(mut from: TcpStream, listener: &TcpListener) {
    let mut at = accept(listener).expect("a connection");
    from.write_all(b"bytes").expect("a write");
    let mut heard = [0; 5];
    at.read_exact(&mut heard).expect("a read");
    assert_eq!(&heard, b"bytes");
}

/// PORT of a client inside; gives back its listener, and what the server is told.
fn active(dialogue: &mut Dialogue<'_>) -> (TcpListener, SocketAddrV4) {
    let listener = dialogue.listen(End::Client).expect("a listener");
    let [a, b, c, d] = INSIDE.octets();
    let [high, low] = port(&listener).expect("a port").to_be_bytes();
    let line = format!("PORT {a},{b},{c},{d},{high},{low}\r\n");
    dialogue.write(End::Client, line.as_bytes()).expect("a line");
    let seen = dialogue.line(End::Server, LIMIT).expect("the line");
    let to = announced(&String::from_utf8_lossy(&seen), OUTSIDE).expect("an address");
    (listener, to)
}

#[test]
fn a_server_outside_dials_from_its_other_address_where_that_is_allowed() {
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let Some(gateway) = gateway(&lab, mode, &both()) else { return };
        let mut dialogue = Dialogue::open(&lab, End::Client).expect("a dialogue");
        dialogue.log_in().expect("a login");
        for own in [OUTSIDE_DATA, OUTSIDE] {
            let (listener, to) = active(&mut dialogue);
            let data = dial(&lab.outside, own, to, LIMIT).expect("a data connection");
            carries(data, &listener);
        }
        gateway.stop().expect("an end");
    }
}

#[test]
fn without_being_allowed_it_is_a_third_host() {
    let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
    let Some(gateway) = gateway(&lab, Mode::Tc, "") else { return };
    let mut dialogue = Dialogue::open(&lab, End::Client).expect("a dialogue");
    dialogue.log_in().expect("a login");
    let (_listener, to) = active(&mut dialogue);
    let short = Duration::from_secs(2);
    assert!(dial(&lab.outside, OUTSIDE_DATA, to, short).is_none(), "a third host was let in");
    let drops = gateway.json(&["drops"]).expect("drops");
    assert!(drops["unsolicited"].as_u64() > Some(0), "{drops}");
    gateway.stop().expect("an end");
}

#[test]
fn a_server_inside_announces_its_other_address_and_dials_from_it() {
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::with(Lifetime::Run, 1000).expect("a lab");
        let Some(mut gateway) = gateway(&lab, mode, &both()) else { return };
        let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: INSIDE };
        gateway.add(&rule).expect("a forward");
        let mut dialogue = Dialogue::open(&lab, End::Server).expect("a dialogue");
        dialogue.log_in().expect("a login");

        let listener = lab
            .inside
            .enter(|| TcpListener::bind(SocketAddrV4::new(INSIDE_DATA, 0)))
            .expect("the namespace")
            .expect("a listener");
        let [a, b, c, d] = INSIDE_DATA.octets();
        let [high, low] = port(&listener).expect("a port").to_be_bytes();
        dialogue.write(End::Client, b"PASV\r\n").expect("a line");
        dialogue.line(End::Server, LIMIT).expect("the line");
        let reply = format!("227 Passive ({a},{b},{c},{d},{high},{low})\r\n");
        dialogue.write(End::Server, reply.as_bytes()).expect("a reply");
        let seen = dialogue.line(End::Client, LIMIT).expect("the reply");
        let to = announced(&String::from_utf8_lossy(&seen), WAN).expect("an address");
        assert_eq!(*to.ip(), WAN, "{mode}");
        carries(connect(&lab.outside, to).expect("a data connection"), &listener);

        let listener = dialogue.listen(End::Client).expect("a listener");
        let [a, b, c, d] = OUTSIDE.octets();
        let [high, low] = port(&listener).expect("a port").to_be_bytes();
        let line = format!("PORT {a},{b},{c},{d},{high},{low}\r\n");
        dialogue.write(End::Client, line.as_bytes()).expect("a line");
        dialogue.line(End::Server, LIMIT).expect("the line");
        let to = SocketAddrV4::new(OUTSIDE, u16::from_be_bytes([high, low]));
        let data = dial(&lab.inside, INSIDE_DATA, to, LIMIT).expect("a data connection");
        carries(data, &listener);
        gateway.stop().expect("an end");
    }
}
