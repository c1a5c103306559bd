//! The table of dangerous commands, read by [`crate::message::danger`].

/// Programs, and what makes calling them dangerous.
pub(crate) struct Rule {
    /// Names, the same command under several.
    pub(crate) programs: &'static [&'static str],
    /// When a call is dangerous.
    pub(crate) how: How,
}

/// What makes a call dangerous.
pub(crate) enum How {
    /// Any call, where the word stands as a command and not in a sentence.
    Called,
    /// The words behind the program that are no options begin with one of these.
    First(&'static [&'static str]),
    /// One of these words stands behind the program.
    Word(&'static [&'static str]),
    /// One of these options is given; a single letter also inside a cluster, `-xrf`.
    Option(&'static [&'static str]),
    /// This subcommand with one of these options.
    FirstOption(&'static str, &'static [&'static str]),
    /// What only a closer look can say.
    Args(fn(&[&str]) -> bool),
}

use How::{Args, Called, First, FirstOption, Option as Flag, Word};

/// The table; the tests have examples for each row.
pub(crate) const RULES: &[Rule] = &[
    Rule { programs: &["reboot", "shutdown", "poweroff", "halt"], how: Called },
    Rule { programs: &["init", "telinit"], how: Args(|args| matches!(args.first(), Some(&("0" | "1" | "6")))) },
    Rule { programs: &["rm"], how: Args(removes) },
    Rule { programs: &["find"], how: Flag(&["-delete"]) },
    Rule { programs: &["shred", "mkswap", "lvremove", "vgremove", "pvremove", "lvreduce"], how: Args(has_target) },
    Rule { programs: &["fdisk", "sfdisk", "gdisk", "cfdisk", "parted", "sgdisk"], how: Args(edits_partitions) },
    Rule { programs: &["wipefs"], how: Flag(&["-a", "--all"]) },
    Rule { programs: &["dd"], how: Args(writes_with_dd) },
    Rule { programs: &["truncate"], how: Flag(&["-s", "--size"]) },
    Rule { programs: &["cp"], how: Args(|args| args.contains(&"/dev/null")) },
    Rule { programs: &["tee"], how: Args(|args| !args.contains(&"-a") && args.iter().any(|arg| is_precious(arg))) },
    Rule { programs: &["fsck", "e2fsck"], how: Flag(&["-y", "-f", "-a", "-p"]) },
    Rule { programs: &["xfs_repair"], how: Args(|args| has_target(args) && !args.contains(&"-n")) },
    Rule { programs: &["mdadm"], how: Flag(&["--stop", "--fail", "--remove", "--zero-superblock"]) },
    Rule { programs: &["zfs", "zpool"], how: First(&["destroy", "rollback", "offline", "detach", "export", "remove"]) },
    Rule { programs: &["ceph"], how: First(&["osd out", "osd purge", "osd destroy", "osd rm", "osd pool delete"]) },
    Rule { programs: &["rbd"], how: First(&["rm", "remove"]) },
    Rule { programs: &["umount"], how: Args(has_target) },
    Rule { programs: &["swapoff"], how: Args(has_target) },
    Rule { programs: &["kill"], how: Args(kills) },
    Rule { programs: &["pkill", "killall"], how: Args(kills_by_name) },
    Rule { programs: &["fuser"], how: Flag(&["-k"]) },
    Rule {
        programs: &["systemctl"],
        how: First(&[
            "stop", "restart", "try-restart", "reload-or-restart", "disable", "mask", "kill", "isolate", "reboot",
            "poweroff", "halt", "rescue", "emergency", "suspend",
        ]),
    },
    Rule { programs: &["service", "rc-service"], how: Args(|args| matches!(args.get(1), Some(&("stop" | "restart")))) },
    Rule { programs: &["supervisorctl"], how: First(&["stop", "restart", "shutdown", "remove"]) },
    Rule { programs: &["pm2"], how: First(&["stop", "restart", "delete", "kill"]) },
    Rule { programs: &["nginx"], how: Word(&["stop", "quit"]) },
    Rule {
        programs: &["rabbitmqctl"],
        how: Word(&["stop", "stop_app", "reset", "force_reset", "purge_queue", "delete_queue", "forget_cluster_node"]),
    },
    Rule {
        programs: &["Remove-Item", "Stop-Service", "Restart-Service", "Stop-Process"],
        how: Args(|args| !args.is_empty()),
    },
    Rule { programs: &["Restart-Computer", "Stop-Computer"], how: Called },
    Rule {
        programs: &["taskkill", "del"],
        how: Args(|args| args.iter().any(|arg| matches!(*arg, "/F" | "/f" | "/s" | "/q"))),
    },
    Rule { programs: &["nodetool"], how: First(&["decommission", "removenode", "assassinate", "drain"]) },
    Rule { programs: &["kubeadm"], how: First(&["reset"]) },
    Rule { programs: &["hdfs", "hadoop"], how: Flag(&["-rm", "-rmr"]) },
    Rule { programs: &["pg_ctl"], how: Word(&["stop", "restart"]) },
    Rule { programs: &["patronictl"], how: First(&["failover", "switchover", "restart", "reinit", "remove"]) },
    Rule { programs: &["virsh"], how: First(&["destroy", "shutdown", "reboot", "undefine"]) },
    Rule { programs: &["kafka-consumer-groups.sh", "kafka-consumer-groups"], how: Flag(&["--execute", "--delete"]) },
    Rule {
        programs: &["iptables", "ip6tables"],
        how: Args(|args| has_option(args, &["-F", "-X", "--flush"]) || args.contains(&"DROP") && !args.contains(&"-D")),
    },
    Rule { programs: &["nft"], how: First(&["flush", "delete"]) },
    Rule { programs: &["ufw"], how: First(&["disable", "reset"]) },
    Rule { programs: &["ip"], how: Args(cuts_network) },
    Rule { programs: &["ifconfig"], how: Word(&["down"]) },
    Rule { programs: &["ifdown"], how: Args(|args| !args.is_empty()) },
    Rule { programs: &["nmcli"], how: Word(&["down", "off", "disconnect", "delete"]) },
    Rule { programs: &["chmod"], how: Args(opens_to_all) },
    Rule { programs: &["chown"], how: Flag(&["-R", "--recursive"]) },
    Rule { programs: &["userdel", "groupdel"], how: Args(|args| !args.is_empty()) },
    Rule { programs: &["crontab"], how: Flag(&["-r"]) },
    Rule { programs: &["journalctl"], how: Flag(&["--vacuum-size", "--vacuum-time", "--vacuum-files"]) },
    Rule { programs: &["apt", "apt-get", "yum", "dnf"], how: First(&["remove", "purge", "erase", "autoremove"]) },
    Rule { programs: &["rpm"], how: Flag(&["-e", "--erase"]) },
    Rule {
        programs: &["kubectl", "oc", "k"],
        how: Args(|args| {
            starts_with(args, &["delete", "drain", "rollout restart", "rollout undo"]) || scales_to_zero(args)
        }),
    },
    Rule { programs: &["kubectl"], how: FirstOption("replace", &["--force"]) },
    Rule { programs: &["helm"], how: First(&["uninstall", "delete", "rollback"]) },
    Rule {
        programs: &["docker", "podman", "nerdctl"],
        how: First(&[
            "rm", "rmi", "stop", "restart", "kill", "system prune", "volume rm", "volume prune", "image rm",
            "image prune", "network rm", "network prune", "container rm", "container stop", "container restart",
            "container kill", "container prune", "compose down", "compose stop", "compose restart", "compose rm",
            "compose kill", "service rm", "stack rm", "swarm leave",
        ]),
    },
    Rule { programs: &["docker-compose"], how: First(&["down", "stop", "restart", "rm", "kill"]) },
    Rule { programs: &["crictl"], how: First(&["rm", "rmi", "rmp", "stop", "stopp"]) },
    Rule { programs: &["git"], how: Args(rewrites_history) },
    Rule { programs: &["terraform", "tofu", "terragrunt", "pulumi"], how: First(&["destroy"]) },
    Rule { programs: &["redis-cli"], how: Word(&["shutdown", "SHUTDOWN", "del", "DEL", "unlink", "UNLINK"]) },
    Rule { programs: &["mysqladmin"], how: Word(&["shutdown", "drop", "kill"]) },
    Rule { programs: &["etcdctl"], how: First(&["del", "rm", "defrag", "member remove"]) },
    Rule { programs: &["kafka-topics.sh", "kafka-topics"], how: Flag(&["--delete"]) },
    Rule { programs: &["curl"], how: Args(|args| args.windows(2).any(is_method) || args.contains(&"-XDELETE")) },
    Rule {
        programs: &["aws"],
        how: Word(&[
            "terminate-instances", "stop-instances", "reboot-instances", "delete-db-instance", "reboot-db-instance",
            "rm", "rb",
        ]),
    },
];

/// Programs that only look at what stands behind them.
pub(crate) const READERS: &[&str] = &[
    "ag", "apropos", "ausearch", "awk", "cat", "echo", "egrep", "fgrep", "grep", "head", "history", "journalctl",
    "less", "ll", "ls", "man", "pgrep", "printf", "rg", "stat", "tail", "wc", "whatis", "whereis", "which", "zcat",
    "zgrep",
];

/// Shells that run what they read.
pub(crate) const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh", "zsh"];

/// Other programs that run what they read.
pub(crate) const CLIENTS: &[&str] =
    &["clickhouse-client", "mariadb", "mongo", "mongosh", "mysql", "psql", "redis-cli", "sqlite3", "sqlplus", "ssh"];

/// Statements, by their leading words; `#` stands for a number. In lower case they count where a command may begin.
pub(crate) const STATEMENTS: &[&[&str]] = &[
    &["drop", "table"],
    &["drop", "database"],
    &["drop", "schema"],
    &["drop", "index"],
    &["drop", "user"],
    &["drop", "view"],
    &["drop", "column"],
    &["drop", "partition"],
    &["drop", "tablespace"],
    &["truncate", "table"],
    &["stop", "slave"],
    &["stop", "replica"],
    &["reset", "master"],
    &["reset", "slave"],
    &["purge", "binary", "logs"],
    &["purge", "master", "logs"],
    &["flush", "tables", "with", "read", "lock"],
    &["vacuum", "full"],
    &["kill", "#"],
    &["kill", "query", "#"],
    &["kill", "connection", "#"],
];

/// The first words of statements, those of [`STATEMENTS`] among them. A line without any of them has no statement.
const VERBS: [&str; 13] = [
    "alter", "delete", "drop", "flush", "flushall", "flushdb", "kill", "purge", "reset", "stop", "truncate", "update",
    "vacuum",
];

/// By first letter and length, a bit for each row of the table that has such a program: most words of a line are in no
/// row, and one look says so. A 129th row would not compile.
const ROWS: [[u128; 32]; 26] = {
    let mut rows = [[0; 32]; 26];
    let mut row = 0;
    while row < RULES.len() {
        let programs = RULES[row].programs;
        let mut at = 0;
        while at < programs.len() {
            let name = programs[at].as_bytes();
            rows[(name[0].to_ascii_lowercase() - b'a') as usize][name.len()] |= 1 << row;
            at += 1;
        }
        row += 1;
    }
    rows
};

/// The rules about a program.
pub(crate) fn rules(program: &str) -> impl Iterator<Item = &'static Rule> {
    let first = program.bytes().next().unwrap_or_default().to_ascii_lowercase();
    let letter = usize::from(first.wrapping_sub(b'a'));
    let mut rows = ROWS.get(letter).and_then(|lengths| lengths.get(program.len())).copied().unwrap_or_default();
    let candidates = std::iter::from_fn(move || {
        let row = rows.trailing_zeros();
        rows &= rows.wrapping_sub(1);
        RULES.get(row as usize)
    });
    candidates.filter(move |rule| rule.programs.contains(&program))
}

/// Whether a statement may begin with `word`, in letters of any size.
pub(crate) fn is_verb(word: &str) -> bool {
    VERBS.iter().any(|verb| verb.eq_ignore_ascii_case(word))
}

/// Options whose next word is their value, for the programs whose subcommand may stand behind them.
const VALUED: &[&str] = &[
    "-n", "--namespace", "--context", "--kubeconfig", "--cluster", "-C", "-H", "--host", "--endpoints", "--cacert",
    "--cert", "--key", "--region", "--profile", "-f", "--file", "-c", "--project-name", "-s", "--server",
    "--kube-context",
];

/// Whether the words that are no options begin with one of `phrases`.
pub(crate) fn starts_with(args: &[&str], phrases: &[&str]) -> bool {
    let mut is_value = false;
    let words: Vec<&str> = args
        .iter()
        .copied()
        .filter(|arg| {
            let is_word = !is_value && !arg.starts_with('-');
            is_value = VALUED.contains(arg);
            is_word
        })
        .take(3)
        .collect();
    phrases.iter().any(|phrase| {
        let mut words = words.iter();
        phrase.split(' ').all(|wanted| words.next() == Some(&wanted))
    })
}

/// Whether one of `options` is given, `-r` also as `-xrf`, `--size` also as `--size=0`.
pub(crate) fn has_option(args: &[&str], options: &[&str]) -> bool {
    args.iter().filter(|arg| arg.starts_with('-')).any(|arg| {
        options.iter().any(|option| {
            let letter = option.strip_prefix('-').filter(|letter| letter.len() == 1);
            let cluster = arg.strip_prefix('-').filter(|letters| !letters.starts_with('-'));
            let is_clustered = letter.zip(cluster).is_some_and(|(letter, cluster)| {
                cluster.contains(letter)
                    && cluster.len() <= 5
                    && cluster.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
            is_clustered || arg == option || arg.strip_prefix(option).is_some_and(|value| value.starts_with('='))
        })
    })
}

/// An operand that is no option: a path, a device, a name.
pub(crate) fn has_target(args: &[&str]) -> bool {
    args.iter().any(|arg| arg.starts_with(['/', '$', '<', '{', '~', '.', '*']) || *arg == "-a") && !args.contains(&"-n")
}

/// `rm` of the shell, and not a word that looks like it.
fn removes(args: &[&str]) -> bool {
    let is_option = |arg: &&str| has_option(&[*arg], &["-r", "-R", "-f", "--recursive", "--force"]);
    let is_path = |arg: &&str| arg.starts_with(['/', '~', '$', '{', '<', '*']) || arg.contains(['/', '*', '.']);
    args.iter().any(is_option) || args.first().is_some_and(is_path)
}

fn edits_partitions(args: &[&str]) -> bool {
    has_target(args)
        && !args.iter().any(|arg| matches!(*arg, "-l" | "print" | "--list" | "-p" | "--print" | "-d" | "--dump"))
}

fn writes_with_dd(args: &[&str]) -> bool {
    args.iter().filter_map(|arg| arg.strip_prefix("of=")).any(|target| target != "/dev/null")
}

/// A process or a job is named, and the signal is not one that only asks (`-0`, `-l`, `-3` dumps a JVM's threads).
fn kills(args: &[&str]) -> bool {
    const ASKING: [&str; 12] =
        ["-0", "-l", "-L", "-3", "-QUIT", "-SIGQUIT", "-HUP", "-SIGHUP", "-1", "-USR1", "-USR2", "-10"];
    let Some(first) = args.first() else { return false };
    if ASKING.contains(first) {
        return false;
    }
    first.starts_with(['$', '<', '%', '{']) || first.bytes().all(|byte| byte.is_ascii_digit()) || {
        let signal = first.strip_prefix('-').unwrap_or_default();
        !signal.is_empty()
            && signal.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase() || byte == b's')
    }
}

fn kills_by_name(args: &[&str]) -> bool {
    !args.is_empty() && !has_option(args, &["-0", "-l"])
}

/// `ip link set eth0 down`, `ip route del`, `ip addr flush`.
fn cuts_network(args: &[&str]) -> bool {
    let is_object =
        args.iter().take(3).any(|arg| matches!(*arg, "link" | "l" | "addr" | "address" | "a" | "route" | "r"));
    is_object && args.iter().any(|arg| matches!(*arg, "down" | "del" | "delete" | "flush"))
}

fn opens_to_all(args: &[&str]) -> bool {
    has_option(args, &["-R", "--recursive"])
        && args.iter().any(|arg| matches!(*arg, "777" | "0777" | "000" | "a+rwx" | "666"))
}

fn scales_to_zero(args: &[&str]) -> bool {
    starts_with(args, &["scale"])
        && (args.contains(&"--replicas=0") || args.windows(2).any(|pair| pair == ["--replicas", "0"]))
}

fn rewrites_history(args: &[&str]) -> bool {
    let forced = has_option(args, &["-f", "--force", "--force-with-lease", "--delete", "--mirror"])
        || args.iter().any(|arg| arg.starts_with('+'));
    (starts_with(args, &["push"]) && forced)
        || (starts_with(args, &["reset"]) && args.contains(&"--hard"))
        || (starts_with(args, &["clean"]) && has_option(args, &["-f", "--force"]))
}

fn is_method(pair: &[&str]) -> bool {
    matches!(pair, ["-X" | "--request", "DELETE"])
}

/// Devices, logs, configuration.
pub(crate) fn is_precious(target: &str) -> bool {
    (["/var/log/", "/etc/", "/var/lib/", "/boot/", "/dev/"].iter().any(|place| target.starts_with(place))
        || target.ends_with("sysrq-trigger"))
        && !is_scratch(target)
}

/// What nobody misses. `/proc/sys` takes settings, `drop_caches` among them: slow for a while, but nothing is lost.
pub(crate) fn is_scratch(target: &str) -> bool {
    ["/dev/null", "/dev/std", "/dev/tty", "/dev/shm/", "/dev/fd/", "/tmp/", "/var/tmp/", "/proc/sys/"]
        .iter()
        .any(|place| target.starts_with(place))
}
