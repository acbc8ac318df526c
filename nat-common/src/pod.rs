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
    crate::bench::Turns,
    crate::bench::Way,
    crate::contact::Contact,
    crate::expectation::Expectation,
    crate::expectation::ExpectationKey,
    crate::flow::FlowKey,
    crate::fragment::FragmentKey,
    crate::fragment::Fragmented,
    crate::hop::Hop,
    crate::host::Host,
    crate::interface::Interface,
    crate::interface::Paired,
    crate::journal::Journal,
    crate::layout::Geometry,
    crate::port::Endpoint,
    crate::port::PortOwner,
    crate::record::FlowRecord,
    crate::rule::AllowedKey,
    crate::rule::EncryptedKey,
    crate::rule::Forward,
    crate::rule::OneToOne,
    crate::session::Session,
    crate::session::SessionId,
    crate::settings::Settings,
    crate::six::Allowed6Key,
    crate::six::Control6,
    crate::six::Endpoint6,
    crate::six::Expectation6,
    crate::six::Expectation6Key,
    crate::six::Watch6Key,
    crate::six::Flow6,
    crate::six::Flow6Key,
    crate::six::Fragment6Key,
    crate::six::Opening,
    crate::six::Prefix,
    crate::six::PrefixKey,
    crate::watch::Watch,
);
