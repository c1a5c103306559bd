//! Files and folders of a test's own, gone with it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of a test's own, removed when it is dropped.
pub(crate) struct TempDir(PathBuf);

/// A file of a test's own, removed when it is dropped.
pub(crate) struct TempFile {
    path: String,
    _directory: TempDir,
}

impl TempDir {
    /// An empty folder.
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
        // What cannot be removed is the system's to remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl TempFile {
    /// A file that holds this.
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

    /// Puts something else into it.
    pub(crate) fn write(&self, content: &str) {
        fs::write(&self.path, content).expect("a temporary file");
    }
}
