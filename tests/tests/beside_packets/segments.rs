//! A segment in a connection that is up: whether it passes, and whether the connection goes on.

use nat_tests::packet::{ACK, FIN, PSH, RST, SYN, URG};

use super::{
    stage::{
        Scene,
        Side::{self, Inside, Outside},
        Step,
    },
    tcp::{FAR, connected, send_back, send_out, then_data},
};

/// A segment in a connection from inside, which then goes on or does not.
macro_rules! segments {
    ($($name:literal, $ours:literal, $side:ident, $flags:expr, $ahead:expr, $acknowledged:expr, $data:expr;)+) => {
        &[$(Step {
            name: $name,
            ours: $ours,
            play: |scene| {
                connected(scene)?;
                in_connection(scene, $side, $flags, [$ahead, $acknowledged], $data);
                Ok(())
            },
        }),+]
    };
}

fn in_connection(scene: &mut Scene<'_>, from: Side, flags: u8, numbers: [u32; 2], data: &[u8]) {
    let [ahead, acknowledged] = numbers;
    match from {
        Inside => send_out(scene, flags, ahead, acknowledged, data),
        Outside => send_back(scene, flags, ahead, acknowledged, data),
    }
    then_data(scene);
}

pub const STEPS: &[Step] = segments! {
    "RST of the remote with the very next number", "inside: TCP RST remote > host; then data both ways", Outside, RST, 1, 0, b"";
    "RST of the host with the very next number", "outside: TCP RST public > remote; then data both ways", Inside, RST, 1, 0, b"";
    "RST of the remote within the window", "inside: TCP RST remote > host; then data both ways", Outside, RST, 100, 0, b"";
    "RST of the host within the window", "outside: TCP RST public > remote; then data both ways", Inside, RST, 100, 0, b"";
    "RST of the remote outside of the window", "dropped; then data both ways", Outside, RST, FAR, 0, b"";
    "RST of the host outside of the window", "dropped; then data both ways", Inside, RST, FAR, 0, b"";
    "RST of the remote one before the window", "dropped; then data both ways", Outside, RST, 0, 0, b"";
    "SYN of the remote in a connection", "inside: TCP SYN remote > host; then data both ways", Outside, SYN, 1, 0, b"";
    "SYN of the host in a connection", "outside: TCP SYN public > remote; then data both ways", Inside, SYN, 1, 0, b"";
    "SYN+ACK of the remote in a connection", "inside: TCP SYN+ACK remote > host; then data both ways", Outside, SYN | ACK, 0, 1, b"";
    "FIN of the remote outside of the window", "dropped; then data both ways", Outside, FIN | ACK, FAR, 1, b"";
    "FIN of the host outside of the window", "dropped; then data both ways", Inside, FIN | ACK, FAR, 1, b"";
    "data of the remote outside of the window", "inside: TCP PSH+ACK remote > host; then data both ways", Outside, PSH | ACK, FAR, 1, b"data";
    "data of the host outside of the window", "outside: TCP PSH+ACK public > remote; then data both ways", Inside, PSH | ACK, FAR, 1, b"data";
    "old data of the remote", "inside: TCP PSH+ACK remote > host; then data both ways", Outside, PSH | ACK, 0u32.wrapping_sub(FAR), 1, b"data";
    "ACK of the remote for what was never sent", "inside: TCP ACK remote > host; then data both ways", Outside, ACK, 1, FAR, b"";
    "ACK of the host for what was never sent", "outside: TCP ACK public > remote; then data both ways", Inside, ACK, 1, FAR, b"";
    "keep-alive of the remote", "inside: TCP ACK remote > host; then data both ways", Outside, ACK, 0, 1, b"";
    "SYN+FIN of the remote in a connection", "dropped; then data both ways", Outside, SYN | FIN, 1, 0, b"";
    "no flags of the remote in a connection", "dropped; then data both ways", Outside, 0, 1, 0, b"";
    "FIN+PSH+URG of the remote in a connection", "dropped; then data both ways", Outside, FIN | PSH | URG, 1, 0, b"";
    "urgent data of the remote", "inside: TCP URG+ACK remote > host; then data both ways", Outside, URG | ACK, 1, 1, b"!";
};
