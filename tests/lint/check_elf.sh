#!/bin/sh
# check_elf.sh FILE...: the hardening that the Makefile asks for took, in programs and in plugins (*.so).
set -eu
fail() { echo "$file: $1" >&2; exit 1; }
for file in "$@"; do
	case $file in
	*.so)
		entry=mosquitto_plugin_init
		shown=$(nm -D --defined-only "$file" | awk '$3 !~ /^mosquitto_plugin_/ { print $3 }')
		[ -z "$shown" ] || fail "shows more than its entry points: $(echo "$shown" | head -n 3)"
		readelf -dW "$file" | grep -q NODELETE || fail "can be unloaded under its own threads"
		;;
	*)
		entry=main
		readelf -dW "$file" | grep -q 'FLAGS_1.*PIE' || fail "not a position independent executable"
		;;
	esac
	readelf -hW "$file" | grep -q 'Type:.*DYN' || fail "not position independent"
	readelf -lW "$file" | grep -q GNU_RELRO || fail "no RELRO"
	readelf -dW "$file" | grep -q 'BIND_NOW\|FLAGS_1.*NOW' || fail "no immediate binding"
	readelf -lW "$file" | grep GNU_STACK | grep -q 'RW ' || fail "executable stack"
	readelf -sW "$file" | grep -q __stack_chk_fail || fail "no stack protector"
	readelf -sW "$file" | grep -q '_chk@' || fail "no fortified functions"
	if [ "$(uname -m)" = x86_64 ]; then
		# Not the note: Debian's crt1.o has none, so the linker gives none to any program.
		objdump -d --no-show-raw-insn --disassemble="$entry" "$file" | grep -q endbr64 ||
			fail "no branch protection (IBT)"
	fi
	echo "$file: hardened"
done
