. "$CLIENTS/ssh.before.sh"
