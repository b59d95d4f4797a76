/* Has a PKCS#11 module use a token whose keys a card has: each function in one part and in
   parts, for its length alone, with a byte too few and with what it asked for. What is wrong
   it says in a line "bad: ..."; what openssl is to check, in one that the test knows.

     judge MODULE SLOT PIN KIND GIVEN COMMAND...

   KIND is ep11 or cca; with -stock behind it for stock's token, whose defects are known; and
   with -secrets behind that for a token that can use no other keys. GIVEN is a file of what
   the test made, in hexadecimal: "rsa N E D P Q DP DQ QI", "peer PARAMS POINT", "dh P G Y"
   (the last of a peer) and "dsa P Q G". A command is make:NAME (makes a set of keys),
   session:NAME (the same with more of them, which go with the session, and uses them),
   brief:NAME (makes secret keys alone that do),
   use:NAME, open:NAME:MECHANISM:HEX (decrypts with an RSA key), blob:NAME (prints what the card
   made of a secret key), logout (of which such a key is told), login, gone:NAME (there is none),
   functions, touch:FILE or wait:FILE. */
#include "judge_steps.h"
#include "judge_keys.h"

static void digest(const char *name, CK_MECHANISM_TYPE type)
{
    static struct bytes in, a, b;

    for (CK_ULONG n = 1; n <= 1000; n += 999) {
        CK_MECHANISM m = with(type, NULL, 0);

        in = *text(n);
        if (!whole(name, DIGEST, &m, 0, &in, &a) || !in_parts(name, DIGEST, &m, 0, &in, &b))
            continue;
        same(name, &a, &b);
        printf("digest %s", name);
        hex(in.b, in.n);
        hex(a.b, a.n);
        puts("");
    }
}

static void digests(void)
{
    for (size_t h = 0; h < COUNT(hashes); h++)
        digest(hashes[h].name, hashes[h].digest);
    if (ep11 && !stock) { /* of whose digests 3.8 has none of SHA-3 */
        digest("sha3-224", CKM_IBM_SHA3_224);
        digest("sha3-256", CKM_IBM_SHA3_256);
        digest("sha3-384", CKM_IBM_SHA3_384);
        digest("sha3-512", CKM_IBM_SHA3_512);
    }
}

static void random_bytes(void)
{
    CK_BYTE a[999] = {0}, b[999] = {0};
    int n = 0;

    ok("C_GenerateRandom", p11->C_GenerateRandom(session, a, sizeof a));
    ok("C_GenerateRandom", p11->C_GenerateRandom(session, b, sizeof b));
    for (size_t i = 0; i < sizeof a; i++)
        n += a[i] == b[i];
    holds("random bytes", n < 40);
}

static void about(void)
{
    CK_INFO info;
    CK_TOKEN_INFO token;
    CK_SESSION_INFO now;
    CK_MECHANISM_TYPE types[512];
    CK_MECHANISM_INFO m;
    CK_ULONG n = 0, need;

    ok("C_GetInfo", p11->C_GetInfo(&info));
    ok("C_GetTokenInfo", p11->C_GetTokenInfo(slot, &token));
    ok("C_GetSessionInfo", p11->C_GetSessionInfo(session, &now));
    ok("C_GetMechanismList, length", p11->C_GetMechanismList(slot, NULL, &n));
    need = n;
    n = need - 1;
    if (!(stock && ep11)) /* which fills it, whatever room there is */
        is("C_GetMechanismList, short", p11->C_GetMechanismList(slot, types, &n), CKR_BUFFER_TOO_SMALL);
    n = need;
    if (!ok("C_GetMechanismList", p11->C_GetMechanismList(slot, types, &n)))
        return;
    printf("mechanisms");
    for (CK_ULONG i = 0; i < n; i++) {
        if (ok("C_GetMechanismInfo", p11->C_GetMechanismInfo(slot, types[i], &m)))
            printf(" %lx:%lu-%lu:%lx", types[i], m.ulMinKeySize, m.ulMaxKeySize, m.flags);
    }
    puts("");
}

/* change has a key copied, changed and destroyed; the copy is the key. */
static void change(const char *name)
{
    static struct bytes in, a, b;
    char of[80];
    CK_MECHANISM cbc = with(CKM_AES_CBC, iv, 16);
    struct list l = {0}, other = {0};
    CK_OBJECT_HANDLE key, copy = 0;
    CK_ULONG n = 0;

    label(of, name, "aes");
    key = find(CKO_SECRET_KEY, of);
    ok("C_GetObjectSize", p11->C_GetObjectSize(session, key, &n));
    bytes(&l, CKA_LABEL, "copy", 4);
    if (!ok("C_CopyObject", p11->C_CopyObject(session, key, l.a, l.n, &copy)))
        return;
    bytes(&other, CKA_LABEL, "changed", 7);
    bytes(&other, CKA_ID, "other", 5);
    ok("C_SetAttributeValue", p11->C_SetAttributeValue(session, copy, other.a, other.n));
    holds("it has another label", find(CKO_SECRET_KEY, "changed") == copy);
    in = *text(32);
    if (whole("the key", ENCRYPT, &cbc, key, &in, &a) && whole("its copy", ENCRYPT, &cbc, copy, &in, &b))
        same("a copy", &a, &b);
    ok("C_DestroyObject", p11->C_DestroyObject(session, copy));
    is("what was destroyed", p11->C_GetObjectSize(session, copy, &n), CKR_OBJECT_HANDLE_INVALID);
}

/* open decrypts what openssl made with a public key, and prints "opened NAME PLAIN". */
static void open_sealed(char *name)
{
    static struct bytes in, out;
    CK_RSA_PKCS_OAEP_PARAMS oaep = {CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, NULL, 0};
    char *mechanism = strchr(name, ':'), *data = mechanism == NULL ? NULL : strchr(mechanism + 1, ':');
    CK_MECHANISM m = with(CKM_RSA_PKCS, NULL, 0);

    if (data == NULL)
        exit(2);
    *mechanism++ = *data++ = 0;
    if (strcmp(mechanism, "oaep") == 0)
        m = with(CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep);
    unhex(&in, data);
    if (!whole(name, DECRYPT, &m, find(CKO_PRIVATE_KEY, name), &in, &out))
        return;
    printf("opened %s %s", name, mechanism);
    hex(out.b, out.n);
    puts("");
}

/* The last key whose blob was printed. */
static CK_OBJECT_HANDLE held;

/* blob prints "blob NAME BLOB". */
static void blob(const char *name)
{
    static struct bytes b;

    held = find(CKO_SECRET_KEY, name);
    if (!read_attribute(held, CKA_IBM_OPAQUE, &b))
        return;
    printf("blob %s", name);
    hex(b.b, b.n);
    puts("");
}

static CK_ULONG count(const char *name)
{
    struct list l = {0};
    CK_OBJECT_HANDLE found[2];
    CK_ULONG n = 0;

    bytes(&l, CKA_LABEL, name, strlen(name));
    if (ok("C_FindObjectsInit", p11->C_FindObjectsInit(session, l.a, l.n))) {
        ok("C_FindObjects", p11->C_FindObjects(session, found, 2, &n));
        ok("C_FindObjectsFinal", p11->C_FindObjectsFinal(session));
    }
    return n;
}

static void gone(const char *name)
{
    holds("an object that is there has not gone", count(name) == 0);
}

static bool logged_in;

static void log_out(void)
{
    CK_MECHANISM m = with(CKM_AES_CBC, iv, 16);

    if (ok("C_Logout", p11->C_Logout(session)))
        logged_in = false;
    holds("nobody is logged in, and a key does not encrypt", begin(ENCRYPT, &m, held) != CKR_OK);
}

static bool log_in(void)
{
    logged_in = ok("C_Login", p11->C_Login(session, CKU_USER, (CK_BYTE *)pin, strlen(pin)));
    return logged_in;
}

static void read_given(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[20000];

    if (f == NULL)
        exit(2);
    while (fgets(line, sizeof line, f) != NULL) {
        char *word = strtok(line, " \n");

        if (word != NULL && strcmp(word, "rsa") == 0) {
            for (int i = 0; i < 8; i++)
                unhex(&given_rsa[i], strtok(NULL, " \n"));
        } else if (word != NULL && strcmp(word, "peer") == 0 && peers < COUNT(peer_params)) {
            unhex(&peer_params[peers], strtok(NULL, " \n"));
            unhex(&peer_point[peers++], strtok(NULL, " \n"));
        } else if (word != NULL && strcmp(word, "dh") == 0) {
            for (int i = 0; i < 3; i++)
                unhex(&given_dh[i], strtok(NULL, " \n"));
        } else if (word != NULL && strcmp(word, "dsa") == 0) {
            for (int i = 0; i < 3; i++)
                unhex(&given_dsa[i], strtok(NULL, " \n"));
        }
    }
    fclose(f);
}

static void make(const char *name)
{
    make_secrets(name);
    if (secrets_only)
        return;
    make_rsa(name);
    make_ec(name);
    if (ep11)
        make_groups(name);
}

static void use(const char *name)
{
    use_secrets(name);
    if (secrets_only)
        return;
    for (size_t i = 0; i < rsa_count(); i++)
        use_rsa(name, rsa_sizes[i].of);
    use_rsa(name, "rsa-given");
    use_ec(name);
    if (!ep11)
        return;
    use_groups(name);
    derive(name);
    wrap(name);
}

static void command(char *c)
{
    char *name = strchr(c, ':');

    if (name != NULL)
        *name++ = 0;
    if (name != NULL && strcmp(c, "make") == 0) {
        stays = true;
        make(name);
    } else if (name != NULL && strcmp(c, "session") == 0) {
        stays = false;
        make(name);
        use(name);
        change(name);
    } else if (name != NULL && strcmp(c, "brief") == 0) {
        stays = false;
        make_secrets(name);
    } else if (name != NULL && strcmp(c, "use") == 0) {
        stays = true;
        use(name);
    } else if (name != NULL && strcmp(c, "open") == 0) {
        open_sealed(name);
    } else if (name != NULL && strcmp(c, "touch") == 0) {
        FILE *f = fopen(name, "w");

        fflush(stdout); /* so that what was printed can be read then */
        if (f == NULL || fclose(f) != 0)
            exit(2);
    } else if (name != NULL && strcmp(c, "wait") == 0) {
        for (int i = 0; access(name, F_OK) != 0; i++) {
            if (i == 3000)
                exit(2);
            usleep(40000);
        }
    } else if (name != NULL && strcmp(c, "blob") == 0) {
        blob(name);
    } else if (name != NULL && strcmp(c, "gone") == 0) {
        gone(name);
    } else if (strcmp(c, "logout") == 0) {
        log_out();
    } else if (strcmp(c, "login") == 0) {
        log_in();
    } else if (strcmp(c, "functions") == 0) {
        about();
        digests();
        random_bytes();
    } else {
        exit(2);
    }
}

int main(int argc, char **argv)
{
    CK_RV (*list)(CK_FUNCTION_LIST **);
    void *library;

    if (argc < 7)
        return 2;
    library = dlopen(argv[1], RTLD_NOW);
    if (library == NULL || (list = (CK_RV (*)(CK_FUNCTION_LIST **))dlsym(library, "C_GetFunctionList")) == NULL || list(&p11) != CKR_OK) {
        fprintf(stderr, "judge: %s\n", dlerror());
        return 1;
    }
    slot = strtoul(argv[2], NULL, 10);
    ep11 = strncmp(argv[4], "ep11", 4) == 0;
    stock = strstr(argv[4], "-stock") != NULL;
    secrets_only = strstr(argv[4], "-secrets") != NULL;
    pin = argv[3];
    read_given(argv[5]);
    if (!ok("C_Initialize", p11->C_Initialize(NULL)) ||
        !ok("C_OpenSession", p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session)) ||
        !log_in())
        return 1;
    for (int i = 6; i < argc; i++)
        command(argv[i]);
    if (logged_in)
        ok("C_Logout", p11->C_Logout(session));
    ok("C_CloseSession", p11->C_CloseSession(session));
    ok("C_Finalize", p11->C_Finalize(NULL));
    printf("checks %u\n", checks);
    return 0;
}
