# A server of our own: its host key, a port of its own, and this user's login.
ssh-keygen -q -t ed25519 -N '' -f host
echo "[127.0.0.1]:$PORT $(cut -d' ' -f1,2 host.pub)" > known_hosts
touch authorized_keys
cat > sshd.conf << END
ListenAddress 127.0.0.1:$PORT
HostKey $PWD/host
PidFile none
AuthorizedKeysFile $PWD/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
Subsystem sftp internal-sftp
END
sshd=$(command -v sshd)
if [ "$(id -u)" = 0 ]; then
	# As root it wants /run/sshd, which is the system's to make.
	unshare --mount sh -c 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"' - "$sshd" -D -e -f "$PWD/sshd.conf" 2> sshd.log &
else
	"$sshd" -D -e -f "$PWD/sshd.conf" 2> sshd.log &
fi
SSHD=$!
trap 'status=$?; cat sshd.log >&2; kill $SSHD; [ -z "$SSH_AGENT_PID" ] || ssh-agent -k' EXIT

# ssh-add asks who is at the terminal; here nobody is.
printf '#!/bin/sh\necho 1234abcd\n' > askpass
chmod +x askpass
export SSH_ASKPASS=$PWD/askpass SSH_ASKPASS_REQUIRE=force

# A module that is not installed is in a place of which the agent must be told.
case $M in
/usr/*) ;;
*)
	mkdir bin
	printf '#!/bin/sh\nexec %s -P "%s" "$@"\n' "$(command -v ssh-agent)" "$M" > bin/ssh-agent
	chmod +x bin/ssh-agent
	PATH=$PWD/bin:$PATH
	;;
esac
