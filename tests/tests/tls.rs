//! FTP over TLS through the gateway: real servers and clients, and what the gateway says of it.

use std::{fs, path::Path, process::Command, time::Duration};

use nat_tests::{
    client,
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, Lab, OUTSIDE, WAN},
    netns::Namespace,
    process::{self, Finished, Process},
    requirements,
    server::{Announce, Encryption, FILE, Kind, Server, Settings},
    wait,
};

const LIMIT: Duration = Duration::from_secs(40);

/// Command line: address, port, then words: `ccc` ends encryption after the login, `active` has the
/// server dial, `twice` gets the file twice, `idle` gives 200 commands and no file. Prints SHA-256 of files.
const CLIENT: &str = "\
import ftplib, hashlib, ssl, sys
address, port, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
context = ssl._create_unverified_context()
context.minimum_version = ssl.TLSVersion.TLSv1_2
ftp = ftplib.FTP_TLS(context=context, timeout=10)
ftp.connect(address, port)
ftp.login('anonymous', 'lab@example.net')
if 'ccc' in words:
    ftp.ccc()
else:
    ftp.prot_p()
if 'idle' in words:
    for _ in range(200):
        ftp.voidcmd('NOOP')
else:
    ftp.set_pasv('active' not in words)
    for _ in range(2 if 'twice' in words else 1):
        digest = hashlib.sha256()
        ftp.retrbinary('RETR file.bin', digest.update)
        print(digest.hexdigest())
ftp.quit()
";

/// A server in 60 lines that takes CCC: no server here does, as it is packaged. Command line: root,
/// certificate. One session after the other.
const CCC_SERVER: &str = "\
import os, socket, ssl, sys
root, certificate = sys.argv[1:3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
listener = socket.create_server(('0.0.0.0', 21))
def serve(control, local):
    data = passive = dial = None
    say = lambda text: control.sendall((text + '\\r\\n').encode())
    say('220 ccc')
    buffered = b''
    while True:
        while b'\\n' not in buffered:
            more = control.recv(4096)
            if not more:
                return
            buffered += more
        line, buffered = buffered.split(b'\\n', 1)
        verb, _, argument = line.decode().strip().partition(' ')
        if verb == 'AUTH':
            say('234 go')
            control = context.wrap_socket(control, server_side=True)
        elif verb == 'CCC':
            say('200 clear')
            control = control.unwrap()
        elif verb == 'USER':
            say('331 and?')
        elif verb == 'PASS':
            say('230 in')
        elif verb in ('PASV', 'EPSV'):
            passive = socket.create_server((local, 0))
            port = passive.getsockname()[1]
            if verb == 'PASV':
                numbers = local.replace('.', ',')
                say('227 Passive (%s,%d,%d).' % (numbers, port >> 8, port & 255))
            else:
                say('229 Passive (|||%d|)' % port)
        elif verb == 'PORT':
            numbers = argument.split(',')
            dial = '.'.join(numbers[:4]), int(numbers[4]) * 256 + int(numbers[5])
            say('200 ok')
        elif verb == 'RETR':
            data = socket.create_connection(dial, 5) if dial else passive.accept()[0]
            say('150 go')
            data.sendall(open(os.path.join(root, argument), 'rb').read())
            data.close()
            dial = None
            say('226 done')
        elif verb == 'QUIT':
            say('221 bye')
            return
        else:
            say('200 ok')
while True:
    control, _ = listener.accept()
    control.settimeout(20)
    try:
        serve(control, control.getsockname()[0])
    except OSError as error:
        print(error, file=sys.stderr, flush=True)
";

fn client(
    namespace: &Namespace,
    server: std::net::Ipv4Addr,
    port: u16,
    words: &[&str],
) -> Finished {
    let mut python = namespace.command("python3");
    python.args(["-c", CLIENT, &server.to_string(), &port.to_string()]).args(words);
    process::run(&mut python, LIMIT).expect("a client")
}

/// curl over TLS into a file of this folder.
fn curl(namespace: &Namespace, url: &str, folder: &Path, words: &[&str]) -> (Finished, String) {
    let file = folder.join("got");
    let mut curl: Command = namespace.command("curl");
    curl.args(["--disable", "--silent", "--show-error", "--insecure", "--connect-timeout", "4"]);
    curl.args(["--user", "anonymous:lab@example.net", "--output"]).arg(&file).args(words).arg(url);
    let finished = process::run(&mut curl, LIMIT).expect("curl");
    let digest = nat_tests::payload::file_digest(&file).unwrap_or_default();
    (finished, digest)
}

fn serve(lab: &Lab, namespace: &Namespace, settings: Settings) -> Server {
    let folder = lab.folder("server").expect("a folder");
    Server::start(namespace, &settings, &lab.payload, &folder).expect("a server")
}

#[test]
fn passive_clients_inside_get_files_from_tls_servers_in_tc_and_xdp() {
    let Some(binary) = requirements::met_with_binary("TLS, client inside") else { return };
    for mode in [Mode::Tc, Mode::Xdp] {
        let lab = Lab::new().expect("a lab");
        let gateway = NatCtl::start(&lab, mode, &binary).expect("a gateway");
        let settings = Settings { encryption: Encryption::Asked, ..Settings::new(Kind::Vsftpd) };
        let server = serve(&lab, &lab.outside, settings);
        let folder = lab.folder("client").expect("a folder");
        for words in
            [&["--ssl-reqd"][..], &["--ftp-ssl-control"], &["--ssl-reqd", "--disable-epsv"]]
        {
            let url = format!("ftp://{OUTSIDE}/{FILE}");
            let (finished, digest) = curl(&lab.inside, &url, &folder, words);
            let about = || format!("{words:?}: {finished:?}\n{}", gateway.diagnosis());
            assert_eq!(digest, lab.payload.sha256, "{}", about());
        }
        drop(server);
        // curl takes an answer of this server for another over TLS, without any gateway too.
        let settings = Settings { encryption: Encryption::Asked, ..Settings::new(Kind::Pyftpdlib) };
        let _server = serve(&lab, &lab.outside, settings);
        let finished = client(&lab.inside, OUTSIDE, 21, &[]);
        let about = || format!("{finished:?}\n{}", gateway.diagnosis());
        assert_eq!(finished.stdout.trim(), lab.payload.sha256, "{}", about());
        gateway.stop().expect("an end");
    }
}

#[test]
fn an_encrypted_session_is_explained_and_its_records_pass_without_the_agent() {
    let Some(binary) = requirements::met_with_binary("TLS, explained") else { return };
    let lab = Lab::new().expect("a lab");
    let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let settings = Settings { encryption: Encryption::Asked, ..Settings::new(Kind::Vsftpd) };
    let _server = serve(&lab, &lab.outside, settings);
    let before = gateway.punted().expect("a status");
    let finished = client(&lab.inside, OUTSIDE, 21, &["idle"]);
    assert!(finished.status.success(), "{finished:?}\n{}", gateway.diagnosis());
    let seen = gateway.punted().expect("a status") - before;
    // The greeting, AUTH, its answer, and FIN or RST of both: 400 records do not count.
    assert!(seen < 20, "{seen} packets were handed over");

    // One that stays.
    let folder = lab.folder("client").expect("a folder");
    let log = folder.join("log");
    let _slow = client::slow_over_tls(&lab.inside, OUTSIDE, &log).expect("curl");
    let session = gateway.encrypted_session(LIMIT).expect("a session");
    assert_eq!(session["encrypted"], true, "{session}");
    let note = session["note"].as_str().expect("a sentence");
    assert!(note.contains("encrypted") && note.contains("declared passive range"), "{note}");
    let table = gateway.call(&["ftp", "sessions"]).expect("a table").stdout;
    assert!(table.contains(&format!("session {}: {note}", session["id"])), "{table}");
    assert!(gateway.output().contains(note), "{}", gateway.output());
    gateway.stop().expect("an end");
}

#[test]
fn encryption_from_the_first_byte_is_recognised() {
    let Some(binary) = requirements::met_with_binary("TLS, implicit") else { return };
    let lab = Lab::new().expect("a lab");
    let mut gateway = NatCtl::prepare(&lab, Mode::Tc, &binary).expect("a gateway");
    gateway.configure("[ftp]\ncontrol_ports = [21, 990]\n").expect("a configuration");
    gateway.run(&[]).expect("an agent");
    let settings =
        Settings { encryption: Encryption::Always, port: 990, ..Settings::new(Kind::Vsftpd) };
    let _server = serve(&lab, &lab.outside, settings);
    let folder = lab.folder("client").expect("a folder");
    let url = format!("ftps://{OUTSIDE}:990/{FILE}");
    let before = gateway.punted().expect("a status");
    let (finished, digest) = curl(&lab.inside, &url, &folder, &[]);
    assert_eq!(digest, lab.payload.sha256, "{finished:?}\n{}", gateway.diagnosis());
    let seen = gateway.punted().expect("a status") - before;
    assert!(seen < 10, "{seen} packets were handed over");
    assert!(gateway.output().contains("encrypted"), "{}", gateway.output());
    gateway.stop().expect("an end");
}

#[test]
fn after_ccc_announcements_are_read_again() {
    let Some(binary) = requirements::met_with_binary("TLS, CCC") else { return };
    let lab = Lab::new().expect("a lab");
    let mut gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
    let rule = Rule::ForwardFtp { name: "ftp".into(), public: WAN, to: INSIDE };
    gateway.add(&rule).expect("a forward");
    for (server, from, dial) in
        [(&lab.outside, &lab.inside, OUTSIDE), (&lab.inside, &lab.outside, WAN)]
    {
        let _server = serve_ccc(&lab, server);
        for words in [&["ccc"][..], &["ccc", "active"]] {
            let finished = client(from, dial, 21, words);
            let about = || format!("{words:?} to {dial}: {finished:?}\n{}", gateway.diagnosis());
            assert_eq!(finished.stdout.trim(), lab.payload.sha256, "{}", about());
        }
    }
    assert!(gateway.output().contains("clear text again"), "{}", gateway.output());
    gateway.stop().expect("an end");
}

/// The server that takes CCC, listening.
fn serve_ccc(lab: &Lab, namespace: &Namespace) -> Process {
    let folder = lab.folder("ccc").expect("a folder");
    fs::write(folder.join(FILE), &lab.payload.bytes).expect("the payload");
    let certificate = nat_tests::server::certificate(&folder).expect("a certificate");
    let mut python = namespace.command("python3");
    python.args(["-c", CCC_SERVER]).arg(&folder).arg(certificate);
    let mut server =
        Process::spawn(&mut python, "ccc server", &folder.join("log")).expect("python");
    server.ready(LIMIT, "listening", |_| namespace.listens(21)).expect("a server");
    server
}

#[test]
fn a_declared_passive_range_is_open_to_encrypted_clients_alone() {
    let Some(binary) = requirements::met_with_binary("TLS, passive range") else { return };
    for kind in [Kind::Vsftpd, Kind::Pyftpdlib] {
        let lab = Lab::new().expect("a lab");
        let gateway = NatCtl::start(&lab, Mode::Tc, &binary).expect("a gateway");
        let settings = Settings {
            encryption: Encryption::Asked,
            announce: Announce::Stated(WAN),
            passive: Some([50000, 50009]),
            ..Settings::new(kind)
        };
        let _server = serve(&lab, &lab.inside, settings);
        let (public, to) = (WAN.to_string(), INSIDE.to_string());
        let add = ["forward", "add", "--name", "ftp", "--service", "ftp", "--public", &public];
        let rest = ["--to", &to, "--passive-range", "50000-50009"];
        let added = gateway.call(&[&add[..], &rest].concat()).expect("a call");
        added.checked("forward add").expect("a forward");

        let closed = dial(&lab.outside);
        assert!(closed.is_err(), "the range is closed without a session");
        let drops = gateway.json(&["drops"]).expect("drops");
        assert!(drops["not-allowed"].as_u64() >= Some(1), "{drops}");

        for words in [&[][..], &["twice"]] {
            let finished = client(&lab.outside, WAN, 21, words);
            let about = || format!("{kind} {words:?}: {finished:?}\n{}", gateway.diagnosis());
            let digest = &lab.payload.sha256;
            assert!(!finished.stdout.is_empty(), "{}", about());
            assert!(finished.stdout.lines().all(|line| line == digest), "{}", about());
        }
        let flows = gateway.json(&["flows", "list"]).expect("flows");
        let related = flows.as_array().into_iter().flatten().filter(|flow| {
            !flow["related_to"].is_null()
                && (50000..50010).contains(&flow["original"]["dport"].as_u64().unwrap_or(0))
        });
        assert!(related.count() >= 3, "{flows}");
        // The sessions have ended.
        wait::until_true(LIMIT, "a closed range", || Ok(dial(&lab.outside).is_err()))
            .expect("a closed range");
        gateway.stop().expect("an end");
    }
}

/// Dials a port of the range, where nothing listens while no session asks for it: a reset says that the
/// gateway has let the SYN in.
fn dial(namespace: &Namespace) -> std::io::Result<()> {
    let server = (WAN, 50005).into();
    let tried = namespace
        .enter(|| std::net::TcpStream::connect_timeout(&server, Duration::from_millis(1500)))
        .expect("a namespace");
    match tried {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => other.map(drop),
    }
}
