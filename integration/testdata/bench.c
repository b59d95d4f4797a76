/*
 * How fast a door to a token is: it does one kind of work again and again, and says how
 * often.
 *
 * usage: bench module MODULE LABEL PIN   a PKCS#11 module in this process
 *        bench files TOKEN               a token's folder in a mount, as one who is logged in
 *
 * A line on standard input, "WORK THREADS MILLISECONDS", is answered by a line: how many
 * times the work was done, in how many nanoseconds, with how many nanoseconds of
 * processor time and switches of threads of this process, how many nanoseconds half of the
 * times and 99 of 100 took at most, and how often the thread did it that did it least; or
 * "refused" and why. THREADS may be pN: N processes of one thread each, of which the last
 * three numbers are not known, and 0.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <p11-kit/pkcs11.h>

enum { PART = 64 << 10, MOST = 16 << 20, THREADS = 128, FOUND = 1000, STEPS = 16 };

#define SAID(ok) do { if (!(ok)) { snprintf(refusal, sizeof refusal, "%.40s: %.20s", #ok, strerror(errno)); return refusal; } } while (0)

static char refusal[64];

/* Numbers that a header of PKCS#11 2.40 has not. */
enum {
	EDDSA = 0x1057, EDWARDS_PAIR = 0x1055, EDWARDS = 0x40,
	ML_DSA = 0x1d, ML_DSA_PAIR = 0x1c, ML_DSA_KEY = 0x4a, PARAMETER_SET = 0x61d,
};

static CK_FUNCTION_LIST *p11;
static CK_SLOT_ID slot;
static const char *label, *pin, *folder;
static char **arguments;
static unsigned char plain[MOST];

/* A worker is a thread's own part of the work. Each call returns NULL, or what went wrong. */
struct worker {
	const char *work, *failed;
	const char *(*once)(struct worker *);
	CK_SESSION_HANDLE session;
	CK_OBJECT_HANDLE key;
	CK_MECHANISM mechanism;
	int held, parts;
	char path[4096];
	unsigned long size, signature_size;
	unsigned char signature[8192], *out;
	long long end, begun, ended, count;
	unsigned took[64 * STEPS]; /* how often it took that long, see step_of */
	pthread_t thread;
};

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static const char *rv(CK_RV v)
{
	if (v == CKR_OK)
		return NULL;
	snprintf(refusal, sizeof refusal, "CKR 0x%lx", v);
	return refusal;
}

#define TRY(call) do { const char *_why = rv(call); if (_why) return _why; } while (0)

static const char *open_module(const char *module)
{
	CK_SLOT_ID slots[64];
	CK_ULONG n = 64;
	CK_TOKEN_INFO info;
	CK_RV (*list)(CK_FUNCTION_LIST **);
	CK_C_INITIALIZE_ARGS threads = {.flags = CKF_OS_LOCKING_OK};
	void *lib = dlopen(module, RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return dlerror();
	*(void **)&list = dlsym(lib, "C_GetFunctionList");
	SAID(list);
	TRY(list(&p11));
	TRY(p11->C_Initialize(&threads));
	TRY(p11->C_GetSlotList(CK_TRUE, slots, &n));
	for (CK_ULONG i = 0; i < n; i++) {
		TRY(p11->C_GetTokenInfo(slots[i], &info));
		if (!memcmp(info.label, label, strlen(label))) {
			slot = slots[i];
			return NULL;
		}
	}
	return "no such token";
}

static const char *open_session(CK_SESSION_HANDLE *session)
{
	TRY(p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, session));
	CK_RV v = p11->C_Login(*session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin));
	return v == CKR_USER_ALREADY_LOGGED_IN ? NULL : rv(v);
}

/* ---- keys: of the token, by their labels, made when they are first asked for ---- */

struct kind {
	const char *name;
	CK_MECHANISM_TYPE pair, sign;
	CK_KEY_TYPE type;
	CK_ULONG bits;
	const char *curve;
	unsigned curve_size, data;
};

static const struct kind kinds[] = {
	{"rsa2048", CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS, CKK_RSA, 2048, NULL, 0, 51},
	{"rsa3072", CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS, CKK_RSA, 3072, NULL, 0, 51},
	{"rsa4096", CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS, CKK_RSA, 4096, NULL, 0, 51},
	{"p256", CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, CKK_EC, 0, "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", 10, 32},
	{"p384", CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, CKK_EC, 0, "\x06\x05\x2b\x81\x04\x00\x22", 7, 48},
	{"ed25519", EDWARDS_PAIR, EDDSA, EDWARDS, 0, "\x13\x0c" "edwards25519", 14, 100},
	{"mldsa65", ML_DSA_PAIR, ML_DSA, ML_DSA_KEY, 2, NULL, 0, 100},
};

static const struct kind *kind_of(const char *name)
{
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strncmp(name, kinds[i].name, strlen(kinds[i].name)))
			return &kinds[i];
	return NULL;
}

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;

static const char *find(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *h, CK_ULONG *found)
{
	CK_ULONG got;
	*found = 0;
	TRY(p11->C_FindObjectsInit(s, t, n));
	do {
		CK_OBJECT_HANDLE some[256];
		TRY(p11->C_FindObjects(s, some, 256, &got));
		if (got && !*found)
			*h = some[0];
		*found += got;
	} while (got == 256);
	return rv(p11->C_FindObjectsFinal(s));
}

static const char *make_pair(CK_SESSION_HANDLE s, const struct kind *k, CK_BBOOL *token, CK_OBJECT_HANDLE *pub, CK_OBJECT_HANDLE *priv)
{
	CK_MECHANISM m = {k->pair, NULL, 0};
	unsigned char e[] = {1, 0, 1};
	CK_ULONG bits = k->bits;
	CK_ATTRIBUTE pub_t[8] = {
		{CKA_TOKEN, token, 1}, {CKA_VERIFY, &yes, 1}, {CKA_LABEL, (void *)k->name, strlen(k->name)},
	}, priv_t[] = {
		{CKA_TOKEN, token, 1}, {CKA_PRIVATE, &yes, 1}, {CKA_SENSITIVE, &yes, 1}, {CKA_SIGN, &yes, 1},
		{CKA_LABEL, (void *)k->name, strlen(k->name)},
	};
	CK_ULONG n = 3;
	if (k->type == CKK_RSA) {
		pub_t[n++] = (CK_ATTRIBUTE){CKA_MODULUS_BITS, &bits, sizeof bits};
		pub_t[n++] = (CK_ATTRIBUTE){CKA_PUBLIC_EXPONENT, e, sizeof e};
	} else if (k->type == ML_DSA_KEY) {
		pub_t[n++] = (CK_ATTRIBUTE){PARAMETER_SET, &bits, sizeof bits};
	} else {
		pub_t[n++] = (CK_ATTRIBUTE){CKA_EC_PARAMS, (void *)k->curve, k->curve_size};
	}
	return rv(p11->C_GenerateKeyPair(s, &m, pub_t, n, priv_t, 5, pub, priv));
}

static const char *key_of(CK_SESSION_HANDLE s, const struct kind *k, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *key)
{
	CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, (void *)k->name, strlen(k->name)}};
	CK_OBJECT_HANDLE pub, priv;
	CK_ULONG found;
	const char *why = find(s, t, 2, key, &found);
	if (why || found)
		return why;
	why = make_pair(s, k, &yes, &pub, &priv);
	*key = class == CKO_PUBLIC_KEY ? pub : priv;
	return why;
}

static const char *aes_key(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *key)
{
	CK_MECHANISM m = {CKM_AES_KEY_GEN, NULL, 0};
	CK_ULONG length = 32;
	CK_ATTRIBUTE t[] = {
		{CKA_ENCRYPT, &yes, 1}, {CKA_DECRYPT, &yes, 1}, {CKA_VALUE_LEN, &length, sizeof length}, {CKA_TOKEN, &no, 1},
	};
	return rv(p11->C_GenerateKey(s, &m, t, 4, key));
}

/* ---- works of a module ---- */

static const char *info(struct worker *w)
{
	CK_SESSION_INFO i;
	return rv(p11->C_GetSessionInfo(w->session, &i));
}

static const char *random_bytes(struct worker *w) { return rv(p11->C_GenerateRandom(w->session, w->out, w->size)); }

static const char *digest(struct worker *w)
{
	CK_ULONG n = 64;
	TRY(p11->C_DigestInit(w->session, &w->mechanism));
	return rv(p11->C_Digest(w->session, plain, w->size, w->signature, &n));
}

static const char *sign(struct worker *w)
{
	CK_ULONG n = sizeof w->signature;
	TRY(p11->C_SignInit(w->session, &w->mechanism, w->key));
	TRY(p11->C_Sign(w->session, plain, w->size, w->signature, &n));
	w->signature_size = n;
	return NULL;
}

static const char *verify(struct worker *w)
{
	TRY(p11->C_VerifyInit(w->session, &w->mechanism, w->key));
	return rv(p11->C_Verify(w->session, plain, w->size, w->signature, w->signature_size));
}

static const char *encrypt(struct worker *w)
{
	CK_ULONG n = w->size + 64, part;
	TRY(p11->C_EncryptInit(w->session, &w->mechanism, w->key));
	if (!w->parts)
		return rv(p11->C_Encrypt(w->session, plain, w->size, w->out, &n));
	for (unsigned long at = 0; at < w->size; at += PART) {
		part = PART + 64;
		TRY(p11->C_EncryptUpdate(w->session, plain + at, PART, w->out, &part));
	}
	return rv(p11->C_EncryptFinal(w->session, w->out, &n));
}

static const char *generate(struct worker *w)
{
	CK_OBJECT_HANDLE pub, priv;
	const char *why = make_pair(w->session, kind_of(w->work + strlen("generate:")), &no, &pub, &priv);
	if (why)
		return why;
	TRY(p11->C_DestroyObject(w->session, pub));
	return rv(p11->C_DestroyObject(w->session, priv));
}

static const char *create(CK_SESSION_HANDLE s, CK_BBOOL *token, const char *name, CK_OBJECT_HANDLE *h)
{
	CK_OBJECT_CLASS class = CKO_DATA;
	CK_ATTRIBUTE t[] = {
		{CKA_CLASS, &class, sizeof class}, {CKA_TOKEN, token, 1}, {CKA_PRIVATE, &yes, 1},
		{CKA_LABEL, (void *)name, strlen(name)}, {CKA_VALUE, plain, 100},
	};
	return rv(p11->C_CreateObject(s, t, 5, h));
}

static const char *object(struct worker *w)
{
	CK_OBJECT_HANDLE h;
	const char *why = create(w->session, strcmp(w->work, "object:token") ? &no : &yes, "one", &h);
	return why ? why : rv(p11->C_DestroyObject(w->session, h));
}

static const char *find_one(struct worker *w)
{
	char name[32];
	CK_OBJECT_HANDLE h;
	CK_ULONG found;
	CK_ATTRIBUTE t = {CKA_LABEL, name, snprintf(name, sizeof name, "object %lld", w->count % FOUND)};
	const char *why = find(w->session, &t, 1, &h, &found);
	return why || found == 1 ? why : "not found";
}

static const char *find_all(struct worker *w)
{
	CK_OBJECT_HANDLE h;
	CK_ULONG found;
	const char *why = find(w->session, NULL, 0, &h, &found);
	return why || found >= FOUND ? why : "not found";
}

static const char *fill(struct worker *w)
{
	CK_OBJECT_HANDLE h;
	CK_ULONG found;
	char name[32];
	const char *why = find(w->session, NULL, 0, &h, &found);
	for (int i = 0; !why && found < FOUND && i < FOUND; i++) {
		snprintf(name, sizeof name, "object %d", i);
		why = create(w->session, &yes, name, &h);
	}
	return why;
}

/* Objects that are there already go one after the other, of all threads' together. */
static CK_OBJECT_HANDLE *doomed;
static CK_ULONG condemned;
static _Atomic CK_ULONG destroyed;

static const char *condemn(struct worker *w)
{
	static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER;
	CK_ULONG got = 1;
	CK_RV v = CKR_OK;
	pthread_mutex_lock(&first);
	if (!doomed && !(v = p11->C_FindObjectsInit(w->session, NULL, 0))) {
		while (!v && got) {
			doomed = realloc(doomed, (condemned + 4096) * sizeof *doomed);
			v = p11->C_FindObjects(w->session, doomed + condemned, 4096, &got);
			condemned += got;
		}
		p11->C_FindObjectsFinal(w->session);
	}
	pthread_mutex_unlock(&first);
	return rv(v);
}

static const char *destroy(struct worker *w)
{
	CK_ULONG i = destroyed++;
	return i < condemned ? rv(p11->C_DestroyObject(w->session, doomed[i])) : "all are destroyed";
}

static const char *login(struct worker *w)
{
	TRY(p11->C_Logout(w->session));
	return rv(p11->C_Login(w->session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin)));
}

/* A process that loads the module, opens a session and ends. */
static const char *start(struct worker *w)
{
	int status;
	pid_t child = vfork();
	(void)w;
	if (child == 0) {
		execl("/proc/self/exe", "bench", "start", arguments[2], label, pin, (char *)NULL);
		_exit(127);
	}
	SAID(waitpid(child, &status, 0) == child);
	return status == 0 ? NULL : "it does not start";
}

static CK_AES_CTR_PARAMS ctr = {.ulCounterBits = 128};
static CK_BYTE iv[16];

static struct {
	CK_BYTE *iv;
	CK_ULONG iv_length, iv_bits;
	CK_BYTE *aad;
	CK_ULONG aad_length, tag_bits;
} gcm = {iv, 12, 96, NULL, 0, 128};

/* Works of files have how a file is opened at the end. */
static int of_files(const char *work)
{
	const char *end = strrchr(work, ':');
	return end && (!strcmp(end, ":two") || !strcmp(end, ":one") || !strcmp(end, ":held"));
}

static const char *prepare_module(struct worker *w)
{
	if (of_files(w->work))
		return "no such work";
	const char *name = strchr(w->work, ':') ? strchr(w->work, ':') + 1 : "", *why = open_session(&w->session);
	const struct kind *k = kind_of(name);
	if (why)
		return why;
	w->size = atol(strrchr(w->work, ':') ? strrchr(w->work, ':') + 1 : "0");
	if (w->size > MOST)
		return "too long";
	w->out = malloc(MOST + 64);
	SAID(w->out);
#define IS(what) (!strncmp(w->work, what, strlen(what)))
	if (IS("info")) {
		w->once = info;
	} else if (IS("random:")) {
		w->once = random_bytes;
	} else if (IS("digest:")) {
		w->mechanism.mechanism = CKM_SHA256;
		w->once = digest;
	} else if ((IS("sign:") || IS("verify:")) && k) {
		w->mechanism.mechanism = k->sign;
		w->size = k->data;
		why = key_of(w->session, k, CKO_PRIVATE_KEY, &w->key);
		w->once = sign;
		if (!why && IS("verify:")) {
			why = sign(w);
			if (!why)
				why = key_of(w->session, k, CKO_PUBLIC_KEY, &w->key);
			w->once = verify;
		}
	} else if (IS("encrypt:") || IS("parts:")) {
		why = aes_key(w->session, &w->key);
		w->parts = IS("parts:");
		w->mechanism = (CK_MECHANISM){CKM_AES_CBC, iv, sizeof iv};
		if (!strncmp(name, "gcm", 3))
			w->mechanism = (CK_MECHANISM){CKM_AES_GCM, &gcm, sizeof gcm};
		if (!strncmp(name, "ctr", 3))
			w->mechanism = (CK_MECHANISM){CKM_AES_CTR, &ctr, sizeof ctr};
		w->once = encrypt;
	} else if (IS("generate:") && k) {
		w->once = generate;
	} else if (IS("object:")) {
		w->once = object;
	} else if (IS("find:")) {
		why = fill(w);
		w->once = strcmp(name, "all") ? find_one : find_all;
	} else if (IS("destroy")) {
		why = condemn(w);
		w->once = destroy;
	} else if (IS("login")) {
		w->once = login;
	} else if (IS("start")) {
		w->once = start;
	} else {
		why = "no such work";
	}
	return why;
}

/* ---- works of files: digest and sign:KEY, by "two" opens, "one", or a "held" one ---- */

static const char *transact(struct worker *w)
{
	int fd = w->held, two = !strcmp(strrchr(w->work, ':'), ":two");
	if (fd < 0)
		SAID((fd = open(w->path, two ? O_WRONLY | O_TRUNC : O_RDWR)) >= 0);
	SAID(write(fd, plain, w->size) == (ssize_t)w->size);
	if (two) {
		SAID(close(fd) == 0);
		SAID((fd = open(w->path, O_RDONLY)) >= 0);
	}
	SAID(read(fd, w->signature, sizeof w->signature) > 0);
	if (w->held < 0)
		SAID(close(fd) == 0);
	return NULL;
}

static const char *prepare_files(struct worker *w)
{
	char key[64] = "";
	const struct kind *k;
	if (!of_files(w->work))
		return "no such work";
	w->size = 100;
	if (sscanf(w->work, "sign:%63[^:]", key) == 1 && (k = kind_of(key))) {
		snprintf(w->path, sizeof w->path, "%s/objects/%s.key/sign", folder, key);
		w->size = k->data;
	} else if (IS("digest:")) {
		snprintf(w->path, sizeof w->path, "%s/digest/sha256", folder);
	} else {
		return "no such work";
	}
	w->once = transact;
	if (!strcmp(strrchr(w->work, ':'), ":held"))
		SAID((w->held = open(w->path, O_RDWR)) >= 0);
	return NULL;
}

/* ---- the run ---- */

static pthread_barrier_t barrier;
static int milliseconds;

/* Times in steps of a sixteenth. */
static int step_of(long long ns)
{
	int bits = 63 - __builtin_clzll(ns | STEPS);
	return bits * STEPS + (int)((ns >> (bits - 4)) & (STEPS - 1));
}

static long long time_of(int step) { return (1LL << step / STEPS) + ((long long)(step % STEPS) << step / STEPS >> 4); }

/* How long all but one of rest times took at most, of count. */
static long long all_but(const unsigned *took, long long count, int rest)
{
	long long left = count - count / rest;
	int i = 0;
	while (i < 64 * STEPS - 1 && (left -= took[i]) > 0)
		i++;
	return time_of(i);
}

static void *run(void *arg)
{
	struct worker *w = arg;
	long long before;
	w->held = -1;
	w->failed = folder ? prepare_files(w) : prepare_module(w);
	if (!w->failed)
		w->failed = w->once(w); /* what the first one finds, the others have */
	pthread_barrier_wait(&barrier);
	w->begun = now();
	w->end = w->begun + milliseconds * 1000000LL;
	for (before = w->ended = w->begun; !w->failed && before < w->end; before = w->ended) {
		w->failed = w->once(w);
		w->ended = now();
		w->took[step_of(w->ended - before)]++;
		w->count++;
	}
	if (w->session)
		p11->C_CloseSession(w->session);
	if (w->held >= 0)
		close(w->held);
	free(w->out);
	return NULL;
}

static void threads(const char *work, int n)
{
	static struct worker workers[THREADS];
	struct rusage before, after;
	long long count = 0, begun = 0, ended = 0, least = 0;
	unsigned took[64 * STEPS] = {0};
	static CK_SESSION_HANDLE keeper; /* keeps the login while sessions come and go */
	const char *failed = folder || keeper ? NULL : open_session(&keeper);
	memset(workers, 0, sizeof workers);
	pthread_barrier_init(&barrier, NULL, n + 1);
	for (int i = 0; i < n; i++) {
		workers[i].work = work;
		if (pthread_create(&workers[i].thread, NULL, run, &workers[i]))
			exit(1);
	}
	getrusage(RUSAGE_SELF, &before);
	pthread_barrier_wait(&barrier);
	getrusage(RUSAGE_SELF, &before);
	for (int i = 0; i < n; i++) {
		struct worker *w = &workers[i];
		pthread_join(w->thread, NULL);
		count += w->count;
		least = i && least < w->count ? least : w->count;
		for (int j = 0; j < 64 * STEPS; j++)
			took[j] += w->took[j];
		begun = begun && begun < w->begun ? begun : w->begun;
		ended = ended > w->ended ? ended : w->ended;
		if (w->failed)
			failed = w->failed;
	}
	getrusage(RUSAGE_SELF, &after);
	pthread_barrier_destroy(&barrier);
	if (failed) {
		printf("refused %s\n", failed);
		return;
	}
#define NS(t) ((t).tv_sec * 1000000000LL + (t).tv_usec * 1000LL)
	printf("%lld %lld %lld %ld %lld %lld %lld\n", count, ended - begun,
	       NS(after.ru_utime) + NS(after.ru_stime) - NS(before.ru_utime) - NS(before.ru_stime),
	       after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
	       all_but(took, count, 2), all_but(took, count, 100), least);
}

/* n processes like this one do the work, from when all are there. */
static void processes(const char *work, int n)
{
	FILE *in[THREADS], *out[THREADS];
	long long count = 0, ns, cpu, most_ns = 0, all_cpu = 0;
	long switches, all_switches = 0;
	char line[256];
	const char *failed = NULL;
	for (int i = 0; i < n; i++) {
		int a[2], b[2];
		if (pipe2(a, O_CLOEXEC) || pipe2(b, O_CLOEXEC))
			exit(1);
		if (fork() == 0) {
			dup2(a[0], 0);
			dup2(b[1], 1);
			execv("/proc/self/exe", arguments);
			_exit(127);
		}
		close(a[0]);
		close(b[1]);
		in[i] = fdopen(a[1], "w");
		out[i] = fdopen(b[0], "r");
		fprintf(in[i], "%s 1 1\n", work);
		fflush(in[i]);
		if (!fgets(line, sizeof line, out[i]) || !fgets(line, sizeof line, out[i]))
			failed = "a process ended";
	}
	for (int i = 0; i < n; i++) {
		fprintf(in[i], "%s 1 %d\n", work, milliseconds);
		fflush(in[i]);
	}
	for (int i = 0; i < n; i++) {
		if (fgets(line, sizeof line, out[i]) && sscanf(line, "%lld %lld %lld %ld", &ns, &most_ns, &cpu, &switches) == 4) {
			count += ns;
			all_cpu += cpu;
			all_switches += switches;
		} else if (!failed) {
			snprintf(refusal, sizeof refusal, "a process: %.40s", strtok(line, "\n"));
			failed = refusal;
		}
		fclose(in[i]);
		fclose(out[i]);
		wait(NULL);
	}
	if (failed)
		printf("refused %s\n", failed);
	else
		printf("%lld %lld %lld %ld 0 0 0\n", count, most_ns, all_cpu, all_switches);
}

int main(int argc, char **argv)
{
	char line[256], work[128], how[16];
	const char *why = NULL;
	arguments = argv;
	if (argc == 5) {
		label = argv[3];
		pin = argv[4];
		why = open_module(argv[2]);
		if (!why && !strcmp(argv[1], "start")) {
			CK_SESSION_HANDLE s;
			return p11->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &s) != CKR_OK;
		}
	} else if (argc == 3) {
		folder = argv[2];
	} else {
		why = "usage";
	}
	if (why) {
		printf("refused %s\n", why);
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		if (sscanf(line, "%127s %15s %d", work, how, &milliseconds) != 3)
			printf("refused usage\n");
		else if (*how == 'p' && atoi(how + 1) <= THREADS)
			processes(work, atoi(how + 1));
		else if (atoi(how) > 0 && atoi(how) <= THREADS)
			threads(work, atoi(how));
		else
			printf("refused usage\n");
		fflush(stdout);
	}
	return 0;
}
