//! The packet path on the host, with any frames on either side: what is not forwarded has not changed,
//! and what leaves by a WAN has a public source.

use nat_common::flow::Zone;
use nat_ebpf::host::{self, HostPacket, Limits, Verdict};

use super::cursor::Cursor;

#[allow(dead_code)]
#[path = "../../../nat-ebpf/tests/common/frame.rs"]
mod frame;
#[allow(dead_code)]
#[path = "../../../nat-ebpf/tests/common/gateway.rs"]
mod gateway;
#[allow(dead_code)]
#[path = "../../../nat-ebpf/tests/common/six.rs"]
mod six;
#[allow(dead_code)]
#[path = "../../../nat-ebpf/tests/common/sums.rs"]
mod sums;

/// The longest packet of the gateway's interfaces.
const MTU: usize = gateway::MTU as usize;

/// Most frames of one input.
const FRAMES: usize = 24;

/// Frames, each behind a byte that says where it arrives and two with its length.
pub fn run(data: &[u8]) {
    let mut cursor = Cursor(data);
    let setup = cursor.byte();
    let limits = Limits { flows: 64, flows6: 8, sessions: 4 };
    let public = (setup & 1 == 0).then_some(gateway::PUBLIC);
    let (memory, world) = (gateway::memory(limits, setup & 2 == 0, public), gateway::world());
    for _frame in 0..FRAMES {
        if cursor.is_empty() {
            break;
        }
        let place = cursor.byte();
        let length = cursor.short() % 1600;
        let bytes = cursor.bytes(length.into()).to_vec();
        {
            let mut state = memory.state();
            state.now += u32::from(place >> 4);
            if place & 4 == 0 {
                state.settings.heartbeat = state.now;
            }
        }
        let zone = if place & 1 == 0 { Zone::Inside } else { Zone::Outside };
        let ifindex = if zone == Zone::Inside { gateway::LAN } else { gateway::WAN };
        let mut packet = HostPacket::<true>::new(bytes.clone(), ifindex, &world);
        let verdict = if place & 2 == 0 {
            host::tc_ingress(&mut packet, &mut memory.tables(), zone)
        } else {
            let mut early = HostPacket::<false>::new(bytes.clone(), ifindex, &world);
            match host::xdp_ingress(&mut early, &mut memory.tables(), zone) {
                Verdict::Pass => {
                    assert_eq!(early.frame, bytes, "XDP has passed what it has changed");
                    host::tc_ingress(&mut packet, &mut memory.tables(), zone)
                }
                done => {
                    packet.frame = early.frame;
                    done
                }
            }
        };
        check(&bytes, &packet.frame, verdict, zone);
    }
}

fn check(before: &[u8], after: &[u8], verdict: Verdict, zone: Zone) {
    assert_eq!(before.len(), after.len());
    let Verdict::Forward(hop) = verdict else {
        // One outside is told by the kernel, from the packet as the inside host would get it; the agent cuts
        // what is translated.
        let is_told = verdict == Verdict::Pass && zone == Zone::Outside;
        let is_long = verdict == Verdict::Punted && before.len() > frame::ETHERNET + MTU;
        assert!(before == after || is_told || is_long, "{verdict:?}");
        return;
    };
    let [was, is] = [before, after].map(sums::residues);
    assert_eq!(was.network, is.network, "the checksum of the header");
    // A checksum that was left to a device is whole afterwards.
    assert!(was.transport == is.transport || is.transport == Some(0), "{was:?} {is:?}");
    let source = &after[frame::ETHERNET + 12..frame::ETHERNET + 16];
    if zone == Zone::Inside && hop.ifindex == gateway::WAN {
        assert_ne!(source[0], 10, "an inside source on a WAN");
    }
}
