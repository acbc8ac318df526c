//! Set-up, build, lab, tests.
fn main() {}
