/* The keys that testdata/judge.c makes and uses. */
static const struct hash {
    const char *name;
    CK_MECHANISM_TYPE digest, hmac, rsa, ecdsa;
} hashes[] = {
    {"sha1", CKM_SHA_1, CKM_SHA_1_HMAC, CKM_SHA1_RSA_PKCS, CKM_ECDSA_SHA1},
    {"sha256", CKM_SHA256, CKM_SHA256_HMAC, CKM_SHA256_RSA_PKCS, CKM_ECDSA_SHA256},
    {"sha384", CKM_SHA384, CKM_SHA384_HMAC, CKM_SHA384_RSA_PKCS, CKM_ECDSA_SHA384},
    {"sha512", CKM_SHA512, CKM_SHA512_HMAC, CKM_SHA512_RSA_PKCS, CKM_ECDSA_SHA512},
};

static const struct curve {
    const char *name;
    CK_ULONG n;
    CK_BYTE params[12];
} curves[] = {
    {"prime256v1", 10, {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}},
    {"secp384r1", 7, {6, 5, 0x2b, 0x81, 4, 0, 0x22}},
    {"secp521r1", 7, {6, 5, 0x2b, 0x81, 4, 0, 0x23}},
    {"prime192v1", 10, {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 1}},
    {"secp224r1", 7, {6, 5, 0x2b, 0x81, 4, 0, 0x21}},
    {"brainpoolP160r1", 11, {6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 1}},
    {"brainpoolP192r1", 11, {6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 3}},
    {"brainpoolP224r1", 11, {6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 5}},
    {"brainpoolP256r1", 11, {6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7}},
    {"brainpoolP320r1", 11, {6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 9}},
    {"brainpoolP384r1", 11, {6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 11}},
    {"brainpoolP512r1", 11, {6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 13}},
};

static void label(char *to, const char *name, const char *of) { snprintf(to, 80, "%s-%s", name, of); }

static CK_OBJECT_HANDLE create(const char *what, struct list *l)
{
    CK_OBJECT_HANDLE o = 0;

    ok(what, p11->C_CreateObject(session, l->a, l->n, &o));
    return o;
}

static CK_OBJECT_HANDLE generate(const char *name, CK_MECHANISM_TYPE type, struct list *l)
{
    CK_MECHANISM m = {type, NULL, 0};
    CK_OBJECT_HANDLE o = 0;

    ok(name, p11->C_GenerateKey(session, &m, l->a, l->n, &o));
    return o;
}

static void make_secrets(const char *name)
{
    char of[80];
    const struct secret {
        const char *of;
        CK_ULONG type;
        CK_MECHANISM_TYPE generate; /* 0: its value is given */
        CK_ULONG n;
        bool cipher;
    } secrets[] = {
        {"aes", CKK_AES, CKM_AES_KEY_GEN, 32, true},
        {"aes-given", CKK_AES, 0, 16, true},
        {"des3", CKK_DES3, CKM_DES3_KEY_GEN, 0, true},
        {"des3-given", CKK_DES3, 0, 24, true},
        {"mac-given", CKK_GENERIC_SECRET, 0, 32, false},
        {"mac", CKK_GENERIC_SECRET, ep11 ? 0 : CKM_GENERIC_SECRET_KEY_GEN, 32, false}, /* stock has none for EP11 */
    };

    for (size_t i = 0; i < COUNT(secrets); i++) {
        const struct secret *s = &secrets[i];
        struct list l = {0};

        label(of, name, s->of);
        number(&l, CKA_CLASS, CKO_SECRET_KEY);
        number(&l, CKA_KEY_TYPE, s->type);
        named(&l, of, true);
        flag(&l, s->cipher ? CKA_ENCRYPT : CKA_SIGN);
        flag(&l, s->cipher ? CKA_DECRYPT : CKA_VERIFY);
        if (ep11 && s->cipher) {
            flag(&l, CKA_WRAP);
            flag(&l, CKA_UNWRAP);
        }
        flag(&l, CKA_EXTRACTABLE);
        if (s->generate == 0)
            bytes(&l, CKA_VALUE, known, s->n);
        else if (s->n != 0)
            number(&l, CKA_VALUE_LEN, s->n);
        if (s->generate == 0)
            create(of, &l);
        else
            generate(of, s->generate, &l);
    }
}

static void make_pair(const char *name, CK_MECHANISM_TYPE type, struct list *public, struct list *private)
{
    CK_MECHANISM m = {type, NULL, 0};
    CK_OBJECT_HANDLE a = 0, b = 0;

    named(public, name, false);
    named(private, name, true);
    ok(name, p11->C_GenerateKeyPair(session, &m, public->a, public->n, private->a, private->n, &a, &b));
}

static const struct {
    const char *of;
    CK_ULONG bits;
} rsa_sizes[] = {{"rsa", 2048}, {"rsa1024", 1024}};

static size_t rsa_count(void) { return stays ? 1 : COUNT(rsa_sizes); }

static void make_rsa(const char *name)
{
    static CK_BYTE exponent[] = {1, 0, 1};
    char of[80];

    for (size_t i = 0; i < rsa_count(); i++) {
        struct list public = {0}, private = {0};

        label(of, name, rsa_sizes[i].of);
        number(&public, CKA_MODULUS_BITS, rsa_sizes[i].bits);
        bytes(&public, CKA_PUBLIC_EXPONENT, exponent, sizeof exponent);
        flag(&public, CKA_ENCRYPT);
        flag(&public, CKA_VERIFY);
        flag(&private, CKA_DECRYPT);
        flag(&private, CKA_SIGN);
        flag(&private, CKA_EXTRACTABLE);
        make_pair(of, CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &private);
    }
    static const CK_ATTRIBUTE_TYPE types[] = {CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT};

    label(of, name, "rsa-given");
    for (int private = 0; private < 2; private++) {
        struct list l = {0};

        number(&l, CKA_CLASS, private ? CKO_PRIVATE_KEY : CKO_PUBLIC_KEY);
        number(&l, CKA_KEY_TYPE, CKK_RSA);
        named(&l, of, private);
        for (size_t i = 0; i < (private ? 8 : 2); i++)
            bytes(&l, types[i], given_rsa[i].b, given_rsa[i].n);
        flag(&l, private ? CKA_DECRYPT : CKA_ENCRYPT);
        flag(&l, private ? CKA_SIGN : CKA_VERIFY);
        create(of, &l);
    }
}

/* A set that stays has keys on the first three; all of them are tried in the session. */
static size_t curve_count(void) { return stays ? 3 : COUNT(curves); }

static void make_ec(const char *name)
{
    char of[80];

    for (size_t i = 0; i < curve_count(); i++) {
        struct list public = {0}, private = {0};

        label(of, name, curves[i].name);
        bytes(&public, CKA_EC_PARAMS, curves[i].params, curves[i].n);
        flag(&public, CKA_VERIFY);
        flag(&private, CKA_SIGN);
        if (ep11)
            flag(&private, CKA_DERIVE);
        flag(&private, CKA_EXTRACTABLE);
        make_pair(of, CKM_EC_KEY_PAIR_GEN, &public, &private);
    }
}

static CK_MECHANISM with(CK_MECHANISM_TYPE type, const void *p, CK_ULONG n) { return (CK_MECHANISM){type, (void *)p, n}; }

static void make_groups(const char *name)
{
    static const CK_ATTRIBUTE_TYPE dh[] = {CKA_PRIME, CKA_BASE}, dsa[] = {CKA_PRIME, CKA_SUBPRIME, CKA_BASE};
    char of[80];

    for (int signs = 0; signs < 2; signs++) {
        struct list public = {0}, private = {0};

        for (int i = 0; i < 2 + signs; i++) {
            const struct bytes *n = signs ? &given_dsa[i] : &given_dh[i];

            bytes(&public, signs ? dsa[i] : dh[i], n->b, n->n);
        }
        if (signs)
            flag(&public, CKA_VERIFY);
        flag(&private, signs ? CKA_SIGN : CKA_DERIVE);
        label(of, name, signs ? "dsa" : "dh");
        make_pair(of, signs ? CKM_DSA_KEY_PAIR_GEN : CKM_DH_PKCS_KEY_PAIR_GEN, &public, &private);
    }
}

static void use_secrets(const char *name)
{
    static const char *const keys[] = {"aes", "aes-given", "des3", "des3-given", "mac", "mac-given"};
    char of[80];
    CK_OBJECT_HANDLE key;

    for (size_t i = 0; i < COUNT(keys); i++) {
        label(of, name, keys[i]);
        key = find(CKO_SECRET_KEY, of);
        if (key == 0)
            continue;
        if (keys[i][0] == 'a') {
            cipher(of, "aes-ecb", with(CKM_AES_ECB, NULL, 0), key, 160);
            cipher(of, "aes-cbc", with(CKM_AES_CBC, iv, 16), key, 320);
            cipher(of, "aes-cbc-pad", with(CKM_AES_CBC_PAD, iv, 16), key, 333);
            cipher(of, "aes-cbc-pad", with(CKM_AES_CBC_PAD, iv, 16), key, 48);
        } else if (keys[i][0] == 'd') {
            if (ep11) /* stock has none for CCA */
                cipher(of, "des3-ecb", with(CKM_DES3_ECB, NULL, 0), key, 160);
            cipher(of, "des3-cbc", with(CKM_DES3_CBC, iv, 8), key, 160);
            cipher(of, "des3-cbc-pad", with(CKM_DES3_CBC_PAD, iv, 8), key, 163);
        } else {
            hmac = true;
            for (size_t h = 0; h < COUNT(hashes); h++) {
                signature(of, hashes[h].name, with(hashes[h].hmac, NULL, 0), key, key, 1000, true);
                signature(of, hashes[h].name, with(hashes[h].hmac, NULL, 0), key, key, 1, true);
            }
            hmac = false;
        }
    }
}

static void use_rsa(const char *name, const char *which)
{
    static struct bytes n, e, in, out, back;
    char of[80];
    CK_OBJECT_HANDLE public, private;
    CK_RSA_PKCS_PSS_PARAMS pss = {CKM_SHA_1, CKG_MGF1_SHA1, 20};
    CK_RSA_PKCS_OAEP_PARAMS oaep = {CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, NULL, 0};

    label(of, name, which);
    public = find(CKO_PUBLIC_KEY, of);
    private = find(CKO_PRIVATE_KEY, of);
    if (public == 0 || private == 0 || !read_attribute(public, CKA_MODULUS, &n) || !read_attribute(public, CKA_PUBLIC_EXPONENT, &e))
        return;
    printf("rsa %s", of);
    hex(n.b, n.n);
    hex(e.b, e.n);
    puts("");
    for (size_t h = 0; h < COUNT(hashes); h++) {
        if (!ep11 && h >= 2) /* which stock has not for CCA */
            break;
        signature(of, hashes[h].name, with(hashes[h].rsa, NULL, 0), private, public, 1000, true);
    }
    signature(of, "raw", with(CKM_RSA_PKCS, NULL, 0), private, public, 51, false);
    if (ep11)
        signature(of, "pss", with(CKM_RSA_PKCS_PSS, &pss, sizeof pss), private, public, 20, false);
    for (int i = 0; i < 1 + ep11; i++) {
        CK_MECHANISM m = i == 0 ? with(CKM_RSA_PKCS, NULL, 0) : with(CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep);

        in = *text(40);
        if (whole(of, ENCRYPT, &m, public, &in, &out) && whole(of, DECRYPT, &m, private, &out, &back))
            same(of, &back, &in);
    }
}

static void use_ec(const char *name)
{
    static struct bytes params, point;
    char of[80];

    for (size_t i = 0; i < curve_count(); i++) {
        CK_OBJECT_HANDLE public, private;

        label(of, name, curves[i].name);
        public = find(CKO_PUBLIC_KEY, of);
        private = find(CKO_PRIVATE_KEY, of);
        if (public == 0 || private == 0 || !read_attribute(public, CKA_EC_PARAMS, &params) || !read_attribute(public, CKA_EC_POINT, &point))
            continue;
        printf("ec %s", of);
        hex(params.b, params.n);
        hex(point.b, point.n);
        puts("");
        signature(of, "raw", with(CKM_ECDSA, NULL, 0), private, public, 20, false);
        for (size_t h = 0; h < COUNT(hashes); h++)
            signature(of, hashes[h].name, with(hashes[h].ecdsa, NULL, 0), private, public, 1000, true);
    }
}

/* derive_with prints "derived NAME PEER PLAIN CIPHER": what the key that comes out makes of a
   text by AES-CBC. */
static void derive_with(const char *name, CK_MECHANISM m, const struct bytes *peer)
{
    static struct bytes in, out;
    CK_MECHANISM cbc = with(CKM_AES_CBC, iv, 16);
    CK_OBJECT_HANDLE key = 0;
    struct list l = {0};

    number(&l, CKA_CLASS, CKO_SECRET_KEY);
    number(&l, CKA_KEY_TYPE, CKK_AES);
    number(&l, CKA_VALUE_LEN, 16);
    flag(&l, CKA_ENCRYPT);
    in = *text(48);
    if (!ok(name, p11->C_DeriveKey(session, &m, find(CKO_PRIVATE_KEY, name), l.a, l.n, &key)) || !whole(name, ENCRYPT, &cbc, key, &in, &out))
        return;
    printf("derived %s", name);
    hex(peer->b, peer->n);
    hex(in.b, in.n);
    hex(out.b, out.n);
    puts("");
    ok("C_DestroyObject", p11->C_DestroyObject(session, key));
}

static void use_groups(const char *name)
{
    static const CK_ATTRIBUTE_TYPE types[] = {CKA_PRIME, CKA_SUBPRIME, CKA_BASE, CKA_VALUE};
    static struct bytes n;
    char of[80];

    for (int signs = 0; signs < 2; signs++) {
        CK_OBJECT_HANDLE public;

        label(of, name, signs ? "dsa" : "dh");
        public = find(CKO_PUBLIC_KEY, of);
        if (public == 0)
            continue;
        printf("%s %s", signs ? "dsa" : "dh", of);
        for (size_t i = 0; i < COUNT(types); i++) {
            if (i != 1 || signs) {
                n.n = 0;
                read_attribute(public, types[i], &n);
                hex(n.b, n.n);
            }
        }
        puts("");
        if (!signs) {
            derive_with(of, with(CKM_DH_PKCS_DERIVE, given_dh[2].b, given_dh[2].n), &given_dh[2]);
            continue;
        }
        signature(of, "raw", with(CKM_DSA, NULL, 0), find(CKO_PRIVATE_KEY, of), public, 20, false);
        signature(of, "sha1", with(CKM_DSA_SHA1, NULL, 0), find(CKO_PRIVATE_KEY, of), public, 1000, true);
    }
}

/* derive has each peer on the curve of a key. */
static void derive(const char *name)
{
    char of[80];

    for (size_t i = 0; i < peers; i++) {
        for (size_t c = 0; c < curve_count(); c++) {
            CK_ECDH1_DERIVE_PARAMS ecdh = {CKD_NULL, 0, NULL, peer_point[i].n, peer_point[i].b};

            if (curves[c].n != peer_params[i].n || memcmp(curves[c].params, peer_params[i].b, curves[c].n) != 0)
                continue;
            label(of, name, curves[c].name);
            derive_with(of, with(CKM_ECDH1_DERIVE, &ecdh, sizeof ecdh), &peer_point[i]);
        }
    }
}

/* wrap has keys of a set wrapped and unwrapped; the copy does what the key did. */
static void wrap(const char *name)
{
    static struct bytes wrapped, a, b, in;
    char of[80];
    CK_MECHANISM cbc = with(CKM_AES_CBC, iv, 16), pad = with(CKM_AES_CBC_PAD, iv, 16), rsa = with(CKM_RSA_PKCS, NULL, 0), raw = with(CKM_ECDSA, NULL, 0);
    CK_OBJECT_HANDLE kek, key, copy = 0;
    const struct {
        const char *of;
        CK_ULONG class, type;
        CK_MECHANISM *wrap, *use;
        CK_ULONG n;
    } kinds[] = {
        {"aes", CKO_SECRET_KEY, CKK_AES, &cbc, &cbc, 32},
        {"aes", CKO_SECRET_KEY, CKK_AES, &pad, &cbc, 32},
        {"mac-given", CKO_SECRET_KEY, CKK_GENERIC_SECRET, &pad, NULL, 32},
        {"rsa", CKO_PRIVATE_KEY, CKK_RSA, &pad, &rsa, 0},
        {"prime256v1", CKO_PRIVATE_KEY, CKK_EC, &pad, &raw, 0},
    };

    label(of, name, "aes-given");
    kek = find(CKO_SECRET_KEY, of);
    for (size_t i = 0; i < COUNT(kinds); i++) {
        struct list l = {0};
        CK_ULONG need = 0;

        label(of, name, kinds[i].of);
        key = find(kinds[i].class, of);
        if (!ok("C_WrapKey, length", p11->C_WrapKey(session, kinds[i].wrap, kek, key, NULL, &need)) || !holds("C_WrapKey's length", need > 0 && need < ROOM))
            continue;
        wrapped.n = need - 1;
        is("C_WrapKey, short", p11->C_WrapKey(session, kinds[i].wrap, kek, key, wrapped.b, &wrapped.n), CKR_BUFFER_TOO_SMALL);
        wrapped.n = need;
        if (!ok("C_WrapKey", p11->C_WrapKey(session, kinds[i].wrap, kek, key, wrapped.b, &wrapped.n)))
            continue;
        number(&l, CKA_CLASS, kinds[i].class);
        number(&l, CKA_KEY_TYPE, kinds[i].type);
        if (kinds[i].n != 0)
            number(&l, CKA_VALUE_LEN, kinds[i].n);
        label(of, name, "unwrapped");
        named(&l, of, true);
        flag(&l, kinds[i].use == &cbc ? CKA_ENCRYPT : CKA_SIGN);
        if (!ok(kinds[i].of, p11->C_UnwrapKey(session, kinds[i].wrap, kek, wrapped.b, wrapped.n, l.a, l.n, &copy)))
            continue;
        in = *text(32);
        if (kinds[i].use == &cbc) {
            if (whole("the key", ENCRYPT, &cbc, key, &in, &a) && whole("the unwrapped key", ENCRYPT, &cbc, copy, &in, &b))
                same("unwrapped", &a, &b);
        } else if (kinds[i].use == NULL) {
            CK_MECHANISM hmac = with(CKM_SHA256_HMAC, NULL, 0);

            if (whole("the key", SIGN, &hmac, key, &in, &a) && whole("the unwrapped key", SIGN, &hmac, copy, &in, &b))
                same("unwrapped", &a, &b);
        } else {
            label(of, name, kinds[i].of);
            if (whole("the unwrapped key", SIGN, kinds[i].use, copy, &in, &a))
                verify("the unwrapped key's", kinds[i].use, find(CKO_PUBLIC_KEY, of), &in, &a, false);
        }
        ok("C_DestroyObject", p11->C_DestroyObject(session, copy));
    }
}
