//! Temporary files and directories, removed on drop.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A temporary directory, removed on drop.
pub(crate) struct TempDir(PathBuf);

/// A temporary file, removed on drop.
pub(crate) struct TempFile {
    path: String,
    _directory: TempDir,
}

impl TempDir {
    /// An empty directory.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("wechat-with-deepseek-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A leftover in the temporary directory is harmless.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl TempFile {
    /// A file with this content.
    pub(crate) fn new(content: &str) -> Self {
        let directory = TempDir::new();
        let path = directory.path().join("file").display().to_string();
        fs::write(&path, content).expect("a temporary file");
        Self { path, _directory: directory }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Replaces its content.
    pub(crate) fn write(&self, content: &str) {
        fs::write(&self.path, content).expect("a temporary file");
    }
}
