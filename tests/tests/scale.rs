//! A sample of each load of `cargo xtask scale`.

use nat_tests::{
    requirements,
    scale::{Load, bear},
};

fn is_borne(name: &str, load: Load) {
    let Some(binary) = requirements::met_with_binary(name) else { return };
    let outcome = bear(&binary, env!("CARGO_BIN_EXE_nat-scale").as_ref(), load)
        .unwrap_or_else(|error| panic!("{load}: {error:#}"));
    println!("{load}: {outcome}");
}

#[test]
fn hundreds_of_sessions_at_once_are_followed() {
    is_borne("sessions at once", Load::Sessions(400));
}

#[test]
fn a_hundred_transfers_a_second_are_made() {
    is_borne("transfers a second", Load::Rate(100, 3));
}

#[test]
fn a_thousand_rewrites_of_one_session_grow_and_shrink_by_turns() {
    is_borne("rewrites in a session", Load::Rewrites(1000));
}

#[test]
fn a_data_connection_that_is_dialled_before_the_reply_is_expected() {
    is_borne("early dials", Load::Early(2000));
}
