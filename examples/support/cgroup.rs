//! A memory cgroup of its own for a child process, where this process may make one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cgroup below the root of the memory hierarchy, of either version. It is removed on drop, so drop its processes first.
pub(crate) struct Cgroup {
    folder: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// One with this limit in bytes.
    ///
    /// # Errors
    /// Why there is none; most often this process is not root.
    pub(crate) fn new(limit: u64) -> Result<Self, String> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let is_v2 = !v1.join("memory.limit_in_bytes").exists();
        let root = if is_v2 { Path::new("/sys/fs/cgroup") } else { v1 };
        let folder = root.join(format!("wechat-with-deepseek-{}", std::process::id()));
        let group = Self { folder, is_v2 };
        let write = |file: &str, value: String| {
            let path = group.folder.join(file);
            fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
        };
        fs::create_dir_all(&group.folder).map_err(|error| format!("{}: {error}", group.folder.display()))?;
        write(if is_v2 { "memory.max" } else { "memory.limit_in_bytes" }, limit.to_string())?;
        Ok(group)
    }

    /// The command, run within it.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let [shell, arguments @ ..] = self.wrapper();
        let mut within = Command::new(shell);
        within.args(arguments);
        within.arg(command.get_program()).args(command.get_args()).env_clear();
        within.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        within
    }

    /// The words before a command that have it run within it.
    pub(crate) fn wrapper(&self) -> [String; 4] {
        let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        ["/bin/sh".into(), "-c".into(), script.into(), self.folder.display().to_string()]
    }

    /// The most bytes that it held, of the kernel's too; `None` where the kernel does not count it.
    pub(crate) fn peak(&self) -> Option<u64> {
        let file = if self.is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is left of it hurts nobody.
        let _ = fs::remove_dir(&self.folder);
    }
}
