#!/bin/bash
# join.sh NUMBER NUMBER: a wire between the control planes of two test clusters, by which what is in one of them reaches what is in the
# other: nodes, pods, the API server. It goes with either of them.
set -euo pipefail
number=$1 other=$2
of() { (KUBE_CLUSTER=$1 && . "$(dirname "$0")/cluster.sh" && echo "${!2}"); }
net=$(of "$number" net) other_net=$(of "$other" net)
control=$(of "$number" prefix)-control other_control=$(of "$other" prefix)-control

ip link add "to$other" netns "$control" type veth peer name "to$number" netns "$other_control"
# end NAMESPACE LINK OWN OTHER
end() {
    ip netns exec "$1" sh -c "ip addr add $3.255.1 peer $4.255.1 dev $2; ip link set $2 up; ip route add $4.0.0/16 via $4.255.1"
}
end "$control" "to$other" "$net" "$other_net"
end "$other_control" "to$number" "$other_net" "$net"
