#!/bin/sh
# check_elf.sh PROGRAM: the hardening that the Makefile asks for took.
set -eu
program=$1
fail() { echo "$program: $1" >&2; exit 1; }
readelf -hW "$program" | grep -q 'Type:.*DYN' || fail "not a position independent executable"
readelf -lW "$program" | grep -q GNU_RELRO || fail "no RELRO"
readelf -dW "$program" | grep -q 'BIND_NOW\|FLAGS_1.*NOW' || fail "no immediate binding"
readelf -lW "$program" | grep GNU_STACK | grep -q 'RW ' || fail "executable stack"
readelf -sW "$program" | grep -q __stack_chk_fail || fail "no stack protector"
readelf -sW "$program" | grep -q '_chk@' || fail "no fortified functions"
if [ "$(uname -m)" = x86_64 ]; then
	# Not the note: Debian's crt1.o has none, so the linker gives none to any program.
	objdump -d --no-show-raw-insn --disassemble=main "$program" | grep -q endbr64 ||
		fail "no branch protection (IBT)"
fi
echo "$program: hardened"
