//! wechat-with-deepseek: Alertmanager posts a notification, DeepSeek explains it, WeCom delivers the explanation.
pub mod danger;
pub mod glyph;
pub mod headline;
pub mod json;
pub mod markdown;
pub mod message;
pub mod notification;
pub mod outcome;
pub mod parts;
mod rules;
pub mod secret;
mod shell;
pub mod spans;
pub mod unseen;
