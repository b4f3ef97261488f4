# Unit tests: tests/unit/ROOM/test_NAME.c becomes $(BUILD)/tests/unit/ROOM/test_NAME, linked with that
# room's libraries only. The tests of ca link without libpq and libmicrohttpd, those of db without
# OpenSSL: that they link is the proof of the walls.

UNIT_LIBS_base := $(BUILD)/libbase.a
UNIT_LIBS_ca := $(BUILD)/libca.a $(BUILD)/libbase.a
UNIT_LIBS_db := $(BUILD)/libdb.a $(BUILD)/libbase.a
UNIT_LIBS_policy := $(BUILD)/libpolicy.a $(BUILD)/libbase.a
UNIT_LIBS_server := $(BUILD)/libserver.a $(BUILD)/libca.a $(BUILD)/libdb.a $(BUILD)/libbase.a
# What the tests of a room run under: those of db and server share a cluster, made and removed around them.
UNIT_ENV_db := sh tests/unit/db/cluster.sh
UNIT_ENV_server := sh tests/unit/db/cluster.sh
UNIT_PKGS_base := cmocka
UNIT_PKGS_ca := cmocka libcrypto libsodium
UNIT_PKGS_db := cmocka libpq
UNIT_PKGS_policy := cmocka jansson
UNIT_LIBS_plugin := $(BUILD)/libplugin.a $(BUILD)/libpolicy.a $(BUILD)/libdb.a $(BUILD)/libbase.a
UNIT_ENV_plugin := sh tests/unit/db/cluster.sh
UNIT_PKGS_plugin := cmocka libpq jansson libssl libcrypto
UNIT_PKGS_server := cmocka $(PACKAGES)

# One that hangs ends here, under a sanitizer and on a busy machine too.
UNIT_S := 600
UNIT_RUN = timeout $(UNIT_S) $$$$t$(if $(AGAIN), || { echo "Once more:"; timeout $(UNIT_S) $$$$t; })

define unit_room
UNIT_TESTS_$(1) := $$(patsubst %.c,$$(BUILD)/%,$$(wildcard tests/unit/$(1)/test_*.c))
$$(UNIT_TESTS_$(1)): $$(BUILD)/%: $$(BUILD)/%.o $$(UNIT_LIBS_$(1))
	@echo "  LD $$@"
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$$$(pkg-config --libs $$(UNIT_PKGS_$(1))) -lpthread
.PHONY: unit-$(1)
unit-$(1): $$(UNIT_TESTS_$(1)) ## run the unit tests of $(1)
	$$(Q)$$(UNIT_ENV_$(1)) sh -ec 'for t in $$^; do echo "  TEST $$$$t"; $(UNIT_RUN); done'
endef
$(foreach room,base ca db policy plugin server,$(eval $(call unit_room,$(room))))

.PHONY: unit
unit: unit-base unit-ca unit-db unit-policy unit-plugin unit-server ## run all unit tests

# Everything else runs against the program: tests/api, tests/e2e, tests/fault (pytest). They use the
# build with test hooks, so that faults can be made at named points.
HOOKS := $(BUILD)/hooks
PYTEST = $(PYTHON) -m pytest -q -o cache_dir=$(BUILD)/pytest
# These share nothing and wait much, so they go file by file, one more at a time than there are processors. These measure: alone.
ALONE := tests/e2e/test_bench.py tests/fault/test_stalled.py tests/fault/test_crowd_10000.py
APART := tests/api/iotcore $(filter-out $(ALONE),$(wildcard tests/api/test_*.py tests/e2e/test_*.py tests/fault/test_*.py))
PYTEST_APART = $(PYTEST) -n $(shell expr $(JOBS) + 1) --dist loadfile
# AGAIN=1: what fails is tried once more, alone and for all to see: some wait by the clock, and a busy machine is late.
AGAIN ?=
again = $(if $(AGAIN),|| { test $$? -eq 1 && echo "Once more by itself:" && \
	$(1) $(PYTEST) --last-failed --last-failed-no-failures none $(2); })
pytest_apart = $(1) $(PYTEST_APART) $(2) $(call again,$(1),$(2))
pytest_alone = $(1) $(PYTEST) $(2) $(call again,$(1),$(2))
# What is run against $(1) of the folders $(2): what goes apart side by side, then the rest.
define pytest_both
$(Q)$(call pytest_apart,$(1),$(filter $(addsuffix /%,$(2)),$(APART)))
$(if $(filter-out tests/api,$(2)),$(Q)$(call pytest_alone,$(1),$(filter $(addsuffix /%,$(2)),$(ALONE))))
endef
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined

# Small programs that let a test written in Python call what has no door of its own.
HARNESS_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/harness/*.c))
$(HARNESS_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(UNIT_LIBS_server)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs $(PACKAGES)) -lpthread
.PHONY: harness
harness: $(HARNESS_PROGRAMS)

ON_HOOKS = JITRCA_TEST_BIN=$(HOOKS)/jitrca JITRCA_TEST_RELEASE_BIN=$(BUILD)/jitrca
.PHONY: hooks
hooks: build
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(HOOKS) REUSE=$(BUILD) TEST_HOOKS=1 build harness bench-programs

.PHONY: deps-test
deps-test: ## install what the tests need
	$(Q)sh docker/deps.sh build run test

.PHONY: test
test: deps-test ## install what the tests need, build, and run all of them
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) build
	$(Q)$(MAKE) --no-print-directory hooks
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) -Otarget unit
	$(call pytest_both,$(ON_HOOKS),tests/api tests/e2e tests/fault)

# The broker is Debian's and cannot load a sanitized plugin (tests/api/test_broker.py says why): it has the built one.
ON_ASAN = JITRCA_TEST_BIN=$(BUILD)/asan/jitrca JITRCA_TEST_RELEASE_BIN=$(BUILD)/asan/jitrca JITRCA_TEST_SANITIZER=1 \
	JITRCA_TEST_PLUGIN=$(BUILD)/jitrca-mosquitto.so
# What reads strangers' octets; the rest runs under sanitizers in check-full.
ASAN_FIRST := $(patsubst %,tests/api/test_%.py,bad_input issue)
.PHONY: asan
asan: ## unit tests, and those of the API that read strangers' octets, under AddressSanitizer and UndefinedBehaviorSanitizer
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(BUILD)/asan TEST_HOOKS=1 OPTIMIZE="-O1 -g" \
		SANITIZE="$(SANITIZERS)" HARDENING="-fPIE" build harness unit
	$(Q)$(call pytest_apart,$(ON_ASAN),$(if $(ASAN_ALL),tests/api,$(ASAN_FIRST)))

.PHONY: asan-all
asan-all: build ## the same with all tests of the API
	$(Q)$(MAKE) --no-print-directory asan ASAN_ALL=1

.PHONY: tsan
tsan: ## unit tests of db, plugin and server under ThreadSanitizer
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(BUILD)/tsan TEST_HOOKS=1 OPTIMIZE="-O1 -g" \
		SANITIZE="-fsanitize=thread" HARDENING="-fPIE" unit-db unit-plugin unit-server

ON_COVERAGE = JITRCA_TEST_BIN=$(BUILD)/coverage/jitrca JITRCA_TEST_RELEASE_BIN=$(BUILD)/coverage/jitrca
.PHONY: coverage
coverage: deps-analyze ## line coverage of unit and API tests, by room
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(BUILD)/coverage TEST_HOOKS=1 OPTIMIZE="-O0 -g" \
		SANITIZE="--coverage" HARDENING="-fPIE" build harness bench-programs unit
	$(call pytest_both,$(ON_COVERAGE),tests/api tests/e2e)
	$(Q)sh tests/lint/coverage.sh $(BUILD)/coverage

.PHONY: mutants
mutants: ## break each invariant on purpose and see its test fail
	$(Q)$(PYTHON) tests/mutants/run.py

# Measuring runs against the release build. TOPIC chooses sections; see docs/performance.md.
TOPIC ?=
ON_BENCH = JITRCA_TEST_BIN=$(BUILD)/jitrca $(PYTHON) -B tests/bench/bench.py
.PHONY: bench
bench: build bench-programs ## measure, 20 minutes; TOPIC="issue tls …" a part of it; writes build/bench-results.json
	$(Q)$(ON_BENCH) $(TOPIC)

.PHONY: bench-quick
bench-quick: build bench-programs ## a moment of each section, to see that it works
	$(Q)$(ON_BENCH) --quick $(TOPIC)

.PHONY: bench-size
bench-size: build bench-programs ## with ten million certificates: half an hour, 40 GB
	$(Q)$(ON_BENCH) --output $(BUILD)/bench-size.json size10m

.PHONY: bench-peers
bench-peers: build bench-programs ## beside cfssl, if it is installed
	$(Q)$(ON_BENCH) --output $(BUILD)/bench-peers.json peers

.PHONY: deps-lint deps-analyze
deps-lint deps-analyze: deps-%:
	$(Q)sh docker/deps.sh build run test $*

.PHONY: lint
# Where warnings were errors from the start (WERROR=1 in the environment), what is built is good for the lint too.
WERROR_BUILD := $(if $(WERROR),$(BUILD),$(BUILD)/werror)
lint: deps-lint ## the house rules, warnings as errors, the ELF's hardening
	$(Q)$(PYTHON) tests/lint/check_house.py
	$(Q)$(PYTHON) tests/lint/check_codes.py
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(WERROR_BUILD) WERROR=1 build bench-programs
	$(Q)sh tests/lint/check_elf.sh $(WERROR_BUILD)/jitrca $(WERROR_BUILD)/jitrca-mosquitto.so
	$(Q)cppcheck --quiet --error-exitcode=1 --enable=warning,portability,performance --std=c17 \
		--inline-suppr --suppressions-list=tests/lint/cppcheck.txt -I. -D_GNU_SOURCE -DJITRCA_VERSION='"0"' \
		-j$(JOBS) base ca db server

.PHONY: analyze
analyze: deps-analyze ## clang, clang-tidy and gcc -fanalyzer over all sources
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(BUILD)/clang CC=clang WERROR=1 HARDENING="-fPIE" build
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(BUILD)/analyzer WERROR=1 OPTIMIZE="-O1 -fanalyzer" build
	$(Q)sh tests/lint/tidy.sh $(PACKAGES)

.PHONY: long
long: hooks ## the long forms of the fault, fuzz and load tests
	$(call pytest_both,JITRCA_TEST_LONG=1 $(ON_HOOKS),tests/api tests/e2e tests/fault)

.PHONY: check-full
check-full: lint analyze test asan-all tsan coverage mutants long ## everything; takes an hour or two
	$(Q)$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=60

# Fuzz targets: tests/fuzz/fuzz_NAME.c, linked with base and ca (FUZZ_ROOM_NAME := server for more),
# each for FUZZ_SECONDS over its kept corpus tests/fuzz/corpus/NAME; what it finds new stays in $(BUILD).
FUZZ_SECONDS ?= 10
FUZZ_ROOM_manifest := server
FUZZ_ROOM_aws := server
FUZZ_ROOM_policy := policy
FUZZ_ROOM_rule := server
FUZZ_ROOM_iotcore := server
FUZZ_ROOM_audit := server
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

define fuzz_target
$$(BUILD)/tests/fuzz/fuzz_$(1): $$(BUILD)/tests/fuzz/fuzz_$(1).o $$(UNIT_LIBS_$(or $(FUZZ_ROOM_$(1)),ca))
	@echo "  LD $$@"
	$$(Q)$$(CC) $$(LDFLAGS) -fsanitize=fuzzer -o $$@ $$^ \
		$$$$(pkg-config --libs $$(filter-out cmocka,$$(UNIT_PKGS_$(or $(FUZZ_ROOM_$(1)),ca)))) -lpthread
.PHONY: fuzz-run-$(1)
fuzz-run-$(1): $$(BUILD)/tests/fuzz/fuzz_$(1)
	@echo "  FUZZ $(1)"
	$$(Q)mkdir -p $$(BUILD)/corpus/$(1)
	$$(Q)$$(BUILD)/tests/fuzz/fuzz_$(1) -max_total_time=$$(FUZZ_SECONDS) -timeout=10 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix=$$(BUILD)/corpus/$(1)- $$(BUILD)/corpus/$(1) \
		$$(wildcard tests/fuzz/corpus/$(1)) 2>$$(BUILD)/corpus/$(1).log || \
		{ tail -n 40 $$(BUILD)/corpus/$(1).log; exit 1; }
	$$(Q)grep number_of_executed_units $$(BUILD)/corpus/$(1).log
endef
$(foreach target,$(FUZZ_TARGETS),$(eval $(call fuzz_target,$(target))))

.PHONY: fuzz
fuzz: deps-analyze ## fuzz each parser for FUZZ_SECONDS
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) BUILD=$(BUILD)/fuzz CC=clang OPTIMIZE="-O1 -g" HARDENING="-fPIE" \
		SANITIZE="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" \
		FUZZ_SECONDS=$(FUZZ_SECONDS) $(addprefix fuzz-run-,$(FUZZ_TARGETS))

# Programs of tests/bench: the load generator is made of several files, the others of one each.
BENCH_LOAD := $(wildcard tests/bench/load*.c)
BENCH_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(filter-out $(BENCH_LOAD),$(wildcard tests/bench/*.c))) \
	$(BUILD)/tests/bench/load
$(BUILD)/tests/bench/load: $(call objects,$(BENCH_LOAD)) $(UNIT_LIBS_base)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs libssl libcrypto) -lpthread

$(BUILD)/tests/bench/bare: $(BUILD)/tests/bench/bare.o $(UNIT_LIBS_base)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs libmicrohttpd gnutls) -lpthread

$(BUILD)/tests/bench/limits: $(BUILD)/tests/bench/limits.o $(UNIT_LIBS_base)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs libcrypto) -lpthread

$(BUILD)/tests/bench/ca_issue: $(BUILD)/tests/bench/ca_issue.o $(UNIT_LIBS_server)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs $(PACKAGES)) -lpthread

$(BUILD)/tests/bench/ca_ocsp: $(BUILD)/tests/bench/ca_ocsp.o $(UNIT_LIBS_ca)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs libcrypto libsodium) -lpthread

.PHONY: bench-ca-ocsp
bench-ca-ocsp: $(BUILD)/tests/bench/ca_ocsp ## what an OCSP answer costs beside the bare signature
	$(Q)$(BUILD)/tests/bench/ca_ocsp

.PHONY: bench-programs
bench-programs: $(BENCH_PROGRAMS)

$(BUILD)/tests/bench/policy: $(BUILD)/tests/bench/policy.o $(UNIT_LIBS_policy)
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs jansson) -lpthread

.PHONY: bench-policy
bench-policy: $(BUILD)/tests/bench/policy ## what a decision on an IoT policy costs
	$(Q)$(BUILD)/tests/bench/policy

$(BUILD)/tests/bench/strangers: $(BUILD)/tests/bench/strangers.o
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $$(pkg-config --libs libssl libcrypto) -lpthread
