#!/bin/sh
# embed.sh NAME FILE HEADER: writes the C text that defines NAME, the octets of FILE with a NUL behind
# them, and NAME_BYTES, their count without it, as HEADER declares them.
set -eu
printf '/* Made by server/api/embed.sh. */\n#include "%s"\nconst uint8_t %s[] = {\n' "$3" "$1"
od -An -v -tu1 "$2" | sed 's/[0-9][0-9]*/&,/g'
printf '0 };\nconst size_t %s_BYTES = sizeof(%s) - 1;\n' "$1" "$1"
