//! Names of programs that a model's commands call, as lists of words.

/// What follows one of them, up to the next Chinese letter, keeps its `*`, `_` and `~`.
pub(crate) const COMMANDS: &str = "awk aws cat cd chmod chown cp crictl ctr curl dd df dig docker du echo etcdctl \
    export find for git grep gzip head helm ip iptables java journalctl jq kubectl less ls lsof mkdir mongo mv mysql nc \
    openssl ps psql python3 redis-cli rm rsync scp sed ssh stat sudo systemctl tail tar unzip wc wget zgrep";

/// Others that stand behind the prompt of root, `# reboot`. They are words of English too.
pub(crate) const MORE_COMMANDS: &str = "apt apt-get crontab dmesg dnf fdisk free iostat iotop jcmd jmap jstack jstat \
    kill killall lsblk mdadm mount mtr mysqladmin mysqldump netstat nginx nslookup pidstat ping pkill pm2 poweroff \
    reboot route sar service shutdown smartctl ss supervisorctl sysctl tcpdump telnet top traceroute ufw umount uptime \
    vmstat watch who yum";

/// Those that are words of English too: a sentence may begin with them.
pub(crate) const ENGLISH: &str = "cat cd echo export find for free head kill less mount ping reboot route service \
    shutdown ss stat tail top watch who";

/// Programs that only look at what stands behind them.
pub(crate) const READERS: &str = "ag apropos ausearch awk cat echo egrep fgrep grep head history journalctl less ll ls \
    man pgrep printf rg stat tail wc whatis whereis which zcat zgrep";

/// Shells that run what they read.
pub(crate) const SHELLS: &str = "sh bash dash ash ksh zsh";

/// Other programs that run what they read.
pub(crate) const CLIENTS: &str = "clickhouse-client mariadb mongo mongosh mysql psql redis-cli sqlite3 sqlplus ssh";

/// Words that a command may stand behind.
pub(crate) const PREFIXES: &str = "sudo nohup xargs time env exec then do else watch nice ionice timeout run execute \
    try use command -- -exec -c $ # • - * + ☐ mysql> redis>";

/// Whether `word` is in a list of words.
pub(crate) fn has(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}
