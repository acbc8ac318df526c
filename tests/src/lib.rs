//! Labs and oracles.
