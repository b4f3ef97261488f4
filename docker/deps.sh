#!/bin/sh
# deps.sh build|run|test|lint|analyze …: installs what a plain Debian 12 (or newer) or Ubuntu lacks for these
# groups, and says so. Does nothing, and needs no root, when everything is there.
set -eu

build="build-essential pkg-config libssl-dev libsodium-dev libpq-dev libmicrohttpd-dev libgnutls28-dev
	libjansson-dev libseccomp-dev libcurl4-gnutls-dev libmosquitto-dev mosquitto-dev"
run="postgresql mosquitto openssl curl ca-certificates"
test="libcmocka-dev python3 python3-pytest python3-pytest-xdist python3-hypothesis python3-cryptography python3-psycopg2
	python3-requests python3-aiosmtpd python3-jsonschema python3-botocore python3-paho-mqtt awscli mosquitto-clients
	gnutls-bin strongswan-pki libstrongswan-standard-plugins libstrongswan-extra-plugins libnss3-tools gdb procps"
lint="cppcheck"
analyze="clang clang-tidy clang-format gcovr libclang-rt-dev valgrind"

wanted=
for group in "$@"; do
	case $group in
	build) wanted="$wanted $build" ;;
	run) wanted="$wanted $run" ;;
	test) wanted="$wanted $test" ;;
	lint) wanted="$wanted $lint" ;;
	analyze) wanted="$wanted $analyze" ;;
	*) echo "deps.sh: unknown group '$group' (build, run, test, lint, analyze)" >&2; exit 2 ;;
	esac
done

missing=
for package in $wanted; do
	# libclang-rt-dev carries the version of clang in its name before Debian 13.
	if [ "$package" = libclang-rt-dev ] && ! apt-cache show libclang-rt-dev >/dev/null 2>&1; then
		version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
		package=libclang-rt-${version:-14}-dev
	fi
	if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
		missing="$missing $package"
	fi
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "These packages are missing and there is no apt-get here to install them:$missing" >&2
	exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
	sudo=
elif command -v sudo >/dev/null; then
	sudo=sudo
else
	echo "These packages are missing; install them as root, then try again:" >&2
	echo "  apt-get install -y --no-install-recommends$missing" >&2
	exit 1
fi
echo "Installing:$missing"
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
