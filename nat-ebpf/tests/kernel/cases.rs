//! What the two sides are asked one by one: what random packets seldom meet.

use crate::{
    both::{Both, ROOMY},
    common::{
        frame::{ACK, Body, ECHO, FIN, PSH, SYN, Spec},
        gateway::{self, PUBLIC, REMOTE},
    },
    lab,
};
use nat_common::{
    counter::Counter,
    flow::{FlowKey, Zone},
    harmless,
    port::{Owner, PortOwner},
    reason::Reason,
    record::FlowRecord,
    sequence::Corrections,
    session::Side,
    settings::{Filtering, Mapping},
    vouched::Vouched,
    watch::{self, Watch},
};
use nat_ebpf::host::State;
use std::collections::{HashMap, HashSet};

#[test]
fn lines_for_the_agent_keep_their_bytes() {
    lab::run("lines_for_the_agent_keep_their_bytes", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (client, server) = ((gateway::HOST, 40000), (REMOTE, 21));
        let syn = Spec::tcp(client, server, SYN);
        both.packet(true, Zone::Inside, &syn.build());
        let lengths = [1, 2, 3, 100, 1459, 1460];
        for length in lengths {
            let line = Spec::tcp(client, server, PSH | ACK).with(&vec![b'x'; length]);
            both.packet(true, Zone::Inside, &line.build());
        }
        assert_eq!(both.object.counters()[Counter::Punted as usize], lengths.len() as u64);
    });
}

#[test]
fn harmless_lines_pass_in_the_kernel_as_on_the_host() {
    lab::run("harmless_lines_pass_in_the_kernel_as_on_the_host", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (client, server) = ((gateway::HOST, 40000), (REMOTE, 21));
        both.packet(true, Zone::Inside, &Spec::tcp(client, server, SYN).build());
        let keys: Vec<_> = both.memory.state().flows().keys().copied().collect();
        let long = [&b"STOR "[..], &[b'y'; harmless::LONGEST - 7], b"\r\n"].concat();
        let longer = [&b"STOR "[..], &[b'y'; harmless::LONGEST - 6], b"\r\n"].concat();
        let texts: [&[u8]; 12] = [
            b"RETR a\r\n",
            b"pwd\r\n",
            b"PORT 10,0,1,2,4,5\r\n",
            b"NOOP\r\nNOOP\r\n",
            b"NOOP\n",
            b"NOOP \xf0\r\n",
            b"226 done\r\n",
            b"226-more\r\n",
            b"227 (1,2,3,4,5,6)\r\n",
            b"x",
            &long,
            &longer,
        ];
        let mut corrections = Corrections::IDENTITY;
        corrections.push(10, 4, 9).unwrap();
        for key in &keys {
            let id = both.memory.state().flows()[key].flow().control_session().unwrap();
            let place = id.index().unwrap();
            for (text, (vouched, flags)) in texts.iter().flat_map(|text| {
                let cases = [(1000, PSH | ACK), (1001, ACK), (1000, ACK | FIN), (0, PSH)];
                cases.map(|case| (text, case))
            }) {
                let mut record = both.object.session(place);
                record.vouched = [Vouched::up_to(vouched).word(); 2];
                record.copies = [[corrections; 2]; 2];
                both.object.set_session(place, record);
                both.memory.state().sessions[place as usize] = record;
                let (src, dst) = ((key.src(), key.sport()), (key.dst(), key.dport()));
                let ends = ((src.0, src.1.number()), (dst.0, dst.1.number()));
                let spec = Spec::tcp(ends.0, ends.1, flags).with(text);
                both.packet(true, key.zone(), &spec.build());
            }
        }
        // Of the client RETR, PWD and the long STOR, of the server 226; with FIN nothing.
        assert_eq!(both.object.counters()[Counter::Copied as usize], 4);
    });
}

#[test]
fn the_first_datagram_from_inside_leaves_by_xdp_and_a_syn_by_tc() {
    lab::run("the_first_datagram_from_inside_leaves_by_xdp_and_a_syn_by_tc", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (host, remote) = ((gateway::HOST, 40000), (REMOTE, 80));
        both.packet(true, Zone::Inside, &Spec::udp(host, remote).build());
        let counted = |both: &mut Both| {
            [Counter::Flows, Counter::Xdp, Counter::Tc].map(|counter| both.counted(counter))
        };
        assert_eq!(counted(&mut both), [1, 1, 0]);
        both.packet(true, Zone::Inside, &Spec::tcp(host, remote, SYN).build());
        assert_eq!(counted(&mut both), [2, 1, 1]);
    });
}

#[test]
fn a_full_pool_is_shared_by_both_sides_alike() {
    lab::run("a_full_pool_is_shared_by_both_sides_alike", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let mut send = |early, host, port, to| {
            both.packet(early, Zone::Inside, &Spec::udp(([10, 0, 1, host], port), to).build());
        };
        let (near, far) = ((REMOTE, 9), (gateway::FAR, 9));
        for port in gateway::POOL {
            send(true, 2, port, near);
        }
        for early in [true, false] {
            for host in [3, 5] {
                send(early, host, 7, far);
                send(early, host, 7, near);
                send(early, host, 7 + u16::from(early), far);
            }
        }
        let state = both.memory.state().clone();
        assert_eq!(state.flows().len(), 2 * 2 * gateway::POOL.len());
        assert_eq!(state.dropped(Reason::PortsExhausted), 2 * 2);
        let is_shared = |(key, record): &(&FlowKey, &FlowRecord)| {
            let rewrite = *record.flow().rewrite();
            key.zone() == Zone::Inside && key.sport() != rewrite.sport()
        };
        assert_eq!(state.flows().iter().filter(is_shared).count(), gateway::POOL.len());
    });
}

#[test]
fn a_host_at_its_limit_is_refused_on_both_sides_alike() {
    lab::run("a_host_at_its_limit_is_refused_on_both_sides_alike", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let settings = {
            let mut state = both.memory.state();
            state.settings.flows_per_host = 3;
            state.settings
        };
        both.object.settings(settings);
        let (near, far) = ((REMOTE, 9), (gateway::FAR, 9));
        let mut send = |early, host, port, to| {
            both.packet(early, Zone::Inside, &Spec::udp(([10, 0, 1, host], port), to).build());
        };
        // The last two of the one are refused, again and again; what it has goes on.
        for port in [1, 2, 3, 4, 5, 4, 1, 2, 3] {
            send(port % 2 == 0, 2, 2000 + port, near);
        }
        for port in [1, 2, 3] {
            send(true, 3, 2000 + port, far);
        }
        // What cannot be made counts for nobody.
        assert_eq!(gateway::POOL.len(), 3 + 1);
        for port in [1, 2] {
            send(true, 5, 2000 + port, near);
        }
        // The same for what would turn back.
        let forward = gateway::RULES[0].1;
        both.packet(true, Zone::Inside, &Spec::tcp(([10, 0, 1, 3], 7), forward, SYN).build());
        let state = both.memory.state().clone();
        assert_eq!(state.dropped(Reason::HostLimit), 3 + 1);
        assert_eq!(state.dropped(Reason::PortsExhausted), 1);
        assert_eq!(state.flows().len(), 2 * (3 + 3 + 1));
        let hosts = [(2, 3), (3, 3), (5, 1)].map(|(host, flows)| ([10, 0, 1, host], flows));
        assert_eq!(state.hosts, HashMap::from(hosts));
        assert_eq!(both.object.hosts(), counts(&state));
    });
}

/// Flows and ports of each host.
fn counts(state: &State) -> HashMap<[u8; 4], [u64; 2]> {
    let ports = |host| state.host_ports.get(host).copied().unwrap_or_default();
    state.hosts.iter().map(|(host, flows)| (*host, [*flows, ports(host)])).collect()
}

#[test]
fn a_host_with_all_its_ports_is_refused_another_on_both_sides_alike() {
    lab::run("a_host_with_all_its_ports_is_refused_another_on_both_sides_alike", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let settings = {
            let mut state = both.memory.state();
            state.settings.ports_per_host = 2;
            state.settings
        };
        both.object.settings(settings);
        let (near, far) = ((REMOTE, 9), (gateway::FAR, 9));
        let mut send = |early, host, port, to| {
            both.packet(early, Zone::Inside, &Spec::udp(([10, 0, 1, host], port), to).build());
        };
        // One is refused, again and again; the endpoints that have a port reach whom they like.
        for port in [1, 2, 3, 3, 1, 2] {
            send(port % 2 == 0, 2, 2000 + port, near);
            send(port % 2 == 1, 2, 2000 + port, far);
        }
        // Another host has the rest of the pool, and the next one shares a port, which is not its own.
        assert_eq!(gateway::POOL.len(), 2 + 2);
        for port in [1, 2] {
            send(true, 3, 2000 + port, near);
        }
        send(true, 5, 2001, far);
        let state = both.memory.state().clone();
        assert_eq!(state.dropped(Reason::HostLimit), 2 * 2);
        assert_eq!(state.dropped(Reason::PortsExhausted), 0);
        let has = [(2, [4, 2]), (3, [2, 2]), (5, [1, 0])];
        let has = HashMap::from(has.map(|(host, has)| ([10, 0, 1, host], has)));
        assert_eq!(counts(&state), has);
        assert_eq!(both.object.hosts(), has);
    });
}

#[test]
fn records_are_followed_as_on_the_host() {
    lab::run("records_are_followed_as_on_the_host", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let (client, server) = ((gateway::HOST, 40000), (REMOTE, 21));
        both.packet(true, Zone::Inside, &Spec::tcp(client, server, SYN).build());
        let flows = both.object.flows();
        let session = flows.values().find_map(|record| record.flow().control_session()).unwrap();
        let place = watch::index(session.index().unwrap(), Side::Originator);
        let from = 1000;
        let record = |length: usize| [&[23, 3, 3, 0, length as u8][..], &vec![7; length]].concat();
        let begin = Watch::records(from, from);
        for (payload, seen) in [
            (record(40), false),
            (record(100).repeat(8), false),
            (record(9)[..5].to_vec(), false),
            (record(1)[..4].to_vec(), true),
            (record(1).repeat(9), true),
            (b"PWD\r\n".to_vec(), true),
            ([record(3), b"PWD\r\n".to_vec()].concat(), true),
        ] {
            both.object.set_watch(place, begin);
            both.memory.state().watches[place as usize] = begin;
            let before = both.object.counters()[Counter::Punted as usize];
            let spec = Spec::tcp(client, server, PSH | ACK).with(&payload);
            both.packet(true, Zone::Inside, &spec.build());
            let now = both.object.watch(place);
            assert_eq!(now, both.memory.state().watches[place as usize]);
            let handed = both.object.counters()[Counter::Punted as usize] - before;
            assert_eq!((handed > 0, now == begin), (seen, seen), "{} bytes", payload.len());
        }
        let begin = Watch::nothing(from);
        both.object.set_watch(place, begin);
        both.memory.state().watches[place as usize] = begin;
        let spec = Spec::tcp(client, server, PSH | ACK).with(b"more than two bytes");
        both.packet(true, Zone::Inside, &spec.build());
    });
}

#[test]
fn exempt_networks_contacts_and_other_protocols_are_the_same_on_both_sides() {
    lab::run("exempt_networks_contacts_and_other_protocols_are_the_same_on_both_sides", |object| {
        let _sockets = lab::set_up();
        let mut both = Both::new(&object, ROOMY);
        let set = |both: &mut Both, exempt: u8, filtering: Filtering| {
            let mut state = both.memory.state();
            (state.settings.exempt, state.settings.filtering) = (exempt, filtering as u16);
            both.object.settings(state.settings);
        };
        // One packet, and how many flows there are then.
        let mut wanted = 0;
        let mut send = |both: &mut Both, zone, spec: &Spec, more: usize| {
            both.packet(true, zone, &spec.build());
            wanted += 2 * more;
            assert_eq!(both.memory.state().flows().len(), wanted, "{spec:?}");
        };
        set(&mut both, 1, Filtering::AddressAndPortDependent);
        let (host, remote) = ((gateway::HOST, 5000), (REMOTE, 9));
        send(&mut both, Zone::Inside, &Spec::udp(host, remote), 1);
        send(&mut both, Zone::Outside, &Spec::udp(remote, host), 0);
        send(&mut both, Zone::Outside, &Spec::tcp(remote, host, ACK), 0);
        send(&mut both, Zone::Outside, &Spec::tcp(remote, host, SYN), 1);
        send(&mut both, Zone::Outside, &Spec::udp((gateway::FAR, 9), host), 0);
        let as_it_is = |(key, record): (&FlowKey, &FlowRecord)| {
            let rewrite = *record.flow().rewrite();
            (key.src(), key.sport()) == (rewrite.src(), rewrite.sport())
        };
        assert!(both.memory.state().flows().iter().all(as_it_is));

        set(&mut both, 0, Filtering::AddressDependent);
        let mapped = (gateway::HOST, 40000);
        send(&mut both, Zone::Inside, &Spec::udp(mapped, (gateway::FAR, 80)), 1);
        send(&mut both, Zone::Outside, &Spec::udp((gateway::FAR, 81), (PUBLIC, 40000)), 1);
        send(&mut both, Zone::Outside, &Spec::udp((REMOTE, 80), (PUBLIC, 40000)), 0);

        let other = |src, dst, protocol| {
            Spec::of(src, dst, Body::Other { protocol }).with(b"whatever it is")
        };
        let (own, far) = (gateway::ONE_TO_ONE, gateway::FAR);
        for protocol in [47, 50, 132] {
            send(&mut both, Zone::Inside, &other(own, far, protocol), 1);
            send(&mut both, Zone::Outside, &other(far, gateway::OWN, protocol), 0);
            send(&mut both, Zone::Outside, &other(REMOTE, gateway::OWN, protocol), 1);
            send(&mut both, Zone::Inside, &other(own, REMOTE, protocol), 0);
            send(&mut both, Zone::Inside, &other(gateway::HOST, far, protocol), 0);
        }
        send(&mut both, Zone::Inside, &other(own, far, 136), 0);
        assert_eq!(both.memory.state().dropped(Reason::Protocol), 3 + 1);

        // Each host behind its own of several addresses.
        gateway::pair(&mut both.memory.state());
        let state = both.memory.state().clone();
        both.object.hide(&state);
        for last in 11..14 {
            let host = ([10, 0, 1, last], 1000 + u16::from(last));
            send(&mut both, Zone::Inside, &Spec::tcp(host, (gateway::FAR, 443), SYN), 1);
            send(&mut both, Zone::Inside, &Spec::echo(host.0, gateway::FAR, ECHO, host.1), 1);
        }
        let publics: HashSet<[u8; 4]> = (both.memory.state().ports.iter())
            .filter(|(_, word)| matches!(word.inside(), [10, 0, 1, 11..14]))
            .map(|(public, _)| public.address())
            .collect();
        assert_eq!(publics, [PUBLIC, gateway::SECOND].into());

        // Four ports of the pool, two of them odd: the third odd endpoint gets an even one.
        both.memory.state().settings.parity = 1;
        let settings = both.memory.state().settings;
        both.object.settings(settings);
        for last in [30, 33, 36] {
            send(
                &mut both,
                Zone::Inside,
                &Spec::udp(([10, 0, 1, last], 7), (gateway::FAR, 443)),
                1,
            );
        }
        let odd = (both.memory.state().ports.iter())
            .filter(|(_, word)| matches!(word.inside(), [10, 0, 1, 30 | 33 | 36]))
            .filter(|(public, _)| public.port().number() % 2 == 1)
            .count();
        assert_eq!(odd, 2);
    });
}

#[test]
fn mapping_by_remote_end_and_filtering_of_nobody_are_the_same_on_both_sides() {
    lab::run(
        "mapping_by_remote_end_and_filtering_of_nobody_are_the_same_on_both_sides",
        |object| {
            let _sockets = lab::set_up();
            let mut both = Both::new(&object, ROOMY);
            let behave = |both: &mut Both, mapping: Mapping, filtering: Filtering| {
                let mut state = both.memory.state();
                (state.settings.mapping, state.settings.filtering) =
                    (mapping as u16, filtering as u16);
                both.object.settings(state.settings);
            };
            behave(&mut both, Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
            for (early, port) in [(true, 9), (false, 10), (true, 11), (false, 12)] {
                let spec = Spec::udp((gateway::HOST, 5000), (REMOTE, port));
                both.packet(early, Zone::Inside, &spec.build());
            }
            let state = both.memory.state().clone();
            assert!(state.ports.values().any(|word| *word == PortOwner::SHARED));
            assert!(!state.ports.values().any(|word| word.owner() == Some(Owner::Masquerade)));
            assert_eq!(state.flows().len(), 2 * 4);

            behave(&mut both, Mapping::EndpointIndependent, Filtering::EndpointIndependent);
            let mapped = Spec::tcp((gateway::HOST, 40000), (REMOTE, 80), SYN);
            both.packet(true, Zone::Inside, &mapped.build());
            let flows = both.memory.state().flows().len();
            let stranger = (gateway::FAR, 1234);
            for (flags, more) in [(ACK, 0), (SYN, 2), (ACK, 2)] {
                let spec = Spec::tcp(stranger, (PUBLIC, 40000), flags);
                both.packet(true, Zone::Outside, &spec.build());
                assert_eq!(both.memory.state().flows().len(), flows + more);
            }
            let answer = Spec::tcp((gateway::HOST, 40000), stranger, SYN | ACK);
            both.packet(true, Zone::Inside, &answer.build());
            assert_eq!(both.memory.state().dropped(Reason::Unsolicited), 1);
            // Nobody is mapped here, or everybody.
            for port in [40001, 40002] {
                let spec = Spec::udp(stranger, (PUBLIC, port));
                both.packet(false, Zone::Outside, &spec.build());
            }
            assert_eq!(both.memory.state().dropped(Reason::Unsolicited), 3);
        },
    );
}
