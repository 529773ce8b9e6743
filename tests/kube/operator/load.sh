# Sourced by operator.sh and chaos.sh: clients of a region's store and of its HTTP API, and what became of what they were told.
# shellcheck shell=bash disable=SC2154

names=novacron.svc.$domain
# Seconds that no write may be acknowledged: an election is one to two.
silence_seconds_max=30
writers="a b"
loads=0
declare -A load_folder load_pids

# Runs with the names of the cluster, which the host does not know.
in_cluster() {
    # shellcheck disable=SC2016 # For the shell that it starts.
    unshare --mount sh -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$work/resolv.conf" "$@"
}
# Flags of etcdctl, and of curl, for a region. One without certificates is in plain text.
encrypted() { [ -e "$work/$1/ca.crt" ]; }
scheme() { encrypted "$1" && echo https || echo http; }
store_flags() {
    ! encrypted "$1" || echo "--cacert $work/$1/ca.crt --cert $work/$1/tls.crt --key $work/$1/tls.key"
    echo "--endpoints $(scheme "$1")://$1-consensus-client.$names:2379"
}
api_flags() {
    ! encrypted "$1" || echo "--cacert $work/$1/ca.crt"
    echo "-H @$work/$1/authorization"
}
# shellcheck disable=SC2046 # Flags are words.
store_of() { in_cluster env ETCDCTL_API=3 etcdctl $(store_flags "$1") "${@:2}"; }

# load_begin REGION: clients write to its store; they use its API as well where there is a token for it.
load_begin() {
    local region=$1 folder writer
    loads=$((loads + 1))
    folder=$work/load-$loads
    mkdir "$folder"
    load_folder[$region]=$folder
    for writer in $writers; do
        # shellcheck disable=SC2046
        in_cluster "$here/operator/writer.sh" "$folder" "load-$loads-$writer" $(store_flags "$region") &
        load_pids[$region]+=" $!"
    done
    [ -e "$work/$region/authorization" ] || return 0
    # shellcheck disable=SC2046
    in_cluster "$here/operator/requests.sh" "$folder" "load-$loads" "$(scheme "$region")://$region-api.$names:8080" $(api_flags "$region") &
    load_pids[$region]+=" $!"
}

# load_end REGION: ends its clients, says how they fared, and fails if anything that was acknowledged is not there, if
# revisions went back, if the store was silent for too long, or if a request was not answered as it has to be.
load_end() {
    local region=$1 folder=${load_folder[$1]} written
    touch "$folder/stop"
    # shellcheck disable=SC2086
    wait ${load_pids[$region]} || fail "a client of $region"
    load_pids[$region]=
    for written in "$folder"/*.written; do
        kept "$region" "$written"
    done
    awk -v region="$region" '
        FILENAME ~ /written$/ {
            writes++
            if (FILENAME != file) { file = FILENAME; revision = 0 } else if ($3 - at > silence) silence = $3 - at
            back += $2 <= revision
            revision = $2; at = $3
        }
        FILENAME ~ /failed$/ { errors++ }
        FILENAME ~ /requests$/ { requests++; again += gsub(/,[0-9]/, "&", $2); failed += $2 ~ /failed/ }
        END {
            printf "%s: %d writes acknowledged, 0 lost, %d errors, longest silence %.1f s", region, writes, errors, silence
            printf requests ? "; %d requests, %d failed, %d tried again\n" : "\n", requests, failed, again
            exit !(writes && !back && !failed && silence <= '$silence_seconds_max')
        }' "$folder"/load-* || {
        cat "$folder"/*.failed | tail -20
        grep -h failed "$folder"/*.requests | tail -20
        fail "clients of $region"
    }
}
# kept REGION FILE: what was acknowledged is there.
kept() {
    local prefix lost
    prefix=$(basename "$2" .written)
    store_of "$1" get "$prefix/" --prefix --keys-only | sed -n "s,^$prefix/,,p" | sort >"$2.there"
    lost=$(cut -d' ' -f1 "$2" | sort | comm -23 - "$2.there")
    [ -z "$lost" ] || fail "$1 has lost of $prefix: $(tr '\n' ' ' <<<"$lost")"
}
