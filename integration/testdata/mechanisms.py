"""Prints C_GetMechanismList of a module's first slot with a token, with
C_GetMechanismInfo of each: number, sizes and flags, a mechanism a line.

usage: mechanisms.py MODULE
"""
import ctypes
import sys

U = ctypes.c_ulong
# The places of functions in CK_FUNCTION_LIST, behind its version.
INITIALIZE, FINALIZE, GET_SLOT_LIST, GET_MECHANISM_LIST, GET_MECHANISM_INFO = 1, 2, 5, 8, 9

functions = ctypes.POINTER(ctypes.c_void_p)()


def call(place, *args):
    rv = ctypes.CFUNCTYPE(U)(functions[place])(*args)
    if rv != 0:
        sys.exit("0x%x" % rv)


lib = ctypes.CDLL(sys.argv[1])
if lib.C_GetFunctionList(ctypes.byref(functions)) != 0:
    sys.exit("C_GetFunctionList")
call(INITIALIZE, None)
n = U(16)
slots = (U * n.value)()
call(GET_SLOT_LIST, ctypes.c_ubyte(1), slots, ctypes.byref(n))
slot = U(slots[0])
call(GET_MECHANISM_LIST, slot, None, ctypes.byref(n))
types = (U * n.value)()
call(GET_MECHANISM_LIST, slot, types, ctypes.byref(n))
for t in types[: n.value]:
    info = (U * 3)()
    call(GET_MECHANISM_INFO, slot, U(t), info)
    print("0x%x %d %d 0x%x" % (t, info[0], info[1], info[2]))
call(FINALIZE, None)
