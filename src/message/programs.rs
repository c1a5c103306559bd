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

/// Whether `word` is in a list of words.
pub(crate) fn has(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}
