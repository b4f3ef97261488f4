#!/usr/bin/python3
"""Holds docs/errors.md against the sources: every stable code that a client or an operator may meet is
listed there, and nothing is listed that no source gives. What is ERR_INTERNAL reaches clients as `internal`
and stands in the log only, so it need not be listed. The codes that server/api/openapi.json promises must be
listed as well, with a status."""
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE = r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*"
# Made of a field's name and one of two endings (server/http/fields.c): the name must stand in the sources.
ENDINGS = ("malformed", "unknown")
MADE = re.compile(rf"({CODE})_(malformed|unknown)")
ROW = re.compile(rf"^\| `({CODE})` \| ([^|]+) \|", re.M)


def strip_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def call_arguments(text, start):
    """The text between the parentheses that open at start."""
    depth, quoted, at = 0, False, start
    while at < len(text):
        c = text[at]
        if quoted:
            at += c == "\\"
            quoted = c != '"'
        elif c == '"':
            quoted = True
        elif c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0:
                return text[start + 1:at]
        at += 1
    return ""


def wrappers(texts):
    """Functions that hand a `const char *code` on to err_set."""
    pattern = re.compile(r"\b(\w+)\(([^()]*\bconst char \*code\b[^()]*)\)")
    return {m.group(1) for text in texts for m in pattern.finditer(text)}


def codes_of(text, names):
    """{code: {statuses}} of the calls in one file; a wrapper's status is unknown: None."""
    found = {}
    for call in re.finditer(rf"\b({'|'.join(sorted(names))})\(", text):
        arguments = call_arguments(text, call.end() - 1)
        if "const char *" in arguments:
            continue  # a definition
        literals = re.findall(r'"((?:[^"\\]|\\.)*)"', arguments)
        statuses = re.findall(r"\bERR_(?!TEXT|CODE)[A-Z_]+\b", arguments)
        either = re.search(rf'\?\s*"({CODE})"\s*:\s*"({CODE})"', arguments)
        first = literals[:1]
        if either and first == [either.group(1)]:
            first = either.groups()
        for code in first:
            if re.fullmatch(CODE, code):
                found.setdefault(code, set()).update(statuses or {None})
    # Tables of codes: { .code = "…" }.
    for code in re.findall(rf'\.code = "({CODE})"', text):
        found.setdefault(code, set()).add(None)
    return found


def main():
    globs = [f"{room}/*.{kind}" for room in ("base", "ca", "db", "server") for kind in "ch"]
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *globs], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split()
    sources = {name: strip_comments((ROOT / name).read_text(encoding="utf-8")) for name in names if (ROOT / name).exists()}
    everything = "\n".join(sources.values())
    functions = {"err_set"} | wrappers(sources.values())
    given = {}
    for name, text in sources.items():
        for code, statuses in codes_of(text, functions).items():
            entry = given.setdefault(code, (set(), []))
            entry[0].update(statuses)
            entry[1].append(name)
    documented = dict(ROW.findall((ROOT / "docs/errors.md").read_text(encoding="utf-8")))
    findings = []
    for code, (statuses, where) in sorted(given.items()):
        if statuses != {"ERR_INTERNAL"} and code not in documented and code not in ENDINGS:
            findings.append(f"{where[0]}: code {code} is not in docs/errors.md")
    for code in sorted(documented):
        made = MADE.fullmatch(code)
        if f'"{code}"' not in everything and not (made and f'"{made.group(1)}"' in everything):
            findings.append(f"docs/errors.md: no source gives {code}")
    document = json.loads((ROOT / "server/api/openapi.json").read_text(encoding="utf-8"))
    promised = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            promised |= set(operation["x-codes"])
            for code in operation["x-codes"]:
                if not re.match(r"\d", documented.get(code, "")):
                    findings.append(f"openapi.json: {method.upper()} {path}: {code} has no status in docs/errors.md")
    for code, status in sorted(documented.items()):
        if re.match(r"\d", status) and code not in promised:
            findings.append(f"docs/errors.md: {code} has a status, but no operation of openapi.json gives it")
    for line in findings:
        print(line)
    print(f"{len(given)} codes in the sources, {len(documented)} documented, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
