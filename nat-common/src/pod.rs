//! Marks for aya's user-space map types: the types here have no padding and every bit pattern is
//! valid, which their zerocopy derives have checked.
#![allow(unsafe_code)]

macro_rules! pod {
    ($($name:path),+ $(,)?) => {
        // SAFETY: each type derives zerocopy's `FromBytes` and `IntoBytes`, which refuse padding and
        // invalid bit patterns, and is `Copy` and `'static`.
        $(unsafe impl aya::Pod for $name {})+
    };
}

pod!(
    crate::bench::Order,
    crate::bench::Tally,
    crate::expectation::Expectation,
    crate::expectation::ExpectationKey,
    crate::flow::Flow,
    crate::flow::FlowKey,
    crate::interface::Interface,
    crate::journal::Journal,
    crate::port::Endpoint,
    crate::port::Mapping,
    crate::port::MappingKey,
    crate::port::PortOwner,
    crate::rule::AllowedKey,
    crate::rule::Forward,
    crate::rule::OneToOne,
    crate::session::Session,
    crate::settings::Settings,
);
