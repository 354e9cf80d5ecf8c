# What setup.sh and install.sh both do; to be read by `.`, from the top of the checkout.
# shellcheck shell=sh

die() {
    echo "mxweir: $1" >&2
    exit 1
}

# The first of these Pythons that is new enough: a version manager's shim may come first in PATH and
# be too old, or lead nowhere.
find_python() {
    for candidate in "$@"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    die "Python 3.11 or newer is needed; name it with PYTHON=/path/to/python3"
}

# The package (venv, dev) that the distribution's own Python needs beside it; nothing for any other Python.
python_package() {
    case $("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /usr/bin/*) "$1" -c "import sys; print('python%d.%d-$2' % sys.version_info[:2])" ;;
    esac
}

# Make an environment: make_venv PYTHON DIRECTORY
make_venv() {
    if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$(python_package "$1" venv)
        [ -n "$package" ] || die "$1 cannot make environments: its modules venv and ensurepip are missing"
        scripts/packages.sh "the environment" "$package"
    fi
    "$1" -m venv --clear "$2"
}

# Is this configuration set to libmilter's front, which is all that needs pymilter?
wants_libmilter() {
    grep -qs '^ *front *= *"libmilter"' "$1"
}

# Can pymilter be built for this Python? Installs what that takes where it may; says in one line where not.
milter_can_be_built() {
    # shellcheck disable=SC2046 # no package at all is no argument
    _headers_are_there "$1" || {
        scripts/packages.sh "libmilter's front; it is left out until then" \
            gcc libc6-dev libmilter-dev $(python_package "$1" dev) && _headers_are_there "$1"
    }
}

_headers_are_there() {
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    echo '#include <Python.h>
#include <libmilter/mfapi.h>' | cc -fsyntax-only -I "$include" -x c - 2>/dev/null
}
