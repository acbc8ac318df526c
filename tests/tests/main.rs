//! Everything that a live gateway has to show, in one program: its tests wait for packets most of
//! their time, so they run beside each other, and the library of labs is linked once.

mod addresses;
mod aliases;
mod behaviour;
mod beside_linux;
mod budgets;
mod config;
mod cut_lines;
mod data_addresses;
mod dead_agent;
mod doctor;
mod errors;
mod explain;
mod failures;
mod forged;
mod fragments;
mod hairpin;
mod history;
mod hops;
mod icmp;
mod ipv6;
mod lifecycle;
mod many_files;
mod masquerade;
mod mss;
mod oracle;
mod overload;
mod papers;
mod seeds;
mod strict;
mod tls;
mod transfers;
mod uplinks;
mod views;
mod watches;
mod wire_edges;
