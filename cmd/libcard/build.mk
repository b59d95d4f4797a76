# The host libraries of cards, over the socket of p11fs card serve. The top Makefile includes
# this; it also works by itself:
#   make -f cmd/libcard/build.mk libcard LIBCARD=/tmp
CC             ?= cc
LIBCARD        ?= $(or $(BUILD),build)
LIBCARD_SRC    := $(dir $(lastword $(MAKEFILE_LIST)))src
LIBCARD_SHARED := $(LIBCARD_SRC)/../../libp11fs/src
LIBCARD_CFLAGS ?= -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
# The functions are bound within the library, as in libp11fs.so.
LIBCARD_FLAGS  := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror \
                  -fvisibility=hidden -fPIC -pthread -I$(LIBCARD_SRC) -I$(LIBCARD_SHARED)
LIBCARD_LINK   := -shared -Wl,-z,relro,-z,now -Wl,-Bsymbolic
# What carries values and parameters of mechanisms is libp11fs.so's.
LIBCARD_COMMON := $(LIBCARD_SRC)/card.c $(addprefix $(LIBCARD_SHARED)/,buffer.c socket.c value.c attributes.c mechanism.c mechanism_gen.c kbkdf.c)

.PHONY: libcard
libcard: $(LIBCARD)/libep11.so $(LIBCARD)/libcsulcca.so ## build the host libraries of IBM Z's cards, over software cards

$(LIBCARD)/lib%.so: $(LIBCARD_SRC)/%.c $(LIBCARD_SRC)/%_gen.c $(LIBCARD_COMMON) $(wildcard $(LIBCARD_SRC)/*.h $(LIBCARD_SHARED)/*.h)
	@mkdir -p $(dir $@)
	$(CC) $(LIBCARD_FLAGS) $(LIBCARD_CFLAGS) $(LIBCARD_LINK) -Wl,-soname,$(notdir $@) -o $@ $(filter %.c,$^)

$(LIBCARD)/libcsulcca.so: $(LIBCARD_SRC)/cca.c $(LIBCARD_COMMON) $(wildcard $(LIBCARD_SRC)/*.h $(LIBCARD_SHARED)/*.h)
	@mkdir -p $(dir $@)
	$(CC) $(LIBCARD_FLAGS) $(LIBCARD_CFLAGS) $(LIBCARD_LINK) -Wl,-soname,$(notdir $@) -o $@ $(filter %.c,$^)
