#!/bin/sh
# tidy.sh PACKAGE...: clang-tidy over all sources, with the checks of .clang-tidy; pkg-config knows the packages.
set -eu
tidy() {
	file=$1
	shift
	echo "  TIDY $file"
	# On stderr it only counts the warnings that it does not show.
	clang-tidy --quiet --warnings-as-errors='*' "$file" -- "$@" 2>/dev/null
}
if [ "$1" = one ]; then
	shift
	tidy "$@"
	exit
fi
flags="-std=c17 -D_GNU_SOURCE -DJITRCA_VERSION=\"0\" -I. $(pkg-config --cflags "$@")"
# All files are looked at, whatever is found; xargs fails if one has failed.
# shellcheck disable=SC2086
git ls-files -- '*.c' ':!tests' | xargs -P "$(nproc)" -I '{}' sh "$0" one '{}' $flags
