"""Has a module with a CCA token use what CCA does on a little-endian machine, and prints
what came of it. Keys stay in the token.

usage: cca_stock.py MODULE PIN
"""
import ctypes
import json
import sys

from icsf_stock import (AES, CLASS, DECRYPT, ENCRYPT, EXTRACTABLE, GENERIC, ID, KEY, KEY_TYPE, LABEL, NO, PRIVATE, SECRET, SENSITIVE, SIGN, TEXT, TOKEN,
                        VALUE, VALUE_LEN, VERIFY, YES, Services, num, split)
from stock_client import U, check

CKA_PRIVATE = 0x2
MACS = {"sha1": 0x221, "sha256": 0x251, "sha384": 0x261, "sha512": 0x271}
DIGESTS = {"sha1": 0x220, "sha256": 0x250, "sha384": 0x260, "sha512": 0x270}
LONG = bytes(i * 7 % 256 for i in range(1000))
PARTS = [LONG[:100], LONG[100:400], LONG[400:656], LONG[656:]]


def named(label, *more):
    return [(TOKEN, YES), (CKA_PRIVATE, YES), (LABEL, label), (ID, label)] + list(more)


def secret(label, kind, value, *uses):
    return [(CLASS, num(SECRET)), (KEY_TYPE, num(kind)), (VALUE, value), (SENSITIVE, NO), (EXTRACTABLE, YES)] + named(label, *uses)


def sizes(c, name, key, kind, data, parameter=None):
    """The answers to a length alone, to a short buffer, and to one that is long enough, for
    which the operation begins anew: stock looks at no length of an HMAC, and ends there."""
    init, call = getattr(c.lib, "C_%sInit" % name), getattr(c.lib, "C_" + name)
    args = [] if key is None else [key]
    check(init(c.session, ctypes.byref(c.mechanism(kind, parameter)), *args))
    n = U(0)
    check(call(c.session, data, U(len(data)), None, ctypes.byref(n)))
    length = n.value
    out, n = ctypes.create_string_buffer(4096), U(length - 1)
    short = call(c.session, data, U(len(data)), out, ctypes.byref(n))
    n = U(4096)
    if call(c.session, data, U(len(data)), out, ctypes.byref(n)) == 0x91:
        check(init(c.session, ctypes.byref(c.mechanism(kind, parameter)), *args))
        n = U(4096)
        check(call(c.session, data, U(len(data)), out, ctypes.byref(n)))
    return [length, hex(short), out.raw[: n.value].hex()]


def digest(c, kind, parts):
    check(c.lib.C_DigestInit(c.session, ctypes.byref(c.mechanism(kind))))
    out, n = ctypes.create_string_buffer(64), U(64)
    if len(parts) == 1:
        check(c.lib.C_Digest(c.session, parts[0], U(len(parts[0])), out, ctypes.byref(n)))
    else:
        for part in parts:
            check(c.lib.C_DigestUpdate(c.session, part, U(len(part))))
        check(c.lib.C_DigestFinal(c.session, out, ctypes.byref(n)))
    return out.raw[: n.value].hex()


def main():
    c, out = Services(sys.argv[1]), {}
    c.do_open()
    c.do_login(sys.argv[2])
    iv = bytes(range(16))
    aes = c.create(secret(b"stock-aes", AES, KEY, (ENCRYPT, YES), (DECRYPT, YES)))
    for name, kind, parameter in (("ecb", 0x1081, None), ("cbc", 0x1082, iv), ("pad", 0x1085, iv)):
        text = TEXT + b"end" if name == "pad" else TEXT
        whole = c.one_shot("Encrypt", aes, kind, text, parameter)
        out["aes-" + name] = [whole.hex(), c.in_parts("Encrypt", aes, kind, split(text), parameter).hex()]
        for back in (c.one_shot("Decrypt", aes, kind, whole, parameter), c.in_parts("Decrypt", aes, kind, split(whole), parameter)):
            if back != text:
                raise Exception("%s decrypts to %s" % (name, back))
    out["sizes"] = sizes(c, "Encrypt", aes, 0x1082, TEXT, iv)
    for label, kind, cbc, more in ((b"stock-made", 0x1080, 0x1082, [(VALUE_LEN, num(32))]), (b"stock-des3", 0x131, 0x133, [])):
        key = c.generate(kind, named(label, (ENCRYPT, YES), (DECRYPT, YES), *more))
        part = iv if cbc == 0x1082 else iv[:8]
        sealed = c.one_shot("Encrypt", key, cbc, TEXT, part)
        if c.one_shot("Decrypt", key, cbc, sealed, part) != TEXT:
            raise Exception(label)
        out[label.decode()] = sealed.hex()
    mac = c.create(secret(b"stock-mac", GENERIC, KEY, (SIGN, YES), (VERIFY, YES)))
    made = c.generate(0x350, named(b"stock-made-mac", (SIGN, YES), (VERIFY, YES), (VALUE_LEN, num(32))))
    for name, kind in MACS.items():
        whole = c.one_shot("Sign", mac, kind, LONG)
        c.verify(mac, kind, LONG, whole)
        wrong = bytes([whole[0] ^ 1]) + whole[1:]
        out["hmac-" + name] = [whole.hex(), c.in_parts("Sign", mac, kind, PARTS).hex(), c.refuses(c.verify, mac, kind, LONG, wrong)]
        c.verify(made, kind, LONG, c.one_shot("Sign", made, kind, LONG))
    out["mac-sizes"] = sizes(c, "Sign", mac, 0x251, LONG)
    for name, kind in DIGESTS.items():
        out["digest-" + name] = [digest(c, kind, [LONG]), digest(c, kind, PARTS)]
    random = ctypes.create_string_buffer(20)
    check(c.lib.C_GenerateRandom(c.session, random, U(20)))
    out["random"] = len(set(random.raw)) > 5
    if len(sys.argv) > 3:  # the label of a key that another made, for AES
        key = U(c.find([(LABEL, sys.argv[3].encode())])[0])
        out["other"] = c.one_shot("Encrypt", key, 0x1082, TEXT, iv).hex()
    c.do_close()
    c.do_end()
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
