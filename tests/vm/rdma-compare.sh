# For commands of run.sh, in the guest, after wire.sh: LOOPBACK, LINK_BENCH and perftest's programs in turns, ROUNDS times,
# each between the two devices. Says "result NAME NUMBER" in us (there and back) and MiB/s.
server=10.9.0.2

# both SERVER-SIDE CLIENT-SIDE
both() {
    $1 >/dev/null 2>&1 &
    sleep 0.5
    $2
    wait
}
# perftest NAME SIZE COLUMN FACTOR COMMAND
perftest() {
    both "$5 -d rxe1 -x 1 -F -s $2" "$5 -d rxe0 -x 1 -F -s $2 $server" |
        awk -v name="$1" -v size="$2" -v column="$3" -v factor="$4" \
            '$1 == size { print "result", name, factor * $column }'
}
# ours NAME PROGRAM LISTEN CONNECT ARGUMENTS
ours() {
    both "$2 $3 $server:7000 $5" "$2 $4 $server:7000 $5" | sed "s/^/result $1_/"
}
echo "kernel $(uname -sr)"
round=0
while [ $round -lt "$ROUNDS" ]; do
    round=$((round + 1))
    perftest ib_send_lat_round_trip_us 64 5 2 "$IB_SEND_LAT -n 400"
    perftest ib_write_bw_bulk_mib_s 65536 4 1 "$IB_WRITE_BW -n 384"
    ours stream "$LOOPBACK" answer measure ""
    ours rdma "$LINK_BENCH" listen connect 10.9.0.0/24
    ours tcp "$LINK_BENCH" listen connect ""
    perftest ib_send_lat_events_round_trip_us 64 5 2 "$IB_SEND_LAT -e -n 400"
done
