/* The sessions of this process. The handles that the program sees are the
   module's own, and never used twice: those of a daemon that was restarted
   begin anew, and must not be taken for the old ones.

   A session also keeps what is needed to send an Init together with the one-part
   operation that follows it. An Init is put off only if the very same one was
   granted before, in this session and since anything changed, so that its errors
   come from the Init itself. One that is put off goes by itself if anything but
   its one-part operation follows in the session, or if something is about to
   change how it is answered; and both wait until it has been answered, so that
   nothing ever overtakes it.

   All functions ending in _locked want module_lock. */
#ifndef P11FS_SESSION_H
#define P11FS_SESSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pkcs11.h"

/* The operations whose Init can be put off. */
enum kind { KIND_NONE = -1, KIND_ENCRYPT, KIND_DECRYPT, KIND_DIGEST, KIND_SIGN, KIND_VERIFY, KINDS };

CK_FLAGS kind_flag(enum kind k);

/* An Init as it is on the wire, behind the session: mechanism and key. */
struct init {
    unsigned char *data;
    size_t len;
};

struct session {
    struct session *next;
    CK_SESSION_HANDLE handle;
    CK_SLOT_ID slot;
    uint64_t remote;     /* the daemon's handle */
    uint64_t generation; /* of the connection */
    /* The operations that may be active: those of which it is not known that
       they are not. CKF_SIGN … */
    CK_FLAGS active;
    enum kind pending; /* the Init that is put off */
    bool sending;      /* one that was is on its way, alone or with its operation */
    struct {
        struct init init;  /* the last that was granted */
        uint64_t changes;  /* when that was: sessions_changes_locked */
    } granted[KINDS];
};

/* Returns the new session's handle, or 0 for no memory. */
CK_SESSION_HANDLE session_add_locked(CK_SLOT_ID slot, uint64_t remote, uint64_t generation);
struct session *session_find_locked(CK_SESSION_HANDLE handle);
void session_remove_locked(CK_SESSION_HANDLE handle);
void sessions_remove_slot_locked(CK_SLOT_ID slot);
void sessions_clear_locked(void);

/* In the child of a fork: there are no sessions, and no calls in progress. */
void sessions_forked_locked(void);

/* Puts off an Init if it may be; false means that it must be sent. */
bool session_defer_locked(struct session *s, enum kind k, const unsigned char *init, size_t len);

/* Notes that an Init was granted, which was sent when changes stood so. */
void session_granted_locked(struct session *s, enum kind k, const unsigned char *init, size_t len, uint64_t changes);

/* Puts an Init off anew that could not be sent. */
void session_postpone_locked(struct session *s, enum kind k);

/* Takes the Init that was put off out, to send it; its bytes stay in granted.
   session_sent_locked follows when it has been answered. */
enum kind session_take_locked(struct session *s);
void session_sent_locked(CK_SESSION_HANDLE handle);

/* Signalled when an Init has been answered, or its session is gone. */
pthread_cond_t *sessions_settled(void);

/* Around a call that may change how an Init is answered: meanwhile none is put
   off, and those that were granted before are not afterwards. */
void sessions_change_locked(void);
void sessions_changed_locked(void);
uint64_t sessions_changes_locked(void);

/* The next session of a slot after handle (0: the first) in which an Init is put
   off or on its way, but except; 0 if there is none. */
CK_SESSION_HANDLE sessions_next_unsettled_locked(CK_SLOT_ID slot, CK_SESSION_HANDLE handle, CK_SESSION_HANDLE except);

#endif
