package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A task is a row of docs/tasks.md.
type task struct {
	section, name string
	commands      []string // of ours
	none          bool     // there is no counterpart
}

// tasks reads the tables. A command of a row that another row has, as the page says by "as
// above", is not told twice.
func tasks(t *testing.T) (list []task) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "docs", "tasks.md"))
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([^`]+)`")
	section := ""
	for _, line := range lines(string(b)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			section = heading
		}
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) < 2 || cells[0] == "task" {
			continue
		}
		last := cells[len(cells)-1]
		one := task{section: section, name: cells[0], none: strings.HasPrefix(last, "**none")}
		if !one.none && !strings.Contains(last, "as above") {
			for _, m := range code.FindAllStringSubmatch(last, -1) {
				one.commands = append(one.commands, m[1])
			}
		}
		list = append(list, one)
	}
	return list
}

// TestTasks runs each line of docs/tasks.md, from the first to the last, in one terminal.
func TestTasks(t *testing.T) {
	t.Parallel()
	needTools(t, "openssl", "ssh-keygen", "softhsm2-util")
	list := tasks(t)
	done := map[string]int{}
	for _, one := range list {
		done[one.section]++
	}
	for _, section := range []string{"softhsm2-util", "p11sak", "pkcs11-tool", "p11tool", "ssh-agent and ssh-add", "ykman piv"} {
		if done[section] < 8 {
			t.Errorf("%s has %d tasks", section, done[section])
		}
	}
	d := startDaemon(t, daemonConfig{modern: true})
	term := d.terminal("bash")
	term.ok("export T O; " + taskFiles)
	ran := map[string]bool{}
	for _, one := range list {
		for _, command := range one.commands {
			if wordsOnly[command] {
				continue
			}
			ran[command] = true
			if r := term.run(answersTo(command)); r.status != 0 {
				t.Fatalf("%s: %s: %s\nended with %d\n%s%s", one.section, one.name, command, r.status, r.out, r.err)
			}
		}
		if strings.Contains(strings.Join(one.commands, "\n"), "PIN") {
			t.Errorf("%s: %s: a PIN is on a command line", one.section, one.name)
		}
	}
	// What the rows mean by "as above" was run.
	for _, command := range []string{"p11fs init swtok --label demo", "p11fs pin swtok", "p11fs pin --so swtok", "p11fs pin --unlock swtok"} {
		if !ran[command] {
			t.Errorf("%s is told as above, and no row has it", command)
		}
	}
}

// notTasks are the options of other tools that say how a task is done, with what, or how much
// is printed; what they are for is a row, or is asked for by p11fs itself.
var notTasks = map[string]string{
	"softhsm2-util": "help version file-pin force free id label module pin serial slot so-pin token",
	"pkcs11-tool": "module help mechanism hash-algorithm mgf salt-len session-rw login login-type pin puk new-pin so-pin key-type usage-sign derive-pass-der " +
		"application-label application-id issuer subject type id label slot slot-description slot-index object-index token-label attr-from input-file " +
		"signature-file output-file signature-format verbose private use-locking allow-sw iv moz-cert list-token-slots sensitive extractable aad generic tag-bits hkdf-hash salt-type salt-file salt-hex info-hex wrap-with uri list-locked",
	"p11tool": "bits curve sec-param label id ca private debug outfile login so-login admin-login sign-params hash pkcs8 inder inraw outder outraw provider " +
		"provider-opts detailed-url batch version help more-help trusted distrusted load-pubkey",
}

// TestNoTaskIsMissing holds the tables to what the other tools say they do: each of their
// options is in their section, or is none that does something by itself.
func TestNoTaskIsMissing(t *testing.T) {
	t.Parallel()
	needTools(t, "softhsm2-util", "pkcs11-tool", "p11tool")
	page, err := os.ReadFile("../docs/tasks.md")
	if err != nil {
		t.Fatal(err)
	}
	section := func(name string) string {
		_, text, ok := strings.Cut(string(page), "\n## "+name+"\n")
		if !ok {
			t.Fatalf("the page has no section %s", name)
		}
		text, _, _ = strings.Cut(text, "\n## ")
		return text
	}
	told := func(text, option string) bool {
		return regexp.MustCompile("`[^`]*" + regexp.QuoteMeta(option) + "[ `…=]").MatchString(text)
	}
	for tool, not := range notTasks {
		help, _ := command(tool, "--help") // pkcs11-tool's fails
		options := regexp.MustCompile(`(?m)^ +(?:-.[, ] ?)?--([a-z0-9-]+)`).FindAllStringSubmatch(help, -1)
		if len(options) < 15 {
			t.Errorf("%s --help names %d options:\n%s", tool, len(options), help)
		}
		for _, m := range options {
			if !told(section(tool), "--"+m[1]) && !slices.Contains(strings.Fields(not), m[1]) {
				t.Errorf("docs/tasks.md has no row for %s --%s", tool, m[1])
			}
		}
	}
	// Those that a machine seldom has, by their manual pages: openCryptoki 3.27, ykman 5.
	for name, words := range map[string]string{
		"p11sak": "generate-key list-key remove-key set-key-attr copy-key import-key export-key extract-pubkey wrap-key unwrap-key " +
			"import-cert list-cert remove-cert set-cert-attr copy-cert export-cert extract-cert-pubkey",
		"ssh-agent and ssh-add": "ssh-agent ssh-add -a -c -d -D -e -h -k -K -l -L -P -s -S -t -T -x -X -A",
		"ykman piv": "info reset change-pin change-puk change-management-key set-retries unblock-pin attest " +
			"generate import export delete move request --pin-policy --touch-policy",
	} {
		for word := range strings.FieldsSeq(words) {
			if !told(section(name), word) {
				t.Errorf("docs/tasks.md has no row for %s of %s", word, name)
			}
		}
	}
}

// wordsOnly are what rows name besides the lines to type.
var wordsOnly = map[string]bool{
	"p11fs import": true, "p11fs logout": true, "p11fs doctor": true, // which finds what it finds
}

// answersTo is a command with its answers on standard input. Both PINs are changed once.
func answersTo(command string) string {
	const secondPIN, secondSO = "4321second", "so-second"
	var answers []string
	switch {
	case strings.HasPrefix(command, "p11fs init "):
		answers = []string{soPIN, userPIN}
	case command == "p11fs login --so swtok":
		answers = []string{secondSO}
	case strings.HasPrefix(command, "p11fs token new "):
		answers = []string{soPIN, "two", userPIN}
	case strings.HasPrefix(command, "p11fs login "):
		answers = []string{userPIN}
	case command == "p11fs pin --so swtok":
		answers = []string{soPIN, secondSO}
	case command == "p11fs pin --unlock swtok":
		answers = []string{secondSO, userPIN}
	case command == "p11fs pin swtok":
		answers = []string{userPIN, secondPIN}
	default:
		return command
	}
	return "printf '%s\\n' " + strings.Join(answers, " ") + " | " + command
}

// taskFiles makes what the rows work on.
const taskFiles = `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out web.pem &&
openssl req -x509 -key web.pem -subj /CN=web -days 9 -out web.crt && openssl req -x509 -key web.pem -subj /CN=ca -days 9 -out ca.crt &&
echo phrase > phrase && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out plain.pem && openssl pkcs8 -topk8 -in plain.pem -passout file:phrase -out locked.pem &&
openssl genpkey -algorithm RSA -out rsa.pem 2> openssl.log &&
openssl pkey -in web.pem -pubout -out theirs.pub && head -c 32 /dev/urandom > disk.key && echo 'attack at dawn' > msg && cp msg note &&
ssh-keygen -q -t ed25519 -N '' -f id_ed25519 && ssh-keygen -q -s id_ed25519 -I me -n me id_ed25519.pub && mv id_ed25519-cert.pub laptop-cert.pub &&
mkdir softhsm && printf 'directories.tokendir = %s\n' $PWD/softhsm > softhsm.conf && export SOFTHSM2_CONF=$PWD/softhsm.conf &&
softhsm2-util --init-token --free --label theirs --so-pin 87654321 --pin 12345678 && softhsm2-util --token theirs --pin 12345678 --import plain.pem --label hsm --id 0a && echo 12345678 > their.pin`
