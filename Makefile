# p11fs. "make help" lists the targets.

# sudo's PATH often lacks it.
GO         ?= $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),go)
export GO
PREFIX     ?= /usr/local
DESTDIR    ?=
# Stock clients look for the slot daemon's file here, whatever PREFIX is. Empty:
# install no link.
SLOTD      ?= /usr/sbin/pkcsslotd
# Where p11-kit looks for modules; below another PREFIX it does not look.
P11MODULES ?= $(if $(filter /usr /usr/local,$(PREFIX)),/etc/pkcs11/modules,$(PREFIX)/share/p11-kit/modules)
FUZZTIME   ?= 10s
# How long make test fuzzes the server that every user of the machine reaches.
SERVERTIME ?= 60s
SOAKTIME   ?= 10m
# How long make soak-flat has all doors work; 5m says much already.
SOAK       ?= 1h
BENCHTIME  ?= 1s
TIMEOUT    ?= 30m
DISK       ?= build/disk
LINTER     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
NFPM       := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.1
SHELL      := /bin/sh
# A program with the race detector waits for a second before it ends, unless told
# otherwise. The tests run hundreds of them.
export GORACE ?= atexit_sleep_ms=0
# Arithmetic of others, which keeps nothing from one call to the next: the race
# detector has nothing to find there, and makes it up to fifty times slower. What keeps a
# state, as hashes and ciphers do, has it.
ARITHMETIC := crypto/internal/fips140/bigmod crypto/internal/fips140/nistec/... \
	crypto/internal/fips140/edwards25519/... crypto/internal/fips140/mlkem filippo.io/bigmod \
	github.com/cloudflare/circl/... golang.org/x/crypto/blowfish golang.org/x/crypto/scrypt
# The tests that build p11fs do it likewise.
export P11FS_TEST_RACE := -race $(ARITHMETIC:%=-gcflags=%=-race=false)
BIN        := bin/p11fs
BUILD      := build
MAY_SKIP   := contrib/may-skip.txt
MAY_SKIP_SHORT := contrib/may-skip-short.txt
MAY_SKIP_S390X := contrib/may-skip-s390x.txt
# A machine of that kind with stock programs, made by contrib/s390x.sh. Tests skip
# where it cannot be fetched.
S390X := $(CURDIR)/$(BUILD)/s390x
# Another, of a later release: its EP11 token has login sessions.
S390X_LATER := $(S390X)-later
# A machine with stock openCryptoki 3.23 and OpenSSL 3.5, made by contrib/trixie.sh. Tests
# that want it skip where it cannot be fetched.
TRIXIE := $(BUILD)/trixie
# What needs neither FUSE, fanotify nor programs that start themselves, which
# qemu-user has not.
S390X_UNITS := ./shm/... ./locks ./secret ./p11/... ./tokens/... ./engine/... ./mountd/config ./mountd/rpc/...

# The packages that start goroutines: on one processor these run in another order. With
# them runs the engine, for what the race detector makes too slow to be whole. What takes
# longest begins first.
GOROUTINES = ./engine ./tokens/store ./fs $$(grep -rlE '^[[:space:]]*go (func|[[:alnum:]_.]+)\(|\.Go\(' --include='*.go' --exclude='*_test.go' --exclude-dir=$(BUILD) . | xargs -n1 dirname | sort -u)

.DEFAULT_GOAL := build
.PHONY: help run run-fleet test test-one test-server test-disk test-s390x build integration soak soak-flat fuzz lint check bench bench-check bench-run bench-rows microbench generate man docs install package uninstall clean setup-run setup-test setup-s390x setup-trixie setup-bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

include cmd/libp11fs/build.mk
include cmd/libcard/build.mk

run: setup-run build ## mount your own tokens in the foreground; Ctrl-C unmounts
	@exec $(BIN) mount --welcome

run-fleet: setup-run build ## start three members of etcd and two daemons with one token, for trying; Ctrl-C ends them
	@mkdir -p $(BUILD)
	$(GO) build -trimpath -o $(BUILD)/runfleet ./contrib/runfleet
	@exec $(BUILD)/runfleet $(CURDIR)/$(BIN)

setup-run:
	@sh contrib/setup.sh run

setup-test:
	@sh contrib/setup.sh test

setup-s390x:
	@sh contrib/setup.sh s390x

setup-trixie:
	@sh contrib/trixie.sh $(TRIXIE) || :

setup-bench:
	@sh contrib/setup.sh bench

build: ## build bin/p11fs
	@[ -e $(BIN) ] || echo "building p11fs: the first time takes minutes"
	$(GO) build -trimpath -o $(BIN) ./cmd/p11fs
	@ln -sf p11fs $(dir $(BIN))age-plugin-p11fs

# What takes longest, and mostly waits for other programs, begins first.
test: setup-test setup-trixie ## run all tests: with the race detector, on one processor, and the server's fuzz target
	$(GO) run ./contrib/testrun -may-skip $(MAY_SKIP) -- $(P11FS_TEST_RACE) -count=1 -p 3 -timeout $(TIMEOUT) ./integration ./cmd/libp11fs ./...
	@$(MAKE) --no-print-directory -j2 -Otarget test-one test-server

# The first pass had go vet look at the same packages.
test-one: # on one processor
	$(GO) run ./contrib/testrun -may-skip $(MAY_SKIP_SHORT) -- -short -count=1 -vet=off -parallel 2 -exec "env GOMAXPROCS=1" -timeout $(TIMEOUT) $(GOROUTINES)

test-server: # what has one processor to itself beside test-one
	@sh contrib/fuzz.sh $(SERVERTIME) ./mountd/rpc FuzzServer 1

test-disk: ## run the token directories' tests on a real disk, below DISK (build/disk), and not in memory
	@mkdir -p $(DISK)
	P11FS_TEST_DISK=$(abspath $(DISK)) $(GO) test -count=1 -timeout $(TIMEOUT) ./tokens/store/...

test-s390x: setup-s390x ## run the tests that need no FUSE on big-endian s390x under qemu, and stock s390x programs beside ours
	@sh contrib/s390x.sh $(S390X) || :
	@sh contrib/s390x.sh $(S390X_LATER) trixie forky || :
	$(GO) run -exec "env GOARCH=s390x CGO_ENABLED=0" ./contrib/testrun -may-skip $(MAY_SKIP_S390X) -- \
		-short -count=1 -vet=off -exec qemu-s390x-static -timeout $(TIMEOUT) $(S390X_UNITS)
	P11FS_S390X=$(S390X) P11FS_S390X_LATER=$(S390X_LATER) $(GO) run ./contrib/testrun -- -count=1 -run '^TestS390X' ./integration

integration: setup-test setup-trixie ## run the tests that drive the built program with real clients
	$(GO) run ./contrib/testrun -may-skip $(MAY_SKIP) -- $(P11FS_TEST_RACE) -count=1 -timeout $(TIMEOUT) ./integration/...

soak: setup-test ## have stock programs and shells work on one token, and machines on a fleet's, for SOAKTIME (10m), with kills, and check all they saw
	$(GO) run ./contrib/testrun -may-skip $(MAY_SKIP) -- $(P11FS_TEST_RACE) -count=1 -timeout 0 -v -run '^TestStockLoad$$' ./integration -args -load $(SOAKTIME)
	$(GO) run ./contrib/testrun -may-skip $(MAY_SKIP) -- $(P11FS_TEST_RACE) -count=1 -timeout 0 -v -run '^TestHistories$$' ./tokens/fleet -args -history $(SOAKTIME)
	$(GO) run ./contrib/testrun -may-skip $(MAY_SKIP) -- $(P11FS_TEST_RACE) -count=1 -timeout 0 -v -run '^TestFleet$$' ./integration -args -fleet $(SOAKTIME)

soak-flat: setup-test ## have all doors work for SOAK (1h): fails where memory, descriptors or times grow
	$(GO) run ./contrib/testrun -may-skip $(MAY_SKIP) -- -count=1 -timeout 0 -v -run '^TestSoak$$' ./integration -args -soak $(SOAK)

fuzz: ## run every fuzz target for FUZZTIME (10s)
	@sh contrib/fuzz.sh $(FUZZTIME)

lint: bin/golangci-lint ## run the linters of .golangci.yml
	bin/golangci-lint run ./...

bin/golangci-lint:
	GOBIN=$(CURDIR)/bin $(GO) install $(LINTER)

check: ## check format, vet, lint and generated files, then run all tests
	@out=$$(git ls-files '*.go' | xargs gofmt -l); [ -z "$$out" ] || { echo "not gofmt-ed: $$out"; exit 1; }
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet ./...
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory generate
	@git diff --exit-code --stat -- '*_gen.*' || { echo "generated files were out of date"; exit 1; }
	@$(MAKE) --no-print-directory test

bench: bench-run ## measure every door beside SoftHSM2, openCryptoki and libcrypto, by turns, into docs/bench
	@mkdir -p docs/bench
	cp $(BUILD)/doors.json docs/bench/doors.json
	$(GO) run ./contrib/benchreport docs/bench/doors.json docs/bench

bench-check: bench-run ## measure anew, and fail where a ratio is less than in docs/bench by a fifth
	$(GO) run ./contrib/benchreport -check docs/bench/doors.json $(BUILD)/doors.json

bench-run: setup-bench
	@mkdir -p $(BUILD)
	$(GO) test ./integration -run '^$$' -bench '^BenchmarkDoors$$' -timeout $(TIMEOUT) -args -bench-out $(abspath $(BUILD))/doors.json

# Without the doors that nothing is wanted of.
bench-rows: setup-bench ## measure what docs/bench says is wanted, in 5 minutes, and print what was reached and whether it holds
	@mkdir -p $(BUILD)
	$(GO) test ./integration -run '^$$' -bench '^BenchmarkDoors$$' -timeout $(TIMEOUT) -args -bench-out $(abspath $(BUILD))/rows.json \
		-bench-works '^((info|digest:(65536|16777216)|encrypt:(cbc|gcm):(65536|16777216)|generate:p256|object:session|digest:(two|one|held)|sign:p256:two|shell:.*) 1|sign:(p256|rsa2048) [12]|sign:(p256:one|rsa2048:held) (1|64))$$' \
		-bench-doors '^(softhsm2|libp11fs|files|empty|shell|libcrypto|opencryptoki)$$'
	@$(GO) run ./contrib/benchreport -wanted $(BUILD)/rows.json

microbench: setup-bench ## run the other benchmarks, some beside openssl and tpm2-pkcs11
	$(GO) test -run '^$$' -bench . -skip '^BenchmarkDoors$$' -benchtime $(BENCHTIME) ./...

# p11 first: other generators are built on it.
generate: ## make the generated files anew
	$(GO) generate ./p11
	$(GO) generate ./...

man: build ## write the manual pages into build/docs/man
	@rm -rf $(BUILD)/docs/man && $(BIN) man $(BUILD)/docs/man
	@cp docs/man/*.[1-8] $(BUILD)/docs/man/

docs: man ## write the manual pages, and with docs/*.md one HTML site of them, into build/docs
	@$(GO) run ./contrib/docsite -man $(BUILD)/docs/man -out $(BUILD)/docs/html

install: build libp11fs libcard ## install below PREFIX (/usr/local), and p11fs.module and the link pkcsslotd (SLOTD=: none) where they are looked for
	install -D -m 0755 $(BIN) $(DESTDIR)$(PREFIX)/bin/p11fs
	ln -sf p11fs $(DESTDIR)$(PREFIX)/bin/age-plugin-p11fs
	install -D -m 0644 $(LIBP11FS) $(DESTDIR)$(PREFIX)/lib/pkcs11/libp11fs.so
	@# Not where the linker looks: the name is that of the vendor's.
	install -D -m 0644 $(LIBCARD)/libep11.so $(DESTDIR)$(PREFIX)/lib/p11fs/libep11.so
	install -D -m 0644 $(LIBCARD)/libcsulcca.so $(DESTDIR)$(PREFIX)/lib/p11fs/libcsulcca.so
	install -D -m 0644 contrib/p11fs.service $(DESTDIR)$(PREFIX)/lib/systemd/system/p11fs.service
	sed -i 's|/usr/local|$(PREFIX)|' $(DESTDIR)$(PREFIX)/lib/systemd/system/p11fs.service
	install -D -m 0644 contrib/p11fs-user.service $(DESTDIR)$(PREFIX)/lib/systemd/user/p11fs.service
	sed -i 's|/usr/local|$(PREFIX)|' $(DESTDIR)$(PREFIX)/lib/systemd/user/p11fs.service
	install -D -m 0644 contrib/p11fs-rpc.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/p11fs-rpc.socket
	install -D -m 0644 contrib/p11fs.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/p11fs.conf
	install -D -m 0644 contrib/p11fs.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/p11fs.conf
	@if [ -z "$(SLOTD)" ]; then :; \
	elif [ -e "$(DESTDIR)$(SLOTD)" ] || [ -L "$(DESTDIR)$(SLOTD)" ]; then \
		echo "$(SLOTD) is there and stays as it is; docs/stock.md tells how to put p11fs in its place"; \
	else mkdir -p "$(DESTDIR)$(dir $(SLOTD))" && ln -s "$(PREFIX)/bin/p11fs" "$(DESTDIR)$(SLOTD)"; fi
	install -D -m 0644 contrib/p11fs.module $(DESTDIR)$(P11MODULES)/p11fs.module
	sed -i 's|/usr/local|$(PREFIX)|' $(DESTDIR)$(P11MODULES)/p11fs.module
	@# Not in BUILD: what root makes there, the owner could not remove.
	@set -e; stage=$$(mktemp -d); trap 'rm -rf "$$stage"' EXIT; \
	$(BIN) man "$$stage"; cp docs/man/*.[1-8] "$$stage"; \
	for page in "$$stage"/*; do \
		install -D -m 0644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; done; \
	$(BIN) completion bash > "$$stage/bash"; $(BIN) completion zsh > "$$stage/zsh"; $(BIN) completion fish > "$$stage/fish"; \
	install -D -m 0644 "$$stage/bash" "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/p11fs"; \
	install -D -m 0644 "$$stage/zsh" "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_p11fs"; \
	install -D -m 0644 "$$stage/fish" "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/p11fs.fish"

# What goes into a package has the places of one, and no link to be pkcsslotd: that is
# another package's file.
PACKAGE := $(BUILD)/package
package: bin/nfpm ## make .deb and .rpm in build/package
	@rm -rf $(PACKAGE) && mkdir -p $(PACKAGE)
	@$(MAKE) -s --no-print-directory install DESTDIR=$(abspath $(PACKAGE))/root PREFIX=/usr P11MODULES=/usr/share/p11-kit/modules SLOTD=
	@for kind in deb rpm; do P11FS_ROOT=$(PACKAGE)/root P11FS_VERSION=$(or $(VERSION),$$($(BIN) version | cut -d' ' -f2)) P11FS_ARCH=$$($(GO) env GOARCH) \
		bin/nfpm package --config contrib/package/nfpm.yaml --packager $$kind --target $(PACKAGE) || exit; done
	@rm -rf $(PACKAGE)/root

bin/nfpm:
	GOBIN=$(CURDIR)/bin $(GO) install $(NFPM)

uninstall: ## remove what install put below PREFIX
	rm -f $(DESTDIR)$(PREFIX)/bin/p11fs $(DESTDIR)$(PREFIX)/bin/age-plugin-p11fs $(DESTDIR)$(PREFIX)/lib/pkcs11/libp11fs.so $(DESTDIR)$(PREFIX)/lib/systemd/system/p11fs.service
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/user/p11fs.service
	rm -f $(DESTDIR)$(PREFIX)/lib/p11fs/libep11.so $(DESTDIR)$(PREFIX)/lib/p11fs/libcsulcca.so
	rm -f $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/p11fs.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/p11fs.conf
	@[ -z "$(SLOTD)" ] || [ "$$(readlink "$(DESTDIR)$(SLOTD)")" != "$(PREFIX)/bin/p11fs" ] || rm -f "$(DESTDIR)$(SLOTD)"
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/p11fs-rpc.socket $(DESTDIR)$(P11MODULES)/p11fs.module
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/p11fs.1 $(DESTDIR)$(PREFIX)/share/man/man1/p11fs-*.1
	rm -f $(DESTDIR)$(PREFIX)/share/man/man5/p11fs.5 $(DESTDIR)$(PREFIX)/share/man/man5/p11fs-grants.5 $(DESTDIR)$(PREFIX)/share/man/man7/p11fs-tree.7 $(DESTDIR)$(PREFIX)/share/man/man7/p11fs-mechanisms.7
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/p11fs
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_p11fs
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/p11fs.fish

clean: ## remove what was built; tokens stay
	rm -rf bin build
