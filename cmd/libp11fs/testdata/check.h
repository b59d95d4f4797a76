/* What the test programs share: a module loaded by name, checks that say where
   they failed, and a token with keys. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "../src/pkcs11.h"

/* The functions of the module, by the newest list that it has: those of an older one
   are its beginning. */
extern CK_FUNCTION_LIST_3_2 *f;

/* load opens the module at path; unload closes it. */
void load(const char *path);
void unload(void);

/* want ends the program unless got is the CK_RV wanted. */
void want(const char *file, int line, const char *what, CK_RV got, CK_RV wanted);
void fail(const char *file, int line, const char *what);

#define RV(call, wanted) want(__FILE__, __LINE__, #call, (call), (wanted))
#define OK(call) RV(call, CKR_OK)
#define CHECK(condition) ((condition) ? (void)0 : fail(__FILE__, __LINE__, #condition))

#define PIN ((CK_UTF8CHAR *)"1234567")
#define SO_PIN ((CK_UTF8CHAR *)"87654321")
enum { PIN_LEN = 7, SO_PIN_LEN = 8 };

/* C_Initialize, the only slot, a read-write session, a login. */
CK_SLOT_ID start(void);
CK_SESSION_HANDLE session_on(CK_SLOT_ID slot);
CK_SESSION_HANDLE login(CK_SLOT_ID slot);

/* Keys that are session objects. */
void ec_key(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE *public, CK_OBJECT_HANDLE *private);
CK_OBJECT_HANDLE aes_key(CK_SESSION_HANDLE s);
CK_OBJECT_HANDLE mac_key(CK_SESSION_HANDLE s); /* for HMAC, and not sensitive */

/* Signs and verifies once with ECDSA. */
CK_RV sign_once(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE public, CK_OBJECT_HANDLE private);

/* In seconds, on a clock that nobody sets. */
double now(void);

/* The number of open sockets. */
int descriptors(void);

/* The cases: each its own file or a part of one. */
void case_functions(void);
void case_not_initialized(void);
void case_arguments(void);
void case_buffers(void);
void case_mechanisms(void), case_unset(void);
void case_attributes(void);
void case_deferred(void);
void case_interfaces(void);
void case_initialize(void);
void case_fork(void);
void case_threads(void);
void case_shared(void);
void case_oversized(void), case_once(void);
void case_events(void);
void case_cancel(void);
void case_restart(void);
void case_race(int seconds);
void case_destroyed(void);
void case_foreign(void);
void case_absent(void);
void case_find(void);
void case_states(void);
void case_hostile(void);
void case_version(void);
void case_mute(void);
void case_dlclose(const char *path);
void case_descriptors(void);
void case_unloaded(const char *path);
void case_standard(void);
void case_closed(void);
void case_differ(const char *path, const char *other, int seed);

#endif
