// Package conf reads NAME.conf, the configuration of a slot whose token is a fleet's:
//
//	endpoint = https://etcd1.example.org:2379   # of a member of etcd; one line for each
//	endpoint = https://etcd2.example.org:2379
//	prefix   = /p11fs/web/                      # of the token's keys in etcd
//	ca       = /etc/p11fs/etcd-ca.pem           # what members' certificates are signed with
//	cert     = /etc/p11fs/web1.pem              # this machine's certificate, and its key
//	key      = /etc/p11fs/web1.key
//	sealkey  = credential:fleet.key             # what values are sealed with (package seal)
//	host     = web1                             # of this machine; its name without the line
//	lease    = 10s                              # how long others wait for a machine that is lost
//	readalone = yes                             # public objects are read without contact, too
//
// The grammar is that of the other kinds' own configurations (package cardway): a name, = and a
// value, which stands in quotes if it has blanks; # begins a comment. Files have absolute paths,
// or credential:NAME for a credential that systemd gives the daemon (LoadCredential).
package conf
