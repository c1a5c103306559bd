//! wechat-with-deepseek: Alertmanager posts a notification, DeepSeek explains it, WeCom delivers the explanation.
pub mod alias;
pub mod leak;
pub mod notification;
pub mod outcome;
pub mod redact;
pub mod secret;
