#!/bin/sh
# Removes what install.sh installed. The configuration, agent.env, the agent's state and its user stay, unless --purge is given.
set -eu

prefix='' purge=no root=''

fail() {
    echo "uninstall.sh: $1" >&2
    echo "  next step: $2" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --root)
            [ $# -ge 2 ] || fail "$1 needs a value" "see uninstall.sh --help"
            [ "$1" = --prefix ] && prefix=${2%/} || root=${2%/}
            shift
            ;;
        --purge) purge=yes ;;
        *) echo "usage: uninstall.sh [--prefix DIR] [--root DIR] [--purge]" && { [ "$1" = --help ] && exit 0 || exit 2; } ;;
    esac
    shift
done

unit=$root/etc/systemd/system/lightkeeper.service
if [ -z "$prefix" ]; then # where the service is, or would be
    [ ! -f "$unit" ] || prefix=$(sed -n 's/^WorkingDirectory=//p' "$unit")
    prefix=${prefix:-/opt/lightkeeper}
fi
target=$root$prefix
[ -L "$target/current" ] || fail "no release is installed below $target" "give --prefix the folder that install.sh was given"
user=''
if [ -f "$unit" ] && grep -qxF "WorkingDirectory=$prefix" "$unit"; then # else it is another installation's
    [ -w "$unit" ] || fail "$unit cannot be removed by $(id -un)" "run with sudo"
    user=$(sed -n 's/^User=//p' "$unit")
    live=no && [ -n "$root" ] || [ ! -d /run/systemd/system ] || live=yes
    [ "$live" = no ] || systemctl disable --now lightkeeper || true
    rm -f "$unit" "${unit%/*}"/*.wants/lightkeeper.service
    [ "$purge" = no ] || rm -rf "$unit.d"
    if [ "$live" = yes ]; then
        systemctl daemon-reload
        systemctl reset-failed lightkeeper 2>/dev/null || true
    fi
fi
rm -f "$target/current" "$target/previous" "$target/bin" "$target/lib" "$target/docs"
rm -rf "$target/releases"
if [ "$purge" = yes ]; then
    rm -rf "$target/agent.env" "$target/agent.json" "$root/var/lib/lightkeeper"
    if [ -n "$user" ] && grep -qs "^$user:.*:Lightkeeper, made by install.sh:" "$root/etc/passwd"; then
        userdel ${root:+--prefix "$root"} "$user" && echo "removed the user $user"
    fi
fi
rmdir "$target" 2>/dev/null && echo "removed $target" || echo "removed the releases; what is yours stays in $target:" "$(ls "$target")"
