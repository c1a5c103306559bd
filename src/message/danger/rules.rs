//! The table of dangerous commands, read by [`crate::message::danger`].

use super::super::programs::has;

/// Programs, the same command under several names, and when a call is dangerous.
pub(crate) type Rule = (&'static str, How);

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
    /// What a function decides.
    Args(fn(&[&str]) -> bool),
}

use How::{Args, Called, First, FirstOption, Option as Flag, Word};

/// The table; the tests have examples for each row.
pub(crate) const RULES: &[Rule] = &[
    ("reboot shutdown poweroff halt", Called),
    ("init telinit", Args(|args| matches!(args.first(), Some(&("0" | "1" | "6"))))),
    ("rm", Args(removes)),
    ("find", Flag(&["-delete"])),
    ("shred mkswap lvremove vgremove pvremove lvreduce", Args(has_target)),
    ("fdisk sfdisk gdisk cfdisk parted sgdisk", Args(edits_partitions)),
    ("wipefs", Flag(&["-a", "--all"])),
    ("dd", Args(writes_with_dd)),
    ("truncate", Flag(&["-s", "--size"])),
    ("cp", Args(|args| args.contains(&"/dev/null"))),
    ("tee", Args(|args| !args.contains(&"-a") && args.iter().any(|arg| is_precious(arg)))),
    ("fsck e2fsck", Flag(&["-y", "-f", "-a", "-p"])),
    ("xfs_repair", Args(|args| has_target(args) && !args.contains(&"-n"))),
    ("mdadm", Flag(&["--stop", "--fail", "--remove", "--zero-superblock"])),
    ("zfs zpool", First(&["destroy", "rollback", "offline", "detach", "export", "remove"])),
    ("ceph", First(&["osd out", "osd purge", "osd destroy", "osd rm", "osd pool delete"])),
    ("rbd", First(&["rm", "remove"])),
    ("umount", Args(has_target)),
    ("swapoff", Args(has_target)),
    ("kill", Args(kills)),
    ("pkill killall", Args(kills_by_name)),
    ("fuser", Flag(&["-k"])),
    (
        "systemctl",
        First(&[
            "stop", "restart", "try-restart", "reload-or-restart", "disable", "mask", "kill", "isolate", "reboot",
            "poweroff", "halt", "rescue", "emergency", "suspend",
        ]),
    ),
    ("service rc-service", Args(|args| matches!(args.get(1), Some(&("stop" | "restart"))))),
    ("supervisorctl", First(&["stop", "restart", "shutdown", "remove"])),
    ("pm2", First(&["stop", "restart", "delete", "kill"])),
    ("nginx", Word(&["stop", "quit"])),
    (
        "rabbitmqctl",
        Word(&["stop", "stop_app", "reset", "force_reset", "purge_queue", "delete_queue", "forget_cluster_node"]),
    ),
    ("Remove-Item Stop-Service Restart-Service Stop-Process", Args(|args| !args.is_empty())),
    ("Restart-Computer Stop-Computer", Called),
    ("taskkill del", Args(|args| args.iter().any(|arg| matches!(*arg, "/F" | "/f" | "/s" | "/q")))),
    ("nodetool", First(&["decommission", "removenode", "assassinate", "drain"])),
    ("kubeadm", First(&["reset"])),
    ("hdfs hadoop", Flag(&["-rm", "-rmr"])),
    ("pg_ctl", Word(&["stop", "restart"])),
    ("patronictl", First(&["failover", "switchover", "restart", "reinit", "remove"])),
    ("virsh", First(&["destroy", "shutdown", "reboot", "undefine"])),
    ("kafka-consumer-groups.sh kafka-consumer-groups", Flag(&["--execute", "--delete"])),
    (
        "iptables ip6tables",
        Args(|args| has_option(args, &["-F", "-X", "--flush"]) || args.contains(&"DROP") && !args.contains(&"-D")),
    ),
    ("nft", First(&["flush", "delete"])),
    ("ufw", First(&["disable", "reset"])),
    ("ip", Args(cuts_network)),
    ("ifconfig", Word(&["down"])),
    ("ifdown", Args(|args| !args.is_empty())),
    ("nmcli", Word(&["down", "off", "disconnect", "delete"])),
    ("chmod", Args(opens_to_all)),
    ("chown", Flag(&["-R", "--recursive"])),
    ("userdel groupdel", Args(|args| !args.is_empty())),
    ("crontab", Flag(&["-r"])),
    ("journalctl", Flag(&["--vacuum-size", "--vacuum-time", "--vacuum-files"])),
    ("apt apt-get yum dnf", First(&["remove", "purge", "erase", "autoremove"])),
    ("rpm", Flag(&["-e", "--erase"])),
    (
        "kubectl oc k",
        Args(|args| starts_with(args, &["delete", "drain", "rollout restart", "rollout undo"]) || scales_to_zero(args)),
    ),
    ("kubectl", FirstOption("replace", &["--force"])),
    ("helm", First(&["uninstall", "delete", "rollback"])),
    (
        "docker podman nerdctl",
        First(&[
            "rm", "rmi", "stop", "restart", "kill", "system prune", "volume rm", "volume prune", "image rm",
            "image prune", "network rm", "network prune", "container rm", "container stop", "container restart",
            "container kill", "container prune", "compose down", "compose stop", "compose restart", "compose rm",
            "compose kill", "service rm", "stack rm", "swarm leave",
        ]),
    ),
    ("docker-compose", First(&["down", "stop", "restart", "rm", "kill"])),
    ("crictl", First(&["rm", "rmi", "rmp", "stop", "stopp"])),
    ("git", Args(rewrites_history)),
    ("terraform tofu terragrunt pulumi", First(&["destroy"])),
    ("redis-cli", Word(&["shutdown", "SHUTDOWN", "del", "DEL", "unlink", "UNLINK"])),
    ("mysqladmin", Word(&["shutdown", "drop", "kill"])),
    ("etcdctl", First(&["del", "rm", "defrag", "member remove"])),
    ("kafka-topics.sh kafka-topics", Flag(&["--delete"])),
    ("curl", Args(|args| args.windows(2).any(is_method) || args.contains(&"-XDELETE"))),
    (
        "aws",
        Word(&[
            "terminate-instances", "stop-instances", "reboot-instances", "delete-db-instance", "reboot-db-instance",
            "rm", "rb",
        ]),
    ),
];

/// Statements, by their leading words; `#` stands for a number. In lower case they count where a command may begin.
pub(crate) const STATEMENTS: &[&str] = &[
    "drop table", "drop database", "drop schema", "drop index", "drop user", "drop view", "drop column",
    "drop partition", "drop tablespace", "truncate table", "stop slave", "stop replica", "reset master", "reset slave",
    "purge binary logs", "purge master logs", "flush tables with read lock", "vacuum full", "kill #", "kill query #",
    "kill connection #",
];

/// The rules about a program.
pub(crate) fn rules(program: &str) -> impl Iterator<Item = &'static Rule> {
    RULES.iter().filter(move |(programs, _)| has(programs, program))
}

/// Options whose next word is their value, for the programs whose subcommand may stand behind them.
const VALUED: &str = "-n --namespace --context --kubeconfig --cluster -C -H --host --endpoints --cacert --cert --key \
    --region --profile -f --file -c --project-name -s --server --kube-context";

/// Whether the words that are no options begin with one of `phrases`.
pub(crate) fn starts_with(args: &[&str], phrases: &[&str]) -> bool {
    let mut is_value = false;
    let words: Vec<&str> = args
        .iter()
        .copied()
        .filter(|arg| {
            let is_word = !is_value && !arg.starts_with('-');
            is_value = has(VALUED, arg);
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
    const ASKING: &str = "-0 -l -L -3 -QUIT -SIGQUIT -HUP -SIGHUP -1 -USR1 -USR2 -10";
    let Some(first) = args.first() else { return false };
    if has(ASKING, first) {
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
