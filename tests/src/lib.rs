//! Labs in network namespaces with real servers and clients, and Linux's own NAT as an oracle.
//!
//! ```text
//!   matrix (the main job), tests/*.rs
//!      |
//!   lab --- gateway (ours | Linux) --- server --- client --- capture
//!      |
//!   netns, link, process, wait, interrupt
//! ```
//!
//! Invariant: all traffic stays in namespaces of this run, and everything that a run makes is bound
//! to a guard that removes it by name or process id.
#![forbid(unsafe_code)]

pub mod bench;
pub mod capture;
pub mod chain;
pub mod client;
pub mod dialogue;
pub mod flood;
pub mod frame;
pub mod gateway;
pub mod interrupt;
pub mod lab;
pub mod link;
pub mod matrix;
pub mod netns;
pub mod packet;
pub mod payload;
pub mod pppoe;
pub mod process;
pub mod requirements;
pub mod routers;
pub mod scale;
pub mod server;
pub mod session;
pub mod six;
pub mod stream;
pub mod traffic;
pub mod tun;
pub mod two_nats;
pub mod wait;
pub mod wire;
