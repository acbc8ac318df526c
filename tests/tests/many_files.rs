//! What real clients do with many files and many connections at once: lftp's mirror, pget and pipelined
//! commands, an abort in the middle of a file, 200 files in one session. Everything is compared by its
//! checksum.

use std::{
    fs, io::Read as _, net::Ipv4Addr, os::unix::fs::PermissionsExt as _, path::Path, time::Duration,
};

use nat_tests::{
    gateway::{Mode, NatCtl, Rule},
    lab::{INSIDE, Lab, OUTSIDE, WAN},
    payload::{Payload, file_digest},
    process, requirements,
    server::{FILE, Kind, Server, Settings, UPLOADS},
    session::{Session, read_part},
};

const LIMIT: Duration = Duration::from_secs(60);
/// Files of a folder, and bytes of each.
const FILES: usize = 200;
const SIZE: usize = 3000;

/// One file of a folder.
fn file(number: usize) -> Vec<u8> {
    let mut bytes = Payload::new(SIZE + number).bytes;
    bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

fn fill(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for number in 0..FILES {
        fs::write(folder.join(format!("{number}.bin")), file(number)).expect("a file");
    }
}

fn is_filled(folder: &Path) {
    for number in 0..FILES {
        let bytes = fs::read(folder.join(format!("{number}.bin"))).expect("a file that arrived");
        assert!(bytes == file(number), "file {number} has changed on its way");
    }
}

/// A client inside to a server outside, or the other way round.
struct Stage<'lab> {
    lab: &'lab Lab,
    gateway: NatCtl<'lab>,
    server: Server,
    root: std::path::PathBuf,
    client: &'lab nat_tests::netns::Namespace,
    address: Ipv4Addr,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab, mode: Mode, kind: Kind, server_inside: bool, binary: &Path) -> Self {
        let (at, client, address) = match server_inside {
            true => (&lab.inside, &lab.outside, WAN),
            false => (&lab.outside, &lab.inside, OUTSIDE),
        };
        let folder = lab.folder("server").expect("a folder");
        let server =
            Server::start(at, &Settings::new(kind), &lab.payload, &folder).expect("a server");
        let mut gateway = NatCtl::start(lab, mode, binary).expect("a gateway");
        if server_inside {
            let rule = Rule::ForwardFtp { name: "ftp".to_owned(), public: WAN, to: INSIDE };
            gateway.add(&rule).expect("a forward");
        }
        Self { lab, gateway, server, root: folder.join("root"), client, address }
    }

    /// Runs lftp with these commands.
    fn lftp(&self, passive: bool, commands: &str) {
        let passive = if passive { "yes" } else { "no" };
        let script = format!(
            "set cmd:fail-exit yes; set ftp:passive-mode {passive}; set ftp:fix-pasv-address no; \
             set ftp:ssl-allow no; set net:timeout 8; set net:max-retries 1; set xfer:clobber yes; \
             open -u anonymous,lab@example.net {}; {commands}; bye",
            self.address
        );
        let home = self.lab.folder("home").expect("a folder");
        let mut command = self.client.command("lftp");
        command.args(["--norc", "-c", &script]).env("HOME", home).env("LC_ALL", "C");
        process::run(&mut command, LIMIT)
            .and_then(|ended| ended.checked("lftp"))
            .unwrap_or_else(|error| panic!("{commands}: {error:#}\n{}", self.gateway.diagnosis()));
    }
}

/// Each way, in both hooks.
fn on_each_stage(name: &str, check: impl Fn(&Stage<'_>, &Path)) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    for (mode, server_inside) in [(Mode::Tc, false), (Mode::Tc, true), (Mode::Xdp, false)] {
        println!("{name}, {mode}, server inside: {server_inside}");
        let lab = Lab::new().expect("a lab");
        let stage = Stage::new(&lab, mode, Kind::Vsftpd, server_inside, &binary);
        let folder = lab.folder("client").expect("a folder");
        check(&stage, &folder);
        let refused = stage.gateway.json(&["ftp", "refusals"]).expect("refusals");
        assert_eq!(refused.as_array().map(Vec::len), Some(0), "{name}: {refused}");
    }
}

#[test]
fn lftp_mirrors_over_eight_connections_both_ways() {
    on_each_stage("mirror", |stage, folder| {
        fill(&stage.root.join("many"));
        for passive in [true, false] {
            let down = folder.join(format!("down-{passive}"));
            stage.lftp(passive, &format!("mirror -P 8 many {}", down.display()));
            is_filled(&down);
            let up = format!("{UPLOADS}/up-{passive}");
            // Anonymous users of vsftpd make no folder.
            let folder = stage.server.uploaded(&format!("up-{passive}"));
            fs::create_dir(&folder).expect("a folder");
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("its mode");
            stage.lftp(passive, &format!("mirror -R --no-perms -P 8 {} {up}", down.display()));
            is_filled(&folder);
        }
    });
}

#[test]
fn lftp_gets_a_file_over_sixteen_connections() {
    on_each_stage("pget", |stage, folder| {
        for passive in [true, false] {
            let to = folder.join(format!("file-{passive}"));
            stage.lftp(passive, &format!("pget -n 16 {FILE} -o {}", to.display()));
            assert_eq!(file_digest(&to).expect("a file"), stage.lab.payload.sha256);
        }
    });
}

#[test]
fn lftp_that_waits_for_no_reply_gets_every_file() {
    on_each_stage("sync-mode off", |stage, folder| {
        fill(&stage.root.join("many"));
        for passive in [true, false] {
            let down = folder.join(format!("down-{passive}"));
            stage.lftp(
                passive,
                &format!("set ftp:sync-mode off; mirror -P 2 many {}", down.display()),
            );
            is_filled(&down);
        }
    });
}

#[test]
fn an_abort_in_the_middle_of_a_file_leaves_the_session_at_work() {
    on_each_stage("ABOR", |stage, _| {
        let mut session = Session::open(stage.client, stage.address).expect("a session");
        for _ in 0..3 {
            let mut data = session.passive().expect("a data connection");
            session.command(&format!("RETR {FILE}"), "150").expect("the start of a transfer");
            let part = read_part(&mut data, 100_000).expect("a part of the file");
            assert!(part == stage.lab.payload.bytes[..100_000]);
            session.send("ABOR").expect("an abort");
            drop(data);
            session.expect("").expect("a reply to RETR");
            session.expect("22").expect("a reply to ABOR");
            assert_eq!(session.fetch_active(FILE).expect("a file"), stage.lab.payload.sha256);
            assert_eq!(session.fetch_passive(FILE).expect("a file"), stage.lab.payload.sha256);
        }
    });
}

#[test]
fn two_hundred_files_pass_in_one_session() {
    on_each_stage("200 files", |stage, _| {
        fill(&stage.root.join("many"));
        let mut session = Session::open(stage.client, stage.address).expect("a session");
        for number in 0..FILES {
            let mut bytes = Vec::new();
            let name = format!("many/{number}.bin");
            match number % 2 {
                0 => {
                    let mut data = session.passive().expect("a data connection");
                    session.command(&format!("RETR {name}"), "150").expect("a start");
                    data.read_to_end(&mut bytes).expect("a file");
                }
                _ => {
                    let listener = session.active().expect("PORT");
                    session.command(&format!("RETR {name}"), "150").expect("a start");
                    let mut data = nat_tests::session::accept(&listener).expect("a connection");
                    data.read_to_end(&mut bytes).expect("a file");
                }
            }
            session.expect("226").expect("an end");
            assert!(bytes == file(number), "file {number} has changed on its way");
        }
        let sessions = stage.gateway.json(&["ftp", "sessions"]).expect("sessions");
        assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");
    });
}
