//! agent
mod outgoing;
#[cfg(test)]
mod packets;
mod segment;
mod send;
