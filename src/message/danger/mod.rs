//! Which suggested command destroys or interrupts.
//!
//! A reader at 3 a.m. copies what is on the phone. The rules are a table; when in doubt a command that changes nothing
//! is left alone and one that may destroy is marked.

mod rules;
mod shell;

use super::text::ByteSet;
use rules::{
    CLIENTS, How, READERS, SHELLS, STATEMENTS, has_option, has_target, is_precious, is_scratch, is_verb, rules,
    starts_with,
};
use shell::{Token, tokens};

/// The mark. It stands at the end of a line, never inside a command or a URL.
pub(crate) const MARK: &str = "⚠️高危";

/// Quotes inside quotes that are looked into: `ssh host "sh -c 'rm -rf /x'"`.
const MAX_DEPTH: usize = 3;

/// Whether the line holds a command that destroys data or interrupts a service. Prose without a command, and commands
/// that only look, are not dangerous. Takes time in proportion to the line.
#[must_use]
pub(crate) fn is_dangerous(line: &str) -> bool {
    judge(line, MAX_DEPTH)
}

/// Calls of a database's shell, and of a shell with what was downloaded.
const CALLS: &[&str] = &[
    "dropDatabase(", ".drop()", ".deleteMany({})", ".remove({})", "shutdownServer(", "pg_terminate_backend(",
    "sh <(curl ", "sh <(wget ", "sh -c \"$(curl ", "sh -c \"$(wget ",
];

/// Words behind a program that are looked at; it keeps the time in proportion to the line.
const MAX_ARGS: usize = 32;

/// Commands behind a pipe that are looked at, for the same reason.
const MAX_PIPES: usize = 4;

/// Words that a command may stand behind.
const PREFIXES: &[&str] = &[
    "sudo", "nohup", "xargs", "time", "env", "exec", "then", "do", "else", "watch", "nice", "ionice", "timeout", "run",
    "execute", "try", "use", "command", "--", "-exec", "-c", "$", "#", "•", "-", "*", "+", "☐", "mysql>", "redis>",
];

fn judge(line: &str, depth: usize) -> bool {
    let is_dangerous = |pipeline: &[Token<'_>]| is_dangerous_pipeline(pipeline, depth);
    may_be_dangerous(line)
        && (line.contains('(') && CALLS.iter().any(|call| line.contains(call))
            || tokens(line).split(|token| *token == Token::End).any(is_dangerous))
}

/// Judges what stands between two ends, command by command, and what one gives the other to run.
fn is_dangerous_pipeline(pipeline: &[Token<'_>], depth: usize) -> bool {
    let mut commands = pipeline.split(|token| *token == Token::Pipe);
    while let Some(command) = commands.next() {
        let is_run_by = |programs: &[&str]| commands.clone().take(MAX_PIPES).any(|next| runs(next, programs));
        let downloads = command.iter().any(|token| matches!(token, Token::Word("curl" | "wget")));
        if (downloads && is_run_by(SHELLS))
            || is_dangerous_command(command, depth, || is_run_by(SHELLS) || is_run_by(CLIENTS))
        {
            return true;
        }
    }
    false
}

/// Whether a command runs what it reads, as one of `programs` does: `mysql -uroot`, `docker exec -i db mysql`.
fn runs(command: &[Token<'_>], programs: &[&str]) -> bool {
    let words = command.iter().map_while(|token| if let Token::Word(word) = token { Some(*word) } else { None });
    let mut words = words.take(MAX_ARGS).skip_while(|word| PREFIXES.contains(word));
    let Some(first) = words.next().filter(|first| !READERS.contains(first)) else { return false };
    programs.contains(&program(first)) || words.any(|word| programs.contains(&program(word)))
}

/// Whether the line has anything that is dangerous somewhere. Most lines have nothing, and need no closer look.
fn may_be_dangerous(line: &str) -> bool {
    names(line).any(|(name, after)| {
        name.starts_with('>')
            || after.starts_with('(')
            || is_verb(name)
            || is_known_call(name)
            || matches!(name, "init.d" | "wget")
    })
}

/// The runs of a line's letters, digits, `.`, `-` and `_`, each from its first letter on, and with what stands behind
/// it: what a program's name looks like. A `>` begins one too.
fn names(line: &str) -> impl Iterator<Item = (&str, &str)> {
    static BEGINS: ByteSet = ByteSet::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz>");
    static GOES_ON: ByteSet = ByteSet::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_");
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.get(rest.bytes().position(|byte| BEGINS.has(byte))?..)?;
        let length = rest.bytes().skip(1).position(|byte| !GOES_ON.has(byte)).map_or(rest.len(), |at| at + 1);
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        Some((name, after))
    })
}

/// Judges one command. What a reader such as `grep` reads is left out, and what `echo` prints unless it `is_run`.
fn is_dangerous_command(tokens: &[Token<'_>], depth: usize, is_run: impl Fn() -> bool) -> bool {
    if redirects(tokens) {
        return true;
    }
    let by_ssh = tokens.iter().any(|token| matches!(token, Token::Word("ssh" | "nsenter" | "ansible")));
    let mut is_read = false;
    for (at, token) in tokens.iter().enumerate() {
        let rest = tokens.get(at + 1..).unwrap_or_default();
        let may_begin = || may_begin(tokens, at);
        match token {
            Token::Word(word) if !is_read => {
                let before = tokens.get(at.wrapping_sub(1));
                if is_statement(word, rest, may_begin) || is_call(word, rest, || by_ssh || may_begin(), before) {
                    return true;
                }
                is_read = reads(word, rest) && may_begin() && !(matches!(*word, "echo" | "printf") && is_run());
            }
            Token::Quoted(text) if depth > 0 && !is_read => {
                // A list as in a manifest: ["rm", "-rf", "/x"].
                if judge(text, depth - 1) || (at == 0 && is_call(text, rest, || false, None)) {
                    return true;
                }
            }
            // Chinese text goes on in prose: `journalctl -u x 看日志，再 systemctl restart x`.
            Token::Foreign(_) => is_read = false,
            Token::Word(_) | Token::Quoted(_) | Token::Pipe | Token::End => {}
        }
    }
    false
}

/// Whether a command may begin at this token: first of all, behind Chinese text, or behind `sudo` and its like.
fn may_begin(tokens: &[Token<'_>], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|at| tokens.get(at)) else { return true };
    match before {
        Token::Word(word) => {
            let number = word.trim_end_matches(['.', ')', 's']);
            PREFIXES.contains(word)
                || word.ends_with([':', '>', '#', '$'])
                || word.contains('=')
                || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        }
        Token::Foreign(_) | Token::Pipe | Token::End => true,
        Token::Quoted(_) => false,
    }
}

/// Whether `word` reads what stands behind it. `last` is a word of English too.
fn reads(word: &str, rest: &[Token<'_>]) -> bool {
    READERS.contains(&word)
        || (word == "last"
            && matches!(rest.first(), Some(Token::Word(next)) if matches!(*next, "reboot" | "shutdown" | "-x")))
}

/// The program that `word` calls: `/sbin/reboot` calls `reboot`.
fn program(word: &str) -> &str {
    if word.starts_with('/') { word.rsplit('/').next().unwrap_or(word) } else { word }
}

/// A script that starts and stops a service.
const INIT_SCRIPT: &str = "/etc/init.d/";

/// Whether calling `word` can be dangerous.
fn is_known_call(word: &str) -> bool {
    let name = program(word);
    name.starts_with("mkfs") || word.starts_with(INIT_SCRIPT) || rules(name).next().is_some()
}

/// Whether calling `word` with what follows is dangerous by the table.
fn is_call(word: &str, rest: &[Token<'_>], may_begin: impl Fn() -> bool, before: Option<&Token<'_>>) -> bool {
    if !is_known_call(word) {
        return false;
    }
    let args = rest.iter().map_while(|token| match token {
        Token::Word(word) | Token::Quoted(word) => Some(*word),
        // `kubectl -n 命名空间 delete pod x`: a name to be filled in.
        Token::Foreign(text) if text.chars().all(char::is_alphanumeric) => Some(*text),
        Token::Foreign(_) | Token::Pipe | Token::End => None,
    });
    let args: Vec<&str> = args.take(MAX_ARGS).collect();
    let name = program(word);
    if name.starts_with("mkfs") {
        return has_target(&args);
    }
    if word.starts_with(INIT_SCRIPT) {
        return matches!(args.first(), Some(&("stop" | "restart")));
    }
    if args.iter().any(|arg| *arg == "--help" || arg.starts_with("--dry-run")) {
        return false;
    }
    rules(name).any(|rule| match &rule.how {
        How::Called => may_begin() && is_called(rest, before),
        How::First(phrases) => starts_with(&args, phrases),
        How::Word(words) => args.iter().any(|arg| words.contains(arg)),
        How::Option(options) => has_option(&args, options),
        How::FirstOption(first, options) => starts_with(&args, &[first]) && has_option(&args, options),
        How::Args(is_dangerous) => is_dangerous(&args),
    })
}

/// Whether `reboot` and its like are called here, or only spoken of: 节点 reboot 后, `reboot loop`.
fn is_called(rest: &[Token<'_>], before: Option<&Token<'_>>) -> bool {
    const SPOKEN_BEFORE: [&str; 16] = [
        "是否", "曾", "被", "的", "发生", "自动", "意外", "异常", "频繁", "已", "有无", "近期", "最近", "上次", "因",
        "节点",
    ];
    const SPOKEN_AFTER: [&str; 14] =
        ["后", "时", "过", "了", "前", "次", "期间", "之", "导致", "原因", "记录", "事件", "日志", "的"];
    if let Some(Token::Foreign(text)) = before
        && SPOKEN_BEFORE.iter().any(|word| text.ends_with(word))
    {
        return false;
    }
    match rest.first() {
        None | Some(Token::Pipe | Token::End | Token::Quoted(_)) => true,
        Some(Token::Foreign(text)) => !SPOKEN_AFTER.iter().any(|word| text.starts_with(word)),
        Some(Token::Word(word)) => {
            matches!(*word, "now" | "#")
                || word.starts_with(['-', '+'])
                || word.starts_with(|c: char| c.is_ascii_digit())
        }
    }
}

/// Whether a statement of SQL or Redis begins with `word`.
fn is_statement(word: &str, rest: &[Token<'_>], may_begin: impl Fn() -> bool) -> bool {
    if !is_verb(word) {
        return false;
    }
    if word.eq_ignore_ascii_case("flushall") || word.eq_ignore_ascii_case("flushdb") {
        return true;
    }
    let is_shouted = word.bytes().all(|byte| byte.is_ascii_uppercase());
    if !(is_shouted || may_begin()) {
        return false;
    }
    let words: Vec<&str> = rest
        .iter()
        .map_while(|token| if let Token::Word(word) = token { Some(*word) } else { None })
        .take(MAX_ARGS)
        .collect();
    let has = |wanted: &str| {
        rest.iter().take(MAX_ARGS).any(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted)))
    };
    let second = words.first().copied().unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "delete" => second.eq_ignore_ascii_case("from") && words.len() > 1 && !has("where"),
        "update" => is_shouted && has("set") && !has("where"),
        "alter" => has("drop") && second.eq_ignore_ascii_case("table"),
        // `TRUNCATE orders`; in lower case it is a word of English or the program.
        "truncate" if is_shouted && second.starts_with(|c: char| c.is_ascii_alphabetic() || "`<".contains(c)) => true,
        _ => STATEMENTS.iter().any(|statement| {
            let mut spelled = std::iter::once(word).chain(words.iter().copied());
            statement.iter().all(|wanted| {
                spelled.next().is_some_and(|word| match *wanted {
                    "#" => {
                        word.bytes().all(|byte| byte.is_ascii_digit()) || (word.starts_with('<') && word.ends_with('>'))
                    }
                    wanted => word.eq_ignore_ascii_case(wanted),
                })
            })
        }),
    }
}

/// What stands behind the `>` that a word begins with: `2>x`, `&>x`.
fn redirected(word: &str) -> Option<&str> {
    word.trim_start_matches(['1', '2', '&', ':']).strip_prefix('>')
}

/// Whether a file that matters is emptied or overwritten by `>`. `>>` only adds.
fn redirects(tokens: &[Token<'_>]) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        let Token::Word(word) = token else { return false };
        let Some(target) = redirected(word) else { return false };
        let target = match (target, tokens.get(at + 1)) {
            ("" | "|", Some(Token::Word(next) | Token::Quoted(next))) => next,
            (target, _) => target,
        };
        if target.starts_with(['>', '&', '=']) {
            return false;
        }
        // What empties a file is short.
        let writes_nothing = at <= 6
            && tokens.iter().take(at).all(|token| match token {
                Token::Word(word) => {
                    matches!(*word, ":" | "true" | "echo" | "cat" | "/dev/null" | "-n" | "sudo" | "$" | "#" | "•")
                }
                Token::Quoted(_) | Token::Foreign(_) => true,
                Token::Pipe | Token::End => false,
            });
        let is_named_log = target.starts_with('<') && ["log", "日志"].iter().any(|log| target.contains(log));
        let is_log_file = target.ends_with(".log") || is_named_log;
        let is_file = target.starts_with(['/', '~', '$', '.']) || is_log_file;
        let is_log = is_log_file || at == 0;
        is_precious(target) || (writes_nothing && is_file && is_log && !is_scratch(target))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::RULES;

    /// A row for every rule: lines that it marks, and near misses that nothing marks.
    const ROWS: &[(&str, &[&str], &[&str])] = &[
        (
            "glued to a number or to Chinese",
            &[
                "2.清理:rm -rf /data/tmp", "3.重启:systemctl restart mysqld", "4.删除pod:kubectl delete pod x -n y",
                "6.执行命令:reboot", "7.删表:DROP TABLE a;", "1.rm -rf /data/tmp", "执行:\"kubectl delete pod x\"",
                "命令=rm -rf /x",
            ],
            &["10.0.0.1 上看日志", "1.看日志", "端口:6379", "时间:10:20"],
        ),
        (
            "with placeholders",
            &[
                "kubectl -n <命名空间> delete pod <Pod 名> --force", "kubectl -n <命名空间> rollout restart deploy/x",
                "kubectl --namespace=<命名空间> delete pod x", "kubectl -n {命名空间} delete pod x",
                "kubectl -n <your namespace> rollout restart deploy/x", "helm -n <命名空间> uninstall x",
                "docker compose -f <文件> down", "git -C <目录> push --force", "terraform -chdir=<目录> destroy",
                "service <服务名> restart", "find <目录，如 /var/log> -type f -delete", "KILL <线程ID>;", "KILL <id>;",
                "TRUNCATE <表名>;", ": > <日志文件>", "cat /dev/null > <日志文件>",
            ],
            &["kubectl -n <命名空间> get pods", "sort < a.txt > /tmp/b", "journalctl -u <服务名>"],
        ),
        (
            "behind what only reads",
            &[
                "用 ps aux | head 看占用，再执行 rm -rf /data/tmp",
                "journalctl --disk-usage 看占用，systemctl restart x",
            ],
            &["grep reboot /var/log/messages，再看 last reboot"],
        ),
        (
            "reboot",
            &[
                "reboot", "sudo reboot", "执行 reboot 重启节点", "2. shutdown -h now", "ssh db-2 reboot",
                "/sbin/reboot -f", "poweroff", "Run: halt",
            ],
            &[
                "last reboot", "grep reboot /var/log/messages", "reboot loop detected", "节点 reboot 后观察",
                "after a reboot, check", "last -x shutdown", "graceful shutdown of the pod",
            ],
        ),
        ("init", &["init 0", "sudo init 6"], &["init container failed", "git init"]),
        (
            "rm",
            &[
                "rm -rf /data/*", "sudo rm -fr x", "rm -r dir", "kubectl exec p -- rm -rf /x", "ls | xargs rm -f",
                "bash -c \"rm -rf /x\"", "[\"rm\",\"-rf\",\"/x\"]", "rm /var/log/a.log",
            ],
            &[
                "docker run --rm -it busybox", "alarm -rf", "grep 'rm -rf' history.txt", "the rm command",
                "rm 命令会删除文件", "echo rm -rf /x",
            ],
        ),
        (
            "find",
            &["find /var/log -mtime +7 -delete", "find / -name x -exec rm {} \\;"],
            &["find / -size +1G", "find /var -name deleted"],
        ),
        (
            "shred",
            &["shred -u /etc/passwd", "lvremove /dev/vg0/a", "mkfs.ext4 /dev/sdb1", "mkfs -t xfs /dev/sdb"],
            &["lvs", "mkfs 会清空磁盘"],
        ),
        (
            "fdisk",
            &["fdisk /dev/sdb", "parted /dev/sda mklabel gpt"],
            &["fdisk -l", "fdisk -l /dev/sdb", "parted /dev/sda print", "sudo parted -l"],
        ),
        ("wipefs", &["wipefs -a /dev/sdb"], &["wipefs /dev/sdb"]),
        (
            "dd",
            &["dd if=/dev/zero of=/dev/sda bs=1M", "dd if=a of=/data/b"],
            &["dd if=/dev/sda of=/dev/null bs=1M count=100", "dd 命令"],
        ),
        (
            "truncate",
            &["truncate -s 0 /var/log/a.log", "sudo truncate --size=0 x"],
            &["truncate the log", "日志被 truncate"],
        ),
        ("cp", &["cp /dev/null /var/log/a.log"], &["cp /etc/hosts /tmp/hosts"]),
        (
            "tee",
            &["echo x | sudo tee /etc/fstab"],
            &["echo x | tee -a /etc/hosts", "df | tee /tmp/df.txt", "echo 3 | tee /proc/sys/vm/drop_caches"],
        ),
        ("fsck", &["fsck -y /dev/sdb1"], &["fsck -n /dev/sdb1"]),
        ("xfs_repair", &["xfs_repair -L /dev/sdb1"], &["xfs_repair -n /dev/sdb1"]),
        ("mdadm", &["mdadm --stop /dev/md0"], &["mdadm --detail /dev/md0"]),
        ("zfs", &["zfs destroy tank/a", "zpool destroy tank"], &["zfs list", "zpool status"]),
        ("ceph", &["ceph osd out 3"], &["ceph osd tree", "ceph -s"]),
        ("rbd", &["rbd rm pool/x"], &["rbd ls"]),
        ("umount", &["umount -f /data", "umount -l /mnt"], &["umount 失败", "mount | grep umount"]),
        ("swapoff", &["swapoff -a"], &["swapon -s"]),
        (
            "kill",
            &[
                "kill -9 1234", "kill -9 <PID>", "kill 1234", "kill -TERM $(pidof x)", "kill $PID",
                "lsof -t x | xargs kill -9", "KILL 1234;",
            ],
            &["kill -0 1234", "kill -l", "kill -3 1234", "OOM kill 记录", "kill the process"],
        ),
        ("pkill", &["pkill -f java", "killall nginx"], &["pgrep -f java", "killall -0 nginx"]),
        ("fuser", &["fuser -k 80/tcp"], &["fuser -v 80/tcp"]),
        (
            "systemctl",
            &[
                "systemctl restart nginx", "sudo systemctl stop kubelet", "systemctl disable --now x",
                "systemctl --no-block restart x", "请执行systemctl restart docker重启",
            ],
            &[
                "systemctl status nginx", "systemctl is-active x", "systemctl list-units --failed",
                "systemctl daemon-reload", "systemctl reload nginx", "systemctl cat x",
            ],
        ),
        (
            "service",
            &["service nginx restart", "service mysql stop", "/etc/init.d/nginx stop"],
            &["service nginx status", "kubectl get service nginx", "/etc/init.d/nginx status"],
        ),
        ("supervisorctl", &["supervisorctl restart all"], &["supervisorctl status"]),
        ("pm2", &["pm2 restart api"], &["pm2 list"]),
        ("nginx", &["nginx -s stop"], &["nginx -t", "nginx -s reload"]),
        ("rabbitmqctl", &["rabbitmqctl stop_app", "rabbitmqctl delete_queue q"], &["rabbitmqctl list_queues"]),
        (
            "Remove-Item",
            &[r"Remove-Item C:\Windows\Temp\* -Recurse -Force", "Restart-Service -Name x", "Stop-Process -Id 12"],
            &["Get-Item x", "Restart-Service"],
        ),
        ("Restart-Computer", &["Restart-Computer", "Restart-Computer -Force"], &["Get-Computer"]),
        ("taskkill", &["taskkill /PID 12 /F", r"del /f /s /q C:\logs\*.log"], &["tasklist", "etcdctl get x"]),
        ("nodetool", &["nodetool decommission"], &["nodetool status"]),
        ("kubeadm", &["kubeadm reset -f"], &["kubeadm certs check-expiration"]),
        ("hdfs", &["hdfs dfs -rm -r /logs"], &["hdfs dfs -ls /logs"]),
        ("pg_ctl", &["pg_ctl restart -D /data"], &["pg_ctl status"]),
        ("patronictl", &["patronictl failover main"], &["patronictl list"]),
        ("virsh", &["virsh destroy vm-1"], &["virsh list --all"]),
        (
            "kafka-consumer-groups.sh",
            &["kafka-consumer-groups.sh --group g --reset-offsets --to-latest --execute"],
            &["kafka-consumer-groups.sh --describe --group g"],
        ),
        (
            "iptables",
            &["iptables -F", "iptables -t nat -F", "iptables -P INPUT DROP", "ip6tables --flush"],
            &["iptables -L -n", "iptables -nvL | grep DROP", "dropped packets"],
        ),
        ("nft", &["nft flush ruleset"], &["nft list ruleset"]),
        ("ufw", &["ufw disable"], &["ufw status"]),
        (
            "ip",
            &["ip link set eth0 down", "ip route del default", "ip addr flush dev eth0"],
            &["ip link show", "ip -s link", "ip addr", "ip down 的机器"],
        ),
        ("ifconfig", &["ifconfig eth0 down"], &["ifconfig eth0"]),
        ("ifdown", &["ifdown eth0"], &["ifdown"]),
        ("nmcli", &["nmcli con down eth0"], &["nmcli con show"]),
        ("chmod", &["chmod -R 777 /data"], &["chmod 644 /etc/hosts", "chmod -R 755 /data"]),
        ("chown", &["chown -R mysql:mysql /var/lib/mysql"], &["chown mysql x"]),
        ("userdel", &["userdel -r bob"], &["useradd bob"]),
        ("crontab", &["crontab -r"], &["crontab -l"]),
        (
            "journalctl",
            &["journalctl --vacuum-size=500M"],
            &["journalctl -u kubelet --since '1 hour ago'", "journalctl -k | grep -i kill", "journalctl --disk-usage"],
        ),
        ("apt", &["apt-get purge nginx", "yum remove -y x"], &["apt list --installed", "yum history"]),
        ("rpm", &["rpm -e nginx"], &["rpm -qa"]),
        (
            "kubectl",
            &[
                "kubectl delete pod x", "kubectl -n prod delete pod x", "kubectl -n 命名空间 delete pod x",
                "kubectl drain node-1 --force", "kubectl rollout restart deploy/x",
                "kubectl scale deploy x --replicas=0", "kubectl scale --replicas 0 deploy/x",
                "kubectl replace --force -f x.yaml", "k delete ns x",
            ],
            &[
                "kubectl get pods -n prod", "kubectl describe pod delete-me", "kubectl logs x | grep delete",
                "kubectl rollout status deploy/x", "kubectl scale deploy x --replicas=3", "kubectl top nodes",
                "kubectl delete pod x --dry-run=client", "kubectl auth can-i delete pods", "kubectl cordon node-1",
                "kubectl delete --help",
            ],
        ),
        ("helm", &["helm uninstall x -n prod", "helm -n prod delete x"], &["helm list -A", "helm history x"]),
        (
            "docker",
            &[
                "docker rm -f x", "docker stop web", "docker restart web", "docker system prune -af",
                "docker volume rm x", "docker compose down", "podman kill x", "docker exec web rm -rf /x",
            ],
            &[
                "docker ps -a", "docker logs --tail 100 web", "docker stats --no-stream", "docker system df",
                "docker inspect web", "docker compose ps",
            ],
        ),
        ("docker-compose", &["docker-compose -f a.yml down"], &["docker-compose ps"]),
        ("crictl", &["crictl rmi --prune"], &["crictl ps -a"]),
        (
            "git",
            &[
                "git push --force", "git push -f origin main", "git push origin +main", "git reset --hard HEAD~1",
                "git clean -fdx",
            ],
            &["git push origin main", "git reset HEAD x", "git log"],
        ),
        ("terraform", &["terraform destroy"], &["terraform plan"]),
        (
            "redis-cli",
            &["redis-cli shutdown nosave", "redis-cli -p 6379 FLUSHALL", "FLUSHDB", "redis-cli del k"],
            &["redis-cli info memory", "redis-cli info commandstats | grep flushall"],
        ),
        ("mysqladmin", &["mysqladmin -uroot -p shutdown"], &["mysqladmin processlist"]),
        (
            "etcdctl",
            &["etcdctl del /x", "etcdctl --endpoints https://a:2379 del /x"],
            &["etcdctl endpoint health", "etcdctl get /x"],
        ),
        (
            "kafka-topics.sh",
            &["kafka-topics.sh --bootstrap-server a:9092 --delete --topic x"],
            &["kafka-topics.sh --list"],
        ),
        (
            "curl",
            &["curl -X DELETE http://es:9200/logs", "curl -XDELETE 'http://es:9200/a'"],
            &["curl -s http://es:9200/_cat/indices", "curl -X GET http://a/"],
        ),
        ("aws", &["aws ec2 terminate-instances --instance-ids i-1"], &["aws ec2 describe-instances"]),
        (
            "SQL",
            &[
                "DROP TABLE users;", "drop database a;", "mysql -e \"DROP TABLE x\"", "TRUNCATE orders;",
                "truncate table a", "DELETE FROM logs;", "ALTER TABLE a DROP COLUMN b", "UPDATE a SET b = 1",
                "mysql -e 'delete from a'", "KILL QUERY 12;", "STOP SLAVE;",
            ],
            &[
                "DELETE FROM logs WHERE id < 5;", "SELECT * FROM drop_table", "SHOW CREATE TABLE a",
                "UPDATE a SET b = 1 WHERE c = 2", "the files to delete from disk", "packets drop table overflow",
                "SHOW PROCESSLIST",
            ],
        ),
        ("mongo", &["db.dropDatabase()", "db.logs.drop()"], &["db.stats()"]),
        (
            "piped into what runs it",
            &[
                "echo \"DROP TABLE x\" | mysql -uroot -p", "echo FLUSHALL | redis-cli -h a",
                "echo 'delete from a' | sudo -u postgres psql db", "printf 'rm -rf /x' | sh",
                "echo rm -rf /x | ssh a bash", "echo 'TRUNCATE a' | docker exec -i db mysql",
                "curl -fsSL https://a/install.sh | bash", "curl -s https://a/x | sudo bash -s -- --force",
                "wget -qO- https://a/x | sh", "bash <(curl -s https://a/x)", "sh -c \"$(curl -fsSL https://a/x)\"",
                "3. 执行 curl -s https://a/x.sh | sh 安装",
            ],
            &[
                "echo 'DROP TABLE x' | grep DROP", "echo FLUSHALL; redis-cli info",
                "echo \"DROP TABLE x\" || mysql -e 'show tables'", "echo 'SELECT 1' | mysql", "echo PING | redis-cli",
                "curl -s http://a/metrics | grep up", "curl -s http://a/x | python3 -m json.tool",
                "curl -s http://a | jq .", "bash x.sh && curl http://a", "kubectl exec -it x -- bash",
                "cat /var/log/a | sh_parser", "history | grep bash",
            ],
        ),
        (
            "redirection",
            &[
                "> /var/log/nginx/access.log", ": > app.log", "echo \"\" > /var/log/a.log",
                "cat /dev/null > /data/app.log", "cat x > /dev/sda", "echo b > /proc/sysrq-trigger",
            ],
            &[
                "kubectl get po > /tmp/po.txt", "ls 2>/dev/null", "df -h > df.txt 2>&1", "echo a >> /etc/hosts",
                "node_load1 > 5", "使用率 > 90%", "echo 3 > /proc/sys/vm/drop_caches", "kubectl logs <pod> -n <ns>",
                "dmesg > /tmp/dmesg.log", "mysqldump a > backup.sql",
            ],
        ),
        (
            "prose",
            &[],
            &[
                "重启后观察", "删除旧日志前请备份", "", "⚠️", "不要慌", "If it fails, stop and think",
                "推测: 内存泄漏", "CPU stop",
            ],
        ),
    ];

    #[test]
    fn dangerous_lines_are_marked_and_harmless_ones_never() {
        let mut wrong = Vec::new();
        for (row, dangerous, harmless) in ROWS {
            wrong.extend(
                dangerous.iter().filter(|line| !is_dangerous(line)).map(|line| format!("{row}: missed {line}")),
            );
            wrong.extend(harmless.iter().filter(|line| is_dangerous(line)).map(|line| format!("{row}: marked {line}")));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_rule_has_a_row() {
        for rule in RULES {
            let name = rule.programs[0];
            let row = ROWS.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no row for {name}"));
            assert!(!row.1.is_empty() && !row.2.is_empty(), "{name} lacks examples");
        }
    }

    #[test]
    fn the_first_look_knows_every_row_of_the_tables() {
        for rule in RULES {
            for program in rule.programs {
                assert!(rules(program).any(|found| found.programs == rule.programs), "{program}");
                assert!(may_be_dangerous(program), "{program}");
            }
        }
        for statement in STATEMENTS {
            assert!(may_be_dangerous(statement[0]), "{statement:?}");
        }
    }

    #[test]
    fn a_long_line_takes_no_time() {
        for unit in [
            "rm ", "'", "\"a\" ", "> ", "kubectl ", "sudo ", "中 ", "kill|", "delete from ", "drop ", "echo ",
            "echo > ", "echo a | ", "curl a | b ", "|",
        ] {
            let line = unit.repeat(100_000 / unit.len());
            // Quadratic time would be minutes; a busy machine makes linear time seconds.
            let started = std::time::Instant::now();
            let _is_dangerous = is_dangerous(&line);
            assert!(started.elapsed().as_secs() < 30, "{unit:?}");
        }
    }
}
