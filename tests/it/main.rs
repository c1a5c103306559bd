//! Integration tests.
mod http;
