//! Programs of the bench: they make packets, carry them without NAT, and count them.
//!
//! | program | where | does |
//! |---|---|---|
//! | `generate`, `generate_back` | test runs with live frames | sends packets of numbered flows, forth and back |
//! | `ceiling` | XDP of the gateway | asks for the way and redirects; no NAT |
//! | `ceiling_tc` | TC ingress of the gateway | writes link addresses that it was given, redirects |
//! | `line`, `line_tc` | XDP, TC ingress of the gateway | the same, with one line of memory for each flow |
//! | `sink` | XDP of client and server | counts what arrives, drops it |
//! | `rekey`, `rekey_tc` | test runs | makes a packet, then calls the program that is measured |
//! | `pass`, `pass_tc` | behind `rekey` | nothing: what `rekey` itself costs |
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod ceiling;
#[cfg(target_arch = "bpf")]
mod generate;
#[cfg(target_arch = "bpf")]
mod line;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod rekey;
#[cfg(target_arch = "bpf")]
mod sink;

#[cfg(target_arch = "bpf")]
mod programs {
    use super::{ceiling, generate, line, rekey, sink};
    use aya_ebpf::{
        bindings::{TC_ACT_OK, xdp_action::XDP_PASS},
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };

    /// Sends a packet out of the interface that the test run names.
    #[xdp]
    pub fn generate(context: XdpContext) -> u32 {
        generate::send(&context, generate::FORTH)
    }

    /// The same by the other order, so that two sides send at the same time.
    #[xdp]
    pub fn generate_back(context: XdpContext) -> u32 {
        generate::send(&context, generate::BACK)
    }

    /// Forwards without NAT.
    #[xdp]
    pub fn ceiling(context: XdpContext) -> u32 {
        ceiling::forward(&context)
    }

    /// Forwards without NAT, without asking for the way.
    #[classifier]
    pub fn ceiling_tc(context: TcContext) -> i32 {
        ceiling::forward_tc(&context)
    }

    /// Forwards without NAT, by a line of memory.
    #[xdp]
    pub fn line(context: XdpContext) -> u32 {
        line::forward(&context)
    }

    /// The same in TC.
    #[classifier]
    pub fn line_tc(context: TcContext) -> i32 {
        line::forward_tc(&context)
    }

    /// Counts and drops packets of the bench, passes others.
    #[xdp]
    pub fn sink(context: XdpContext) -> u32 {
        sink::count(&context)
    }

    /// Makes a packet and calls the XDP program in the map `callee`.
    #[xdp]
    pub fn rekey(context: XdpContext) -> u32 {
        rekey::xdp(&context)
    }

    /// Makes a packet and calls the TC program in the map `callee_tc`.
    #[classifier]
    pub fn rekey_tc(context: TcContext) -> i32 {
        rekey::tc(&context)
    }

    /// Nothing.
    #[xdp]
    pub fn pass(_context: XdpContext) -> u32 {
        XDP_PASS
    }

    /// Nothing.
    #[classifier]
    pub fn pass_tc(_context: TcContext) -> i32 {
        TC_ACT_OK
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
    eprintln!("nat-bench-ebpf is for the kernel: build it with `cargo xtask build`");
    std::process::exit(2);
}
