#!/bin/sh
# Make .venv, and install what is missing: setup.sh [run|dev]
#
#   run   what the daemons need: our dependencies and ourselves (editable); no compiler. pymilter only where
#         the development run is set to front = "libmilter"
#   dev   that, pymilter where it can be built, and the tools of make test, lint and types
#
# Every step is remembered in .venv/.steps by the sum of what it read, so that a second call does
# nothing, and a change of the pins does just what changed. PYTHON names the interpreter to make it with.
set -eu
cd "$(dirname "$0")/.."
what=${1:-dev}
venv=.venv
steps=$venv/.steps

. scripts/common.sh

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
    # shellcheck disable=SC2086 # an unset PYTHON is no argument
    python=$(find_python ${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11})
    echo "mxweir: making $venv with $python"
    make_venv "$python" "$venv"
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

# Without libmilter its front stays out and everything else works: that is said, and no failure.
now=$(sum constraints/milter.txt)
if { [ "$what" = dev ] || wants_libmilter .mxweir/mxweir.toml; } \
    && { ! done_already milter "$now" || ! "$venv/bin/python" -c 'import Milter' 2>/dev/null; }; then
    if milter_can_be_built "$venv/bin/python"; then
        echo "mxweir: building pymilter"
        pip_install --use-pep517 --no-build-isolation --require-hashes -r constraints/milter.txt
        echo "$now" > "$steps/milter"
    fi
fi

if [ "$what" = dev ]; then
    now=$(sum constraints/dev.txt)
    if ! done_already dev "$now"; then
        echo "mxweir: installing the tools for tests, lint and types"
        pip_install --use-pep517 --no-build-isolation --require-hashes -r constraints/dev.txt
        echo "$now" > "$steps/dev"
    fi
fi
