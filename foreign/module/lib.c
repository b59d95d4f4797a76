#include "lib.h"

#include <dlfcn.h>
#include <stddef.h>

const char *module_load(const char *path, CK_FUNCTION_LIST **f)
{
	void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!h)
		return dlerror();
	CK_RV (*get)(CK_FUNCTION_LIST **);
	*(void **)&get = dlsym(h, "C_GetFunctionList");
	if (!get)
		return "it has no C_GetFunctionList";
	if (get(f) != CKR_OK || !*f)
		return "C_GetFunctionList fails";
	return NULL;
}

CK_RV module_initialize(CK_FUNCTION_LIST *f, char *parameters)
{
	// NSS has one more member, which is to be NULL, behind the one with the parameters.
	struct {
		CK_C_INITIALIZE_ARGS args;
		void *reserved;
	} all = {{NULL, NULL, NULL, NULL, CKF_OS_LOCKING_OK, parameters}, NULL};
	return f->C_Initialize(&all);
}

CK_RV module_finalize(CK_FUNCTION_LIST *f)
{
	return f->C_Finalize(NULL);
}

CK_RV module_slots(CK_FUNCTION_LIST *f, CK_SLOT_ID *list, CK_ULONG *n)
{
	return f->C_GetSlotList(CK_TRUE, list, n);
}

CK_RV module_token(CK_FUNCTION_LIST *f, CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
	return f->C_GetTokenInfo(slot, info);
}

CK_RV module_mechanisms(CK_FUNCTION_LIST *f, CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *n)
{
	return f->C_GetMechanismList(slot, list, n);
}

CK_RV module_open(CK_FUNCTION_LIST *f, CK_SLOT_ID slot, CK_SESSION_HANDLE *session)
{
	return f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, session);
}

CK_RV module_close(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session)
{
	return f->C_CloseSession(session);
}

CK_RV module_login(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_BYTE *pin, CK_ULONG n)
{
	return f->C_Login(session, CKU_USER, pin, n);
}

CK_RV module_find(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session)
{
	CK_BBOOL yes = CK_TRUE;
	CK_ATTRIBUTE stored = {CKA_TOKEN, &yes, sizeof yes};
	return f->C_FindObjectsInit(session, &stored, 1);
}

CK_RV module_found(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *list, CK_ULONG most, CK_ULONG *n)
{
	return f->C_FindObjects(session, list, most, n);
}

CK_RV module_find_end(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session)
{
	return f->C_FindObjectsFinal(session);
}

CK_RV module_get(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_BYTE *value, CK_ULONG *n)
{
	CK_ATTRIBUTE a = {type, value, *n};
	CK_RV rv = f->C_GetAttributeValue(session, object, &a, 1);
	*n = a.ulValueLen;
	return rv;
}

// What both of the next functions ask for.
#define WRAPPING_KEY \
	CK_BBOOL yes = CK_TRUE, no = CK_FALSE; \
	CK_ULONG class = CKO_SECRET_KEY, type = CKK_AES

#define WRAPPING \
	{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}, {CKA_TOKEN, &no, sizeof no}, {CKA_WRAP, &yes, sizeof yes}, \
	{CKA_ENCRYPT, &yes, sizeof yes}

CK_RV module_bring(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_BYTE *value, CK_ULONG n, CK_OBJECT_HANDLE *key)
{
	WRAPPING_KEY;
	CK_ATTRIBUTE t[] = {WRAPPING, {CKA_VALUE, value, n}};
	return f->C_CreateObject(session, t, sizeof t / sizeof *t, key);
}

CK_RV module_make(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_ULONG n, CK_OBJECT_HANDLE *key)
{
	WRAPPING_KEY;
	CK_ATTRIBUTE t[] = {WRAPPING, {CKA_SENSITIVE, &no, sizeof no}, {CKA_EXTRACTABLE, &yes, sizeof yes}, {CKA_VALUE_LEN, &n, sizeof n}};
	CK_MECHANISM m = {CKM_AES_KEY_GEN, NULL, 0};
	return f->C_GenerateKey(session, &m, t, sizeof t / sizeof *t, key);
}

CK_RV module_destroy(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
	return f->C_DestroyObject(session, key);
}

CK_RV module_wrap(CK_FUNCTION_LIST *f, CK_SESSION_HANDLE session, CK_MECHANISM_TYPE mechanism, CK_BYTE *iv, CK_ULONG iv_n, CK_OBJECT_HANDLE by, CK_OBJECT_HANDLE key, CK_BYTE *out, CK_ULONG *n)
{
	CK_MECHANISM m = {mechanism, iv_n ? iv : NULL, iv_n};
	return f->C_WrapKey(session, &m, by, key, out, n);
}
