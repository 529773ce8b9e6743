# For commands of run.sh, in the guest: a second RDMA device, rxe1, on v1 (10.9.0.2). What goes from one of the two
# addresses to the other, TCP or RDMA, goes over the wire between v0 and v1, although both are of this machine: its
# addresses are looked up only for what has come in from the wire, and after these routes.
for end in v0 v1; do
    echo 1 >/proc/sys/net/ipv4/conf/$end/accept_local
done
ip addr add 10.9.0.2/24 dev v1
rdma link add rxe1 type rxe netdev v1
ip route add 10.9.0.2 dev v0 src 10.9.0.1 table 101
ip route add 10.9.0.1 dev v1 src 10.9.0.2 table 102
for end in v0 v1; do
    ip rule add pref 10 iif $end lookup local
done
ip rule add pref 20 to 10.9.0.2 lookup 101
ip rule add pref 20 to 10.9.0.1 lookup 102
ip rule add pref 30 lookup local
ip rule del pref 0
