//! A lab that stays: what runs in it, and the commands to look around and to end it.

use std::path::Path;

use anyhow::Result;

use crate::{
    gateway::{Gateway, Rule},
    lab::{INSIDE, Lab, OUTSIDE, WAN},
    netns::Namespace,
    server::{self, Server, Settings},
};

/// Leaves the lab with a gateway, and a server on either side where none is left from a failure.
pub(super) fn leave(lab: &Lab, gateway: Option<Gateway<'_>>, binary: &Path) -> Result<()> {
    let Some(mut gateway) = gateway else {
        println!("no gateway to leave; the namespaces stay");
        print_end(lab);
        return Ok(());
    };
    for namespace in [&lab.inside, &lab.outside] {
        if !namespace.listens(21)? {
            let settings = Settings::new(server::Kind::Vsftpd);
            let folder = lab.folder("server")?;
            Server::start(namespace, &settings, &lab.payload, &folder)?.leave();
        }
    }
    let rule = Rule::ForwardFtp { name: "kept".into(), public: WAN, to: INSIDE };
    // A rule that a failed case left has the port already; that is as good.
    if let Err(error) = gateway.add(&rule) {
        println!("note: {error:#}");
    }
    let Gateway::NatCtl(ours) = &gateway else { return Ok(()) };
    let control = format!("{} --instance {}", binary.display(), ours.instance());
    let [inside, within, outside] = [&lab.inside, &lab.gateway, &lab.outside].map(enter);
    println!(
        "\nThe lab is up. To look around in it:\n\
         \x20 {inside} curl -v -o /dev/null ftp://{OUTSIDE}/file.bin          # client inside, passive\n\
         \x20 {inside} curl -v -P - -o /dev/null ftp://{OUTSIDE}/file.bin     # client inside, active\n\
         \x20 {outside} curl -v --no-ftp-skip-pasv-ip -o /dev/null ftp://{WAN}/file.bin   # server inside\n\
         \x20 {control} status\n\
         \x20 {control} flows list\n\
         \x20 {control} ftp sessions\n\
         \x20 {control} expectations list\n\
         \x20 {control} drops\n\
         \x20 {outside} tcpdump -n -i out0\n\
         \x20 {within} bash\n\
         \x20 bpftool map dump pinned {}/flows",
        ours.pins().display()
    );
    print_end(lab);
    gateway.leave();
    Ok(())
}

/// The agent removes what it made when it gets SIGTERM; it may do so while its namespace goes.
fn print_end(lab: &Lab) {
    println!(
        "To end it:\n\
         \x20 for role in inside gateway outside; do ip netns pids {0}-$role | xargs -r kill; \
         ip netns del {0}-$role; done; rm -r {1}",
        lab.name(),
        lab.root().display()
    );
}

fn enter(namespace: &Namespace) -> String {
    format!("nsenter --net={}", namespace.path().display())
}
