"""Has a module with an icsf token use each service of ICSF, and prints what came of it.

usage: icsf_stock.py MODULE PIN P Q G P G

The numbers are a group of DSA and one of Diffie-Hellman.
"""
import ctypes
import hashlib
import hmac
import json
import sys

from stock_client import Attribute, Client, Mechanism, Refused, U, check, template

ID, SENSITIVE, ENCRYPT, DECRYPT, WRAP, UNWRAP, SIGN, VERIFY, DERIVE = 0x102, 0x103, 0x104, 0x105, 0x106, 0x107, 0x108, 0x10A, 0x10C
KEY_TYPE, MODULUS, MODULUS_BITS, EXPONENT, VALUE_LEN, EXTRACTABLE, PARAMS, POINT = 0x100, 0x120, 0x121, 0x122, 0x161, 0x162, 0x180, 0x181
CLASS, TOKEN, LABEL, VALUE, PRIME, SUBPRIME, BASE = 0x0, 0x1, 0x3, 0x11, 0x130, 0x131, 0x132
PUBLIC, PRIVATE, SECRET = 2, 3, 4
RSA, DSA, DH, EC, GENERIC, AES, DES, DES3 = 0x0, 0x1, 0x2, 0x3, 0x10, 0x1F, 0x13, 0x15
YES, NO = b"\1", b"\0"
P256 = bytes.fromhex("06082a8648ce3d030107")
KEY = bytes(range(16))
TEXT = b"sixteen bytes of" * 5


def num(n):
    return n.to_bytes(8, "little")


class Data(ctypes.Structure):
    """The random values of both ends of SSL."""
    _fields_ = [("client", ctypes.c_void_p), ("client_length", U), ("server", ctypes.c_void_p), ("server_length", U)]


class Master(ctypes.Structure):
    _fields_ = [("random", Data), ("version", ctypes.c_void_p)]


class Material(ctypes.Structure):
    _fields_ = [("client_mac", U), ("server_mac", U), ("client_key", U), ("server_key", U), ("client_iv", ctypes.c_void_p), ("server_iv", ctypes.c_void_p)]


class MaterialParams(ctypes.Structure):
    _fields_ = [("mac_bits", U), ("key_bits", U), ("iv_bits", U), ("export", ctypes.c_ubyte), ("random", Data), ("out", ctypes.c_void_p)]


class Services(Client):
    def mechanism(self, kind, parameter=None):
        self.kept = parameter
        if parameter is None:
            return Mechanism(kind, None, 0)
        if isinstance(parameter, bytes):
            self.kept = ctypes.create_string_buffer(parameter, len(parameter))
        return Mechanism(kind, ctypes.cast(ctypes.pointer(self.kept), ctypes.c_void_p), ctypes.sizeof(self.kept))

    def made(self, call, *args):
        handle = U()
        check(call(self.session, *args, ctypes.byref(handle)))
        return handle

    def create(self, pairs):
        return self.made(self.lib.C_CreateObject, template(pairs), U(len(pairs)))

    def generate(self, kind, pairs, parameter=None):
        return self.made(self.lib.C_GenerateKey, ctypes.byref(self.mechanism(kind, parameter)), template(pairs), U(len(pairs)))

    def pair(self, kind, public, private):
        a, b = U(), U()
        check(self.lib.C_GenerateKeyPair(self.session, ctypes.byref(self.mechanism(kind)), template(public), U(len(public)),
                                         template(private), U(len(private)), ctypes.byref(a), ctypes.byref(b)))
        return a, b

    def one_shot(self, name, key, kind, data, parameter=None):
        init, call = getattr(self.lib, "C_%sInit" % name), getattr(self.lib, "C_" + name)
        check(init(self.session, ctypes.byref(self.mechanism(kind, parameter)), key))
        out, n = ctypes.create_string_buffer(4096), U(4096)
        check(call(self.session, data, U(len(data)), out, ctypes.byref(n)))
        return out.raw[: n.value]

    def in_parts(self, name, key, kind, parts, parameter=None):
        init, update, final = (getattr(self.lib, "C_%s%s" % (name, x)) for x in ("Init", "Update", "Final"))
        check(init(self.session, ctypes.byref(self.mechanism(kind, parameter)), key))
        result = b""
        out, n = ctypes.create_string_buffer(4096), U(4096)
        for part in parts:
            if name == "Sign":
                check(update(self.session, part, U(len(part))))
                continue
            n.value = 4096
            check(update(self.session, part, U(len(part)), out, ctypes.byref(n)))
            result += out.raw[: n.value]
        n.value = 4096
        check(final(self.session, out, ctypes.byref(n)))
        return result + out.raw[: n.value]

    def verify(self, key, kind, data, signature, parts=False):
        check(self.lib.C_VerifyInit(self.session, ctypes.byref(self.mechanism(kind)), key))
        if not parts:
            check(self.lib.C_Verify(self.session, data, U(len(data)), signature, U(len(signature))))
            return
        for part in split(data):
            check(self.lib.C_VerifyUpdate(self.session, part, U(len(part))))
        check(self.lib.C_VerifyFinal(self.session, signature, U(len(signature))))

    def sizes(self, name, key, kind, data, parameter=None):
        """Asks for the length of what comes out, gives too little room, and then enough: what each call says."""
        init, call = getattr(self.lib, "C_%sInit" % name), getattr(self.lib, "C_" + name)
        check(init(self.session, ctypes.byref(self.mechanism(kind, parameter)), key))
        out, n, said = ctypes.create_string_buffer(4096), U(0), []
        for room in (None, 1, 4096):
            n.value = room or 0
            rv = call(self.session, data, U(len(data)), None if room is None else out, ctypes.byref(n))
            said.append("0x%x %d" % (rv, n.value))
        return ", ".join(said)

    def refuses(self, call, *args):
        try:
            call(*args)
        except Refused as e:
            return str(e)
        return "0x0"

    def wrap(self, kind, wrapping, key):
        out, n = ctypes.create_string_buffer(8192), U(8192)
        iv = None if kind == 0x1 else bytes(16 if kind == 0x1085 else 8)
        check(self.lib.C_WrapKey(self.session, ctypes.byref(self.mechanism(kind, iv)), wrapping, key, out, ctypes.byref(n)))
        return out.raw[: n.value]

    def unwrap(self, kind, with_key, wrapped, pairs):
        iv = None if kind == 0x1 else bytes(16)
        return self.made(self.lib.C_UnwrapKey, ctypes.byref(self.mechanism(kind, iv)), with_key, wrapped, U(len(wrapped)), template(pairs), U(len(pairs)))

    def derive(self, parameter, kind, base, pairs):
        return self.made(self.lib.C_DeriveKey, ctypes.byref(self.mechanism(kind, parameter)), base, template(pairs), U(len(pairs)))


def split(data):
    return [data[:5], data[5:6], data[6:49], data[49:]]


def ciphers(c, out):
    aes = c.create([(CLASS, num(SECRET)), (KEY_TYPE, num(AES)), (TOKEN, YES), (LABEL, b"aes"), (VALUE, KEY), (SENSITIVE, NO), (EXTRACTABLE, YES),
                    (ENCRYPT, YES), (DECRYPT, YES), (WRAP, YES), (UNWRAP, YES)])
    iv = bytes(range(16))
    for name, kind, parameter in (("ecb", 0x1081, None), ("cbc", 0x1082, iv), ("pad", 0x1085, iv)):
        text = TEXT + b"end" if name == "pad" else TEXT
        whole = c.one_shot("Encrypt", aes, kind, text, parameter)
        out["aes-" + name] = whole.hex()
        out["aes-%s-parts" % name] = c.in_parts("Encrypt", aes, kind, split(text), parameter).hex()
        for back in (c.one_shot("Decrypt", aes, kind, whole, parameter), c.in_parts("Decrypt", aes, kind, split(whole), parameter)):
            if back != text:
                raise Exception("%s decrypts to %s" % (name, back))
    triple = c.generate(0x131, [(TOKEN, NO), (LABEL, b"des3"), (ENCRYPT, YES), (DECRYPT, YES)])
    if c.one_shot("Decrypt", triple, 0x133, c.one_shot("Encrypt", triple, 0x133, TEXT, iv[:8]), iv[:8]) != TEXT:
        raise Exception("3DES")
    out["unaligned"] = c.refuses(c.one_shot, "Encrypt", aes, 0x1082, b"short", iv)
    return aes


def macs(c, out):
    key = c.create([(CLASS, num(SECRET)), (KEY_TYPE, num(GENERIC)), (TOKEN, YES), (LABEL, b"mac"), (VALUE, KEY), (SIGN, YES), (VERIFY, YES),
                    (SENSITIVE, NO), (EXTRACTABLE, YES)])
    mac = c.one_shot("Sign", key, 0x251, TEXT)
    out["hmac"], out["hmac-parts"] = mac.hex(), c.in_parts("Sign", key, 0x251, split(TEXT)).hex()
    for parts in (False, True):
        c.verify(key, 0x251, TEXT, mac, parts)
        out["wrong-hmac-%d" % parts] = c.refuses(c.verify, key, 0x251, TEXT, mac[:-1] + b"?", parts)
    return key


def pairs_of_keys(c, out):
    pub, priv = c.pair(0x0, [(TOKEN, YES), (LABEL, b"rsa"), (MODULUS_BITS, num(2048)), (EXPONENT, b"\1\0\1"), (ENCRYPT, YES), (VERIFY, YES), (WRAP, YES)],
                       [(TOKEN, YES), (LABEL, b"rsa"), (SENSITIVE, YES), (DECRYPT, YES), (SIGN, YES), (UNWRAP, YES)])
    out["modulus"] = c.get(pub.value, MODULUS).hex()
    out["rsa"] = c.one_shot("Sign", priv, 0x1, b"20 bytes to be sign.").hex()
    c.verify(pub, 0x1, b"20 bytes to be sign.", bytes.fromhex(out["rsa"]))
    out["rsa-sha256"], out["rsa-sha256-parts"] = c.one_shot("Sign", priv, 0x40, TEXT).hex(), c.in_parts("Sign", priv, 0x40, split(TEXT)).hex()
    for parts in (False, True):
        c.verify(pub, 0x40, TEXT, bytes.fromhex(out["rsa-sha256"]), parts)
    out["wrong-rsa"] = c.refuses(c.verify, pub, 0x40, TEXT + b"?", bytes.fromhex(out["rsa-sha256"]))
    if c.one_shot("Decrypt", priv, 0x1, c.one_shot("Encrypt", pub, 0x1, b"secret")) != b"secret":
        raise Exception("RSA")
    epub, epriv = c.pair(0x1040, [(TOKEN, YES), (LABEL, b"ec"), (PARAMS, P256), (VERIFY, YES)], [(TOKEN, YES), (LABEL, b"ec"), (SIGN, YES)])
    out["point"] = c.get(epub.value, POINT).hex()
    out["ecdsa"] = c.one_shot("Sign", epriv, 0x1041, b"20 bytes to be sign.").hex()
    c.verify(epub, 0x1041, b"20 bytes to be sign.", bytes.fromhex(out["ecdsa"]))
    return pub, priv


def wrapping(c, out, aes, mac, pub, priv):
    key = [(CLASS, num(SECRET)), (KEY_TYPE, num(GENERIC)), (TOKEN, NO), (SIGN, YES), (VERIFY, YES), (SENSITIVE, NO), (EXTRACTABLE, YES), (VALUE_LEN, num(16))]
    want = c.get(mac.value, VALUE)
    for name, kind, a, b in (("rsa", 0x1, pub, priv), ("aes", 0x1085, aes, aes)):
        back = c.unwrap(kind, b, c.wrap(kind, a, mac), key[:-1])
        if c.get(back.value, VALUE) != want:
            raise Exception("what was wrapped with %s is another key" % name)
    out["wrapped-private"] = len(c.wrap(0x1085, aes, priv))
    out["unwrap-garbage"] = c.refuses(c.unwrap, 0x1, priv, bytes(256), key[:-1])


def ssl(c, out):
    version = ctypes.create_string_buffer(b"\3\0", 2)
    pre = c.generate(0x370, [(TOKEN, NO), (SENSITIVE, NO), (EXTRACTABLE, YES), (DERIVE, YES)], version)
    out["pre-master"] = c.get(pre.value, VALUE).hex()
    client, server = ctypes.create_string_buffer(b"c" * 32, 32), ctypes.create_string_buffer(b"s" * 32, 32)
    random = Data(ctypes.cast(client, ctypes.c_void_p), 32, ctypes.cast(server, ctypes.c_void_p), 32)
    key = [(CLASS, num(SECRET)), (KEY_TYPE, num(GENERIC)), (TOKEN, NO), (SENSITIVE, NO), (EXTRACTABLE, YES), (DERIVE, YES)]
    master = c.derive(Master(random, ctypes.cast(version, ctypes.c_void_p)), 0x371, pre, key + [(VALUE_LEN, num(48))])
    out["master"] = c.get(master.value, VALUE).hex()
    ivs = ctypes.create_string_buffer(16), ctypes.create_string_buffer(16)
    made = Material(client_iv=ctypes.cast(ivs[0], ctypes.c_void_p), server_iv=ctypes.cast(ivs[1], ctypes.c_void_p))
    p = MaterialParams(160, 128, 128, 0, random, ctypes.cast(ctypes.pointer(made), ctypes.c_void_p))
    for kind, name in ((0x376, "tls-material"), (0x372, "material")):
        c.derive(p, kind, master, [(CLASS, num(SECRET)), (KEY_TYPE, num(AES)), (TOKEN, NO), (SENSITIVE, NO), (EXTRACTABLE, YES)])
        out[name] = [c.get(h, VALUE).hex() for h in (made.client_mac, made.server_mac, made.client_key, made.server_key)] + [iv.raw.hex() for iv in ivs]


def des(c, out):
    for name, kt, size, kinds in (("des", DES, 8, (0x121, 0x122, 0x125)), ("des3", DES3, 24, (0x132, 0x133, 0x136))):
        key = c.create([(CLASS, num(SECRET)), (KEY_TYPE, num(kt)), (TOKEN, NO), (LABEL, name.encode()), (VALUE, bytes(range(1, size + 1))), (SENSITIVE, NO), (EXTRACTABLE, YES),
                        (ENCRYPT, YES), (DECRYPT, YES), (WRAP, YES), (UNWRAP, YES)])
        for mode, kind in zip(("ecb", "cbc", "pad"), kinds):
            iv, text = None if mode == "ecb" else bytes(range(8)), TEXT + b"end" if mode == "pad" else TEXT
            whole = c.one_shot("Encrypt", key, kind, text, iv)
            out["%s-%s" % (name, mode)] = whole.hex()
            if c.in_parts("Encrypt", key, kind, split(text), iv) != whole:
                raise Exception("%s-%s is other in parts" % (name, mode))
            for back in (c.one_shot("Decrypt", key, kind, whole, iv), c.in_parts("Decrypt", key, kind, split(whole), iv)):
                if back != text:
                    raise Exception("%s-%s decrypts to %s" % (name, mode, back))
        if len(c.wrap(kinds[2], key, key)) != size + 8:
            raise Exception("what %s wraps has another length" % name)
    for kind in (0x120, 0x130, 0x131):
        c.generate(kind, [(TOKEN, NO), (ENCRYPT, YES), (DECRYPT, YES)])


def group(c, out, p, q, g):
    """DSA in a group, checked by FIPS 186-4."""
    pub, priv = c.pair(0x10, [(TOKEN, NO), (PRIME, p), (SUBPRIME, q), (BASE, g), (VERIFY, YES)], [(TOKEN, NO), (SIGN, YES)])
    P, Q, G, Y = (int.from_bytes(b, "big") for b in (p, q, g, c.get(pub.value, VALUE)))

    def good(digest, signature):
        half = len(q)
        r, s = (int.from_bytes(b, "big") for b in (signature[:half], signature[half:]))
        w = pow(s, -1, Q)
        return pow(G, int.from_bytes(digest, "big") * w % Q, P) * pow(Y, r * w % Q, P) % P % Q == r
    digest = hashlib.sha1(TEXT).digest()
    for kind, data, parts in ((0x11, digest, False), (0x12, TEXT, False), (0x12, TEXT, True)):
        signature = c.in_parts("Sign", priv, kind, split(data)) if parts else c.one_shot("Sign", priv, kind, data)
        if not good(digest, signature):
            raise Exception("a signature of DSA is wrong")
        c.verify(pub, kind, data, signature, parts)
        out["wrong-dsa-%x-%d" % (kind, parts)] = c.refuses(c.verify, pub, kind, data[:-1] + b"?", signature, parts)


def agreement(c, out, p, g):
    """Diffie-Hellman: both sides have what the numbers say."""
    P, x = int.from_bytes(p, "big"), 0x123456789
    pub, priv = c.pair(0x20, [(TOKEN, NO), (PRIME, p), (BASE, g)], [(TOKEN, NO), (DERIVE, YES)])
    theirs = pow(int.from_bytes(g, "big"), x, P).to_bytes(len(p), "big")
    key = c.derive(ctypes.create_string_buffer(theirs, len(theirs)), 0x21, priv,
                   [(CLASS, num(SECRET)), (KEY_TYPE, num(GENERIC)), (TOKEN, NO), (SENSITIVE, NO), (EXTRACTABLE, YES), (VALUE_LEN, num(32))])
    if c.get(key.value, VALUE) != pow(int.from_bytes(c.get(pub.value, VALUE), "big"), x, P).to_bytes(len(p), "big")[-32:]:
        raise Exception("the two sides agree on two secrets")


def more_macs(c, out, key):
    for kind, name in ((0x211, "md5"), (0x221, "sha1"), (0x251, "sha256"), (0x261, "sha384"), (0x271, "sha512")):
        mac = c.one_shot("Sign", key, kind, TEXT)
        if mac != hmac.new(KEY, TEXT, name).digest() or c.in_parts("Sign", key, kind, split(TEXT)) != mac:
            raise Exception("the HMAC with %s is %s" % (name, mac.hex()))
        c.verify(key, kind, TEXT, mac)
        c.verify(key, kind, TEXT, mac, True)


def lengths(c, out, aes, mac, priv):
    iv = bytes(range(16))
    out["sizes"] = {
        "aes-cbc": c.sizes("Encrypt", aes, 0x1082, TEXT, iv), "aes-pad": c.sizes("Encrypt", aes, 0x1085, TEXT, iv),
        "aes-cbc back": c.sizes("Decrypt", aes, 0x1082, TEXT, iv), "hmac": c.sizes("Sign", mac, 0x251, TEXT), "rsa": c.sizes("Sign", priv, 0x1, b"20 bytes to be sign."),
        "rsa-sha256": c.sizes("Sign", priv, 0x40, TEXT), "rsa back": c.sizes("Decrypt", priv, 0x3, bytes(255) + b"2"),
    }


def objects(c, out):
    made = c.create([(CLASS, num(0)), (TOKEN, YES), (LABEL, b"note"), (VALUE, b"text")])
    check(c.lib.C_SetAttributeValue(c.session, made, template([(LABEL, b"renamed")]), U(1)))
    copy = c.made(c.lib.C_CopyObject, made, template([(LABEL, b"copied")]), U(1))
    out["labels"] = [c.get(h.value, LABEL).decode() for h in (made, copy)]
    out["found"] = len(c.find([(LABEL, b"copied")]))
    check(c.lib.C_DestroyObject(c.session, copy))
    out["left"] = len(c.find([(LABEL, b"copied")]))
    out["gone"] = c.refuses(c.get, copy.value, LABEL)
    out["token"] = c.refuses(lambda: check(c.lib.C_SetAttributeValue(c.session, made, template([(TOKEN, NO)]), U(1))))


def main():
    c, out = Services(sys.argv[1]), {}
    c.do_open()
    c.do_login(sys.argv[2])
    objects(c, out)
    aes = ciphers(c, out)
    mac = macs(c, out)
    pub, priv = pairs_of_keys(c, out)
    wrapping(c, out, aes, mac, pub, priv)
    ssl(c, out)
    des(c, out)
    group(c, out, *(bytes.fromhex(x) for x in sys.argv[3:6]))
    agreement(c, out, *(bytes.fromhex(x) for x in sys.argv[6:8]))
    more_macs(c, out, mac)
    lengths(c, out, aes, mac, priv)
    c.do_close()
    c.do_end()
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
