//! The cases: who is behind the NAT, by which rule, with which server, client and command.
//!
//! Invariant: the plan covers every row of the table in docs/ftp.md, or of its source document.

use std::{
    fmt::{self, Display},
    net::Ipv4Addr,
};

use crate::{
    client::{self, DataMode, Direction, Request},
    gateway::{self, Rule},
    lab::{INSIDE, OUTSIDE, WAN, WAN_SECOND},
    matrix::Site,
    netns::Namespace,
    server::{self, Announce},
    two_nats::SECOND,
};

/// What stands between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The client is inside and leaves by masquerade.
    Masquerade,
    /// The server is inside, behind a forward of its control port.
    Forward,
    /// The server is inside and has a public address of its own.
    OneToOne,
    /// Both are inside, and the client dials the public address of a forward.
    Hairpin,
    /// The client is inside one gateway and leaves by masquerade, the server is inside another, behind a
    /// forward.
    TwoNats,
    /// The server is inside and the client outside, and routers stand between them that translate
    /// nothing.
    Direct,
}

/// Which address an inside server puts into its 227.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// Its own.
    Own,
    /// The one that the rule gives it.
    Public,
}

/// What cases have in common that share a server process and a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Between client and server.
    pub reach: Reach,
    /// The server's view of itself.
    pub stated: Stated,
    /// Which server.
    pub server: server::Kind,
}

impl Setup {
    /// The rule that it needs.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        let public = self.address();
        match self.reach {
            Reach::Masquerade | Reach::Direct => None,
            Reach::Forward | Reach::Hairpin | Reach::TwoNats => {
                Some(Rule::ForwardFtp { name: "lab-forward".into(), public, to: INSIDE })
            }
            Reach::OneToOne => {
                Some(Rule::OneToOne { name: "lab-one-to-one".into(), public, to: INSIDE })
            }
        }
    }

    /// Where the client finds the server.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        match self.reach {
            Reach::Masquerade => OUTSIDE,
            Reach::Forward | Reach::Hairpin => WAN,
            Reach::OneToOne => WAN_SECOND,
            Reach::TwoNats => SECOND,
            Reach::Direct => INSIDE,
        }
    }

    /// What the server states.
    #[must_use]
    pub const fn announce(&self) -> Announce {
        match self.stated {
            Stated::Own => Announce::Own,
            Stated::Public => Announce::Stated(self.address()),
        }
    }

    /// Where the server runs.
    #[must_use]
    pub const fn server_namespace<'lab>(&self, site: &Site<'lab>) -> &'lab Namespace {
        match self.reach {
            Reach::Masquerade => &site.lab.outside,
            Reach::Forward | Reach::OneToOne | Reach::Hairpin | Reach::Direct => &site.lab.inside,
            Reach::TwoNats => site.third,
        }
    }

    /// Where the client runs.
    #[must_use]
    pub const fn client_namespace<'lab>(&self, site: &Site<'lab>) -> &'lab Namespace {
        match self.reach {
            Reach::Masquerade | Reach::TwoNats => &site.lab.inside,
            Reach::Forward | Reach::OneToOne | Reach::Direct => &site.lab.outside,
            Reach::Hairpin => site.third,
        }
    }
}

/// One transfer of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Server and rule.
    pub setup: Setup,
    /// The gateway.
    pub gateway: gateway::Kind,
    /// The client.
    pub client: client::Kind,
    /// Its command.
    pub mode: DataMode,
    /// Which way the file goes.
    pub direction: Direction,
}

impl Case {
    /// The row of the source document that it belongs to.
    #[must_use]
    pub fn title(&self) -> String {
        let is_active = matches!(self.mode, DataMode::Port | DataMode::Eprt);
        let what = match (self.setup.reach, self.setup.stated) {
            (Reach::Masquerade, _) if is_active => return "active, client inside".into(),
            (Reach::Masquerade, _) => return "passive, client inside".into(),
            (Reach::Direct, _) => return "without a NAT".into(),
            (_, _) if is_active => "active, server inside",
            (_, Stated::Public) => "server states public address",
            (_, Stated::Own) if self.mode == DataMode::Pasv => "server states private address",
            (_, Stated::Own) => "passive, server inside",
        };
        let by = match self.setup.reach {
            Reach::OneToOne => "one-to-one",
            Reach::Hairpin => "hairpin",
            Reach::TwoNats => "two NATs",
            Reach::Forward | Reach::Masquerade | Reach::Direct => "forward",
        };
        format!("{what}, {by}")
    }

    /// The transfer to make.
    #[must_use]
    pub const fn request(&self) -> Request {
        let request = Request::new(self.client, self.mode, self.setup.address());
        Request { direction: self.direction, ..request }
    }
}

impl Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setup, gateway, client, mode, direction } = self;
        write!(
            formatter,
            "{gateway:<3} {:<41} {:<9} {client:<4} {mode} {direction}",
            self.title(),
            setup.server
        )
    }
}

impl Case {
    /// Whether its line contains `filter`. Columns are padded in the line; a filter is typed with single
    /// blanks.
    pub(super) fn matches(&self, filter: &str) -> bool {
        let line = self.to_string();
        line.split_whitespace().collect::<Vec<_>>().join(" ").contains(filter)
    }
}

/// All cases for a gateway whose line contains `filter`, those of one set-up together.
#[must_use]
pub fn plan(gateway: gateway::Kind, servers: &[server::Kind], filter: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for &server in servers {
        for (reach, stated) in [
            (Reach::Masquerade, Stated::Own),
            (Reach::Forward, Stated::Own),
            (Reach::Forward, Stated::Public),
            (Reach::OneToOne, Stated::Own),
            (Reach::OneToOne, Stated::Public),
        ] {
            if stated == Stated::Public && !server.states_addresses() {
                continue;
            }
            let setup = Setup { reach, stated, server };
            cases.extend(transfers(stated).into_iter().map(|(client, mode, direction)| Case {
                setup,
                gateway,
                client,
                mode,
                direction,
            }));
        }
    }
    cases.retain(|case| case.matches(filter));
    cases
}

fn transfers(stated: Stated) -> Vec<(client::Kind, DataMode, Direction)> {
    use DataMode::{Eprt, Epsv, Pasv, Port};
    use Direction::{Download, Upload};
    use client::Kind::{Curl, Lftp};
    match stated {
        Stated::Own => vec![
            (Curl, Pasv, Download),
            (Curl, Pasv, Upload),
            (Lftp, Pasv, Download),
            (Curl, Epsv, Download),
            (Lftp, Epsv, Upload),
            (Curl, Port, Download),
            (Curl, Eprt, Download),
            (Curl, Eprt, Upload),
            (Lftp, Port, Download),
        ],
        // A 229 states no address, and an active session none of the server's.
        Stated::Public => {
            vec![(Curl, Pasv, Download), (Lftp, Pasv, Download), (Lftp, Pasv, Upload)]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KIND: gateway::Kind = gateway::Kind::NatCtl(gateway::Mode::Tc);

    #[test]
    fn the_plan_has_every_row_with_both_servers_and_both_clients() {
        let servers = [server::Kind::Vsftpd, server::Kind::Pyftpdlib];
        let cases = plan(KIND, &servers, "");
        let titles = cases.iter().map(Case::title).collect::<BTreeSet<_>>();
        assert_eq!(titles.len(), 10);
        for title in titles {
            for server in servers {
                for client in [client::Kind::Curl, client::Kind::Lftp] {
                    assert!(
                        cases.iter().any(|case| case.title() == title
                            && case.setup.server == server
                            && case.client == client),
                        "{title} lacks {server} with {client}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_filter_keeps_the_lines_that_contain_it() {
        let cases = plan(KIND, &[server::Kind::Vsftpd], "forward vsftpd lftp PORT");
        assert_eq!(cases.len(), 1);
    }
}
