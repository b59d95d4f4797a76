/* The types and functions of PKCS#11 2.40 and 3.0, as a module and its callers
   share them on the machine. The numbers stand in constants_gen.h. */
#ifndef P11FS_PKCS11_H
#define P11FS_PKCS11_H

#include "constants_gen.h"

typedef unsigned char CK_BYTE;
typedef unsigned char CK_BBOOL;
typedef unsigned char CK_UTF8CHAR;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef CK_ULONG CK_FLAGS;
typedef CK_ULONG CK_SLOT_ID;
typedef CK_ULONG CK_SESSION_HANDLE;
typedef CK_ULONG CK_OBJECT_HANDLE;
typedef CK_ULONG CK_USER_TYPE;
typedef CK_ULONG CK_MECHANISM_TYPE;
typedef CK_ULONG CK_ATTRIBUTE_TYPE;

typedef CK_RV (*CK_NOTIFY)(CK_SESSION_HANDLE session, CK_ULONG event, void *application);

typedef struct {
    CK_BYTE major, minor;
} CK_VERSION;

typedef struct {
    CK_VERSION cryptokiVersion;
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_UTF8CHAR libraryDescription[32];
    CK_VERSION libraryVersion;
} CK_INFO;

typedef struct {
    CK_UTF8CHAR slotDescription[64];
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_VERSION hardwareVersion, firmwareVersion;
} CK_SLOT_INFO;

typedef struct {
    CK_UTF8CHAR label[32];
    CK_UTF8CHAR manufacturerID[32];
    CK_UTF8CHAR model[16];
    CK_BYTE serialNumber[16];
    CK_FLAGS flags;
    CK_ULONG ulMaxSessionCount, ulSessionCount, ulMaxRwSessionCount, ulRwSessionCount;
    CK_ULONG ulMaxPinLen, ulMinPinLen;
    CK_ULONG ulTotalPublicMemory, ulFreePublicMemory, ulTotalPrivateMemory, ulFreePrivateMemory;
    CK_VERSION hardwareVersion, firmwareVersion;
    CK_BYTE utcTime[16];
} CK_TOKEN_INFO;

typedef struct {
    CK_SLOT_ID slotID;
    CK_ULONG state;
    CK_FLAGS flags;
    CK_ULONG ulDeviceError;
} CK_SESSION_INFO;

typedef struct {
    CK_ATTRIBUTE_TYPE type;
    void *pValue;
    CK_ULONG ulValueLen;
} CK_ATTRIBUTE;

typedef struct {
    CK_MECHANISM_TYPE mechanism;
    void *pParameter;
    CK_ULONG ulParameterLen;
} CK_MECHANISM;

typedef struct {
    CK_ULONG ulMinKeySize, ulMaxKeySize;
    CK_FLAGS flags;
} CK_MECHANISM_INFO;

typedef struct {
    CK_RV (*CreateMutex)(void **mutex);
    CK_RV (*DestroyMutex)(void *mutex);
    CK_RV (*LockMutex)(void *mutex);
    CK_RV (*UnlockMutex)(void *mutex);
    CK_FLAGS flags;
    void *pReserved;
} CK_C_INITIALIZE_ARGS;

typedef struct {
    const char *pInterfaceName;
    const void *pFunctionList;
    CK_FLAGS flags;
} CK_INTERFACE;

#include "mechanism_gen.h"

typedef struct ck_function_list CK_FUNCTION_LIST;
typedef struct ck_function_list_3_0 CK_FUNCTION_LIST_3_0;

/* All functions in the order of the function lists: F(name, parameters). */
#define FUNCTIONS_2_40(F) \
    F(C_Initialize, (void *init_args)) \
    F(C_Finalize, (void *reserved)) \
    F(C_GetInfo, (CK_INFO *info)) \
    F(C_GetFunctionList, (CK_FUNCTION_LIST **list)) \
    F(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count)) \
    F(C_GetSlotInfo, (CK_SLOT_ID slot, CK_SLOT_INFO *info)) \
    F(C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO *info)) \
    F(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count)) \
    F(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)) \
    F(C_InitToken, (CK_SLOT_ID slot, CK_UTF8CHAR *pin, CK_ULONG pin_len, CK_UTF8CHAR *label)) \
    F(C_InitPIN, (CK_SESSION_HANDLE session, CK_UTF8CHAR *pin, CK_ULONG pin_len)) \
    F(C_SetPIN, (CK_SESSION_HANDLE session, CK_UTF8CHAR *old_pin, CK_ULONG old_len, \
                 CK_UTF8CHAR *new_pin, CK_ULONG new_len)) \
    F(C_OpenSession, (CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, \
                      CK_SESSION_HANDLE *session)) \
    F(C_CloseSession, (CK_SESSION_HANDLE session)) \
    F(C_CloseAllSessions, (CK_SLOT_ID slot)) \
    F(C_GetSessionInfo, (CK_SESSION_HANDLE session, CK_SESSION_INFO *info)) \
    F(C_GetOperationState, (CK_SESSION_HANDLE session, CK_BYTE *state, CK_ULONG *state_len)) \
    F(C_SetOperationState, (CK_SESSION_HANDLE session, CK_BYTE *state, CK_ULONG state_len, \
                            CK_OBJECT_HANDLE encryption_key, CK_OBJECT_HANDLE authentication_key)) \
    F(C_Login, (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG pin_len)) \
    F(C_Logout, (CK_SESSION_HANDLE session)) \
    F(C_CreateObject, (CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count, \
                       CK_OBJECT_HANDLE *object)) \
    F(C_CopyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *template, \
                     CK_ULONG count, CK_OBJECT_HANDLE *copy)) \
    F(C_DestroyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)) \
    F(C_GetObjectSize, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG *size)) \
    F(C_GetAttributeValue, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, \
                            CK_ATTRIBUTE *template, CK_ULONG count)) \
    F(C_SetAttributeValue, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, \
                            CK_ATTRIBUTE *template, CK_ULONG count)) \
    F(C_FindObjectsInit, (CK_SESSION_HANDLE session, CK_ATTRIBUTE *template, CK_ULONG count)) \
    F(C_FindObjects, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG max, \
                      CK_ULONG *count)) \
    F(C_FindObjectsFinal, (CK_SESSION_HANDLE session)) \
    F(C_EncryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)) \
    F(C_Encrypt, (CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *encrypted, \
                  CK_ULONG *encrypted_len)) \
    F(C_EncryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len, \
                        CK_BYTE *encrypted, CK_ULONG *encrypted_len)) \
    F(C_EncryptFinal, (CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG *encrypted_len)) \
    F(C_DecryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)) \
    F(C_Decrypt, (CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG encrypted_len, \
                  CK_BYTE *data, CK_ULONG *data_len)) \
    F(C_DecryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE *encrypted, CK_ULONG encrypted_len, \
                        CK_BYTE *part, CK_ULONG *part_len)) \
    F(C_DecryptFinal, (CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG *part_len)) \
    F(C_DigestInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism)) \
    F(C_Digest, (CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *digest, \
                 CK_ULONG *digest_len)) \
    F(C_DigestUpdate, (CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len)) \
    F(C_DigestKey, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)) \
    F(C_DigestFinal, (CK_SESSION_HANDLE session, CK_BYTE *digest, CK_ULONG *digest_len)) \
    F(C_SignInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)) \
    F(C_Sign, (CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, \
               CK_ULONG *signature_len)) \
    F(C_SignUpdate, (CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len)) \
    F(C_SignFinal, (CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG *signature_len)) \
    F(C_SignRecoverInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)) \
    F(C_SignRecover, (CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, \
                      CK_BYTE *signature, CK_ULONG *signature_len)) \
    F(C_VerifyInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)) \
    F(C_Verify, (CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, \
                 CK_ULONG signature_len)) \
    F(C_VerifyUpdate, (CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len)) \
    F(C_VerifyFinal, (CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG signature_len)) \
    F(C_VerifyRecoverInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, \
                            CK_OBJECT_HANDLE key)) \
    F(C_VerifyRecover, (CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG signature_len, \
                        CK_BYTE *data, CK_ULONG *data_len)) \
    F(C_DigestEncryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len, \
                              CK_BYTE *encrypted, CK_ULONG *encrypted_len)) \
    F(C_DecryptDigestUpdate, (CK_SESSION_HANDLE session, CK_BYTE *encrypted, \
                              CK_ULONG encrypted_len, CK_BYTE *part, CK_ULONG *part_len)) \
    F(C_SignEncryptUpdate, (CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len, \
                            CK_BYTE *encrypted, CK_ULONG *encrypted_len)) \
    F(C_DecryptVerifyUpdate, (CK_SESSION_HANDLE session, CK_BYTE *encrypted, \
                              CK_ULONG encrypted_len, CK_BYTE *part, CK_ULONG *part_len)) \
    F(C_GenerateKey, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *template, \
                      CK_ULONG count, CK_OBJECT_HANDLE *key)) \
    F(C_GenerateKeyPair, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, \
                          CK_ATTRIBUTE *public_template, CK_ULONG public_count, \
                          CK_ATTRIBUTE *private_template, CK_ULONG private_count, \
                          CK_OBJECT_HANDLE *public_key, CK_OBJECT_HANDLE *private_key)) \
    F(C_WrapKey, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE wrapping_key, \
                  CK_OBJECT_HANDLE key, CK_BYTE *wrapped, CK_ULONG *wrapped_len)) \
    F(C_UnwrapKey, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, \
                    CK_OBJECT_HANDLE unwrapping_key, CK_BYTE *wrapped, CK_ULONG wrapped_len, \
                    CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)) \
    F(C_DeriveKey, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE base_key, \
                    CK_ATTRIBUTE *template, CK_ULONG count, CK_OBJECT_HANDLE *key)) \
    F(C_SeedRandom, (CK_SESSION_HANDLE session, CK_BYTE *seed, CK_ULONG seed_len)) \
    F(C_GenerateRandom, (CK_SESSION_HANDLE session, CK_BYTE *random, CK_ULONG random_len)) \
    F(C_GetFunctionStatus, (CK_SESSION_HANDLE session)) \
    F(C_CancelFunction, (CK_SESSION_HANDLE session)) \
    F(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved))

#define FUNCTIONS_3_0(F) \
    F(C_GetInterfaceList, (CK_INTERFACE *list, CK_ULONG *count)) \
    F(C_GetInterface, (CK_UTF8CHAR *name, CK_VERSION *version, CK_INTERFACE **interface, \
                       CK_FLAGS flags)) \
    F(C_LoginUser, (CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, \
                    CK_ULONG pin_len, CK_UTF8CHAR *name, CK_ULONG name_len)) \
    F(C_SessionCancel, (CK_SESSION_HANDLE session, CK_FLAGS flags)) \
    F(C_MessageEncryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, \
                             CK_OBJECT_HANDLE key)) \
    F(C_EncryptMessage, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                         CK_BYTE *associated, CK_ULONG associated_len, CK_BYTE *data, \
                         CK_ULONG data_len, CK_BYTE *encrypted, CK_ULONG *encrypted_len)) \
    F(C_EncryptMessageBegin, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                              CK_BYTE *associated, CK_ULONG associated_len)) \
    F(C_EncryptMessageNext, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                             CK_BYTE *part, CK_ULONG part_len, CK_BYTE *encrypted, \
                             CK_ULONG *encrypted_len, CK_FLAGS flags)) \
    F(C_MessageEncryptFinal, (CK_SESSION_HANDLE session)) \
    F(C_MessageDecryptInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, \
                             CK_OBJECT_HANDLE key)) \
    F(C_DecryptMessage, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                         CK_BYTE *associated, CK_ULONG associated_len, CK_BYTE *encrypted, \
                         CK_ULONG encrypted_len, CK_BYTE *data, CK_ULONG *data_len)) \
    F(C_DecryptMessageBegin, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                              CK_BYTE *associated, CK_ULONG associated_len)) \
    F(C_DecryptMessageNext, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                             CK_BYTE *encrypted, CK_ULONG encrypted_len, CK_BYTE *part, \
                             CK_ULONG *part_len, CK_FLAGS flags)) \
    F(C_MessageDecryptFinal, (CK_SESSION_HANDLE session)) \
    F(C_MessageSignInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)) \
    F(C_SignMessage, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                      CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, \
                      CK_ULONG *signature_len)) \
    F(C_SignMessageBegin, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len)) \
    F(C_SignMessageNext, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                          CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, \
                          CK_ULONG *signature_len)) \
    F(C_MessageSignFinal, (CK_SESSION_HANDLE session)) \
    F(C_MessageVerifyInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, \
                            CK_OBJECT_HANDLE key)) \
    F(C_VerifyMessage, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                        CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, \
                        CK_ULONG signature_len)) \
    F(C_VerifyMessageBegin, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len)) \
    F(C_VerifyMessageNext, (CK_SESSION_HANDLE session, void *parameter, CK_ULONG parameter_len, \
                            CK_BYTE *data, CK_ULONG data_len, CK_BYTE *signature, \
                            CK_ULONG signature_len)) \
    F(C_MessageVerifyFinal, (CK_SESSION_HANDLE session))

#define FUNCTION_MEMBER(name, parameters) CK_RV (*name) parameters;

struct ck_function_list {
    CK_VERSION version;
    FUNCTIONS_2_40(FUNCTION_MEMBER)
};

struct ck_function_list_3_0 {
    CK_VERSION version;
    FUNCTIONS_2_40(FUNCTION_MEMBER)
    FUNCTIONS_3_0(FUNCTION_MEMBER)
};

#undef FUNCTION_MEMBER

#define FUNCTION_PROTOTYPE(name, parameters) __attribute__((visibility("default"))) CK_RV name parameters;
FUNCTIONS_2_40(FUNCTION_PROTOTYPE)
FUNCTIONS_3_0(FUNCTION_PROTOTYPE)
#undef FUNCTION_PROTOTYPE

#endif
