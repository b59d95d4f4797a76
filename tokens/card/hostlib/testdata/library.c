/* A host library that does what none should, and says how it was called. */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long U;

/* The target is the address of a list: gives it, and writes too far if asked for 13 bytes. */
U m_GenerateRandom(unsigned char *out, U n, uint64_t target)
{
	memset(out, 0, n);
	if (n == 13)
		out[n] = 1;
	else
		memcpy(out, (const void *)target, n);
	return 0;
}

/* Stores more than there is room for, as it says. */
U m_DigestSingle(const void *m, const unsigned char *data, U n, unsigned char *out, U *len, uint64_t target)
{
	(void)m, (void)data, (void)n, (void)out, (void)target;
	*len = n == 1 ? 1UL << 40 : *len + 1;
	return 0;
}

/* Waits until m_Logout. */
static volatile int waited, released;

U m_SeedRandom(const unsigned char *seed, U n, uint64_t target)
{
	(void)seed, (void)n, (void)target;
	waited = 1;
	while (!released)
		usleep(1000);
	return 0;
}

U m_Logout(const unsigned char *blob, U n, uint64_t target)
{
	(void)blob, (void)n, (void)target;
	released = 1;
	return 0;
}

/* The return value is half of a CK_RV, and the other half is noise. */
U m_DigestKey(unsigned char *state, U n, const unsigned char *key, U len, uint64_t target)
{
	(void)state, (void)n, (void)key, (void)len, (void)target;
	return 0xdeadbeef80010001UL;
}

static char adapter[8] = "any";

#define HEAD long *rc, long *rs, long *exit_length, unsigned char *exit_data

void CSUACFQ(HEAD, long *n, unsigned char *rules, long *len, unsigned char *data)
{
	(void)exit_length, (void)exit_data, (void)len, (void)data;
	memset(rules, 'x', 120);
	*n = 15;
	*rc = *rs = 0;
}

void CSNBENC(HEAD, unsigned char *key, long *n, unsigned char *text, unsigned char *iv, long *count, unsigned char *rules, long *pad, unsigned char *chain, unsigned char *out)
{
	(void)exit_length, (void)exit_data, (void)key, (void)text, (void)iv, (void)count, (void)rules, (void)pad;
	memset(chain, 0, 18);
	memset(out, 'x', (size_t)*n + 8); /* padded */
	*rc = *rs = 0;
}

/* Fills a CK_MECHANISM_INFO. */
U m_GetMechanismInfo(U slot, U mechanism, U *info, uint64_t target)
{
	(void)slot, (void)mechanism, (void)target;
	info[0] = 1, info[1] = 2, info[2] = 3;
	return 0;
}

void CSNBRNG(HEAD, unsigned char *form, unsigned char *random)
{
	(void)exit_length, (void)exit_data, (void)form;
	memcpy(random, adapter, 8);
	*rc = *rs = 0;
}

void CSUACRA(HEAD, long *n, unsigned char *rules, long *len, char *name)
{
	(void)exit_length, (void)exit_data;
	if (*n != 1 || memcmp(rules, "DEVICE  ", 8) != 0 || *len != 5 || memcmp(name, "CRP09", 5) == 0) {
		*rc = 8;
		*rs = 1;
		return;
	}
	memset(adapter, 0, 8);
	memcpy(adapter, name, 5);
	*rc = *rs = 0;
}

void CSUACRD(HEAD, long *n, unsigned char *rules, long *len, char *name)
{
	(void)exit_length, (void)exit_data, (void)n, (void)rules, (void)len, (void)name;
	memcpy(adapter, "any\0\0\0\0", 8);
	*rc = *rs = 0;
}

/* Blocks of commands of a layout that is this library's: a letter, a byte of the command and
   one of the domain, the payload backwards. */
struct response {
	uint32_t function, domain, instance;
	unsigned char module[16], number[8], other[8], counter[16];
	U rv;
	uint32_t reason;
	const unsigned char *payload;
	size_t length;
};

static long block(unsigned char *out, size_t room, unsigned function, unsigned domain, const unsigned char *payload, size_t n)
{
	if (n + 3 > room)
		return -1;
	out[0] = 'B';
	out[1] = (unsigned char)function;
	out[2] = (unsigned char)domain;
	for (size_t i = 0; i < n; i++)
		out[3 + i] = payload[n - 1 - i];
	return (long)(n + 3);
}

long xcpa_cmdblock(unsigned char *out, size_t room, unsigned function, const struct response *r, const unsigned char *counter, const unsigned char *payload, size_t n)
{
	(void)counter;
	return block(out, room, function, r->domain, payload, n);
}

long xcpa_queryblock(unsigned char *out, size_t room, unsigned function, uint64_t domain, const unsigned char *payload, size_t n)
{
	return block(out, room, function, (unsigned)(domain >> 32) + (unsigned)domain, payload, n);
}

/* Answers a query with the domain, and another command with what it was given, backwards; a
   payload that begins with 'e' with an error, and one with 'f' with nonsense. */
U m_admin(unsigned char *out, U *len, unsigned char *out2, U *len2, const unsigned char *command, U n, const unsigned char *sig, U sig_len, uint64_t target)
{
	(void)out2, (void)len2, (void)sig, (void)sig_len, (void)target;
	if (command[0] != 'B')
		return 7;
	memset(out, 0, 19);
	if (command[1] == 6) {
		out[3] = command[2];
		*len = 3 + 16;
		return 0;
	}
	memcpy(out, command, n);
	*len = n;
	return 0;
}

long xcpa_internal_rv(const unsigned char *answer, size_t n, struct response *r, U *rv)
{
	r->payload = answer + 3;
	r->length = n - 3;
	if (answer[n - 1] == 'e')
		*rv = 0x80010004;
	if (answer[n - 1] == 'f')
		r->length = n;
	if (answer[n - 1] == 'g')
		return -1;
	return (long)n;
}
