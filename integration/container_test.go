package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// docker stands in for docker and podman, of which no package works without a service: it
// builds images of COPY and ENV, on what this machine has in /usr, and runs them by bubblewrap in
// namespaces of their own, with nothing of this machine but what -v gives.
const docker = `#!/bin/sh
set -eu
images=${0%/*}/images
what=$1; shift
case $what in
build)
	[ "$1" = -t ]
	mkdir -p $images/$2
	while read -r word a b; do
		case $word in
		COPY) cp $3/$a $images/$2/; echo --ro-bind $images/$2/$a $b ;;
		ENV) echo --setenv ${a%%=*} ${a#*=} ;;
		FROM | RUN | '') ;;
		*) echo "what is $word?" >&2; exit 1 ;;
		esac
	done < $3/Dockerfile > $images/$2.args
	;;
run)
	binds=
	while :; do
		case $1 in
		-i) shift ;;
		--user) user=$2; shift 2 ;;
		-v) binds="$binds --bind ${2%%:*} ${2#*:}"; shift 2 ;;
		*) break ;;
		esac
	done
	image=$(cat $images/$1.args); shift
	exec bwrap --clearenv --setenv PATH /usr/bin --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
		--proc /proc --dev /dev --tmpfs /tmp --perms 0755 --dir /opt --perms 0755 --dir /run $image $binds --unshare-pid --unshare-ipc --unshare-net --unshare-uts --new-session --die-with-parent \
		--cap-add CAP_SETUID --cap-add CAP_SETGID setpriv --reuid ${user%:*} --regid ${user#*:} --clear-groups --inh-caps=-all --bounding-set=-all "$@"
	;;
esac
`

// TestContainer runs the lines of docs/install.md for a container: its user signs through the
// socket and through the mount with the key of its grant, with no PIN, and gets nothing else.
func TestContainer(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "bwrap", "pkcs11-tool", "openssl", "setpriv")
	const heading = "A container that uses a key"
	d := startDaemon(t, daemonConfig{system: true})
	term := d.terminal("bash")
	d.initToken(term)
	term.ok("echo " + userPIN + " > $T/login && p11fs generate swtok ec:p256 label=web && p11fs generate swtok ec:p256 label=other && cat $O/web.pub/public.pem > web.pem")
	term.ok("p11fs logout swtok && echo " + userPIN + " | p11fs unlock swtok && mkdir -p " + d.dir + "/etc/p11fs/grants.d && echo 'attack at dawn' > msg")
	dir := strings.TrimSpace(term.ok("pwd"))
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(docker), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(docBlock(t, "install.md", "Dockerfile", heading)), 0o644); err != nil {
		t.Fatal(err)
	}
	script := strings.NewReplacer("/etc/p11fs", d.dir+"/etc/p11fs", "/run/p11fs:", d.dir+"/run/p11fs:", "-v /p11:", "-v "+d.mnt+":", "/usr/lib/pkcs11/libp11fs.so", ownModule(t), "systemctl reload p11fs", "true").
		Replace(docBlock(t, "install.md", "sh", heading))
	root, inside, ok := strings.Cut(script, "docker run")
	if !ok {
		t.Fatal("the page runs no container")
	}
	term.ok("PATH=$PWD:$PATH; set -e\n" + root)
	d.reload("msg=grants ", 1)
	term.ok("set -e\ndocker run" + inside + "set +e")
	term.ok("for sig in msg.sig msg.sig2; do openssl dgst -sha256 -verify web.pem -signature $sig msg || exit; done")

	run := "docker run -i --user 1000:$(getent group pkcs11 | cut -d: -f3) -v " + d.dir + "/run/p11fs:/run/p11fs -v " + d.mnt + ":/p11 signer sh -c "
	term.want(run+"'cat /p11/swtok/login; id -u; ls /p11/swtok/objects | grep key'", "public\n1000\nweb.key\n")
	for _, refused := range []string{
		"'cat > /p11/swtok/objects/other.key/sign'",
		"'rmdir /p11/swtok/objects/web.key'",
		"'pkcs11-tool --module /opt/libp11fs.so --list-objects --type privkey | grep other'",
		"'ls " + d.dir + "'",
	} {
		if r := term.run("echo | " + run + refused); r.status == 0 {
			t.Errorf("in the container: %s: %s", refused, r.out)
		}
	}
	// Another user of the group, in the same container, has no grant.
	if r := term.run(strings.ReplaceAll(run, "--user 1000:", "--user 1001:") + "'cat /p11/swtok/objects/web.key/info'"); r.status == 0 {
		t.Errorf("another user sees the key: %s", r.out)
	}
	term.close()
	d.stop()
}
