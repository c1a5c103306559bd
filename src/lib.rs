//! Alertmanager posts a notification, DeepSeek explains it, WeCom brings the explanation to the phone.
//!
//! This is the map of the house. A notification comes in by [`server`] (on [`http`]), waits in [`inflight`] if it must,
//! and [`crew`] runs its story in [`pipeline`]: what was said before ([`history`]), the question ([`prompt`], [`alias`])
//! to [`deepseek`], the answer as a letter ([`message`]), its delivery by [`wecom`] at the right [`pace`]. It ends as an
//! [`outcome::Outcome`], which is the HTTP answer.
//!
//! Dependencies run one way, from the top of this list to its end; a test holds the `use crate::` lines to it.

// The street and the caretaker.
pub mod check;
pub mod config;
pub mod logger;
pub mod notify;
pub mod service;
pub mod verbs;

// The door and the waiting room.
mod connections;
pub mod crew;
pub mod head;
pub mod http;
pub mod inflight;
pub mod server;

// The story.
pub mod budget;
pub mod history;
pub mod metrics;
pub mod pace;
pub mod pipeline;

// The two upstreams.
pub mod deepseek;
mod dns;
pub mod errcode;
pub mod gate;
pub mod peer;
mod token;
pub mod wecom;
mod wire;

// The question: what DeepSeek reads of a notification.
pub mod alias;
mod compact;
mod excerpt;
mod leak;
pub mod prompt;
pub mod redact;

// The letter: what a phone shows of an answer.
mod commands;
pub mod danger;
pub mod glyph;
pub mod headline;
pub mod json;
mod layout;
pub mod markdown;
pub mod message;
pub mod notice;
pub mod parts;
mod rules;
mod shell;
pub mod spans;
mod target;
pub mod unseen;

// The ground floor.
pub mod notification;
pub mod outcome;
pub mod secret;
