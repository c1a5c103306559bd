//! wechat-with-deepseek: Alertmanager posts a notification, DeepSeek explains it, WeCom delivers the explanation.
mod connections;
pub mod head;
pub mod http;
pub mod notification;
pub mod outcome;
pub mod secret;
