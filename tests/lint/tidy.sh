#!/bin/sh
# tidy.sh: clang-tidy over all sources, with the checks of .clang-tidy.
set -eu
flags="-std=c17 -D_GNU_SOURCE -DJITRCA_VERSION=\"0\" -I. -Ibuild $(pkg-config --cflags libcrypto libsodium libpq libmicrohttpd gnutls jansson libseccomp)"
# shellcheck disable=SC2086
git ls-files 'base/*.c' 'ca/*.c' 'db/*.c' 'server/*.c' |
	xargs -P "$(nproc)" -n 4 sh -c 'flags=$0; clang-tidy --quiet --warnings-as-errors="*" "$@" -- $flags 2>/dev/null' "$flags"
