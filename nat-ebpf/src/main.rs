//! The programs: thin hooks around [`nat_ebpf::path`]. No decision is taken here.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use nat_common::flow::Zone;
    use nat_ebpf::bpf;

    /// XDP on an inside interface.
    #[xdp]
    pub fn xdp_inside(context: XdpContext) -> u32 {
        bpf::xdp::ingress(context, Zone::Inside)
    }

    /// XDP on an inside interface, packets without a flow.
    #[xdp]
    pub fn xdp_inside_new(context: XdpContext) -> u32 {
        bpf::xdp::inside_new(context)
    }

    /// XDP on a way out.
    #[xdp]
    pub fn xdp_outside(context: XdpContext) -> u32 {
        bpf::xdp::ingress(context, Zone::Outside)
    }

    /// XDP on an inside interface, packets that are not as most are.
    #[xdp]
    pub fn xdp_inside_rare(context: XdpContext) -> u32 {
        bpf::xdp::rare(context, Zone::Inside)
    }

    /// XDP on a way out, packets that are not as most are.
    #[xdp]
    pub fn xdp_outside_rare(context: XdpContext) -> u32 {
        bpf::xdp::rare(context, Zone::Outside)
    }

    /// TC ingress of an inside interface.
    #[classifier]
    pub fn tc_inside(context: TcContext) -> i32 {
        bpf::tc::ingress(context, Zone::Inside)
    }

    /// TC ingress of a way out.
    #[classifier]
    pub fn tc_outside(context: TcContext) -> i32 {
        bpf::tc::ingress(context, Zone::Outside)
    }

    /// TC ingress of an inside interface whose packets have no Ethernet header.
    #[classifier]
    pub fn tc_inside_bare(context: TcContext) -> i32 {
        bpf::bare::ingress(context, Zone::Inside)
    }

    /// TC ingress of a way out whose packets have no Ethernet header.
    #[classifier]
    pub fn tc_outside_bare(context: TcContext) -> i32 {
        bpf::bare::ingress(context, Zone::Outside)
    }

    /// TC egress of a way out whose packets have no Ethernet header.
    #[classifier]
    pub fn tc_outside_egress_bare(context: TcContext) -> i32 {
        bpf::bare::outside_egress(context)
    }

    /// TC ingress of an interface that is on both sides.
    #[classifier]
    pub fn tc_one_armed(context: TcContext) -> i32 {
        bpf::tc::one_armed(context)
    }

    /// TC egress of an interface that is on both sides.
    #[classifier]
    pub fn tc_one_armed_egress(context: TcContext) -> i32 {
        bpf::tc::one_armed_egress(context)
    }

    /// TC ingress of an inside interface, packets that are not as most are.
    #[classifier]
    pub fn tc_inside_rare(context: TcContext) -> i32 {
        bpf::tc::rare(context, Zone::Inside)
    }

    /// TC ingress of a way out, packets that are not as most are.
    #[classifier]
    pub fn tc_outside_rare(context: TcContext) -> i32 {
        bpf::tc::rare(context, Zone::Outside)
    }

    /// TC ingress of an inside interface, packets without a flow.
    #[classifier]
    pub fn tc_inside_new(context: TcContext) -> i32 {
        bpf::tc::new(context, Zone::Inside)
    }

    /// TC ingress of a way out, packets without a flow.
    #[classifier]
    pub fn tc_outside_new(context: TcContext) -> i32 {
        bpf::tc::new(context, Zone::Outside)
    }

    /// TC ingress of an inside interface, packets of control connections.
    #[classifier]
    pub fn tc_inside_control(context: TcContext) -> i32 {
        bpf::tc::control(context, Zone::Inside)
    }

    /// TC ingress of a way out, packets of control connections.
    #[classifier]
    pub fn tc_outside_control(context: TcContext) -> i32 {
        bpf::tc::control(context, Zone::Outside)
    }

    /// TC ingress of an inside interface, packets that open a connection.
    #[classifier]
    pub fn tc_inside_syn(context: TcContext) -> i32 {
        bpf::tc::syn(context, Zone::Inside)
    }

    /// TC ingress of a way out, packets that open a connection.
    #[classifier]
    pub fn tc_outside_syn(context: TcContext) -> i32 {
        bpf::tc::syn(context, Zone::Outside)
    }

    /// TC ingress of an inside interface, fragments.
    #[classifier]
    pub fn tc_inside_fragment(context: TcContext) -> i32 {
        bpf::tc::fragment(context, Zone::Inside)
    }

    /// TC ingress of a way out, fragments.
    #[classifier]
    pub fn tc_outside_fragment(context: TcContext) -> i32 {
        bpf::tc::fragment(context, Zone::Outside)
    }

    /// TC ingress of an inside interface, packets that cannot go on.
    #[classifier]
    pub fn tc_inside_refused(context: TcContext) -> i32 {
        bpf::tc::refused(context, Zone::Inside)
    }

    /// TC ingress of an inside interface, packets for the gateway.
    #[classifier]
    pub fn tc_inside_local(context: TcContext) -> i32 {
        bpf::tc::local(context)
    }

    /// TC ingress of an inside interface, ICMP errors.
    #[classifier]
    pub fn tc_inside_error(context: TcContext) -> i32 {
        bpf::tc::error(context, Zone::Inside)
    }

    /// TC ingress of a way out, ICMP errors.
    #[classifier]
    pub fn tc_outside_error(context: TcContext) -> i32 {
        bpf::tc::error(context, Zone::Outside)
    }

    /// TC ingress of a way out, packets that cannot go on.
    #[classifier]
    pub fn tc_outside_refused(context: TcContext) -> i32 {
        bpf::tc::refused(context, Zone::Outside)
    }

    /// TC ingress of an inside interface, IPv6 where prefixes are translated.
    #[classifier]
    pub fn tc_inside_prefix(context: TcContext) -> i32 {
        bpf::tc::prefix(context, Zone::Inside)
    }

    /// TC ingress of a way out, IPv6 where prefixes are translated.
    #[classifier]
    pub fn tc_outside_prefix(context: TcContext) -> i32 {
        bpf::tc::prefix(context, Zone::Outside)
    }

    /// TC ingress of an inside interface, IPv6.
    #[classifier]
    pub fn tc_inside_six(context: TcContext) -> i32 {
        bpf::tc::six(context, Zone::Inside)
    }

    /// TC ingress of a way out, IPv6.
    #[classifier]
    pub fn tc_outside_six(context: TcContext) -> i32 {
        bpf::tc::six(context, Zone::Outside)
    }

    /// TC ingress of any interface, TCP connections over IPv6 that open.
    #[classifier]
    pub fn tc_six_syn(context: TcContext) -> i32 {
        bpf::tc::six_syn(context)
    }

    /// TC egress of a way out, ICMP errors of the gateway itself.
    #[classifier]
    pub fn tc_outside_egress_error(context: TcContext) -> i32 {
        bpf::tc::egress_error(context)
    }

    /// TC egress of a way out, IPv6 where prefixes are translated.
    #[classifier]
    pub fn tc_outside_egress_prefix(context: TcContext) -> i32 {
        bpf::tc::egress_prefix(context)
    }

    /// TC egress of a way out.
    #[classifier]
    pub fn tc_outside_egress(context: TcContext) -> i32 {
        bpf::tc::outside_egress(context)
    }

    /// Moves flows to a larger table; run by the agent, attached nowhere.
    #[xdp]
    pub fn flows_move(context: XdpContext) -> u32 {
        bpf::grow::run(&context)
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("nat-ebpf is the program for the kernel: build it with `cargo xtask build`");
    std::process::exit(2);
}
