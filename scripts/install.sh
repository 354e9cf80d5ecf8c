#!/bin/sh
# Install for a real MX: programs under PREFIX, configuration under /etc, all below DESTDIR if that is set.
#
#   $PREFIX/lib/mxweir          an environment of its own: pinned wheels, no pip, no tools
#   $PREFIX/bin/mxweir          the program
#   /etc/mxweir/mxweir.toml     kept when it is there; the shipped one is beside the documents
#   $PREFIX/lib/systemd/system, sysusers.d, tmpfiles.d (under /etc where systemd does not read PREFIX)
#   $PREFIX/share/doc/mxweir    documents, and the shipped configuration
#
# Nothing is started, and no user is made: the last lines say what to do next. No file names DESTDIR, so
# that the tree can be packed and unpacked elsewhere. A running daemon may be installed over: the new
# environment is built beside the old one and takes its place at the end. PYTHON names the interpreter.
set -eu
cd "$(dirname "$0")/.."
umask 022
prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:+$(realpath -m "$DESTDIR")}
root=$destdir$prefix
target=$root/lib/mxweir
case $prefix in
    /usr | /usr/local) units=$root/lib/systemd/system lib=$root/lib ;;
    *) units=$destdir/etc/systemd/system lib=$destdir/etc ;;
esac
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

. scripts/common.sh

# The distribution's Python comes first here: the daemons' user can read it, and it is kept in repair.
# shellcheck disable=SC2086 # an unset PYTHON is no argument
python=$(find_python ${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11})
echo "mxweir: building with $python"
make_venv "$python" "$build/venv"
pip() {
    "$build/venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"
}
pip install --require-hashes -r constraints/build.txt
pip wheel --require-hashes --wheel-dir "$build/wheels" -r constraints/runtime.txt
extras=redis,postgres
if wants_libmilter "$destdir/etc/mxweir/mxweir.toml" && milter_can_be_built "$python"; then
    pip wheel --use-pep517 --no-build-isolation --require-hashes --wheel-dir "$build/wheels" -r constraints/milter.txt
    extras=milter,$extras
fi
pip wheel --no-deps --no-build-isolation --wheel-dir "$build/wheels" .

rm -rf "$target.new"
mkdir -p "$target.new"
"$python" -m venv --without-pip "$target.new"
# From our wheels alone, whatever this user's pip is set to; --python needs pip 22.3, Debian 12 has 23.0.
pip --isolated --python "$target.new/bin/python" install --no-compile --no-index \
    --find-links "$build/wheels" --no-warn-script-location "mxweir[$extras]"

# What was written with the path of now gets the path of later.
grep -rlIF "$target.new" "$target.new/bin" "$target.new/pyvenv.cfg" | while read -r file; do
    sed -i "s|$target.new|$prefix/lib/mxweir|g" "$file"
done
"$target.new/bin/python" -m compileall -q -s "$target.new" -p "$prefix/lib/mxweir" "$target.new/lib"

rm -rf "$target.old"
if [ -e "$target" ]; then mv "$target" "$target.old"; fi
mv "$target.new" "$target"
rm -rf "$target.old"

install -d "$root/bin" "$root/share/doc/mxweir" "$destdir/etc/mxweir" \
    "$units" "$lib/sysusers.d" "$lib/tmpfiles.d"
ln -sfn ../lib/mxweir/bin/mxweir "$root/bin/mxweir"

for unit in systemd/*.service systemd/*.socket; do
    sed "s|/usr/local/|$prefix/|g" "$unit" > "$units/${unit#systemd/}"
done
install -m 644 systemd/sysusers.conf "$lib/sysusers.d/mxweir.conf"
install -m 644 systemd/tmpfiles.conf "$lib/tmpfiles.d/mxweir.conf"

install -m 644 README.md CHANGELOG.md LICENSE conf/mxweir.toml conf/postgres/roles.sql \
    conf/redis/users.acl conf/redis/sentinel.acl "$root/share/doc/mxweir/"
cp -R docs "$root/share/doc/mxweir/"
if [ -e "$destdir/etc/mxweir/mxweir.toml" ]; then
    echo "mxweir: $destdir/etc/mxweir/mxweir.toml is kept; the shipped one is in $prefix/share/doc/mxweir"
else
    install -m 640 conf/mxweir.toml "$destdir/etc/mxweir/mxweir.toml"
fi

[ -n "$destdir" ] || cat <<NEXT
mxweir: installed. Next, as root:
    systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
    editor /etc/mxweir/domains                         # your relay domains, one a line, before main.cf asks for them
    mxweir config check && mxweir config postfix       # what to put into main.cf
    systemctl enable --now mxweir-policyd mxweir-milter
NEXT
