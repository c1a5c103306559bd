//! Words that begin a command.

/// What follows one of them, up to the next Chinese letter, keeps its `*`, `_` and `~`. Sorted.
pub(crate) const COMMANDS: [&str; 58] = [
    "awk",
    "aws",
    "cat",
    "cd",
    "chmod",
    "chown",
    "cp",
    "crictl",
    "ctr",
    "curl",
    "dd",
    "df",
    "dig",
    "docker",
    "du",
    "echo",
    "etcdctl",
    "export",
    "find",
    "for",
    "git",
    "grep",
    "gzip",
    "head",
    "helm",
    "ip",
    "iptables",
    "java",
    "journalctl",
    "jq",
    "kubectl",
    "less",
    "ls",
    "lsof",
    "mkdir",
    "mongo",
    "mv",
    "mysql",
    "nc",
    "openssl",
    "ps",
    "psql",
    "python3",
    "redis-cli",
    "rm",
    "rsync",
    "scp",
    "sed",
    "ssh",
    "stat",
    "sudo",
    "systemctl",
    "tail",
    "tar",
    "unzip",
    "wc",
    "wget",
    "zgrep",
];

/// Others that stand behind the prompt of root, `# reboot`. They are words of English too. Sorted.
const MORE: [&str; 49] = [
    "apt",
    "apt-get",
    "crontab",
    "dmesg",
    "dnf",
    "fdisk",
    "free",
    "iostat",
    "iotop",
    "jcmd",
    "jmap",
    "jstack",
    "jstat",
    "kill",
    "killall",
    "lsblk",
    "mdadm",
    "mount",
    "mtr",
    "mysqladmin",
    "mysqldump",
    "netstat",
    "nginx",
    "nslookup",
    "pidstat",
    "ping",
    "pkill",
    "pm2",
    "poweroff",
    "reboot",
    "route",
    "sar",
    "service",
    "shutdown",
    "smartctl",
    "ss",
    "supervisorctl",
    "sysctl",
    "tcpdump",
    "telnet",
    "top",
    "traceroute",
    "ufw",
    "umount",
    "uptime",
    "vmstat",
    "watch",
    "who",
    "yum",
];

/// Whether the text begins with a command, in small letters as a shell has it.
pub(crate) fn begins(text: &str) -> bool {
    let word = text.split([' ', '\t']).next().unwrap_or_default();
    COMMANDS.binary_search(&word).is_ok() || MORE.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_sorted() {
        assert!(COMMANDS.is_sorted() && MORE.is_sorted());
        assert!(begins("systemctl status x") && begins("reboot") && !begins("System check") && !begins(""));
    }
}
