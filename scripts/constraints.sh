#!/bin/sh
# Renew constraints/*.txt: every dependency at one version, with the hashes of all its files.
#
# Resolved for all supported Pythons and platforms at once (hence uv and not pip-compile, which
# resolves only for the Python it runs on). The files name no index and no host: where packages
# come from is the business of whoever installs.
#
#   scripts/constraints.sh            renew everything to the newest versions
#   scripts/constraints.sh PACKAGE... renew these only
set -eu
cd "$(dirname "$0")/.."

tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
python3 -m venv "$tool"
"$tool/bin/pip" install --quiet --disable-pip-version-check uv

if [ $# -eq 0 ]; then
    upgrade=--upgrade
else
    upgrade=
    for package in "$@"; do
        upgrade="$upgrade --upgrade-package $package"
    done
fi

# compile NAME WHAT-IT-IS UV-ARGUMENTS...
compile() {
    name=$1 title=$2
    shift 2
    # shellcheck disable=SC2086 # $upgrade is words
    "$tool/bin/uv" pip compile --quiet --universal --python-version 3.11 --no-config \
        --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
        --no-emit-package mxweir $upgrade --output-file "constraints/$name.txt" "$@"
    printf '# %s\n# Written by "make constraints"; not to be edited.\n' "$title" \
        | cat - "constraints/$name.txt" > "$tool/out"
    cat "$tool/out" > "constraints/$name.txt"
}

compile runtime "What the daemons need, with the extras redis and postgres." \
    pyproject.toml --extra redis --extra postgres
compile milter "The extra milter on top of runtime.txt; its build needs a C compiler and libmilter." \
    pyproject.toml --extra milter --constraints constraints/runtime.txt
compile build "What builds the wheel, and pymilter." \
    --group build --constraints constraints/runtime.txt
compile dev "The tools of make test, lint and types." \
    --group dev --constraints constraints/runtime.txt --constraints constraints/build.txt

# Two files that disagree about a version could not be installed together.
twice=$(cat constraints/*.txt | sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*/\1/p' | sort -u | sed 's/==.*//' | uniq -d)
if [ -n "$twice" ]; then
    echo "constraints.sh: pinned at two versions: $twice" >&2
    exit 1
fi
if grep -n '://' constraints/*.txt; then
    echo "constraints.sh: the lines above name an address" >&2
    exit 1
fi
