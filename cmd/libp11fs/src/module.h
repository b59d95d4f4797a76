/* The state of the module between C_Initialize and C_Finalize. */
#ifndef P11FS_MODULE_H
#define P11FS_MODULE_H

#include <pthread.h>
#include <stdbool.h>

#include "conn.h"
#include "pkcs11.h"

/* Guards the module's state and the sessions. Held for moments only, never
   while the daemon is waited for; under it, only locks of conn.c are taken. */
void module_lock(void);
void module_unlock(void);

/* Waits for a condition that is signalled under the lock. */
void module_wait_locked(pthread_cond_t *condition);

CK_RV module_initialize(const CK_C_INITIALIZE_ARGS *args);
CK_RV module_finalize(void);
bool module_initialized(void);

/* The connection as it stands, or NULL; not held. Wants module_lock. */
struct conn *module_conn_locked(void);

/* Gives the connection, held, and makes one if there is none. Without a daemon,
   *out is NULL and CKR_OK is returned, after waiting if one may be about to
   come back. */
CK_RV module_connect(struct conn **out);

/* Forgets c and its sessions, if it is still the connection. */
void module_lost(struct conn *c);

#endif
