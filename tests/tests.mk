# Unit tests: tests/unit/ROOM/test_NAME.c becomes $(BUILD)/tests/unit/ROOM/test_NAME, linked with that
# room's libraries only. The tests of ca link without libpq and libmicrohttpd, those of db without
# OpenSSL: that they link is the proof of the walls.

UNIT_LIBS_base := $(BUILD)/libbase.a
UNIT_LIBS_ca := $(BUILD)/libca.a $(BUILD)/libbase.a
UNIT_LIBS_db := $(BUILD)/libdb.a $(BUILD)/libbase.a
UNIT_LIBS_server := $(BUILD)/libserver.a $(BUILD)/libca.a $(BUILD)/libdb.a $(BUILD)/libbase.a
UNIT_PKGS_base := cmocka
UNIT_PKGS_ca := cmocka libcrypto libsodium
UNIT_PKGS_db := cmocka libpq
UNIT_PKGS_server := cmocka $(PACKAGES)

define unit_room
UNIT_TESTS_$(1) := $$(patsubst %.c,$$(BUILD)/%,$$(wildcard tests/unit/$(1)/test_*.c))
$$(UNIT_TESTS_$(1)): $$(BUILD)/%: $$(BUILD)/%.o $$(UNIT_LIBS_$(1))
	@echo "  LD $$@"
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$$$(pkg-config --libs $$(UNIT_PKGS_$(1))) -lpthread
.PHONY: unit-$(1)
unit-$(1): $$(UNIT_TESTS_$(1)) ## run the unit tests of $(1)
	$$(Q)set -e; for t in $$^; do echo "  TEST $$$$t"; $$(UNIT_ENV_$(1)) $$$$t; done
endef
$(foreach room,base ca db server,$(eval $(call unit_room,$(room))))

.PHONY: unit
unit: unit-base unit-ca unit-db unit-server ## run all unit tests
