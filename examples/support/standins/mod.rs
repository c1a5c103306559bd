//! Stand-ins for DeepSeek and WeCom: real HTTP/1.1 servers on loopback, stopped on drop.
//!
//! They check requests as the vendor would, record them, and answer by a script. Waits are for a condition, never for a
//! length of time.

pub(crate) mod answer;
pub(crate) mod deepseek;
pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod wecom;

pub(crate) use answer::{Answer, Filler};
pub(crate) use deepseek::{DeepSeek, Usage, completion, says};
pub(crate) use journal::Latch;
pub(crate) use wecom::{Api, Reply, WeCom};
