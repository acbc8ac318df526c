//! The same random packets through the programs and through the path on the host.

use crate::{
    both::{Both, LONGEST, NARROW, ROOMY, Room, Step},
    common::{
        frame::{Body, SYN, Spec, TCP, UDP},
        gateway::{self, LAN, PUBLIC, REMOTE, WAN},
        generate::{self, packet, port},
    },
    counted::Executions,
    lab,
};
use nat_common::{
    flow::{FlowKey, Zone},
    flow_table::WINDOW,
    layout,
    reason::Reason,
};
use proptest::{
    prelude::*,
    sample::Index,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

fn step() -> BoxedStrategy<Step> {
    let early = any::<bool>();
    prop_oneof![
        8 => (early, packet(Zone::Inside)).prop_map(|(early, spec)| Step::Packet(early, Zone::Inside, spec)),
        5 => (early, packet(Zone::Outside)).prop_map(|(early, spec)| Step::Packet(early, Zone::Outside, spec)),
        10 => (early, any::<Index>(), packet(Zone::Inside))
            .prop_map(|(early, index, spec)| Step::Known(early, index, spec)),
        2 => (any::<Index>(), packet(Zone::Inside))
            .prop_map(|(index, spec)| Step::LeftToDevice(index, spec)),
        4 => (early, any::<Index>(), generate::report())
            .prop_map(|(early, index, report)| Step::Error(early, index, report)),
        2 => (any::<Index>(), generate::report())
            .prop_map(|(index, report)| Step::Tell(index, report)),
        1 => (prop::sample::select(vec![0, LAN, WAN]), prop::sample::select(vec![0, layout::MARK]), own())
            .prop_map(|(from, mark, spec)| Step::Egress(from, mark, spec)),
        1 => (any::<Index>(), packet(Zone::Inside)).prop_map(|(index, spec)| Step::Sent(index, spec)),
        1 => port().prop_map(Step::Expect),
        1 => (any::<bool>(), prop::sample::select(vec![100, 1500, 1501]))
            .prop_map(|(resolved, mtu)| Step::Fill(resolved, mtu)),
        1 => prop_oneof![Just(Step::Close), Just(Step::Reroute)],
    ]
    .boxed()
}

/// The connection that was announced.
fn dial(port: u16, number: u16) -> Spec {
    Spec {
        src: REMOTE,
        dst: PUBLIC,
        ttl: 64,
        id: 1,
        fragment: 0,
        options: 0,
        body: Body::Tcp {
            sport: 40_000 + number,
            dport: port,
            sequence: 1,
            acknowledgement: 0,
            flags: SYN,
            options: vec![],
        },
        payload: vec![],
        trailer: 0,
        damage: 0,
    }
}

/// A packet whose answer has this key.
fn sent(answer: &FlowKey) -> FlowKey {
    let (from, to) = ((answer.dst(), answer.dport()), (answer.src(), answer.sport()));
    FlowKey::new(Zone::Inside, answer.protocol(), from.0, from.1, to.0, to.1)
}

/// A packet that leaves by a WAN.
fn own() -> BoxedStrategy<Spec> {
    let sources = vec![PUBLIC, PUBLIC, gateway::OWN, [10, 0, 1, 254], [10, 0, 1, 2]];
    (prop::sample::select(sources), packet(Zone::Inside))
        .prop_map(|(src, spec)| Spec { src, dst: REMOTE, ..spec })
        .boxed()
}

#[test]
fn the_programs_do_what_the_path_does_on_the_host() {
    side_by_side(
        "the_programs_do_what_the_path_does_on_the_host",
        ROOMY,
        2400,
        Programs::AsTheyAre,
    );
}

#[test]
fn a_full_table_refuses_on_both_sides_alike() {
    side_by_side("a_full_table_refuses_on_both_sides_alike", NARROW, 3000, Programs::AsTheyAre);
}

#[test]
fn a_copy_that_counts_what_it_executes_does_the_same() {
    side_by_side(
        "a_copy_that_counts_what_it_executes_does_the_same",
        ROOMY,
        900,
        Programs::Counting,
    );
}

/// Which programs run in the kernel.
enum Programs {
    AsTheyAre,
    /// Those of a copy that counts what it executes.
    Counting,
}

/// So many steps on both sides.
fn side_by_side(name: &str, room: Room, steps_taken: u16, programs: Programs) {
    lab::run(name, move |object| {
        let _sockets = lab::set_up();
        let mut executions = Executions::new();
        let object = match programs {
            Programs::AsTheyAre => object,
            Programs::Counting => executions.instrument(&object),
        };
        let mut both = Both::new(&object, room);
        let mut runner = TestRunner::new_with_rng(
            Config::default(),
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        );
        let steps = step();
        for number in 0..steps_taken {
            if number % 60 == 0 {
                both.reset();
            }
            let step = steps.new_tree(&mut runner).expect("a step").current();
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match &step {
                Step::Packet(early, zone, spec) if spec.length() < LONGEST => {
                    both.packet(*early, *zone, &spec.build());
                }
                Step::Known(_, index, spec) | Step::LeftToDevice(index, spec) => {
                    let keys = generate::in_order(both.memory.state().flows().keys());
                    if keys.is_empty() || spec.length() >= LONGEST {
                        return;
                    }
                    let key = index.get(&keys);
                    let spec = generate::known(key, spec);
                    match step {
                        Step::LeftToDevice(..) if matches!(key.protocol(), TCP | UDP) => {
                            both.packet(true, key.zone(), &spec.build_left_to_device());
                        }
                        Step::Known(early, ..) => {
                            both.packet(early, key.zone(), &spec.build());
                        }
                        _ => {}
                    }
                }
                Step::Error(_, index, report) | Step::Tell(index, report) => {
                    let keys = generate::in_order(both.memory.state().flows().keys());
                    if keys.is_empty() {
                        return;
                    }
                    let key = index.get(&keys);
                    let spec = generate::error(key, report);
                    match step {
                        Step::Error(early, ..) => both.packet(early, key.zone(), &spec.build()),
                        _ => both.egress(0, 0, &Spec { src: PUBLIC, ..spec }),
                    }
                }
                Step::Egress(from, mark, spec) if spec.length() < LONGEST => {
                    both.egress(*from, *mark, spec);
                }
                Step::Sent(index, spec) if spec.length() < LONGEST => {
                    let mut keys = generate::in_order(both.memory.state().flows().keys());
                    keys.retain(|key| key.zone() == Zone::Outside);
                    if keys.is_empty() {
                        return;
                    }
                    let spec = generate::known(&sent(index.get(&keys)), spec);
                    both.egress(0, layout::AGENT_MARK, &spec);
                }
                Step::Expect(port) => {
                    both.expect(*port);
                    // Whether a packet dials it by chance is nothing to rely on.
                    let spec = dial(*port, number);
                    both.packet(false, Zone::Outside, &spec.build());
                }
                Step::Fill(..) | Step::Close | Step::Reroute => both.keep_hops(&step),
                Step::Packet(..) | Step::Egress(..) | Step::Sent(..) => {}
            }));
            if let Err(panic) = told {
                eprintln!("step {number}: {step:?}");
                std::panic::resume_unwind(panic);
            }
        }
        let drops = both.object.drops();
        let counters = both.object.counters();
        println!("drops {drops:?}, counters {counters:?}");
        assert!(counters.iter().filter(|count| **count > 0).count() >= 6, "{counters:?}");
        assert!(both.led > 0, "no flow was led to a hop");
        assert!(both.linked > 0, "TC sent nothing by a hop alone");
        let full = drops[Reason::TableFull as usize];
        assert_eq!(full > 0, room.lines == WINDOW, "{full} did not fit");
    });
}
