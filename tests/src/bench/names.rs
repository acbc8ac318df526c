//! What is measured, by the name that samples, goals, tables and `--only` use.
//!
//! A case says the rest. Where flows grow it is `1M uniform` or `50k zipf`: how many flows, and how
//! popular each one is.

/// Run time of the gateway's NAPI threads for each packet that arrived (ns).
pub const GATEWAY_COST: &str = "gateway-cost";
/// Packets that arrive in a second, flat out (packets/s).
pub const GATEWAY_RATE: &str = "gateway-rate";
/// The whole program by test run with random keys (ns).
pub const PROGRAM_COST: &str = "program-cost";
/// Making a flow, by test run (ns): claim of its public port, insert of both directions.
pub const INSERT_COST: &str = "insert-cost";
/// The whole program for the first packet of a flow, by test run (ns).
pub const FIRST_PACKET: &str = "first-packet";
/// New UDP flows in a second, two packets each (flows/s).
pub const UDP_FLOWS: &str = "udp-flows";
/// Memory of a session, all in (bytes).
pub const SESSION_MEMORY: &str = "session-memory";
/// Share of a core that the sweep takes at one sweep a second (%).
pub const SWEEP: &str = "sweep";
/// Time to print all flows as JSON (s).
pub const DUMP: &str = "dump";
/// From the start of the gateway (s): `ready`, and `first packet`.
pub const START: &str = "start";
/// What established traffic keeps of its rate during a flood of new flows (%).
pub const FLOOD: &str = "flood";
/// Established flows that a flood of new ones ended.
pub const FLOOD_LOST: &str = "flood-lost";
/// TCP at full rate: `1 stream`, `16 streams` (Gbit/s).
pub const BULK_TCP: &str = "bulk-tcp";
/// A datagram there and one back: `p50`, `p99` (microseconds).
pub const REQUEST_RESPONSE: &str = "request-response";
/// A TCP connection, all its costs on one core: `open to close` (microseconds).
pub const TCP_CONNECTION: &str = "tcp-connection";
/// TCP connections opened and closed in a second: `two cores`.
pub const TCP_CONNECTIONS: &str = "tcp-connections";
/// FTP transfers of 4 KB in a second: `passive`, `active` (transfers/s).
pub const FTP_TRANSFERS: &str = "ftp-transfers";
/// How long a control segment that is rewritten is held: `p50`, `p99` (microseconds).
pub const FTP_HELD: &str = "ftp-held";
/// Control segments handed to the agent for each transfer: `passive`, `active`.
pub const FTP_PUNTED: &str = "ftp-punted";
/// One large FTP transfer: `passive` (Gbit/s).
pub const FTP_BULK: &str = "ftp-bulk";

/// All of them, in the order in which a report shows them.
pub const ALL: [&str; 20] = [
    GATEWAY_COST,
    GATEWAY_RATE,
    PROGRAM_COST,
    INSERT_COST,
    FIRST_PACKET,
    UDP_FLOWS,
    TCP_CONNECTION,
    TCP_CONNECTIONS,
    BULK_TCP,
    REQUEST_RESPONSE,
    SESSION_MEMORY,
    SWEEP,
    DUMP,
    START,
    FLOOD,
    FLOOD_LOST,
    FTP_TRANSFERS,
    FTP_HELD,
    FTP_PUNTED,
    FTP_BULK,
];
