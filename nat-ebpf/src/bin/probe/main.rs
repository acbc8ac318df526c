//! Programs of the bench that work on the maps of a gateway at work: its parts, one by one, and what
//! nothing that does as much can be faster than.
//!
//! | program | run | does |
//! |---|---|---|
//! | `insert` | by itself | makes a flow: claims its public port, inserts both directions |
//! | `number` | by itself | the same without the flow: what numbering them costs |
//! | `claim` | by itself | numbers a flow, and claims the memory of one: a line each way, and the word of a port, whose places are known |
//! | `redirect` | behind `rekey` | redirects, by the same helper as the gateway |
//! | `index` | behind `rekey` | reads a line of the flow table whose index is known, and redirects |
#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    allow(internal_features),
    feature(core_intrinsics)
)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        bindings::xdp_action::{XDP_ABORTED, XDP_REDIRECT},
        btf_maps::PerCpuArray,
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use core::{
        intrinsics::{self, AtomicOrdering::SeqCst},
        ptr,
    };
    use nat_common::{
        bench::{FRAME, NUMBER, Turns, fresh},
        flow::{FlowKey, Rewrite, UDP, Zone},
        hop::HopReference,
        opaque::opaque,
        port::{self, Endpoint, Port},
        rule::RuleId,
    };
    use nat_ebpf::{
        bpf::{Maps, maps},
        pair::{self, Kin},
        tables::Tables as _,
    };

    /// Multiplier that scatters numbers over 32 bits (Knuth, 2^32 over the golden ratio).
    const SCATTER: u32 = 2_654_435_761;
    const WORDS: usize = 8;
    const SERVER: Port = Port::new(4242);

    /// Which flow is next, and what became of those before.
    #[btf_map(name = "turns")]
    static TURNS: PerCpuArray<Turns, 1> = PerCpuArray::new();

    /// Makes the next flow.
    #[xdp]
    pub fn insert(_context: XdpContext) -> u32 {
        turn(|next| {
            let (inside, public) = next?;
            let key = FlowKey::new(
                Zone::Inside,
                UDP,
                inside.address(),
                inside.port(),
                public.remote,
                SERVER,
            );
            let mapped = Maps.public_port(inside, public.address, public.number).ok()?;
            let rewrite = Rewrite::source(&key, public.address, mapped);
            let (now, way) = (Maps.now(), HopReference::NONE);
            pair::make(&mut Maps, &key, rewrite, RuleId::NONE, Kin::Plain, way, now).ok()
        })
    }

    /// Numbers the next flow and makes none.
    #[xdp]
    pub fn number(_context: XdpContext) -> u32 {
        turn(|next| next.map(drop))
    }

    /// Numbers the next flow, and goes once to each place that no new flow can do without: its lines and its
    /// port, each claimed against other CPUs, so that none is fetched before the one before is there.
    /// Nothing is changed there.
    #[xdp]
    pub fn claim(_context: XdpContext) -> u32 {
        turn(|next| {
            let (inside, public) = next?;
            let homes = homes();
            let lot = (inside.word() as u32).wrapping_mul(SCATTER);
            for place in [share(lot, homes), share(lot.wrapping_mul(SCATTER), homes)] {
                claim_word(maps::FLOWS.get_ptr_mut(place)?.cast());
            }
            let port = Endpoint::new(UDP, public.address, Port::new(lot as u16));
            claim_word(maps::PORTS.get_ptr_mut(port::place(public.number, &port)?)?.cast());
            Some(())
        })
    }

    /// Adds nothing to a word, as who claims it would.
    #[inline(always)]
    fn claim_word(word: *mut u64) {
        // SAFETY: the first word of a value of an array map.
        unsafe { intrinsics::atomic_xadd::<u64, u64, { SeqCst }>(word, opaque(0)) };
    }

    /// Redirects.
    #[xdp]
    pub fn redirect(context: XdpContext) -> u32 {
        leave(&context)
    }

    /// Reads a line that follows from the number of the flow, and redirects.
    #[xdp]
    pub fn index(context: XdpContext) -> u32 {
        let start = context.data();
        if start + FRAME > context.data_end() {
            return XDP_ABORTED;
        }
        // SAFETY: checked against the end of the frame.
        let number = u32::from_be_bytes(unsafe { *((start + NUMBER) as *const [u8; 4]) });
        let place = share(number.wrapping_mul(SCATTER), homes());
        let Some(line) = maps::FLOWS.get_ptr_mut(place) else { return XDP_ABORTED };
        let mut sum = 0u64;
        for word in 0..WORDS {
            // SAFETY: a value of an array map, and one of its words.
            sum ^= unsafe { ptr::read_volatile(line.cast::<u64>().add(word)) };
        }
        // No line is all ones: nothing but a use of what was read.
        if sum == u64::MAX { XDP_ABORTED } else { leave(&context) }
    }

    /// Places in the flow table.
    #[inline(always)]
    fn homes() -> u32 {
        // SAFETY: a constant, set at load.
        unsafe { ptr::read_volatile(&raw const maps::GEOMETRY.homes) }
    }

    /// Where a number falls among `count`.
    #[inline(always)]
    const fn share(lot: u32, count: u32) -> u32 {
        ((lot as u64).wrapping_mul(count as u64) >> 32) as u32
    }

    #[inline(always)]
    fn leave(context: &XdpContext) -> u32 {
        match maps::REDIRECTS.redirect(context.ingress_ifindex() as u32, 0) {
            Ok(_) => XDP_REDIRECT,
            Err(_) => XDP_ABORTED,
        }
    }

    /// The public end of a new flow.
    struct Public {
        address: [u8; 4],
        number: u32,
        remote: [u8; 4],
    }

    #[inline(always)]
    fn turn(make: impl FnOnce(Option<(Endpoint, Public)>) -> Option<()>) -> u32 {
        let Some(turns) = TURNS.get_ptr_mut(0) else { return XDP_ABORTED };
        // SAFETY: the entry of this CPU, on which nothing else takes turns.
        let turns = unsafe { &mut *turns };
        let next = fresh(turns.next);
        turns.next += 1;
        let port = maps::SETTINGS.get(0).and_then(|settings| settings.pool.port(next.port));
        let ends = port.map(|port| {
            let inside = Endpoint::new(UDP, next.inside, port);
            // Kept, so that numbering is not left out where no flow follows.
            turns.last = inside.word();
            (inside, Public { address: next.public, number: next.address, remote: next.outside })
        });
        if make(ends).is_none() {
            turns.refused += 1;
        }
        XDP_REDIRECT
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
    eprintln!("nat-probe-ebpf is for the kernel: build it with `cargo xtask bench`");
    std::process::exit(2);
}
