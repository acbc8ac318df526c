//! FTP over TLS to a server inside, by a forward that declares its passive range: real clients, with
//! encryption that they ask for and from the first byte.

use std::{path::Path, time::Duration};

use nat_tests::{
    gateway::{Mode, NatCtl},
    lab::{INSIDE, Lab, WAN},
    netns::{Lifetime, Namespace},
    payload::file_digest,
    process, requirements,
    server::{Announce, Encryption, FILE, Kind, Server, Settings},
};

const LIMIT: Duration = Duration::from_secs(20);
/// Ports of passive data connections, as the forward and the servers have them.
const RANGE: [u16; 2] = [50_000, 50_009];

/// lftp over TLS; gives what it said.
fn lftp(namespace: &Namespace, url: &str, epsv: bool, file: &Path) -> String {
    let script = format!(
        "debug 5; set cmd:fail-exit yes; set ftp:passive-mode yes; set ftp:prefer-epsv {epsv}; \
         set ftp:fix-pasv-address no; set ftp:ssl-force yes; set ftp:ssl-protect-data yes; \
         set ssl:verify-certificate no; set net:timeout 6; set net:max-retries 1; \
         set xfer:clobber yes; open -u anonymous,lab@example.net {url}; get {FILE} -o {}; bye",
        file.display()
    );
    let mut lftp = namespace.command("lftp");
    lftp.args(["--norc", "-c", &script]);
    let finished = process::run(&mut lftp, LIMIT).expect("lftp");
    finished.stdout + &finished.stderr
}

/// curl over TLS; gives what it said.
fn curl(namespace: &Namespace, url: &str, epsv: bool, file: &Path) -> String {
    let mut curl = namespace.command("curl");
    curl.args(["--disable", "--silent", "--show-error", "--verbose", "--insecure", "--ssl-reqd"]);
    curl.args(["--connect-timeout", "6", "--no-ftp-skip-pasv-ip"]);
    if !epsv {
        curl.arg("--disable-epsv");
    }
    curl.args(["--user", "anonymous:lab@example.net", "--output"]).arg(file);
    curl.arg(format!("{url}/{FILE}"));
    let finished = process::run(&mut curl, LIMIT).expect("curl");
    finished.stdout + &finished.stderr
}

/// Files by both clients and both passive commands.
fn files_come(kind: Kind, encryption: Encryption, scheme: &str, port: u16) {
    let name = format!("TLS by a forward, {kind}, port {port}");
    let Some(binary) = requirements::met_with_binary(&name) else { return };
    let lab = Lab::with(Lifetime::Run, 100_000).expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let announce = Announce::Stated(WAN);
    let passive = Some(RANGE);
    let settings = Settings { port, encryption, announce, passive, ..Settings::new(kind) };
    let folder = lab.folder("server").expect("a folder");
    let _server =
        Server::start(&lab.inside, &settings, &lab.payload, &folder).expect("a server inside");
    let (public, to) = (format!("{WAN}:{port}"), format!("{INSIDE}:{port}"));
    let add = ["forward", "add", "--name", "ftps", "--service", "ftp", "--public", &public];
    let rest = ["--to", &to, "--passive-range", &format!("{}-{}", RANGE[0], RANGE[1])];
    let added = gateway.call(&[&add[..], &rest].concat()).expect("a call");
    added.checked("forward add").expect("a forward");
    let url = format!("{scheme}://{WAN}:{port}");
    let file = lab.folder("client").expect("a folder").join("got");
    // curl takes an answer of pyftpdlib for another over TLS, without any gateway too.
    type Get = fn(&Namespace, &str, bool, &Path) -> String;
    let clients: &[(&str, Get)] = match kind {
        Kind::Pyftpdlib => &[("lftp", lftp)],
        _ => &[("lftp", lftp), ("curl", curl)],
    };
    for (client, get) in clients {
        for epsv in [false, true] {
            let said = get(&lab.outside, &url, epsv, &file);
            let about = || format!("{client}, EPSV {epsv}: {said}\n{}", gateway.diagnosis());
            let digest = file_digest(&file).unwrap_or_else(|_| panic!("{}", about()));
            assert_eq!(digest, lab.payload.sha256, "{}", about());
            assert!(said.contains(if epsv { "EPSV" } else { "PASV" }), "{}", about());
            std::fs::remove_file(&file).expect("a file");
        }
    }
    assert!(gateway.output().contains("encrypted"), "{}", gateway.output());
    gateway.stop().expect("an end");
}

#[test]
fn clients_outside_get_files_over_tls_from_vsftpd_inside() {
    files_come(Kind::Vsftpd, Encryption::Asked, "ftp", 21);
}

#[test]
fn clients_outside_get_files_over_tls_from_pyftpdlib_inside() {
    files_come(Kind::Pyftpdlib, Encryption::Asked, "ftp", 21);
}

#[test]
fn clients_outside_get_files_from_port_990_inside() {
    files_come(Kind::Vsftpd, Encryption::Always, "ftps", 990);
}
