#!/bin/sh
# image.sh: builds localhost/jitrca:latest with buildah (no daemon) and runs it once. The base image is
# $BASE if set and reachable; otherwise it is made from Debian's packages by debootstrap.
set -eu
cd "$(dirname "$0")/.."

need() { command -v "$1" >/dev/null || missing="${missing:-} $2"; }
missing=
need buildah buildah
need debootstrap debootstrap
if [ -n "$missing" ]; then
	[ "$(id -u)" -eq 0 ] || { echo "image.sh: install these first:$missing" >&2; exit 1; }
	apt-get update -qq
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
[ "$(id -u)" -eq 0 ] || { echo "image.sh: debootstrap and chroot isolation need root; try: sudo make image" >&2; exit 1; }

export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
storage=$(pwd)/build/image
mkdir -p "$storage"
buildah() { command buildah --root "$storage/root" --runroot "$storage/run" "$@"; }

base=${BASE:-}
if [ -z "$base" ]; then
	base=localhost/debian-base:bookworm
	if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
		echo "Making a base image with debootstrap"
		tree=$(mktemp -d)
		trap 'rm -rf "$tree"' EXIT
		mirror=$(sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*main.*/\2/p; s/^URIs: *\([^ ]*\).*/\1/p' \
			/etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
		debootstrap --variant=minbase --include=ca-certificates bookworm "$tree" ${mirror:+"$mirror"} >"$storage/debootstrap.log" 2>&1 ||
			{ tail -n 5 "$storage/debootstrap.log" >&2; exit 1; }
		# The same package sources as this host's, so that builds work behind its proxy or mirror.
		cp -r /etc/apt/. "$tree/etc/apt/"
		rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
		container=$(buildah from scratch)
		buildah add -q "$container" "$tree" / >/dev/null
		buildah commit -q "$container" "$base" >/dev/null
		buildah rm "$container" >/dev/null
		rm -rf "$tree"
		trap - EXIT
	fi
fi

echo "Building localhost/jitrca:latest on $base"
buildah build -q --build-arg BASE="$base" --format docker -f docker/Dockerfile -t localhost/jitrca:latest .

echo "Running it once"
container=$(buildah from localhost/jitrca:latest)
trap 'buildah rm "$container" >/dev/null' EXIT
buildah run "$container" -- jitrca version
buildah run "$container" -- jitrca config >/dev/null
buildah images localhost/jitrca
