package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestKilledWritersOfOthers: half of what somebody wanted to write is nothing, also where
// the daemon may not see how another user's process ends.
func TestKilledWritersOfOthers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needTools(t, "setpriv", "python3")
	d := startDaemon(t, daemonConfig{system: true, wrap: []string{"setpriv", "--bounding-set", "-sys_ptrace"}})
	d.initToken(d.terminal())
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "CapEff:")
	var capabilities uint64
	if _, err := fmt.Sscanf(after, "%x", &capabilities); err != nil || capabilities&(1<<19) != 0 {
		t.Fatalf("the daemon has CAP_SYS_PTRACE: %x, %v", capabilities, err)
	}
	term := d.terminalOf(anotherUser(t, "daemon", "pkcs11"), "bash")
	term.ok("echo " + userPIN + " > $T/login && printf old > $T/data/k && mkfifo pipe && echo new > new")
	for _, line := range []string{
		"sh -c 'printf half; exec sleep 9' > $T/data/k & sleep 0.2; kill -9 $!; wait $!",
		"sh -c 'printf half; exec sleep 9' >> $T/data/k & sleep 0.2; kill $!; wait $!",
		"exec 4<>pipe; timeout -s INT 0.3 cat new pipe > $T/data/k; exec 4>&-",
		"python3 -c 'import os, sys; f=open(sys.argv[1], \"wb\", 0); f.write(b\"half\"); os.kill(os.getpid(), 9)' $T/data/k",
		"python3 -c 'import os, sys, threading, time; f=open(sys.argv[1], \"wb\", 0); f.write(b\"half\"); threading.Thread(target=time.sleep, args=(9,)).start(); os.kill(os.getpid(), 15)' $T/data/k",
	} {
		term.run(line)
		term.want("cat $T/data/k", "old")
	}
	// Who ends without a close has written the whole, whatever its threads do.
	for _, line := range []string{
		"python3 -c 'import os, sys; f=open(sys.argv[1], \"wb\", 0); f.write(b\"whole\"); os._exit(0)' $T/data/k",
		"python3 -c 'import os, sys, threading, time; f=open(sys.argv[1], \"wb\", 0); f.write(b\"whole\"); [threading.Thread(target=time.sleep, args=(9,)).start() for _ in range(8)]; os._exit(0)' $T/data/k",
		"python3 -c 'import os, sys, threading, time; f=open(sys.argv[1], \"wb\", 0); f.write(b\"whole\"); threading.Thread(target=lambda: os._exit(0)).start(); time.sleep(9)' $T/data/k",
	} {
		for range 5 {
			term.ok("printf old > $T/data/k && " + line)
			term.want("cat $T/data/k", "whole")
		}
	}
}
