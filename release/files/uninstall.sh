#!/bin/sh
# Removes what install.sh installed. The configuration, agent.env and the agent's state stay, unless --purge is given.
set -eu

prefix=/opt/lightkeeper purge=no root=''

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

target=$root$prefix
[ -L "$target/current" ] || fail "no release is installed below $target" "give --prefix the folder that install.sh was given"
unit=$root/etc/systemd/system/lightkeeper.service
if [ -f "$unit" ]; then
    [ -w "$unit" ] || fail "$unit cannot be removed by $(id -un)" "run with sudo"
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl disable --now lightkeeper || true
    fi
    rm -f "$unit"
    [ -n "$root" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
fi
rm -f "$target/current" "$target/previous" "$target/bin" "$target/lib" "$target/docs"
rm -rf "$target/releases"
if [ "$purge" = yes ]; then
    rm -rf "$target/agent.env" "$target/agent.json" "$root/var/lib/lightkeeper"
fi
rmdir "$target" 2>/dev/null && echo "removed $target" || echo "removed the releases; what is yours stays in $target:" "$(ls "$target")"
