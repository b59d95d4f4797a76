package libcard

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"p11fs/tokens/card"
)

// A running is the program, which does what it is told by numbers.
type running struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, program, socket string) *running {
	t.Helper()
	p := &running{cmd: exec.Command(program)}
	p.cmd.Env = append(os.Environ(), "P11FS_CARD="+socket)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill() // a test that failed
			_ = p.cmd.Wait()
		}
	})
	return p
}

// do returns the line that the program prints for a number.
func (p *running) do(t *testing.T, n int) string {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, n); err != nil {
		t.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%q, %v, %v", line, err, p.cmd.Wait())
	}
	return strings.TrimSuffix(line, "\n")
}

func (p *running) end(t *testing.T) {
	t.Helper()
	if err := p.in.Close(); err != nil {
		t.Error(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the program: %v", err)
	}
}

// extra are the targets, and a fork; each prints the return value of a call of one.
const extra = `
struct module { uint32_t version; uint64_t flags; uint32_t domains; unsigned char mask[32];
	struct { char host[257]; uint32_t port; } socket; uint32_t number; void *handle; uint32_t performance[256]; uint32_t api; };
extern int m_init(void), m_shutdown(void), m_add_module(struct module *, target_t *), m_rm_module(struct module *, target_t);
struct old { int16_t format, length, apqns[512]; };
static target_t group = ~(target_t)0;
static atomic_bool ended;

/* busy adds modules and takes them out again. */
static void *busy(void *unused)
{
	struct module m = {.version = 2, .flags = 2, .mask = {0x40}};

	(void)unused;
	while (!ended) {
		target_t t = ~(target_t)0;
		if (m_add_module(&m, &t) != 0 || m_rm_module(NULL, t) != 0)
			abort();
	}
	return NULL;
}

static void extra(unsigned n)
{
	static struct old old = {0, 2, {1, 2, 3, 4}};
	struct module m = {.version = 2, .flags = 0x12, .number = n % 10};
	CK_MECHANISM_INFO i;
	int status = 0;

	switch (n / 1000) {
	case 1: /* an address */
		printf("%#lx\n", m_GetMechanismInfo(0, 0, &i, (target_t)(uintptr_t)&old));
		return;
	case 2: /* an address of something else */
		old.format = 7;
		printf("%#lx\n", m_GetMechanismInfo(0, 0, &i, (target_t)(uintptr_t)&old));
		old.format = 0;
		return;
	case 3: /* one more domain of the group, 1 */
		m.mask[0] = 0x40;
		printf("%d", m_add_module(&m, &group));
		printf(" %#lx\n", m_GetMechanismInfo(0, 0, &i, group));
		return;
	case 4: /* one less */
		m.mask[0] = 0x40;
		printf("%d", m_rm_module(&m, group));
		printf(" %#lx\n", m_GetMechanismInfo(0, 0, &i, group));
		return;
	case 5: { /* any, as a group of nothing */
		target_t any = ~(target_t)0;
		printf("%d", m_add_module(&m, &any));
		printf(" %#lx", m_GetMechanismInfo(0, 0, &i, any));
		printf(" %d\n", m_rm_module(NULL, any));
		return;
	}
	case 6: /* what is no module */
		m.version = 9;
		printf("%d", m_add_module(&m, &group));
		m.version = 1; m.flags = 1;
		printf(" %d", m_add_module(&m, &group));
		m.flags = 2;
		printf(" %d\n", m_add_module(&m, &(target_t){~(target_t)0}));
		return;
	case 7: /* a child has connections of its own */
		if (fork() == 0)
			_exit(m_GetMechanismInfo(0, 0, &i, 0) != 0);
		wait(&status);
		printf("%d %#lx\n", status, m_GetMechanismInfo(0, 0, &i, 0));
		return;
	case 8: { /* children whose parent is at work on its targets */
		enum { CHILDREN = 20 };
		pthread_t thread;
		int bad = 0;

		if (pthread_create(&thread, NULL, busy, NULL) != 0)
			abort();
		for (int j = 0; j < CHILDREN && bad == 0; j++) {
			pid_t child = fork();
			if (child == 0) {
				alarm(60); /* ends one that waits */
				(void)m_GetMechanismInfo(0, 0, &i, group); /* which is there or not */
				_exit(0);
			}
			if (waitpid(child, &status, 0) != child || status != 0)
				bad++;
		}
		ended = true;
		pthread_join(thread, NULL);
		printf("%d\n", bad);
		return;
	}
	default:
		printf("%#lx\n", m_GetMechanismInfo(0, 0, &i, 0));
	}
}
`

// targets is of both forms of targets, of a child, and of a server that goes and comes. No
// sample has a number that is so high.
func targets(t *testing.T, p *running, via *scripted, socket string, stop func()) {
	t.Helper()
	expect := func(n int, want, target string) {
		t.Helper()
		via.mu.Lock()
		via.last = &card.Call{}
		via.mu.Unlock()
		if got := p.do(t, n); got != want {
			t.Errorf("%d: %s, not %s", n, got, want)
		}
		via.mu.Lock()
		defer via.mu.Unlock()
		if got := fmt.Sprint(via.last.Target); got != target {
			t.Errorf("%d: target %s, not %s", n, got, target)
		}
	}
	expect(1000, "0", "[01.0002 03.0004]")
	expect(2000, "0x80010030", "[]")
	expect(3005, "0 0", "[05.0001]")
	expect(3006, "0 0", "[05.0001 06.0001]")
	expect(4005, "0 0", "[06.0001]")
	expect(4006, "0 0x80010030", "[]")
	expect(5000, "0 0 0", "[]")
	expect(6000, "-102 -103 -105", "[]")
	expect(1000, "0x80010030", "[]") // since there are modules, no address is looked at
	expect(7000, "0 0", "[]")
	if got := p.do(t, 8000); got != "0" {
		t.Errorf("%s children do not end", got)
	}
	stop()
	expect(9000, "0x80010003", "[]")
	serve(t, socket, card.EP11, via)
	expect(9000, "0", "[]")
}
