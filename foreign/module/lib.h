// Calls through the function list of a module, which was loaded at run time.
#ifndef P11FS_MODULE_H
#define P11FS_MODULE_H

#include "pkcs11.h"

// module_load returns why the module cannot be used, or NULL. The text lasts until the
// thread loads something else.
const char *module_load(const char *path, CK_FUNCTION_LIST **f);

CK_RV module_initialize(CK_FUNCTION_LIST *f, char *parameters);
CK_RV module_finalize(CK_FUNCTION_LIST *f);
CK_RV module_slots(CK_FUNCTION_LIST *f, CK_SLOT_ID *list, CK_ULONG *n);
CK_RV module_token(CK_FUNCTION_LIST *f, CK_SLOT_ID slot, CK_TOKEN_INFO *info);
CK_RV module_mechanisms(CK_FUNCTION_LIST *f, CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *n);
CK_RV module_open(CK_FUNCTION_LIST *f, CK_SLOT_ID slot, CK_SESSION_HANDLE *session);
CK_RV module_close(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session);
CK_RV module_login(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_BYTE *pin, CK_ULONG n);
CK_RV module_find(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session);
CK_RV module_found(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *list, CK_ULONG most, CK_ULONG *n);
CK_RV module_find_end(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session);
CK_RV module_get(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_BYTE *value, CK_ULONG *n);

// module_bring makes an AES key of that value, for the session, that wraps.
CK_RV module_bring(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_BYTE *value, CK_ULONG n, CK_OBJECT_HANDLE *key);
// module_make has the token make such a key, whose value can be read.
CK_RV module_make(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_ULONG n, CK_OBJECT_HANDLE *key);
CK_RV module_destroy(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key);
CK_RV module_wrap(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_MECHANISM_TYPE mechanism, CK_BYTE *iv, CK_ULONG iv_n, CK_OBJECT_HANDLE by, CK_OBJECT_HANDLE key, CK_BYTE *out, CK_ULONG *n);

#endif
