#!/bin/sh
# Make .venv, and install what is missing: setup.sh [run|dev]
#
#   run   what the daemons need: our dependencies, pymilter where it can be built, ourselves (editable)
#   dev   that, and the tools of make test, lint and types
#
# Every step is remembered in .venv/.steps by the sum of what it read, so that a second call does
# nothing, and a change of the pins does just what changed. PYTHON names the interpreter to make it with.
set -eu
cd "$(dirname "$0")/.."
what=${1:-dev}
venv=.venv
steps=$venv/.steps

die() {
    echo "mxweir: $1" >&2
    exit 1
}

# The first Python that is new enough. A version manager's shim may come first in PATH and be too old.
find_python() {
    for candidate in ${PYTHON:-python3 /usr/bin/python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# The package (venv, dev) that the distribution's own Python needs beside it; nothing for any other Python.
python_package() {
    case $("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /usr/bin/*) "$1" -c "import sys; print('python%d.%d-$2' % sys.version_info[:2])" ;;
    esac
}

sum() {
    cat "$@" | sha256sum | cut -d ' ' -f 1
}

done_already() {
    [ "$(cat "$steps/$1" 2>/dev/null)" = "$2" ]
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

# A checkout that was moved, or an interpreter that was upgraded, leaves scripts that point nowhere.
place() {
    echo "$PWD $("$venv/bin/python" --version)"
}

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null || ! done_already place "$(place)"; then
    python=$(find_python) || die "Python 3.11 or newer is needed; name it with make PYTHON=/path/to/python3"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$(python_package "$python" venv)
        [ -n "$package" ] || die "$python cannot make environments: its modules venv and ensurepip are missing"
        scripts/packages.sh "the environment" "$package"
    fi
    echo "mxweir: making $venv with $python"
    "$python" -m venv --clear "$venv"
    mkdir -p "$steps"
    place > "$steps/place"
fi

pins="constraints/runtime.txt constraints/build.txt"
# shellcheck disable=SC2086 # $pins is words
now=$(sum $pins pyproject.toml)
if ! done_already run "$now"; then
    echo "mxweir: installing our dependencies"
    pip_install --require-hashes -r constraints/runtime.txt -r constraints/build.txt
    pip_install --no-deps --no-build-isolation --editable .
    echo "$now" > "$steps/run"
fi

headers_are_there() {
    include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    echo '#include <Python.h>
#include <libmilter/mfapi.h>' | cc -fsyntax-only -I "$include" -x c - 2>/dev/null
}

# Without libmilter the milter stays out and everything else works: that is said, and no failure.
now=$(sum constraints/milter.txt)
if ! done_already milter "$now" || ! "$venv/bin/python" -c 'import Milter' 2>/dev/null; then
    # shellcheck disable=SC2046 # no package at all is no argument
    if headers_are_there \
        || { scripts/packages.sh "the milter (left out for now)" \
                 gcc libc6-dev libmilter-dev $(python_package "$venv/bin/python" dev) && headers_are_there; }; then
        echo "mxweir: building pymilter"
        pip_install --use-pep517 --no-build-isolation --require-hashes -r constraints/milter.txt
        echo "$now" > "$steps/milter"
    fi
fi

if [ "$what" = dev ]; then
    now=$(sum constraints/dev.txt)
    if ! done_already dev "$now"; then
        echo "mxweir: installing the tools for tests, lint and types"
        pip_install --require-hashes -r constraints/dev.txt
        echo "$now" > "$steps/dev"
    fi
fi
