#!/bin/sh
# coverage.sh BUILD: line coverage by room, from the objects under BUILD.
set -eu
build=$1
for room in base ca db server server/iot server/iotcore server/iotcore/plugin .; do
	printf '%-22s' "$room"
	gcovr --root . --object-directory "$build" --filter "$( [ "$room" = . ] && echo '(base|ca|db|server)/' || echo "$room/" )" \
		--gcov-ignore-parse-errors -s "$build" 2>/dev/null | grep '^lines:'
done
