"""Commands of stock_client.py, and more, for a process that uses an icsf token beside another.

usage: icsf_beside.py MODULE P Q G P G

The numbers are a group of DSA and one of Diffie-Hellman. make NAME makes a set of token objects,
of each class and kind of key that there is; use NAME prints what they make of known data, which
is the same for everybody who has them; sign NAME prints signatures that are others each time,
and check NAME SIGNATURES verifies them.
"""
import ctypes
import hashlib
import hmac
import json
import sys

from icsf_stock import (AES, BASE, CLASS, DECRYPT, DERIVE, DES, DES3, DH, DSA, EC, ENCRYPT, EXPONENT, EXTRACTABLE, GENERIC, ID, KEY, KEY_TYPE, LABEL,
                        MODULUS, MODULUS_BITS, NO, P256, PARAMS, POINT, PRIME, PRIVATE, PUBLIC, RSA, SECRET, SENSITIVE, SIGN, SUBPRIME, TEXT, TOKEN,
                        UNWRAP, VALUE, VALUE_LEN, VERIFY, WRAP, YES, Data, Master, Material, MaterialParams, Services, num, split)
from stock_client import U, check, serve, template

CERTIFICATE, CERTIFICATE_TYPE, SUBJECT = 1, 0x80, 0x101
HASHED = b"20 bytes to be sign."
HASHES = (("md5", 0x211), ("sha1", 0x221), ("sha256", 0x251), ("sha384", 0x261), ("sha512", 0x271))
RSA_SIGNS = ((0x1, HASHED), (0x5, TEXT), (0x6, TEXT), (0x40, TEXT), (0x41, TEXT), (0x42, TEXT))
CIPHERS = (("aes", 16, (0x1081, 0x1082, 0x1085)), ("aes-given", 16, (0x1081, 0x1082, 0x1085)), ("des", 8, (0x121, 0x122, 0x125)), ("des3", 8, (0x132, 0x133, 0x136)))
SESSION = [(CLASS, num(SECRET)), (TOKEN, NO), (SENSITIVE, NO), (EXTRACTABLE, YES)]
GENERIC_KEY = SESSION + [(KEY_TYPE, num(GENERIC)), (SIGN, YES), (VERIFY, YES)]


class Beside(Services):
    def __init__(self, module, p, q, g, dh_p, dh_g):
        super().__init__(module)
        self.dsa, self.dh = (p, q, g), (dh_p, dh_g)

    def do_make(self, name):
        def stays(of):
            return [(TOKEN, YES), (LABEL, ("%s-%s" % (name, of)).encode()), (ID, of.encode())]

        def secret(of, kt, *uses):
            return [(CLASS, num(SECRET)), (KEY_TYPE, num(kt))] + stays(of) + [(SENSITIVE, NO), (EXTRACTABLE, YES)] + [(use, YES) for use in uses]
        crypts = (ENCRYPT, DECRYPT, WRAP, UNWRAP)
        self.generate(0x1080, secret("aes", AES, *crypts) + [(VALUE_LEN, num(32))])
        self.create(secret("aes-given", AES, *crypts) + [(VALUE, KEY)])
        self.generate(0x120, secret("des", DES, *crypts))
        self.generate(0x131, secret("des3", DES3, *crypts))
        self.generate(0x350, secret("mac", GENERIC, SIGN, VERIFY) + [(VALUE_LEN, num(32))])
        self.create(secret("mac-given", GENERIC, SIGN, VERIFY) + [(VALUE, KEY)])
        self.generate(0x370, secret("pre", GENERIC, DERIVE), ctypes.create_string_buffer(b"\3\0", 2))
        self.pair(0x0, stays("rsa") + [(MODULUS_BITS, num(2048)), (EXPONENT, b"\1\0\1"), (ENCRYPT, YES), (VERIFY, YES), (WRAP, YES)],
                  stays("rsa") + [(DECRYPT, YES), (SIGN, YES), (UNWRAP, YES), (EXTRACTABLE, YES)])
        self.pair(0x1040, stays("ec") + [(PARAMS, P256), (VERIFY, YES)], stays("ec") + [(SIGN, YES)])
        self.pair(0x10, stays("dsa") + list(zip((PRIME, SUBPRIME, BASE), self.dsa)) + [(VERIFY, YES)], stays("dsa") + [(SIGN, YES)])
        self.pair(0x20, stays("dh") + list(zip((PRIME, BASE), self.dh)), stays("dh") + [(DERIVE, YES)])
        self.create([(CLASS, num(CERTIFICATE)), (CERTIFICATE_TYPE, num(0)), (SUBJECT, b"0\0"), (VALUE, b"a certificate")] + stays("crt"))
        self.create([(CLASS, num(0)), (TOKEN, YES), (LABEL, ("%s-note" % name).encode()), (VALUE, b"text")])

    def named(self, name, of, kind=SECRET):
        return self.key("%s-%s" % (name, of), kind)

    def do_use(self, name):
        out = {}
        self.ciphers(name, out)
        self.macs(name, out)
        self.rsa(name, out)
        self.wraps(name, out)
        self.derives(name, out)
        for of, kind in (("crt", CERTIFICATE), ("note", 0)):
            out[of] = self.get(self.named(name, of, kind).value, VALUE).decode()
        for of, kinds in (("aes", [SECRET]), ("crt", [CERTIFICATE]), ("rsa", [PUBLIC, PRIVATE]), ("ec", [PUBLIC, PRIVATE]), ("dsa", [PUBLIC, PRIVATE]), ("dh", [PUBLIC, PRIVATE])):
            out["id of " + of] = [self.get(self.named(name, of, kind).value, ID).decode() for kind in kinds]
        for of, kind in (("rsa", MODULUS), ("ec", POINT), ("dsa", VALUE), ("dh", VALUE)):
            out["public " + of] = self.get(self.named(name, of, PUBLIC).value, kind).hex()
        for kind, want in ((0x220, hashlib.sha1), (0x210, hashlib.md5)):
            self.right("a digest", self.digest(kind, TEXT), want(TEXT).digest())
        return json.dumps(out, sort_keys=True)

    def right(self, what, got, want):
        if got != want:
            raise Exception("%s is %s, not %s" % (what, got.hex(), want.hex()))

    def digest(self, kind, data):
        check(self.lib.C_DigestInit(self.session, ctypes.byref(self.mechanism(kind))))
        out, n = ctypes.create_string_buffer(64), U(64)
        check(self.lib.C_Digest(self.session, data, U(len(data)), out, ctypes.byref(n)))
        return out.raw[: n.value]

    def ciphers(self, name, out):
        for of, block, kinds in CIPHERS:
            key = self.named(name, of)
            for mode, kind in zip(("ecb", "cbc", "pad"), kinds):
                iv, text = None if mode == "ecb" else bytes(range(block)), TEXT + b"end" if mode == "pad" else TEXT
                sealed = self.one_shot("Encrypt", key, kind, text, iv)
                self.right("a cipher in parts", self.in_parts("Encrypt", key, kind, split(text), iv), sealed)
                self.right("what was encrypted", self.one_shot("Decrypt", key, kind, sealed, iv), text)
                self.right("what was encrypted, in parts", self.in_parts("Decrypt", key, kind, split(sealed), iv), text)
                out["%s %s" % (of, mode)] = sealed.hex()

    def macs(self, name, out):
        for of in ("mac", "mac-given"):
            key = self.named(name, of)
            for hashed, kind in HASHES:
                mac = self.one_shot("Sign", key, kind, TEXT)
                if of == "mac-given":
                    self.right("an HMAC", mac, hmac.new(KEY, TEXT, hashed).digest())
                self.right("an HMAC in parts", self.in_parts("Sign", key, kind, split(TEXT)), mac)
                for parts in (False, True):
                    self.verify(key, kind, TEXT, mac, parts)
                    out["wrong %s %s %d" % (of, hashed, parts)] = self.refuses(self.verify, key, kind, TEXT + b"?", mac, parts)
                out["%s %s" % (of, hashed)] = mac.hex()

    def rsa(self, name, out):
        public, private = self.named(name, "rsa", PUBLIC), self.named(name, "rsa", PRIVATE)
        for kind, data in RSA_SIGNS:
            signature = self.one_shot("Sign", private, kind, data)
            self.verify(public, kind, data, signature)
            if kind != 0x1:
                self.right("a signature in parts", self.in_parts("Sign", private, kind, split(data)), signature)
                self.verify(public, kind, data, signature, True)
            out["wrong rsa %x" % kind] = self.refuses(self.verify, public, kind, data[:-1] + b"?", signature)
            out["rsa %x" % kind] = signature.hex()
        for kind, data in ((0x1, b"secret"), (0x3, bytes(200) + b"x" * 56)):
            self.right("what was encrypted with RSA", self.one_shot("Decrypt", private, kind, self.one_shot("Encrypt", public, kind, data)), data)

    def mac_of(self, key):
        """tells a key by the HMAC that it makes, and lets it go."""
        mac = self.one_shot("Sign", key, 0x251, TEXT).hex()
        check(self.lib.C_DestroyObject(self.session, key))
        return mac

    def wraps(self, name, out):
        mac, private = self.named(name, "mac"), self.named(name, "rsa", PRIVATE)
        for of, kind in (("aes", 0x1085), ("des3", 0x136), ("des", 0x125)):
            key = self.named(name, of)
            wrapped = self.wrap(kind, key, mac)
            out["wrapped by " + of] = wrapped.hex()
            out["unwrapped by " + of] = self.mac_of(self.opens(kind, key, wrapped))
        out["unwrapped by rsa"] = self.mac_of(self.opens(0x1, private, self.wrap(0x1, self.named(name, "rsa", PUBLIC), mac)))
        key = self.named(name, "aes")
        wrapped = self.wrap(0x1085, key, private)
        back = self.unwrap(0x1085, key, wrapped, [(CLASS, num(PRIVATE)), (KEY_TYPE, num(RSA)), (TOKEN, NO), (SIGN, YES)])
        self.right("what a private key signs that was wrapped", self.one_shot("Sign", back, 0x40, TEXT), bytes.fromhex(out["rsa 40"]))
        check(self.lib.C_DestroyObject(self.session, back))
        out["wrapped private"] = len(wrapped)
        out["garbage"] = self.refuses(self.opens, 0x1, private, bytes(256))

    def opens(self, kind, key, wrapped):
        iv = None if kind == 0x1 else bytes(16 if kind == 0x1085 else 8)
        return self.made(self.lib.C_UnwrapKey, ctypes.byref(self.mechanism(kind, iv)), key, wrapped, U(len(wrapped)), template(GENERIC_KEY), U(len(GENERIC_KEY)))

    def derives(self, name, out):
        p, g = (int.from_bytes(n, "big") for n in self.dh)
        theirs = pow(g, 0x123456789, p).to_bytes(len(self.dh[0]), "big")
        key = self.derive(ctypes.create_string_buffer(theirs, len(theirs)), 0x21, self.named(name, "dh", PRIVATE), GENERIC_KEY + [(VALUE_LEN, num(32))])
        agreed = pow(int.from_bytes(self.get(self.named(name, "dh", PUBLIC).value, VALUE), "big"), 0x123456789, p).to_bytes(len(self.dh[0]), "big")[-32:]
        self.right("what both agree on", bytes.fromhex(self.mac_of(key)), hmac.new(agreed, TEXT, "sha256").digest())
        version, hellos = ctypes.create_string_buffer(b"\3\0", 2), [ctypes.create_string_buffer(b * 32, 32) for b in (b"c", b"s")]
        random = Data(ctypes.cast(hellos[0], ctypes.c_void_p), 32, ctypes.cast(hellos[1], ctypes.c_void_p), 32)
        master = self.derive(Master(random, ctypes.cast(version, ctypes.c_void_p)), 0x371, self.named(name, "pre"), GENERIC_KEY + [(DERIVE, YES), (VALUE_LEN, num(48))])
        ivs = [ctypes.create_string_buffer(16) for _ in range(2)]
        made = Material(client_iv=ctypes.cast(ivs[0], ctypes.c_void_p), server_iv=ctypes.cast(ivs[1], ctypes.c_void_p))
        params = MaterialParams(160, 128, 128, 0, random, ctypes.cast(ctypes.pointer(made), ctypes.c_void_p))
        for kind in (0x372, 0x376):
            self.derive_material(kind, params, master)
            out["material %x" % kind] = [self.one_shot("Encrypt", U(h), 0x1081, TEXT).hex() for h in (made.client_key, made.server_key)] + [iv.raw.hex() for iv in ivs]
            for h in (made.client_mac, made.server_mac, made.client_key, made.server_key):
                check(self.lib.C_DestroyObject(self.session, U(h)))
        out["master"] = self.mac_of(master)

    def derive_material(self, kind, params, master):
        """makes no key but those of params."""
        pairs = SESSION + [(KEY_TYPE, num(AES)), (ENCRYPT, YES)]
        none = U()
        check(self.lib.C_DeriveKey(self.session, ctypes.byref(self.mechanism(kind, params)), master, template(pairs), U(len(pairs)), ctypes.byref(none)))

    RANDOM = (("ec", 0x1041, HASHED), ("ec", 0x1042, TEXT), ("dsa", 0x11, HASHED), ("dsa", 0x12, TEXT))

    def do_sign(self, name):
        return json.dumps([self.one_shot("Sign", self.named(name, of, PRIVATE), kind, data).hex() for of, kind, data in self.RANDOM]).replace(" ", "")

    def do_check(self, name, signatures):
        for (of, kind, data), signature in zip(self.RANDOM, json.loads(signatures), strict=True):
            key = self.named(name, of, PUBLIC)
            self.verify(key, kind, data, bytes.fromhex(signature))
            if self.refuses(self.verify, key, kind, data[:-1] + b"?", bytes.fromhex(signature)) != "0xc0":
                raise Exception("a wrong signature is taken")

    def each(self, name, change):
        """changes an attribute of each object of a set."""
        for handle in self.find([]):
            label = self.get(handle, LABEL).decode()
            if label.startswith(name + "-"):
                check(self.lib.C_SetAttributeValue(self.session, U(handle), template([change(label)]), U(1)))

    def do_change(self, name):
        self.each(name, lambda label: (LABEL, ("new-" + label).encode()))

    def do_touch(self, name):
        """sets what there is."""
        self.each(name, lambda label: (VALUE, b"text") if label.endswith("-note") else (ID, label.rpartition(name + "-")[2].encode()))

    def do_remove(self, name):
        for handle in self.find([]):
            if self.get(handle, LABEL).decode().startswith(name + "-"):
                check(self.lib.C_DestroyObject(self.session, U(handle)))


if __name__ == "__main__":
    serve(Beside(sys.argv[1], *(bytes.fromhex(x) for x in sys.argv[2:7])))
