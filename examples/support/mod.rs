//! Shared by the demo, the integration tests and the benches: DeepSeek and WeCom as local servers, a plain HTTP client, a
//! child process with its log, and notifications as Alertmanager posts them.
#![allow(dead_code, unused_imports, reason = "each program uses a part of it")]

pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod notification;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod sibling;
pub(crate) mod standins;
