//! The integration tests' Alertmanager.

#[path = "../../it/harness/alertmanager.rs"]
pub(crate) mod alertmanager;
#[path = "../../it/harness/files.rs"]
mod files;

pub(crate) use files::TempDir;

/// How long an event that must come is waited for.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
