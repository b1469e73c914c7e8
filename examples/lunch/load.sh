#!/bin/sh
# The load that the relay is made for: ./load.sh ramp | cold-boot
#
# ramp       0 to 500 requests a second in steps, over the list and four of its menus
# cold-boot  1,000 users at once, and nothing is stored
set -eu
relay="${LUNCH_URL:-http://127.0.0.1:8080}"
bench="gatewright bench --quiet --name"
case "${1:-}" in
ramp)
    for id in svarta jorpes bikupan dufva; do
        set -- "$@" --target "{ name = \"$id\", url = \"$relay/restaurant/$id\" }"
    done
    shift
    for rate in 50 100 200 300 400 500; do
        $bench "ramp-$rate" "$relay/restaurant" "$@" --rate "$rate" --duration "${STEP:-10s}"
    done
    ;;
cold-boot)
    gatewright cache purge --prefix /
    $bench cold-boot "$relay/restaurant" --streams 1000 --duration "${STEP:-10s}"
    ;;
*)
    echo "usage: $0 ramp | cold-boot" >&2
    exit 2
    ;;
esac
