#!/bin/sh
# Have Debian packages installed: packages.sh "PURPOSE[; WHAT IS SO WITHOUT]" PACKAGE...
#
# Installs what is missing when this user may (root, or sudo without a password) and there is apt;
# otherwise prints one line that names the packages and what they are for, and exits with status 1.
#
# Servers that come along are neither started nor enabled: the tests and the development run start
# private ones of their own, and a machine that served no mail before does not begin to because of us.
# A service that was installed before is left as it is.
set -eu

purpose=${1%%;*}
without=${1#"$purpose"}
shift

# `spamd` is a package of its own since Debian 12; before that, spamassassin holds the program.
installed() {
    if [ "$1" = spamd ] && [ -x /usr/sbin/spamd ]; then return; fi
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

resolve() {
    if [ "$1" = spamd ] && ! apt-cache show spamd >/dev/null 2>&1; then
        echo spamassassin
    else
        echo "$1"
    fi
}

missing=
for package in "$@"; do
    installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

refuse() {
    echo "mxweir: please install, for $purpose:$missing$without" >&2
    exit 1
}

command -v apt-get >/dev/null || refuse
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    refuse
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
ours=
clean_up() {
    rm -f "$log"
    if [ -n "$ours" ]; then $as_root rm -f "$policy"; fi
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

# Debian's own switch for "do not start this now". Only ours are held back, and a policy that is
# already there (containers have one) stays in force instead.
if [ ! -e "$policy" ]; then
    ours=yes
    $as_root sh -c "cat > $policy && chmod 755 $policy" <<'POLICY'
#!/bin/sh
case $1 in
    policyd-rate-limit*|postfix*|postfwd*|postgresql*|redis*|rspamd*|spamd*|spamassassin*|spamass-milter*) exit 101 ;;
esac
exit 0
POLICY
fi

apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get --quiet --yes -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1
}

# shellcheck disable=SC2086 # $names is words
install() {
    names=
    for package in $missing; do
        names="$names $(resolve "$package")"
    done
    apt install --no-install-recommends $names
}

# A Postfix that nobody asked to receive mail listens on loopback, should anyone ever start it.
case " $missing " in
    *" postfix "*)
        echo 'postfix postfix/main_mailer_type select Local only' \
            | $as_root debconf-set-selections 2>/dev/null || true ;;
esac

echo "mxweir: installing packages for $purpose:$missing"
# The lists of a fresh machine are empty, those of an old one out of date: fetch them when it fails.
if ! install && ! { apt update && install; }; then
    tail -n 5 "$log" >&2
    refuse
fi

if [ -d /run/systemd/system ]; then
    for service in policyd-rate-limit postfix postfwd postgresql redis-server rspamd spamd spamassassin spamass-milter; do
        case " $missing " in
            *" $service "*) $as_root systemctl --quiet disable "$service" 2>/dev/null || true ;;
        esac
    done
fi
