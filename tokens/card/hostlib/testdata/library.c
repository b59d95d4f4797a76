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
	(void)exit_length, (void)exit_data, (void)n, (void)rules, (void)len, (void)data;
	*rc = 8;
	*rs = 33;
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
