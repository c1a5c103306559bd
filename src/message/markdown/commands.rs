//! Words that begin a command.

/// What follows one of them, up to the next Chinese letter, keeps its `*`, `_` and `~`. Sorted.
pub(crate) const COMMANDS: [&str; 58] = [
    "awk", "aws", "cat", "cd", "chmod", "chown", "cp", "crictl", "ctr", "curl", "dd", "df", "dig", "docker", "du",
    "echo", "etcdctl", "export", "find", "for", "git", "grep", "gzip", "head", "helm", "ip", "iptables", "java",
    "journalctl", "jq", "kubectl", "less", "ls", "lsof", "mkdir", "mongo", "mv", "mysql", "nc", "openssl", "ps",
    "psql", "python3", "redis-cli", "rm", "rsync", "scp", "sed", "ssh", "stat", "sudo", "systemctl", "tail", "tar",
    "unzip", "wc", "wget", "zgrep",
];

/// Others that stand behind the prompt of root, `# reboot`. They are words of English too. Sorted.
const MORE: [&str; 49] = [
    "apt", "apt-get", "crontab", "dmesg", "dnf", "fdisk", "free", "iostat", "iotop", "jcmd", "jmap", "jstack", "jstat",
    "kill", "killall", "lsblk", "mdadm", "mount", "mtr", "mysqladmin", "mysqldump", "netstat", "nginx", "nslookup",
    "pidstat", "ping", "pkill", "pm2", "poweroff", "reboot", "route", "sar", "service", "shutdown", "smartctl", "ss",
    "supervisorctl", "sysctl", "tcpdump", "telnet", "top", "traceroute", "ufw", "umount", "uptime", "vmstat", "watch",
    "who", "yum",
];

/// Those that are words of English too: a sentence may begin with them.
const ENGLISH: [&str; 23] = [
    "cat", "cd", "echo", "export", "find", "for", "free", "head", "kill", "less", "mount", "ping", "reboot", "route",
    "service", "shutdown", "ss", "stat", "tail", "top", "watch", "who", "split",
];
/// What follows the name of a program in a sentence: `nginx is down`.
const SAID_OF_ONE: [&str; 8] = ["and", "are", "can", "has", "is", "may", "or", "was"];
/// Words that begin a statement of SQL, written as people write them where it is one.
const STATEMENTS: [&str; 15] = [
    "ALTER", "ANALYZE", "CREATE", "DELETE", "DROP", "EXPLAIN", "GRANT", "INSERT", "KILL", "OPTIMIZE", "PURGE",
    "SELECT", "SHOW", "TRUNCATE", "UPDATE",
];

/// Whether the line is nothing but a command or a statement, so that every letter of it is meant: backticks, backslashes,
/// `<table>`. Chinese stands in it only as a placeholder, in quotes or in a comment.
pub(crate) fn is_line(text: &str) -> bool {
    // Most lines begin in Chinese.
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$') {
        return false;
    }
    let text = text.strip_prefix("$ ").unwrap_or(text);
    let text = text.strip_prefix("sudo ").unwrap_or(text);
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_spelled =
        || second.starts_with(['-', '/', '.', '<', '$', '"', '\'', '`', '~']) || second.contains(['/', '=', ':', '@']);
    let is_command = || begins(first) && !SAID_OF_ONE.contains(&second) && (!ENGLISH.contains(&first) || is_spelled());
    let begins = is_command() || STATEMENTS.contains(&first) || is_assignment(first) || is_cmdlet(first);
    // The line of an answer in HTML is to be read as such.
    let is_html = || text.contains("</") || text.contains("&lt;") || text.contains("&amp;");
    begins && is_ascii_but_for_data(text) && !is_html()
}

/// `PID=…`, `KUBECONFIG=/x`.
fn is_assignment(word: &str) -> bool {
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    word.split_once('=').is_some_and(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase()) && is_name(name))
}

/// PowerShell's `Remove-Item`, and what cmd has.
fn is_cmdlet(word: &str) -> bool {
    const VERBS: [&str; 10] = ["Clear", "Get", "Invoke", "Move", "New", "Remove", "Restart", "Set", "Start", "Stop"];
    let is_noun = |noun: &str| noun.starts_with(|c: char| c.is_ascii_uppercase());
    word.split_once('-').is_some_and(|(verb, noun)| VERBS.contains(&verb) && is_noun(noun))
        || matches!(word, "del" | "taskkill")
}

/// Whether all outside of placeholders, quotes and a comment at the end is ASCII.
fn is_ascii_but_for_data(text: &str) -> bool {
    let mut closer = None;
    let mut before = ' ';
    for c in text.chars() {
        match closer {
            Some(mark) if c == mark => closer = None,
            Some(_) => {}
            None => match c {
                '<' => closer = Some('>'),
                '"' | '\'' => closer = Some(c),
                '#' if before == ' ' => return true,
                c if !c.is_ascii() => return false,
                _ => {}
            },
        }
        before = c;
    }
    true
}

/// Whether the text begins with a command, in small letters as a shell has it.
pub(crate) fn begins(text: &str) -> bool {
    let word = text.split([' ', '\t']).next().unwrap_or_default();
    COMMANDS.binary_search(&word).is_ok() || MORE.binary_search(&word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_nothing_but_a_command_is_told_from_a_sentence() {
        for line in [
            r#"rm -rf `find /data/logs -name "*.log" -mtime +3`"#, "kill -9 `lsof -t +L1 /data`",
            "PID=`pgrep -f java`; jstack $PID", r#"echo "now: `date`""#,
            r"Remove-Item C:\Windows\Temp\* -Recurse -Force", r"del /f /s /q C:\inetpub\logs\*.log",
            r"DELETE FROM sessions WHERE name LIKE 'tmp\_%';", "SHOW CREATE TABLE <table>;",
            "kubectl -n <命名空间> delete pod <Pod 名> --force", "kubectl get pods -n <ns> # 看状态",
            "$ sudo systemctl restart x",
        ] {
            assert!(is_line(line), "{line}");
        }
        for prose in [
            "find the cause in `kubectl logs`", "kill the process with `kill -9`", "kubectl get pods 查看 **状态**",
            "top 3 reasons", "nginx is **down**", "kubectl get pods</code>", "", "结论：磁盘将满",
            "Root-cause is unknown",
        ] {
            assert!(!is_line(prose), "{prose}");
        }
    }

    #[test]
    fn they_are_sorted() {
        assert!(COMMANDS.is_sorted() && MORE.is_sorted());
        assert!(begins("systemctl status x") && begins("reboot") && !begins("System check") && !begins(""));
    }
}
