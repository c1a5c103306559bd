//! wechat-with-deepseek: Alertmanager posts a notification, DeepSeek explains it, WeCom delivers the explanation.
pub mod glyph;
pub mod json;
pub mod markdown;
pub mod notification;
pub mod outcome;
pub mod secret;
pub mod spans;
