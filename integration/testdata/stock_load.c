/*
 * A process of the stock library under load: it creates, changes, reads and
 * destroys objects and signs, and writes down what it did and when.
 *
 * usage: stock_load MODULE PIN DIR WORKER NAME SEED   work until DIR/stop is there
 *        stock_load list MODULE PIN                   list all objects
 *        stock_load await PID                         wait until the slot manager has forgotten PID
 *        stock_load kill PID LOCK                     kill PID, at best while it holds the lock file
 *        stock_load sessions                          the slot manager's sessions: of all, and of each process
 *
 * DIR/NAME.log gets a line before each operation, "C TIME OPERATION KEY VALUE",
 * and one after it, "R TIME RESULT"; so what was under way when the process is
 * killed can be told. Times are microseconds of the real-time clock. DIR/shared.N
 * names the object that is now shared in place N. After "stop" it waits for
 * DIR/list, lists all objects in DIR/NAME.list, and ends when DIR/end is there.
 *
 * Objects are created under a shared lock on DIR/gate, so that a process can be
 * started while no other creates: it would copy an old next name over the newer
 * one (defect D2).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

/* PAUSE bounds the microseconds between two operations, so that a few processes do
 * not keep everybody else from the token's lock. */
enum { OWN = 24, TEXT = 128, PAUSE = 12000 };

static CK_FUNCTION_LIST_PTR p11;
static CK_SESSION_HANDLE session;
static const char *dir, *name;
static int worker, log_fd, gate;
static unsigned seq;

static void die(const char *what)
{
	fprintf(stderr, "stock_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* One line in one write, so that a kill leaves it whole or not at all. */
static void say(const char *format, ...)
{
	char line[2048];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line, sizeof line - 1, format, args);
	va_end(args);
	line[n] = '\n';
	if (write(log_fd, line, n + 1) != n + 1)
		die("log");
}

static void call(const char *op, const char *key, const char *arg)
{
	say("C %ld %s %s %s", now(), op, key, arg);
}

static void result(CK_RV rv, const char *value)
{
	if (rv == CKR_OK)
		say("R %ld ok %s", now(), value);
	else if (rv == CKR_OBJECT_HANDLE_INVALID)
		say("R %ld absent", now());
	else
		say("R %ld err 0x%lx", now(), rv);
}

/* An object of this process. */
struct own {
	CK_OBJECT_HANDLE handle;
	char key[TEXT];
};

static struct own own[OWN];

static CK_RV create(const char *label, const char *value, int private, CK_OBJECT_HANDLE *handle)
{
	CK_OBJECT_CLASS class = CKO_DATA;
	CK_BBOOL yes = CK_TRUE, hidden = private;
	CK_ATTRIBUTE t[] = {
		{ CKA_CLASS, &class, sizeof class },
		{ CKA_TOKEN, &yes, sizeof yes },
		{ CKA_PRIVATE, &hidden, sizeof hidden },
		{ CKA_LABEL, (void *)label, strlen(label) },
		{ CKA_APPLICATION, "", 0 },
		{ CKA_VALUE, (void *)value, strlen(value) },
	};
	if (flock(gate, LOCK_SH) != 0)
		die("gate");
	call("create", label, value);
	CK_RV rv = p11->C_CreateObject(session, t, 6, handle);
	result(rv, "");
	flock(gate, LOCK_UN);
	return rv;
}

static CK_RV set(CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_TYPE type, const char *key, const char *text, const void *value, size_t size)
{
	CK_ATTRIBUTE a = { type, (void *)value, size };
	call("write", key, text);
	CK_RV rv = p11->C_SetAttributeValue(session, handle, &a, 1);
	result(rv, "");
	return rv;
}

static CK_RV destroy(CK_OBJECT_HANDLE handle, const char *key)
{
	call("destroy", key, "");
	CK_RV rv = p11->C_DestroyObject(session, handle);
	result(rv, "");
	return rv;
}

/* get reads an attribute as text: a CKA_ID in hexadecimal, others as they are. */
static CK_RV get(CK_OBJECT_HANDLE handle, CK_ATTRIBUTE_TYPE type, char text[TEXT])
{
	unsigned char raw[TEXT / 2 - 2];
	CK_ATTRIBUTE a = { type, raw, sizeof raw };
	text[0] = 0;
	CK_RV rv = p11->C_GetAttributeValue(session, handle, &a, 1);
	if (rv != CKR_OK)
		return rv;
	char *at = text;
	if (type == CKA_ID)
		at += sprintf(at, "0x");
	for (CK_ULONG i = 0; i < a.ulValueLen; i++) {
		if (type == CKA_ID)
			at += sprintf(at, "%02x", raw[i]);
		else if (raw[i] != '\n')
			*at++ = raw[i];
	}
	*at = 0;
	return CKR_OK;
}

/* find returns the object with an attribute, or CKR_OBJECT_HANDLE_INVALID. */
static CK_RV find(CK_ATTRIBUTE_TYPE type, const void *value, size_t size, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *handle)
{
	CK_ATTRIBUTE t[] = { { CKA_CLASS, &class, sizeof class }, { type, (void *)value, size } };
	CK_ULONG n = 0;
	CK_RV rv = p11->C_FindObjectsInit(session, t, 2);
	if (rv == CKR_OK)
		rv = p11->C_FindObjects(session, handle, 1, &n);
	p11->C_FindObjectsFinal(session);
	if (rv == CKR_OK && n == 0)
		rv = CKR_OBJECT_HANDLE_INVALID;
	return rv;
}

static CK_OBJECT_HANDLE key_handle;

static void sign(void)
{
	CK_MECHANISM m = { CKM_SHA1_RSA_PKCS, NULL, 0 };
	unsigned char sig[512];
	CK_ULONG n = sizeof sig;
	char message[TEXT], hex[2 * sizeof sig + 1] = "";
	snprintf(message, sizeof message, "%s.%u", name, ++seq);
	call("sign", "load", message);
	CK_RV rv = p11->C_SignInit(session, &m, key_handle);
	if (rv == CKR_OK)
		rv = p11->C_Sign(session, (unsigned char *)message, strlen(message), sig, &n);
	for (CK_ULONG i = 0; rv == CKR_OK && i < n; i++)
		sprintf(hex + 2 * i, "%02x", sig[i]);
	result(rv, hex);
}

static const char *next_value(void)
{
	static char value[TEXT];
	snprintf(value, sizeof value, "%s.%u", name, ++seq);
	return value;
}

/* own_object does something to an object that only this process changes. */
static void own_object(int what)
{
	struct own *o = &own[rand() % OWN];
	char text[TEXT];
	if (!o->key[0]) {
		snprintf(o->key, sizeof o->key, "%s-%u", name, ++seq);
		if (create(o->key, next_value(), rand() % 2, &o->handle) != CKR_OK)
			o->key[0] = 0;
	} else if (what < 45) {
		const char *v = next_value();
		set(o->handle, CKA_VALUE, o->key, v, v, strlen(v));
	} else if (what < 60) {
		call("read", o->key, "");
		CK_RV rv = get(o->handle, CKA_VALUE, text);
		result(rv, text);
	} else {
		destroy(o->handle, o->key);
		o->key[0] = 0;
	}
}

static int shared_name(int place, char label[TEXT])
{
	char path[4096];
	snprintf(path, sizeof path, "%s/shared.%d", dir, place);
	label[0] = 0;
	FILE *f = fopen(path, "r");
	if (!f)
		return 0;
	int ok = fscanf(f, "%127s", label) == 1;
	ok = ok && fgetc(f) == '\n';
	fclose(f);
	return ok;
}

/* mine says that this process made the shared object called label. */
static int mine(const char *label)
{
	size_t n = strlen(name);
	return strncmp(label, name, n) == 0 && label[n] == '-';
}

static void share(int place, const char *label)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/shared.%d", dir, place);
	FILE *f = fopen(path, "w");
	if (!f || fprintf(f, "%s\n", label) < 0 || fclose(f) != 0)
		die(path);
}

/*
 * The places of shared objects, and what changes in each: CKA_APPLICATION of a data
 * object, CKA_ID or CKA_LABEL of a key, CKA_VALUE of a data object. The shell of the
 * same number keeps an object in each of the first four; stock processes change it
 * in two of them as well. A stock process keeps those of the last two.
 */
enum { TEXT_0, TEXT_1, ID_2, LABEL_3, STOCK_4, STOCK_5, PLACES };

static const int keeper[PLACES] = { [STOCK_4] = 2, [STOCK_5] = 3 };
static const int writer[PLACES] = { [TEXT_0] = -1, [TEXT_1] = 0, [ID_2] = 1, [LABEL_3] = -1, [STOCK_4] = 2, [STOCK_5] = 3 };

static void share_new(int place)
{
	char label[TEXT];
	CK_OBJECT_HANDLE handle;
	snprintf(label, sizeof label, "%s-s%d-%u", name, place, ++seq);
	if (create(label, next_value(), place == STOCK_5, &handle) == CKR_OK)
		share(place, label);
}

static CK_RV find_shared(int place, const char *label, CK_OBJECT_HANDLE *handle)
{
	if (place != LABEL_3)
		return find(CKA_LABEL, label, strlen(label), place == ID_2 ? CKO_SECRET_KEY : CKO_DATA, handle);
	/* Its label begins with k and its CKA_ID, which stays. */
	unsigned char id[TEXT];
	size_t n = 0;
	for (const char *c = label + 1; c[0] && c[1]; c += 2, n++)
		sscanf(c, "%2hhx", &id[n]);
	return find(CKA_ID, id, n, CKO_SECRET_KEY, handle);
}

static void shared_object(void)
{
	static const CK_ATTRIBUTE_TYPE changing[PLACES] = { CKA_APPLICATION, CKA_APPLICATION, CKA_ID, CKA_LABEL, CKA_VALUE, CKA_VALUE };
	char label[TEXT], text[TEXT];
	CK_OBJECT_HANDLE handle = 0;
	int place = rand() % PLACES, what = rand() % 100;
	int mine_to_keep = place >= STOCK_4 && keeper[place] == worker;
	int shared = shared_name(place, label);
	if (mine_to_keep && (!shared || !mine(label))) {
		share_new(place);
		return;
	}
	if (!shared)
		return;
	call("read", label, "");
	CK_RV rv = find_shared(place, label, &handle);
	if (rv == CKR_OK)
		rv = get(handle, changing[place], text);
	result(rv, text);
	if (rv == CKR_OK && writer[place] == worker && what < 50) {
		const char *v = next_value();
		unsigned char id[] = { worker, seq >> 24, seq >> 16, seq >> 8, seq };
		snprintf(text, sizeof text, "0x%02x%08x", worker, seq);
		if (place == ID_2)
			set(handle, CKA_ID, label, text, id, sizeof id);
		else
			set(handle, changing[place], label, v, v, strlen(v));
	} else if (rv == CKR_OK && what >= 95 && mine_to_keep) {
		destroy(handle, label);
		rv = CKR_OBJECT_HANDLE_INVALID;
	}
	if (rv == CKR_OBJECT_HANDLE_INVALID && mine_to_keep)
		share_new(place);
}

static int there(const char *file)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", dir, file);
	return access(path, F_OK) == 0;
}

/* list writes a line for each object that this process sees: the CK_RV that asking
 * for its class gave, class, label, and its value, application and CKA_ID. */
static void list(FILE *f)
{
	CK_OBJECT_HANDLE handles[64];
	CK_ULONG n;
	if (p11->C_FindObjectsInit(session, NULL, 0) != CKR_OK)
		die("C_FindObjectsInit");
	while (p11->C_FindObjects(session, handles, 64, &n) == CKR_OK && n > 0) {
		for (CK_ULONG i = 0; i < n; i++) {
			CK_OBJECT_CLASS class = 0;
			CK_ATTRIBUTE a = { CKA_CLASS, &class, sizeof class };
			static const CK_ATTRIBUTE_TYPE types[] = { CKA_LABEL, CKA_VALUE, CKA_APPLICATION, CKA_ID };
			CK_RV rv = p11->C_GetAttributeValue(session, handles[i], &a, 1);
			fprintf(f, "%lx\t%lx", rv, class);
			for (size_t j = 0; j < sizeof types / sizeof types[0]; j++) {
				char text[TEXT];
				if (get(handles[i], types[j], text) != CKR_OK)
					text[0] = 0;
				fprintf(f, "\t%s", text);
			}
			fputc('\n', f);
		}
	}
	p11->C_FindObjectsFinal(session);
}

/* start opens a session and logs in. */
static CK_RV start(const char *module, const char *pin, char **argv)
{
	void *lib = dlopen(module, RTLD_NOW);
	if (!lib)
		die(module);
	CK_C_GetFunctionList get_list = (CK_C_GetFunctionList)dlsym(lib, "C_GetFunctionList");
	CK_RV rv = get_list(&p11);
	if (rv == CKR_OK)
		rv = p11->C_Initialize(NULL);
	if (rv == CKR_OK)
		rv = p11->C_OpenSession(0, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);
	if (rv == CKR_TOKEN_NOT_PRESENT || rv == CKR_SLOT_ID_INVALID) {
		/* It met an NVTOK.DAT that another process is about to write. Again, in
		 * a new process: after C_Finalize it would have no API lock. */
		p11->C_Finalize(NULL);
		usleep(10000);
		execv("/proc/self/exe", argv);
		die("exec");
	}
	if (rv == CKR_OK)
		rv = p11->C_Login(session, CKU_USER, (unsigned char *)pin, strlen(pin));
	return rv;
}

static int work(char **argv)
{
	char path[4096];
	dir = argv[3];
	worker = atoi(argv[4]);
	name = argv[5];
	srand(atoi(argv[6]));
	snprintf(path, sizeof path, "%s/gate", dir);
	gate = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
	snprintf(path, sizeof path, "%s/%s.log", dir, name);
	log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (log_fd < 0 || gate < 0)
		die(path);
	CK_SESSION_HANDLE second;
	CK_RV rv = start(argv[1], argv[2], argv);
	if (rv == CKR_OK)
		rv = p11->C_OpenSession(0, CKF_SERIAL_SESSION, NULL, NULL, &second);
	if (rv == CKR_OK)
		rv = find(CKA_LABEL, "load", 4, CKO_PRIVATE_KEY, &key_handle);
	if (rv != CKR_OK) {
		fprintf(stderr, "stock_load: %s: start: 0x%lx\n", name, rv);
		return 1;
	}
	say("# working");
	while (!there("stop")) {
		int what = rand() % 100;
		if (what < 60)
			own_object(rand() % 100);
		else if (what < 75)
			sign();
		else
			shared_object();
		usleep(rand() % PAUSE);
	}
	say("# stopped");
	while (!there("list"))
		usleep(10000);
	snprintf(path, sizeof path, "%s/%s.list", dir, name);
	FILE *f = fopen(path, "w");
	if (!f)
		die(path);
	list(f);
	if (fclose(f) != 0)
		die(path);
	say("# listed");
	while (!there("end"))
		usleep(10000);
	rv = p11->C_Finalize(NULL);
	say("# ended 0x%lx", rv);
	return rv != CKR_OK;
}

/* The slot manager's segment. */
enum { SEGMENT = 4124096, TABLE = 4096, PROCESSES = 1000, PROCESS = 4120, OWN_SESSIONS = 16 };

static unsigned u32(const unsigned char *at)
{
	return at[0] | at[1] << 8 | at[2] << 16 | (unsigned)at[3] << 24;
}

/* sessions writes the number of sessions of all processes, and of each one, and says
 * whether pid is registered. */
static int sessions(int pid, FILE *f)
{
	int lock = open("/var/lock/opencryptoki/LCK..APIlock", O_RDONLY | O_CLOEXEC);
	int id = shmget(ftok("/usr/sbin/pkcsslotd", 'b'), SEGMENT, 0);
	if (lock < 0 || id < 0)
		die("the slot manager's segment");
	unsigned char *m = shmat(id, NULL, SHM_RDONLY);
	if (m == (void *)-1 || flock(lock, LOCK_EX) != 0)
		die("the slot manager's segment");
	int registered = 0;
	if (f)
		fprintf(f, "all %u\n", u32(m));
	for (int i = 0; i < PROCESSES; i++) {
		const unsigned char *e = m + TABLE + i * PROCESS;
		if (!e[0])
			continue;
		if (f)
			fprintf(f, "%u %u\n", u32(e + 4), u32(e + OWN_SESSIONS));
		registered |= (int)u32(e + 4) == pid;
	}
	close(lock);
	shmdt(m);
	return registered;
}

static int await(int pid)
{
	for (long from = now(); sessions(pid, NULL); usleep(20000)) {
		if (now() - from > 60000000)
			return 1;
	}
	return 0;
}

/* holds says that a process has a lock on a file. */
static int holds(int pid, ino_t inode)
{
	char line[256];
	FILE *f = fopen("/proc/locks", "r");
	int found = 0;
	while (f && fgets(line, sizeof line, f)) {
		int p, major, minor;
		unsigned long i;
		if (strstr(line, "->") || sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%lu", &p, &major, &minor, &i) != 4)
			continue;
		found |= p == pid && i == inode;
	}
	if (f)
		fclose(f);
	return found;
}

static int kill_holder(int pid, const char *lock)
{
	struct stat st;
	if (stat(lock, &st) != 0)
		die(lock);
	int held = 0;
	for (long from = now(); now() - from < 3000000; usleep(rand() % 3000)) {
		if (kill(pid, SIGSTOP) != 0)
			die("kill");
		usleep(1000); /* until it has stopped */
		held = holds(pid, st.st_ino);
		if (held)
			break;
		kill(pid, SIGCONT);
	}
	if (kill(pid, SIGKILL) != 0)
		die("kill");
	puts(held ? "held" : "free");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "await"))
		return await(atoi(argv[2]));
	if (argc == 4 && !strcmp(argv[1], "kill"))
		return kill_holder(atoi(argv[2]), argv[3]);
	if (argc == 2 && !strcmp(argv[1], "sessions")) {
		sessions(0, stdout);
		return 0;
	}
	if (argc == 4 && !strcmp(argv[1], "list")) {
		CK_RV rv = start(argv[2], argv[3], argv);
		if (rv == CKR_OK) {
			list(stdout);
			rv = p11->C_Finalize(NULL);
		}
		return rv != CKR_OK;
	}
	if (argc == 7)
		return work(argv);
	fprintf(stderr, "usage: stock_load MODULE PIN DIR WORKER NAME SEED\n");
	return 2;
}
