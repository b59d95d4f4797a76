"""OpenSSL's libcrypto as another implementation: one call a line on standard input, one
line of answer on standard output, bytes in hexadecimal, - for none, or "error ...".

usage: libcrypto.py

digest NAME DATA [LENGTH]
mac NAME KEY PARAMETERS DATA
kdf NAME PARAMETERS LENGTH
cipher encrypt|decrypt NAME KEY IV PARAMETERS DATA    PARAMETERS may be aad=, tag=LENGTH, pad=0
sign KEY DIGEST PARAMETERS DATA
verify KEY DIGEST PARAMETERS DATA SIGNATURE
raw sign|encrypt|decrypt|recover KEY PARAMETERS DATA
rawverify KEY PARAMETERS DATA SIGNATURE
derive KEY PEER PARAMETERS
encapsulate KEY                                       gives the ciphertext and the secret
decapsulate KEY CIPHERTEXT
public KEY
check KEY
version

A KEY of a pair is DER: PKCS #8, or SubjectPublicKeyInfo where a public one is meant.
PARAMETERS are NAME=VALUE between commas: s:TEXT, u:NUMBER, i:NUMBER or x:BYTES; of
operations with pairs NAME=VALUE are what openssl(1) takes as -pkeyopt.
"""
import ctypes
import sys

crypto = ctypes.CDLL("libcrypto.so.3")
P, I, Z = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t


class Param(ctypes.Structure):
    """OSSL_PARAM."""

    _fields_ = [("key", ctypes.c_char_p), ("type", ctypes.c_uint), ("data", P), ("size", Z), ("returned", Z)]


def function(name, result, *arguments):
    f = getattr(crypto, name)
    f.restype, f.argtypes = result, arguments
    return f


def must(value):
    if not value or isinstance(value, int) and value < 0:
        text = ctypes.create_string_buffer(256)
        function("ERR_error_string_n", None, ctypes.c_ulong, P, Z)(function("ERR_get_error", ctypes.c_ulong)(), text, 256)
        raise ValueError(text.value.decode())
    return value


function("OSSL_PROVIDER_load", P, P, ctypes.c_char_p)(None, b"default")
function("OSSL_PROVIDER_load", P, P, ctypes.c_char_p)(None, b"legacy")


def raw(text):
    return b"" if text == "-" else bytes.fromhex(text)


def pairs(text):
    return [p.split("=", 1) for p in text.split(",")] if text != "-" else []


def params(text):
    """An array of OSSL_PARAM, and what keeps it alive."""
    kept, list = [], []
    for name, value in pairs(text):
        kind, _, value = value.partition(":")
        if kind in "ui":
            data, type = ctypes.c_size_t(int(value)), 2
            if kind == "i":
                data, type = ctypes.c_int(int(value)), 1
            size = ctypes.sizeof(data)
        else:
            data = value.encode() if kind == "s" else bytes.fromhex(value)
            size, type = len(data), 4 if kind == "s" else 5
            data = ctypes.create_string_buffer(data, size + 1)
        kept.append(data)
        list.append(Param(name.encode(), type, ctypes.cast(ctypes.byref(data), P), size, Z(-1).value))
    array = (Param * (len(list) + 1))(*list)
    array.kept = kept
    return array


def fetch(kind, name):
    return must(function(kind + "_fetch", P, P, ctypes.c_char_p, ctypes.c_char_p)(None, name.encode(), None))


def do_version():
    return function("OpenSSL_version", ctypes.c_char_p, I)(0).decode().replace(" ", "_")


def do_digest(name, data, length="0"):
    data, n = raw(data), int(length)
    context, out, size = must(function("EVP_MD_CTX_new", P)()), ctypes.create_string_buffer(4096), ctypes.c_uint()
    must(function("EVP_DigestInit_ex", I, P, P, P)(context, fetch("EVP_MD", name), None))
    must(function("EVP_DigestUpdate", I, P, P, Z)(context, data, len(data)))
    if n:
        must(function("EVP_DigestFinalXOF", I, P, P, Z)(context, out, n))
        return out.raw[:n].hex()
    must(function("EVP_DigestFinal_ex", I, P, P, P)(context, out, ctypes.byref(size)))
    return out.raw[: size.value].hex()


def do_mac(name, key, parameters, data):
    key, data = raw(key), raw(data)
    context = must(function("EVP_MAC_CTX_new", P, P)(fetch("EVP_MAC", name)))
    must(function("EVP_MAC_init", I, P, P, Z, P)(context, key, len(key), params(parameters)))
    must(function("EVP_MAC_update", I, P, P, Z)(context, data, len(data)))
    out, n = ctypes.create_string_buffer(4096), Z()
    must(function("EVP_MAC_final", I, P, P, P, Z)(context, out, ctypes.byref(n), 4096))
    return out.raw[: n.value].hex()


def do_kdf(name, parameters, length):
    context, n = must(function("EVP_KDF_CTX_new", P, P)(fetch("EVP_KDF", name))), int(length)
    out = ctypes.create_string_buffer(n)
    must(function("EVP_KDF_derive", I, P, P, Z, P)(context, out, n, params(parameters)))
    return out.raw.hex()


def do_cipher(way, name, key, iv, parameters, data):
    key, iv, data, options = raw(key), raw(iv), raw(data), dict(pairs(parameters))
    encrypts, tag = way == "encrypt", int(options.get("tag", "0"))
    context = must(function("EVP_CIPHER_CTX_new", P)())
    function("EVP_CIPHER_CTX_set_flags", None, P, I)(context, 1)  # EVP_CIPHER_CTX_FLAG_WRAP_ALLOW
    control = function("EVP_CIPHER_CTX_ctrl", I, P, I, I, P)
    init, update = function("EVP_CipherInit_ex", I, P, P, P, P, P, I), function("EVP_CipherUpdate", I, P, P, P, P, I)
    must(init(context, fetch("EVP_CIPHER", name), None, None, None, encrypts))
    n, out, ccm = I(), ctypes.create_string_buffer(len(data) + 4096), name.endswith("CCM")
    if tag:
        must(control(context, 9, len(iv), None))  # EVP_CTRL_AEAD_SET_IVLEN
        if not encrypts or ccm:
            given = None if encrypts else data[len(data) - tag :]
            must(control(context, 0x11, tag, given))  # EVP_CTRL_AEAD_SET_TAG
        if not encrypts:
            data = data[: len(data) - tag]
    must(init(context, None, None, key, iv or None, encrypts))
    if "pad" in options:
        function("EVP_CIPHER_CTX_set_padding", I, P, I)(context, int(options["pad"]))
    if ccm:
        must(update(context, None, ctypes.byref(n), None, len(data)))
    if aad := raw(options.get("aad", "-")):
        must(update(context, None, ctypes.byref(n), aad, len(aad)))
    must(update(context, out, ctypes.byref(n), data, len(data)))
    result = out.raw[: n.value]
    if not ccm:
        must(function("EVP_CipherFinal_ex", I, P, P, P)(context, out, ctypes.byref(n)))
        result += out.raw[: n.value]
    if tag and encrypts:
        must(control(context, 0x10, tag, out))  # EVP_CTRL_AEAD_GET_TAG
        result += out.raw[:tag]
    return result.hex()


def private(text):
    der = raw(text)
    at = ctypes.c_char_p(der)
    return must(function("d2i_AutoPrivateKey", P, P, P, ctypes.c_long)(None, ctypes.byref(at), len(der)))


def public(text):
    der = raw(text)
    at = ctypes.c_char_p(der)
    return must(function("d2i_PUBKEY", P, P, P, ctypes.c_long)(None, ctypes.byref(at), len(der)))


def control(context, parameters):
    for name, value in pairs(parameters):
        must(function("EVP_PKEY_CTX_ctrl_str", I, P, ctypes.c_char_p, ctypes.c_char_p)(context, name.encode(), value.encode()) > 0)


def message(init, key, digest, parameters):
    context, inner = must(function("EVP_MD_CTX_new", P)()), P()
    name = None if digest == "-" else digest.encode()
    options, instance = [], None
    for pair in pairs(parameters):
        if pair[1][:2] in ("s:", "u:", "i:", "x:"):
            options.append("=".join(pair))
        else:
            instance = (instance or []) + ["=".join(pair)]
    must(function(init, I, P, P, ctypes.c_char_p, P, P, P, P)(context, ctypes.byref(inner), name, None, None, key, params(",".join(options) or "-")))
    control(inner, ",".join(instance or []) or "-")
    return context


def do_sign(key, digest, parameters, data):
    data, context = raw(data), message("EVP_DigestSignInit_ex", private(key), digest, parameters)
    out, n = ctypes.create_string_buffer(65536), Z(65536)
    must(function("EVP_DigestSign", I, P, P, P, P, Z)(context, out, ctypes.byref(n), data, len(data)))
    return out.raw[: n.value].hex()


def do_verify(key, digest, parameters, data, signature):
    data, signature, context = raw(data), raw(signature), message("EVP_DigestVerifyInit_ex", public(key), digest, parameters)
    must(function("EVP_DigestVerify", I, P, P, Z, P, Z)(context, signature, len(signature), data, len(data)) == 1)
    return "-"


def operation(key, name, parameters):
    context = must(function("EVP_PKEY_CTX_new", P, P, P)(key, None))
    must(function("EVP_PKEY_%s_init" % name, I, P)(context) > 0)
    control(context, parameters)
    return context


def output(name, context, *arguments):
    out, n = ctypes.create_string_buffer(65536), Z(65536)
    data = [x for a in arguments for x in (a, Z(len(a)))]
    f = getattr(crypto, "EVP_PKEY_" + name)
    f.restype, f.argtypes = I, None
    must(f(P(context), out, ctypes.byref(n), *data) > 0)
    return out.raw[: n.value].hex() or "-"


def do_raw(name, key, parameters, data):
    owner = public if name in ("encrypt", "recover") else private
    name = {"recover": "verify_recover"}.get(name, name)
    return output(name, operation(owner(key), name, parameters), raw(data))


def do_rawverify(key, parameters, data, signature):
    data, signature, context = raw(data), raw(signature), operation(public(key), "verify", parameters)
    must(function("EVP_PKEY_verify", I, P, P, Z, P, Z)(context, signature, len(signature), data, len(data)) == 1)
    return "-"


def do_derive(key, peer, parameters):
    context = operation(private(key), "derive", parameters)
    must(function("EVP_PKEY_derive_set_peer", I, P, P)(context, public(peer)) > 0)
    return output("derive", context)


def do_encapsulate(key):
    context = must(function("EVP_PKEY_CTX_new", P, P, P)(public(key), None))
    must(function("EVP_PKEY_encapsulate_init", I, P, P)(context, None) > 0)
    out, n, secret, m = ctypes.create_string_buffer(65536), Z(65536), ctypes.create_string_buffer(256), Z(256)
    must(function("EVP_PKEY_encapsulate", I, P, P, P, P, P)(context, out, ctypes.byref(n), secret, ctypes.byref(m)) > 0)
    return out.raw[: n.value].hex() + " " + secret.raw[: m.value].hex()


def do_decapsulate(key, ciphertext):
    ciphertext, context = raw(ciphertext), must(function("EVP_PKEY_CTX_new", P, P, P)(private(key), None))
    must(function("EVP_PKEY_decapsulate_init", I, P, P)(context, None) > 0)
    secret, m = ctypes.create_string_buffer(256), Z(256)
    must(function("EVP_PKEY_decapsulate", I, P, P, P, P, Z)(context, secret, ctypes.byref(m), ciphertext, len(ciphertext)) > 0)
    return secret.raw[: m.value].hex()


def do_public(key):
    out = P()
    n = must(function("i2d_PUBKEY", I, P, P)(private(key), ctypes.byref(out)) > 0 and function("i2d_PUBKEY", I, P, P)(private(key), None))
    return ctypes.string_at(out, n).hex()


def do_check(key):
    context = must(function("EVP_PKEY_CTX_new", P, P, P)(private(key), None))
    must(function("EVP_PKEY_check", I, P)(context) == 1)
    return "-"


for line in sys.stdin:
    command, *args = line.split()
    try:
        print(globals()["do_" + command](*args) or "-", flush=True)
    except (ValueError, TypeError) as e:
        print("error", str(e).replace("\n", " "), flush=True)
