//! Agent library.
pub mod agent;
pub mod api;
pub mod config;
pub mod error;
pub mod options;
pub mod output;
pub mod rules;
