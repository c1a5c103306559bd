//! Integration tests: the real binary between real local servers.

#[path = "../../examples/support/mod.rs"]
mod support;

mod harness;

mod alertmanager;
mod answers;
mod breaker;
mod cli;
mod configuration;
mod corpus;
mod deepseek;
mod demo;
mod faults;
mod http;
mod interplay;
mod layers;
mod log;
mod message;
mod metrics;
mod once;
mod payloads;
mod picture;
mod process;
mod prometheus;
mod readme;
mod recovery;
mod requests;
mod secrets;
mod standins;
mod steady;
mod storm;
mod wecom;
mod whole;
