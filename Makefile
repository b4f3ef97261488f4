# jitrca - `make help` lists the targets. Objects go to $(BUILD); nothing is built in the source tree.

BUILD ?= build
PREFIX ?= /usr/local
PYTHON ?= /usr/bin/python3
JOBS ?= $(shell nproc)
V ?=
Q := $(if $(V),,@)

VERSION := 0.1.0

PACKAGES := libcrypto libsodium libpq libmicrohttpd gnutls jansson libseccomp libcurl libmosquitto
PACKAGE_CFLAGS = $(shell pkg-config --cflags $(PACKAGES))
WARNINGS := -Wall -Wextra -Wformat=2 -Wconversion -Wsign-conversion -Wmissing-prototypes \
	-Wswitch-enum -Wshadow -Wstrict-prototypes -Wcast-qual -Wundef -Wvla
HARDENING ?= -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE \
	-ftrivial-auto-var-init=zero
SANITIZE ?=
# TEST_HOOKS=1 compiles in what tests use to make faults (failpoints); never in a release.
TEST_HOOKS ?=
OPTIMIZE ?= -O2 -g
CFLAGS = -std=c17 -D_GNU_SOURCE -DJITRCA_VERSION='"$(VERSION)"' $(OPTIMIZE) $(WARNINGS) $(HARDENING) \
	$(SANITIZE) $(if $(WERROR),-Werror) $(if $(TEST_HOOKS),-DJITRCA_TEST_HOOKS) -fno-omit-frame-pointer -I. -I$(BUILD) -MMD -MP
LDFLAGS = -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(SANITIZE)

BASE_SOURCES := $(wildcard base/*.c)
CA_SOURCES := $(wildcard ca/*.c)
DB_SOURCES := $(wildcard db/*.c)
SERVER_SOURCES := $(wildcard server/*.c server/*/*.c)
POLICY_SOURCES := $(wildcard server/iotcore/policy*.c)
SERVER_LIB_SOURCES := $(filter-out server/main.c,$(SERVER_SOURCES))
PLUGIN_SOURCES := $(wildcard server/iotcore/plugin/*.c)

objects = $(patsubst %.c,$(BUILD)/%.o,$(1))

.PHONY: all
all: build

include tests/tests.mk

.PHONY: build
build: $(BUILD)/jitrca $(BUILD)/jitrca-mosquitto.so ## build the program and the broker's plugin

$(BUILD)/jitrca: $(call objects,server/main.c) $(BUILD)/libserver.a $(BUILD)/libca.a $(BUILD)/libdb.a $(BUILD)/libbase.a
	@echo "  LD $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs $(PACKAGES)) -lpthread

$(BUILD)/libbase.a: $(call objects,$(BASE_SOURCES))
$(BUILD)/libca.a: $(call objects,$(CA_SOURCES))
$(BUILD)/libdb.a: $(call objects,$(DB_SOURCES)) $(BUILD)/migrations.o
$(BUILD)/libserver.a: $(call objects,$(SERVER_LIB_SOURCES)) $(BUILD)/openapi.o $(BUILD)/broker_conf.o
# The evaluator of IoT policies by itself, for the broker's plugin; the program has it in libserver.a.
$(BUILD)/libpolicy.a: $(call objects,$(POLICY_SOURCES))
$(BUILD)/%.a:
	@echo "  AR $@"
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# REUSE=DIR: a build with the same flags, whose objects serve this one too, but for those that see the test hooks.
REUSE ?=
ifneq ($(REUSE),)
$(filter-out $(call objects,$(shell grep -rlE 'FAILPOINT|TEST_HOOKS' --include='*.c' server tests)), \
	$(call objects,$(BASE_SOURCES) $(CA_SOURCES) $(DB_SOURCES) $(SERVER_SOURCES) $(PLUGIN_SOURCES))): \
	$(BUILD)/%.o: $(REUSE)/%.o
	@mkdir -p $(@D)
	$(Q)ln -f $< $@
endif

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC $<"
	$(Q)$(CC) $(CFLAGS) $(PIC) $(PACKAGE_CFLAGS) -c -o $@ $<

# Mosquitto's plugin: the local IoT Core's side in the broker. It shows nothing but its entry points. What
# it shares with the program is compiled once, so that it fits into both.
PLUGIN_OBJECTS := $(call objects,$(BASE_SOURCES) $(filter-out db/migrate.c,$(DB_SOURCES)) $(POLICY_SOURCES) \
	$(PLUGIN_SOURCES))
PLUGIN_LIBS := -lpq -ljansson -lssl -lcrypto -lpthread
$(PLUGIN_OBJECTS): PIC := -fPIC -fvisibility=hidden
$(BUILD)/jitrca-mosquitto.so: $(PLUGIN_OBJECTS)
	@echo "  LD $@"
	$(Q)$(CC) -shared -Wl,-z,relro,-z,now,-z,noexecstack,-z,nodelete -Wl,--as-needed $(SANITIZE) -o $@ $^ \
		$(PLUGIN_LIBS)
# The same for unit tests, which are no broker: without the files that call it.
$(BUILD)/libplugin.a: $(call objects,$(filter-out %/plugin.c %/gate.c %/traffic.c,$(PLUGIN_SOURCES)))

# The migrations stand in the binary as a table: version, name, text (see db/migrate.h).
MIGRATIONS := $(sort $(wildcard migrations/*.sql))
$(BUILD)/migrations.c: $(MIGRATIONS) migrations/embed.sh
	@mkdir -p $(@D)
	$(Q)sh migrations/embed.sh $(MIGRATIONS) > $@.tmp && mv $@.tmp $@
$(BUILD)/migrations.o: $(BUILD)/migrations.c Makefile
	@echo "  CC $<"
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

# What `jitrca dev` gives the broker of the local IoT Core.
$(BUILD)/broker_conf.c: docker/mosquitto.conf.in server/api/embed.sh
	@mkdir -p $(@D)
	$(Q)sh server/api/embed.sh BROKER_CONF $< server/cli/broker_conf.h > $@.tmp && mv $@.tmp $@

# The description of the API stands in the binary as it is in the tree.
$(BUILD)/openapi.c: server/api/openapi.json server/api/embed.sh
	@mkdir -p $(@D)
	$(Q)sh server/api/embed.sh OPENAPI_JSON $< server/api/openapi.h > $@.tmp && mv $@.tmp $@
$(BUILD)/openapi.o $(BUILD)/broker_conf.o: $(BUILD)/%.o: $(BUILD)/%.c Makefile
	@echo "  CC $<"
	$(Q)$(CC) $(CFLAGS) -c -o $@ $<

.PHONY: deps
deps: ## install what building and running need (apt-get, with sudo when not root)
	$(Q)sh docker/deps.sh build run

.PHONY: run
run: deps ## build and run a whole stack under var/dev, in the foreground
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) build
	$(Q)exec $(BUILD)/jitrca dev

.PHONY: demo
demo: ## play a device's life against the running stack
	$(Q)$(PYTHON) tests/e2e/demo.py

.PHONY: install
install: build ## install the program, profiles, unit and documentation under $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/jitrca/certs/policies \
		$(DESTDIR)$(PREFIX)/share/doc/jitrca $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 0755 $(BUILD)/jitrca $(DESTDIR)$(PREFIX)/bin/jitrca
	install -D -m 0644 $(BUILD)/jitrca-mosquitto.so $(DESTDIR)$(PREFIX)/lib/jitrca/jitrca-mosquitto.so
	install -m 0644 certs/*.json $(DESTDIR)$(PREFIX)/share/jitrca/certs/
	install -m 0644 certs/policies/*.json $(DESTDIR)$(PREFIX)/share/jitrca/certs/policies/
	install -m 0644 README.md LICENSE $(wildcard docs/*.md docs/*.py) $(DESTDIR)$(PREFIX)/share/doc/jitrca/
	install -m 0644 docker/mosquitto.conf.in $(DESTDIR)$(PREFIX)/share/jitrca/mosquitto.conf.in
	for unit in jitrca jitrca-iotcore; do sed 's|@PREFIX@|$(PREFIX)|g' docker/$$unit.service \
		> $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service; done

.PHONY: image
image: ## build the container image and run it once
	$(Q)sh docker/image.sh

.PHONY: fmt
fmt: ## format the sources (clang-format)
	clang-format -i $(shell git ls-files '*.c' '*.h')

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BUILD)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

-include $(wildcard $(BUILD)/*.d $(BUILD)/base/*.d $(BUILD)/ca/*.d $(BUILD)/db/*.d $(BUILD)/server/*.d \
	$(BUILD)/server/*/*.d $(BUILD)/server/*/*/*.d \
	$(BUILD)/tests/*/*/*.d $(BUILD)/tests/*/*.d)
