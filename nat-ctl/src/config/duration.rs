//! Lifetimes as a file writes them: `2h4m`, `30s`.
//!
//! Invariant: a lifetime is a second to a week: shorter ones end flows in use, longer ones fill
//! the table with dead ones.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// serde's way in for a lifetime.
pub(super) fn lifetime<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let lifetime = humantime::parse_duration(&text).map_err(|why| {
        D::Error::custom(format_args!("'{text}' is not a duration such as \"2h4m\": {why}"))
    })?;
    if !(SHORTEST..=LONGEST).contains(&lifetime) {
        return Err(D::Error::custom(format_args!("'{text}' is not between 1s and 7days")));
    }
    Ok(lifetime)
}

/// serde's way out for it.
pub(super) fn written<S: Serializer>(
    lifetime: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let words = humantime::format_duration(*lifetime).to_string();
    serializer.serialize_str(&words.replace(' ', ""))
}
