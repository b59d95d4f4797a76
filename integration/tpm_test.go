package integration

import (
	"strings"
	"syscall"
	"testing"

	"p11fs/tokens/tpm/tpmtest"
)

// tpmDaemon is a daemon whose token has a software TPM.
func tpmDaemon(soft *tpmtest.TPM) daemonConfig {
	return daemonConfig{token: "tpm", modern: true, wrap: []string{"env", "P11FS_TPM=" + soft.Device()}}
}

// TestTPM makes, imports and uses keys through the mount, while the TPM goes and comes.
func TestTPM(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "swtpm")
	soft := tpmtest.Start(t, nil)
	_, term := ready(t, tpmDaemon(soft))
	term.ok("echo hello > msg; /bin/echo rsa:2048 label=made > $T/generate; /bin/echo ec:p256 label=curve > $T/generate")
	term.ok("openssl genrsa -out own.pem 2048 && openssl rsa -in own.pem -pubout -out own.pub && cat own.pem > $T/import && ls $O")
	const works = "cat msg > $O/made.key/sign; cat $O/made.key/sign > sig; openssl dgst -sha256 -verify $O/made.pub/public.pem -signature sig msg"
	term.ok(works)
	term.ok("cat msg > $O/curve.key/sign; cat $O/curve.key/sign > sig; ls -l sig")
	for _, line := range []string{"/bin/echo rsa:4096 > $T/generate", "/bin/echo ec:secp256k1 > $T/generate"} {
		term.fails(line, syscall.EINVAL)
	}
	term.ok("grep 'device tpm: protection ' $P/status")
	soft.Kill()
	term.fails("cat msg > $O/made.key/sign", syscall.ENODEV)
	if said := term.ok("cat $T/error"); !strings.Contains(said, "CKR_DEVICE_REMOVED") {
		t.Errorf("error says %q", said)
	}
	term.ok("grep offline $P/status")
	soft.Run(t)
	term.ok("for i in $(seq 100); do grep -q offline $P/status || break; sleep 0.1; done; " + works)
}
