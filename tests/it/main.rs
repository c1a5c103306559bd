//! Integration tests: the real binary between real local servers, a file per promise.

#[path = "../../examples/support/mod.rs"]
mod support;

mod harness;

mod alertmanager;
mod answers;
mod configuration;
mod corpus;
mod deepseek;
mod house;
mod http;
mod log;
mod message;
mod secrets;
mod standins;
mod wecom;
mod words;
