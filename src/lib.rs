//! wechat-with-deepseek: Alertmanager posts a notification, DeepSeek explains it, WeCom delivers the explanation.
pub mod alias;
pub mod compact;
pub mod excerpt;
pub mod leak;
pub mod notification;
pub mod outcome;
pub mod prompt;
pub mod redact;
pub mod secret;
