//! Stand-ins for DeepSeek and WeCom: real HTTP/1.1 servers on loopback, stopped on drop.
//!
//! They check what they are sent as the vendor would, record it, and answer as a script says. Whoever waits for them
//! waits on a condition, never for a length of time.

pub(crate) mod answer;
pub(crate) mod deepseek;
pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod wecom;

pub(crate) use answer::{Answer, Filler};
pub(crate) use deepseek::{DeepSeek, Usage, completion, says};
pub(crate) use journal::Latch;
pub(crate) use wecom::{Api, Reply, WeCom};
