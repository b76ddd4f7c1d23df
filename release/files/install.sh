#!/bin/sh
# Installs this archive below a folder, beside the release that is there, and switches to it once it is seen to start.
# Asks what it is not told; with --yes, or without a terminal, it takes the defaults.
set -eu
umask 022 # here and by chmod: the service's user reads what root unpacked and installs, whatever root's own mask

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
version=$(cat "$here/VERSION")

prefix=/opt/lightkeeper given_prefix=no user='' socket='' config='' clean='' service=yes ask=yes rollback=no root=''

usage() {
    cat <<TEXT
usage: install.sh [options]
  --prefix DIR      where releases live (default that of the service, else $prefix; the old agent's was /opt/aws/sagemaker_edge)
  --user NAME       the user that the service runs as, made where missing (default that of the service, else lightkeeper)
  --socket PATH     the socket that applications call (default /tmp/agent.sock)
  --config FILE     the agent's configuration (default PREFIX/agent.json)
  --clean-socket    let the service remove a stale socket when it starts (default)
  --keep-socket     let it refuse to start instead
  --no-service      install no systemd unit
  --root DIR        install into the system below DIR, as when an image is made; starts nothing
  --rollback        switch back to the release before this one, and end
  --yes             ask nothing
TEXT
}

fail() {
    echo "install.sh: $1" >&2
    echo "  next step: $2" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --user | --socket | --config | --root)
            [ $# -ge 2 ] || fail "$1 needs a value" "see install.sh --help"
            case $1 in
                --prefix) prefix=$2 given_prefix=yes ;;
                --user) user=$2 ;;
                --socket) socket=$2 ;;
                --config) config=$2 ;;
                --root) root=${2%/} ;;
            esac
            shift
            ;;
        --clean-socket) clean=yes ;;
        --keep-socket) clean=no ;;
        --no-service) service=no ;;
        --rollback) rollback=yes ;;
        --yes) ask=no ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
[ -t 0 ] || ask=no

question() { # text, default -> answer
    answer=$2
    [ "$ask" = yes ] || return 0
    printf '%s [%s]: ' "$1" "$2"
    IFS= read -r given || given=''
    answer=${given:-$2}
}

unit=$root/etc/systemd/system/lightkeeper.service
installed() { # name -> what the unit that is there says
    [ ! -f "$unit" ] || sed -n "s/^$1=//p" "$unit"
}

if [ "$given_prefix" = no ]; then
    there=$(installed WorkingDirectory)
    question 'Install below which folder?' "${there:-$prefix}" && prefix=$answer
fi
case $prefix in
    /*) ;;
    *) fail "$prefix is no absolute path" "give --prefix a path that starts with /" ;;
esac
case "$prefix$socket$config$user" in
    *[[:space:]\&\|\\\"\']*) fail "a path or name has a blank, a quote, &, | or \\ in it" "choose one without" ;;
esac
prefix=${prefix%/}
target=$root$prefix
releases=$target/releases

point() { # link, what: set in one step, so that there is always one
    ln -sfn "$2" "$1.new"
    mv -fT "$1.new" "$1"
}

write_unit() { # of the release that is current
    flag='' && [ "$clean" != yes ] || flag=' -f'
    mkdir -p "${unit%/*}"
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@USER@|$user|" -e "s|@CLEAN@|$flag|" "$target/current/lightkeeper.service" >"$unit.new"
    mv -f "$unit.new" "$unit"
    [ "$runs" = no ] || systemctl daemon-reload
}

runs=no # what the service does on the system that is running
[ -n "$root" ] || [ ! -d /run/systemd/system ] || runs=$(systemctl is-active lightkeeper) || true

restart() { # a service that runs, or would; an error where it does not come up
    case $runs in
        active | activating) ;;
        *) return 0 ;;
    esac
    systemctl restart lightkeeper && echo "restarted the service lightkeeper"
}

look="journalctl -u lightkeeper --no-pager -n 20: it says why; the start is tried again every 15 s"

if [ "$rollback" = yes ]; then
    [ -L "$target/previous" ] || fail "there is no release before this one below $target" "install the one you want"
    old=$(readlink "$target/previous") new=$(readlink "$target/current")
    point "$target/current" "$old"
    point "$target/previous" "$new"
    echo "switched from ${new##*/} back to ${old##*/}"
    if [ "$(installed WorkingDirectory)" = "$prefix" ]; then
        user=$(installed User)
        grep -q -- ' -f$' "$unit" && clean=yes
        write_unit
        restart || fail "the service does not start with ${old##*/}" "$look"
    fi
    exit 0
fi

# --- what can be told before anything is written ------------------------------------------------------------------

machine=$(cat "$here/MACHINE")
[ -n "$root" ] || [ "$(uname -m)" = "$machine" ] ||
    fail "this archive is for $machine, and this is a $(uname -m)" "fetch the archive of this machine's platform"
if [ -z "$root" ] && [ "$machine" = x86_64 ] && [ -r /proc/cpuinfo ]; then
    grep -qw sse4_2 /proc/cpuinfo ||
        fail "this processor has no SSE4.2, which numpy and ONNX Runtime need" "use a processor of x86-64-v2: RELEASE_NOTES.md"
fi
if [ -z "$user" ] && [ "$service" = yes ]; then
    there=$(installed User)
    question 'Run the service as which user?' "${there:-lightkeeper}" && user=$answer
fi
if [ -f "$target/agent.env" ]; then
    [ -n "$clean" ] || { grep -qs -- ' -f$' "$unit" && clean=yes; } || clean=no
else
    [ -n "$clean" ] || { question 'Remove a stale socket when the service starts (yes or no)?' yes && clean=$answer; }
fi
[ "$service" = no ] || [ "$(id -u)" -eq 0 ] ||
    fail "a service is installed by root" "run with sudo, or give --no-service and a --prefix of your own"
mkdir -p "$releases" 2>/dev/null || fail "$releases cannot be made by $(id -un)" "run with sudo, or give another --prefix"
[ -w "$releases" ] || fail "$releases cannot be written by $(id -un)" "run with sudo, or give another --prefix"
needed=$(du -sk "$here" | cut -f1)
free=$(df -Pk "$releases" | awk 'NR == 2 { print $4 }')
[ "$free" -gt $((needed + 10240)) ] ||
    fail "$releases has $free KiB free, and the release needs $needed" "free some space, or give another --prefix"

# --- the release, whole or not at all ------------------------------------------------------------------------------

if [ "$here" != "$releases/$version" ]; then
    rm -rf "$releases/.$version.new"
    cp -R "$here" "$releases/.$version.new"
    chmod -R a+rX "$releases/.$version.new"
    if [ -z "$root" ] && ! "$releases/.$version.new/bin/lightkeeper" --version >/dev/null; then
        rm -rf "$releases/.$version.new"
        fail "the release does not start on this system; nothing was changed" "see RELEASE_NOTES.md for what it needs"
    fi
    rm -rf "${releases:?}/$version"
    mv "$releases/.$version.new" "$releases/$version"
fi

settings=''
if [ ! -f "$target/agent.env" ]; then
    sed -e "s|@SOCKET@|${socket:-/tmp/agent.sock}|" -e "s|@CONFIG@|${config:-$prefix/agent.json}|" \
        "$here/agent.env" >"$target/agent.env"
else
    settings=$(cat "$target/agent.env")
    [ -z "$socket" ] || sed -i "s|^SOCKET_ADDRESS=.*|SOCKET_ADDRESS=$socket|" "$target/agent.env"
    [ -z "$config" ] || sed -i "s|^AGENT_CONFIG_FILE_PATH=.*|AGENT_CONFIG_FILE_PATH=$config|" "$target/agent.env"
fi

old=$(readlink "$target/current" 2>/dev/null || true)
before=$(readlink "$target/previous" 2>/dev/null || true)
point "$target/current" "releases/$version"
[ -z "$old" ] || [ "$old" = "releases/$version" ] || point "$target/previous" "$old"
for part in bin lib docs; do point "$target/$part" "current/$part"; done
echo "installed $version below $target${old:+; before it: ${old##*/}}"

# --- the service ---------------------------------------------------------------------------------------------------

known() { # whether the system has the user
    if [ -z "$root" ]; then id "$user" >/dev/null 2>&1; else grep -qs "^$user:" "$root/etc/passwd"; fi
}

if [ "$service" = yes ]; then
    if [ -n "$root" ] && [ ! -f "$root/etc/passwd" ]; then
        echo "make the user $user in $root: it has no list of users yet"
    elif ! known; then
        # uninstall.sh knows by the comment whose user it is
        useradd ${root:+--prefix "$root"} --system --user-group --no-create-home --home-dir /var/lib/lightkeeper \
            --shell /usr/sbin/nologin --comment 'Lightkeeper, made by install.sh' "$user" ||
            fail "the user $user cannot be made" "make it, or give --user one that is there"
        echo "made the user $user"
    fi
    write_unit
    echo "installed the service lightkeeper, run as $user"
    if ! restart; then
        if [ "$runs" != active ] || [ -z "$old" ] || [ "$old" = "releases/$version" ]; then
            fail "the service does not start" "$look"
        fi
        point "$target/current" "$old"
        if [ -n "$before" ]; then point "$target/previous" "$before"; else rm -f "$target/previous"; fi
        printf '%s\n' "$settings" >"$target/agent.env"
        write_unit
        rm -rf "${releases:?}/$version"
        systemctl restart lightkeeper ||
            fail "the service starts neither with $version nor, again, with ${old##*/}" "$look"
        fail "the service does not start with $version; it runs ${old##*/} again" "journalctl -u lightkeeper says why"
    fi
fi

for release in "$releases"/*; do
    case releases/${release##*/} in
        "releases/$version" | "$(readlink "$target/previous" 2>/dev/null || true)") ;;
        *) rm -rf "$release" ;;
    esac
done

. "$target/agent.env"
if [ -f "$root$AGENT_CONFIG_FILE_PATH" ]; then
    echo "next step: systemctl enable --now lightkeeper"
else
    echo "next step: write $AGENT_CONFIG_FILE_PATH ($prefix/bin/lightkeeper config init $AGENT_CONFIG_FILE_PATH asks what it needs),"
    echo "           then: systemctl enable --now lightkeeper"
fi
