//! What the examples and the integration tests stand on: DeepSeek and WeCom as local servers, a plain HTTP client, a
//! child process with its log, and notifications as Alertmanager writes them.
//!
//! An example says `mod support;`, the tests name this file by its path.
#![allow(
    dead_code,
    unused_imports,
    reason = "each example uses a part of it, and which part is for the example to say"
)]

pub(crate) mod client;
pub(crate) mod notification;
pub(crate) mod process;
pub(crate) mod sibling;
pub(crate) mod standins;
