//! Integration tests: the real binary between real local servers, a file per promise.

#[path = "../../examples/support/mod.rs"]
mod support;

mod harness;

mod standins;
