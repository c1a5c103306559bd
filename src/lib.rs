//! Alertmanager posts a notification, DeepSeek explains it, WeCom brings the explanation to the phone.
//!
//! The way of a notification: `webhook` (on `http`) decodes it, `queue` makes it a job or joins it to one, a `worker` runs
//! `pipeline` on it: what was delivered before (`history`), what was measured (`prometheus`), the question (`prompt`) to
//! `deepseek`, the answer as a `message`, its delivery by `wecom`. It ends as an `outcome::Outcome`, which is the HTTP answer. A module may use those
//! that stand below it here, but not its neighbours of the same paragraph; `tests/it/layers.rs` checks it.

pub mod cli;
pub mod service;

pub mod config;

mod webhook;

mod worker;

pub mod pipeline;

mod budget;
mod history;
mod notices;
mod queue;

mod metrics;

pub mod deepseek;
pub mod wecom;

pub mod message;

pub mod prompt;

pub mod prometheus;

pub mod upstream;

pub mod redact;

pub mod alertmanager;
pub mod http;
pub mod logger;

mod bounded_map;
mod lock;
mod mend;
mod outcome;
mod percent;
pub mod secret;
mod table;

/// The rows of a table below `tests/it/cases/rows`: a JSON array on each line.
#[cfg(test)]
pub(crate) fn test_rows<T: serde::de::DeserializeOwned>(table: &str) -> Vec<T> {
    table.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}
