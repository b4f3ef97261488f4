#!/usr/bin/python3
"""Holds the sources against the house rules that a compiler does not know (see docs/architecture.md)."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Which of our own rooms a room may include, and which libraries' headers.
ROOMS = {
    "base": {"rooms": {"base"}, "deny": r"openssl/|sodium|libpq|microhttpd|gnutls|jansson|curl/|seccomp"},
    "ca": {"rooms": {"base", "ca"}, "deny": r"libpq|microhttpd|gnutls|jansson|curl/|seccomp"},
    "db": {"rooms": {"base", "db"}, "deny": r"openssl/|sodium|microhttpd|gnutls|jansson|curl/|seccomp"},
    "server": {"rooms": {"base", "ca", "db", "server"}, "deny": r"openssl/|libpq"},
}
# Inside server: who may know which library.
LIBRARY_HOMES = {
    "microhttpd": ("server/http/",),
    "gnutls": ("server/http/",),
    "seccomp": ("server/signer/",),
    "curl/": ("server/cli/", "server/iot/", "server/notify/"),
    "sodium": ("ca/", "server/iot/", "server/iotcore/", "server/notify/"),
    "mosquitto": ("server/iot/", "server/iotcore/plugin/"),
}
# Mosquitto's plugin is no part of the program: it knows the broker's TLS, and of us base, db and the policies.
PLUGIN = "server/iotcore/plugin/"
PLUGIN_MAY = ("base/", "db/", "server/iotcore/plugin/", "server/iotcore/policy.h")
# The policy evaluator is linked into both.
POLICY = "server/iotcore/policy"
POLICY_MAY = ("base/", "server/iotcore/policy")
INNER = {  # folder of server: folders of server that it must not include
    "server/http/": ("server/api/", "server/protocol/", "server/issuance/", "server/jobs/"),
    "server/issuance/": ("server/api/", "server/protocol/"),
    "server/jobs/": ("server/api/",),
    "server/notify/": ("server/api/", "server/iotcore/", "server/cli/"),
    "server/iot/": ("server/api/", "server/iotcore/", "server/cli/"),
    "server/iotcore/": ("server/api/", "server/issuance/", "server/protocol/", "server/jobs/"),
}
# The one file of server that meets OpenSSL: the broker's TLS is OpenSSL's, and is judged from inside.
TLS_OF_THE_BROKER = "server/iotcore/plugin/tls.c"
FORBIDDEN = [
    (r"\b(strcpy|strcat|sprintf|vsprintf|atoi|atol|strtok|gmtime|localtime|gets|mktemp|tmpnam)\s*\(", ()),
    (r"\b(malloc|calloc|realloc|free|strdup)\s*\(", ("base/mem.c",)),
    (r"\bPQ(exec|execParams|prepare|sendQuery\w*)\s*\(", ("db/",)),
    (r"(?<![\w>.])time\s*\(", ("base/",)),
    (r"\b(system|popen)\s*\(", ()),
    (r"\bTODO\b(?!.*#\d)", ()),
]


def strip(text):
    """Comments and strings become blanks, so that rules see code only."""
    pattern = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def main():
    found = []
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split()
    for name in names:
        room = name.split("/")[0]
        path = ROOT / name
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        if room in ROOMS:
            for number, line in enumerate(text.splitlines(), 1):
                include = re.match(r'\s*#\s*include\s+[<"]([^>"]+)[>"]', line)
                if include:
                    check_include(name, room, number, include.group(1), found)
            code = strip(text)
            for pattern, homes in FORBIDDEN:
                if any(name.startswith(home) for home in homes):
                    continue
                for hit in re.finditer(pattern, text if "TODO" in pattern else code):
                    found.append(f"{name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit.group().strip()} is not for here")
            if room == "server" and re.search(r'"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM)\s', text):
                found.append(f"{name}: SQL text outside db/")
        for number, line in enumerate(text.splitlines(), 1):
            if len(line.expandtabs(8)) > 110:
                found.append(f"{name}:{number}: line of {len(line.expandtabs(8))} columns")
    for line in found:
        print(line)
    print(f"{len(names)} files, {len(found)} findings")
    return 1 if found else 0


def check_include(name, room, number, header, found):
    rules = ROOMS[room]
    head = header.split("/")[0]
    for place, allowed in ((PLUGIN, PLUGIN_MAY), (POLICY, POLICY_MAY)):
        if name.startswith(place) and head in ROOMS and not header.startswith(allowed):
            found.append(f"{name}:{number}: {place} must not include {header}")
    if name.startswith(PLUGIN) and header.startswith("openssl/"):
        return
    if head in ROOMS and head not in rules["rooms"]:
        found.append(f"{name}:{number}: {room} must not include {header}")
    if re.search(rules["deny"], header) and head not in ROOMS and name != TLS_OF_THE_BROKER:
        found.append(f"{name}:{number}: {room} must not know {header}")
    if head in ROOMS:
        for folder, denied in INNER.items():
            if name.startswith(folder) and header.startswith(denied):
                found.append(f"{name}:{number}: {folder} must not include {header}")
        return
    for library, homes in LIBRARY_HOMES.items():
        if header.startswith(library) and not name.startswith(homes):
            found.append(f"{name}:{number}: {header} belongs to {', '.join(homes)}")


if __name__ == "__main__":
    sys.exit(main())
