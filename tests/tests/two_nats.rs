//! A client behind one gateway and a server behind another: every command, real servers and clients.

use nat_tests::{
    client::{
        self, DataMode,
        Kind::{Curl, Lftp},
        Request,
    },
    gateway::{Mode, NatCtl, Rule},
    lab::INSIDE,
    requirements,
    server::{Kind, Server, Settings},
    two_nats::{SECOND, TwoNats},
};

#[test]
fn files_come_through_two_gateways_by_every_command() {
    let Some(binary) = requirements::met_with_binary("two gateways") else { return };
    let nats = TwoNats::new(100_000).expect("a lab");
    let lab = &nats.lab;
    let mut first = NatCtl::prepare(lab, Mode::Xdp, &binary).expect("a gateway");
    first.run(&[]).expect("a start");
    let mut second = NatCtl::prepare_in(&nats.second, lab, Mode::Tc, &binary).expect("a gateway");
    second.run(&[]).expect("a start");
    let rule = Rule::ForwardFtp { name: "ftp".into(), public: SECOND, to: INSIDE };
    second.add(&rule).expect("a forward");
    for kind in [Kind::Vsftpd, Kind::Pyftpdlib] {
        if !kind.is_installed() {
            println!("no {kind} here");
            continue;
        }
        let folder = lab.folder("server").expect("a folder");
        let server = Server::start(&nats.behind, &Settings::new(kind), &lab.payload, &folder)
            .expect("a server");
        let folder = lab.folder("client").expect("a folder");
        for (client, mode) in [
            (Curl, DataMode::Pasv),
            (Curl, DataMode::Epsv),
            (Curl, DataMode::Port),
            (Curl, DataMode::Eprt),
            (Lftp, DataMode::Pasv),
            (Lftp, DataMode::Epsv),
            (Lftp, DataMode::Port),
        ] {
            let request = Request::new(client, mode, SECOND);
            client::transfer(&lab.inside, &request, &server, &lab.payload, &folder).unwrap_or_else(
                |error| {
                    let (one, other) = (first.diagnosis(), second.diagnosis());
                    panic!("{kind} {client} {mode}: {error:#}\nfirst: {one}\nsecond: {other}")
                },
            );
        }
    }
    for gateway in [first, second] {
        assert_eq!(gateway.dropped("unsolicited").expect("drops"), 0, "{}", gateway.diagnosis());
        gateway.stop().expect("an end");
    }
}
