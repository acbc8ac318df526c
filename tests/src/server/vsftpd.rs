//! vsftpd: the server that insists on port 20 and on a data peer that is the control peer.
//!
//! Its anonymous user needs a home that exists, which `nobody` has not, so it is `daemon`.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{Announce, Encryption, Settings};
use crate::netns::Namespace;

pub(super) const PROGRAM: &str = "vsftpd";

pub(super) fn command(
    namespace: &Namespace,
    settings: &Settings,
    root: &Path,
    folder: &Path,
) -> Result<Command> {
    let empty = folder.join("empty");
    fs::create_dir_all(&empty).context("create vsftpd's empty folder")?;
    let mut text = format!(
        "listen={four}\nlisten_ipv6={six}\nbackground=NO\nlisten_port={port}\n\
         anonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nftp_username=daemon\n\
         anon_root={root}\nsecure_chroot_dir={empty}\n\
         write_enable=YES\nanon_upload_enable=YES\nanon_umask=022\n\
         connect_from_port_20=YES\nport_enable=YES\npasv_enable=YES\n\
         port_promiscuous=NO\npasv_promiscuous=NO\n\
         accept_timeout=10\nconnect_timeout=10\n\
         xferlog_enable=NO\nsyslog_enable=NO\n\
         seccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\n",
        four = if settings.six { "NO" } else { "YES" },
        six = if settings.six { "YES" } else { "NO" },
        port = settings.port,
        root = root.display(),
        empty = empty.display(),
    );
    if let Announce::Stated(address) = settings.announce {
        writeln!(text, "pasv_address={address}").context("format")?;
    }
    if settings.encryption != Encryption::Never {
        let certificate = super::certificate(folder)?;
        let implicit = if settings.encryption == Encryption::Always { "YES" } else { "NO" };
        write!(
            text,
            "ssl_enable=YES\nallow_anon_ssl=YES\nrequire_ssl_reuse=NO\nssl_ciphers=HIGH\n\
             implicit_ssl={implicit}\nrsa_cert_file={0}\nrsa_private_key_file={0}\n",
            certificate.display()
        )
        .context("format")?;
    }
    if let Some([first, last]) = settings.passive {
        write!(text, "pasv_min_port={first}\npasv_max_port={last}\n").context("format")?;
    }
    let config = super::write_config(folder, "vsftpd.conf", &text)?;
    let mut command = super::program(namespace, PROGRAM)?;
    command.arg(config);
    Ok(command)
}
