# libp11fs.so. The top Makefile includes this; it also works by itself:
#   make -f cmd/libp11fs/build.mk libp11fs LIBP11FS=/tmp/libp11fs.so
CC              ?= cc
LIBP11FS        ?= build/libp11fs.so
LIBP11FS_SRC    := $(dir $(lastword $(MAKEFILE_LIST)))src
LIBP11FS_CFLAGS ?= -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
# The functions are bound within the library: another module in the process may
# have put its own under the same names in front.
LIBP11FS_FLAGS  := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror \
                   -fvisibility=hidden -fPIC -pthread
LIBP11FS_LINK   := -shared -Wl,-z,relro,-z,now -Wl,-Bsymbolic -Wl,-soname,libp11fs.so

.PHONY: libp11fs
libp11fs: $(LIBP11FS) ## build build/libp11fs.so, the module for PKCS#11 programs

$(LIBP11FS): $(wildcard $(LIBP11FS_SRC)/*.c $(LIBP11FS_SRC)/*.h)
	@mkdir -p $(dir $@)
	$(CC) $(LIBP11FS_FLAGS) $(LIBP11FS_CFLAGS) $(LIBP11FS_LINK) -o $@ $(filter %.c,$^)
