"""One application of a PKCS#11 module, for the conformance suite: one call a
line on standard input, one line of answer on standard output, the CK_RV in
hexadecimal and what the call gives. An application of the mount answers to the
same lines, in conformance_files_test.go.

usage: conformance.py MODULE

Bytes are in hexadecimal, and - is none; a template is TYPE:VALUE,TYPE:VALUE; a
mechanism is TYPE, TYPE:PARAMETER or, with a C struct, TYPE=FIELDS=TEXT: the fields
are c1 (CK_BBOOL), u1f (CK_ULONG), b00ff (a pointer and a length), l00ff (a length and a
pointer), w00ff (a pointer and a length in bits), a00ff (bytes as they are), v00ff (a pointer) and p(FIELDS) (a pointer to a
struct), between commas, and the text is for an application of the mount.
"""
import ctypes
import os
import sys

from stock_client import Attribute, Mechanism, Refused, TokenInfo, U, check, template


# The members of CK_FUNCTION_LIST (v2.40), behind the version.
FUNCTIONS = """C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession C_CloseSession C_CloseAllSessions
C_GetSessionInfo C_GetOperationState C_SetOperationState C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject
C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal C_EncryptInit
C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit C_Digest
C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover
C_VerifyInit C_Verify C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate
C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey C_GenerateKeyPair C_WrapKey C_UnwrapKey
C_DeriveKey C_SeedRandom C_GenerateRandom C_GetFunctionStatus C_CancelFunction""".split()


class ECDH(ctypes.Structure):
    """CK_ECDH1_DERIVE_PARAMS, without a key derivation function."""

    _fields_ = [("kdf", U), ("shared_length", U), ("shared", ctypes.c_void_p), ("length", U), ("point", ctypes.c_char_p)]


class Interface(ctypes.Structure):
    """CK_INTERFACE."""

    _fields_ = [("name", ctypes.c_char_p), ("functions", ctypes.POINTER(ctypes.c_void_p)), ("flags", U)]


# Where v3.2 puts its functions in its list, behind the version: C_GetInterfaceList
# and what came with v3.0 are before them.
ENCAPSULATE, DECAPSULATE = 1 + 68 + 24, 1 + 68 + 25


class SessionInfo(ctypes.Structure):
    _fields_ = [("slot", U), ("state", U), ("flags", U), ("error", U)]


def raw(text):
    return b"" if text == "-" else bytes.fromhex(text)


def text(value):
    return value.hex() or "-"


def attributes(words):
    pairs = []
    for word in words.split(",") if words != "-" else []:
        kind, value = word.split(":")
        pairs.append((int(kind, 16), bytes.fromhex(value)))
    return template(pairs), U(len(pairs))


def members(fields):
    """The fields between the commas that are not in brackets."""
    depth, start = 0, 0
    for i, c in enumerate(fields + ","):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            yield fields[start:i]
            start = i + 1


def structure(fields, kept):
    """The bytes of a C struct; kept holds what its pointers point to."""

    def pointer(data):
        kept.append(ctypes.create_string_buffer(data, max(len(data), 1)))
        return bytes(ctypes.c_size_t(ctypes.addressof(kept[-1]) if data else 0))

    out = b""
    for field in members(fields):
        kind, value = field[0], field[1:]
        if kind == "c":
            out += bytes([int(value)])
        elif kind == "a":
            out += bytes.fromhex(value)
        else:
            out += bytes(-len(out) % ctypes.sizeof(U))
            if kind == "u":
                out += bytes(U(int(value, 16)))
            elif kind == "p":
                out += pointer(structure(value[1:-1], kept))
            else:
                data = bytes.fromhex(value)
                length = bytes(U(len(data)))
                out += {
                    "b": pointer(data) + length, "l": length + pointer(data), "w": pointer(data) + bytes(U(8 * len(data))), "v": pointer(data),
                }[kind]
    return out


def mechanism(word):
    kind, fields, parameter = word.partition("=")
    data = []
    if fields:
        parameter = structure(parameter.partition("=")[0], data)
    else:
        kind, _, parameter = word.partition(":")
        parameter = bytes.fromhex(parameter)
    m = Mechanism(int(kind, 16), None, 0)
    m.data = data
    if parameter:
        m.kept = ctypes.create_string_buffer(parameter, len(parameter))
        m.parameter, m.length = ctypes.cast(m.kept, ctypes.c_void_p), len(parameter)
    return ctypes.byref(m), m


def spelt(operation):
    """The operation as functions are called."""
    return {"signrecover": "SignRecover", "verifyrecover": "VerifyRecover"}.get(operation, operation.capitalize())


class MechanismInfo(ctypes.Structure):
    _fields_ = [("least", U), ("most", U), ("flags", U)]


class Application:
    def __init__(self, module):
        self.lib = ctypes.CDLL(module)
        table = ctypes.POINTER(ctypes.c_void_p)()
        check(self.lib.C_GetFunctionList(ctypes.byref(table)))
        self.functions = {name: ctypes.CFUNCTYPE(U)(table[1 + i]) for i, name in enumerate(FUNCTIONS)}
        self.do("C_Initialize", None)
        slots, count = (U * 8)(), U(8)
        self.do("C_GetSlotList", 1, slots, ctypes.byref(count))
        self.slot = U(slots[0])

    def do(self, name, *args):
        check(self.functions[name](*args))

    def current(self, index):
        """A function of v3.2, which a module may not have."""
        found = ctypes.POINTER(Interface)()
        version = (ctypes.c_ubyte * 2)(3, 2)
        get = getattr(self.lib, "C_GetInterface", None)
        if get is None or get(b"PKCS 11", version, ctypes.byref(found), U(0)) != 0:
            raise Refused("0x54")  # CKR_FUNCTION_NOT_SUPPORTED
        return ctypes.CFUNCTYPE(U)(found.contents.functions[index])

    def handle(self, name, *args):
        h = U()
        self.do(name, *args, ctypes.byref(h))
        return "%x" % h.value

    def output(self, name, *args, size=65536):
        """A call whose last arguments are a buffer and its length."""
        out, n = ctypes.create_string_buffer(65536), U(size)  # some write more than they are given
        try:
            self.do(name, *args, out, ctypes.byref(n))
        except Refused as e:
            raise Refused("%s %x" % (e, n.value)) if str(e) == "0x150" else e
        return text(out.raw[: n.value])

    def do_open(self, flags):
        h = U()
        self.do("C_OpenSession", self.slot, U(int(flags, 16)), None, None, ctypes.byref(h))
        return "%x" % h.value

    def do_close(self, s):
        self.do("C_CloseSession", U(int(s, 16)))

    def do_closeall(self):
        self.do("C_CloseAllSessions", self.slot)

    def do_state(self, s):
        info = SessionInfo()
        self.do("C_GetSessionInfo", U(int(s, 16)), ctypes.byref(info))
        return "%x %x" % (info.state, info.flags)

    def do_token(self):
        info = TokenInfo()
        self.do("C_GetTokenInfo", self.slot, ctypes.byref(info))
        return "%x %x" % (info.flags, info.numbers[1])

    def do_limits(self):
        info = TokenInfo()
        self.do("C_GetTokenInfo", self.slot, ctypes.byref(info))
        return "%x %x %x" % (info.numbers[0], info.numbers[2], info.numbers[4])

    def do_sizes(self, m):
        """The shortest and the longest key of a mechanism."""
        info = MechanismInfo()
        self.do("C_GetMechanismInfo", self.slot, U(int(m, 16)), ctypes.byref(info))
        return "%x %x" % (info.least, info.most)

    def do_list(self):
        """The mechanisms with their flags."""
        count = U()
        self.do("C_GetMechanismList", self.slot, None, ctypes.byref(count))
        list = (U * count.value)()
        self.do("C_GetMechanismList", self.slot, list, ctypes.byref(count))
        words = []
        for m in list[: count.value]:
            info = MechanismInfo()
            self.do("C_GetMechanismInfo", self.slot, U(m), ctypes.byref(info))
            words.append("%x:%x" % (m, info.flags))
        return " ".join(words)

    def do_inittoken(self, pin, label):
        pin = raw(pin)
        self.do("C_InitToken", self.slot, pin, U(len(pin)), raw(label).ljust(32))

    def do_login(self, s, user, pin):
        pin = raw(pin)
        self.do("C_Login", U(int(s, 16)), U(int(user, 16)), pin, U(len(pin)))

    def do_logout(self, s):
        self.do("C_Logout", U(int(s, 16)))

    def do_setpin(self, s, old, new):
        old, new = raw(old), raw(new)
        self.do("C_SetPIN", U(int(s, 16)), old, U(len(old)), new, U(len(new)))

    def do_initpin(self, s, pin):
        pin = raw(pin)
        self.do("C_InitPIN", U(int(s, 16)), pin, U(len(pin)))

    def do_create(self, s, t):
        return self.handle("C_CreateObject", U(int(s, 16)), *attributes(t))

    def do_copy(self, s, o, t):
        return self.handle("C_CopyObject", U(int(s, 16)), U(int(o, 16)), *attributes(t))

    def do_destroy(self, s, o):
        self.do("C_DestroyObject", U(int(s, 16)), U(int(o, 16)))

    def do_get(self, s, o, kind):
        a = Attribute(int(kind, 16), None, 0)
        self.do("C_GetAttributeValue", U(int(s, 16)), U(int(o, 16)), ctypes.byref(a), U(1))
        buf = ctypes.create_string_buffer(max(a.length, 1))
        a.value = ctypes.cast(buf, ctypes.c_void_p)
        self.do("C_GetAttributeValue", U(int(s, 16)), U(int(o, 16)), ctypes.byref(a), U(1))
        return text(buf.raw[: a.length])

    def do_set(self, s, o, t):
        self.do("C_SetAttributeValue", U(int(s, 16)), U(int(o, 16)), *attributes(t))

    def do_findinit(self, s, t):
        self.do("C_FindObjectsInit", U(int(s, 16)), *attributes(t))

    def do_findnext(self, s, limit):
        found, count = (U * 64)(), U()
        self.do("C_FindObjects", U(int(s, 16)), found, U(int(limit)), ctypes.byref(count))
        return " ".join("%x" % h for h in found[: count.value])

    def do_findfinal(self, s):
        self.do("C_FindObjectsFinal", U(int(s, 16)))

    def do_find(self, s, t):
        self.do_findinit(s, t)
        all = ""
        while more := self.do_findnext(s, "64"):
            all += " " + more
        self.do_findfinal(s)
        return all.strip()

    def do_generate(self, s, m, t):
        by, kept = mechanism(m)
        return self.handle("C_GenerateKey", U(int(s, 16)), by, *attributes(t))

    def do_pair(self, s, m, public, private):
        by, kept = mechanism(m)
        pub, priv = U(), U()
        self.do("C_GenerateKeyPair", U(int(s, 16)), by, *attributes(public), *attributes(private), ctypes.byref(pub), ctypes.byref(priv))
        return "%x %x" % (pub.value, priv.value)

    def do_begin(self, operation, s, o, m):
        by, kept = mechanism(m)
        key = [] if operation == "digest" else [U(int(o, 16))]
        self.do("C_%sInit" % spelt(operation), U(int(s, 16)), by, *key)

    def do_update(self, operation, s, data):
        data = raw(data)
        name, args = "C_%sUpdate" % operation.capitalize(), (U(int(s, 16)), data, U(len(data)))
        if operation in ("encrypt", "decrypt"):
            return self.output(name, *args)
        self.do(name, *args)

    def do_end(self, operation, s, signature="-"):
        name = "C_%sFinal" % operation.capitalize()
        if operation == "verify":
            return self.do(name, U(int(s, 16)), raw(signature), U(len(raw(signature))))
        return self.output(name, U(int(s, 16)))

    def do_part(self, operation, s, data, size="10000"):
        """The call of an operation that takes all its data at once."""
        data = raw(data)
        return self.output("C_" + spelt(operation), U(int(s, 16)), data, U(len(data)), size=int(size, 16))

    def do_ask(self, operation, s, data):
        """How long the output would be."""
        data, n = raw(data), U()
        self.do("C_" + operation.capitalize(), U(int(s, 16)), data, U(len(data)), None, ctypes.byref(n))
        return "%x" % n.value

    def do_bad(self, operation, s, data):
        """Likewise, without a place for that."""
        data = raw(data)
        self.do("C_" + operation.capitalize(), U(int(s, 16)), data, U(len(data)), None, None)

    def do_digestkey(self, s, o):
        self.do("C_DigestKey", U(int(s, 16)), U(int(o, 16)))

    def do_parallel(self, name, s):
        self.do(name, U(int(s, 16)))

    def do_one(self, operation, s, o, m, data):
        self.do_begin(operation, s, o, m)
        return self.do_part(operation, s, data)

    def do_verify(self, s, o, m, data, signature):
        self.do_begin("verify", s, o, m)
        data, signature = raw(data), raw(signature)
        self.do("C_Verify", U(int(s, 16)), data, U(len(data)), signature, U(len(signature)))

    def do_wrap(self, s, o, m, key):
        by, kept = mechanism(m)
        return self.output("C_WrapKey", U(int(s, 16)), by, U(int(o, 16)), U(int(key, 16)))

    def do_unwrap(self, s, o, m, wrapped, t):
        by, kept = mechanism(m)
        wrapped = raw(wrapped)
        return self.handle("C_UnwrapKey", U(int(s, 16)), by, U(int(o, 16)), wrapped, U(len(wrapped)), *attributes(t))

    def do_derive(self, s, o, point, t):
        point = raw(point)
        parameter = ECDH(1, 0, None, len(point), point)  # CKD_NULL
        m = Mechanism(0x1050, ctypes.cast(ctypes.byref(parameter), ctypes.c_void_p), ctypes.sizeof(parameter))
        return self.handle("C_DeriveKey", U(int(s, 16)), ctypes.byref(m), U(int(o, 16)), *attributes(t))

    def do_deriveby(self, s, o, m, t):
        by, kept = mechanism(m)
        return self.handle("C_DeriveKey", U(int(s, 16)), by, U(int(o, 16)), *attributes(t))

    def do_encapsulate(self, s, o, m, t):
        by, kept = mechanism(m)
        out, n, key = ctypes.create_string_buffer(8192), U(8192), U()
        function = self.current(ENCAPSULATE)
        check(function(U(int(s, 16)), by, U(int(o, 16)), *attributes(t), out, ctypes.byref(n), ctypes.byref(key)))
        return "%s %x" % (text(out.raw[: n.value]), key.value)

    def do_decapsulate(self, s, o, m, ciphertext, t):
        by, kept = mechanism(m)
        ciphertext, key = raw(ciphertext), U()
        function = self.current(DECAPSULATE)
        check(function(U(int(s, 16)), by, U(int(o, 16)), *attributes(t), ciphertext, U(len(ciphertext)), ctypes.byref(key)))
        return "%x" % key.value


def serve(module, first):
    """Answers until the application is to be another one; says whether it is."""
    application = Application(module)
    if not first:
        print("0x0", flush=True)
    for line in sys.stdin:
        command, *args = line.split()
        try:
            if command == "again":
                application.do("C_Finalize", None)
                return True
            answer = getattr(application, "do_" + command)(*args)
            print("0x0 " + (answer or ""), flush=True)
        except Refused as e:
            print(e, flush=True)
    return False


def main():
    # Each application is a process of its own, which this one, that never
    # loads the module, starts without starting Python anew.
    first = True
    while True:
        child = os.fork()
        if child == 0:
            os._exit(0 if serve(sys.argv[1], first) else 1)
        if os.waitpid(child, 0)[1] != 0:
            return
        first = False


if __name__ == "__main__":
    main()
