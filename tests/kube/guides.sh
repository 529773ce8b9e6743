# Sourced by test.sh: what the guides of docs/deployment say for a cluster, as it stands there, in the order of their table, on one node.
# shellcheck shell=bash disable=SC2154

. "$here/release.sh"
work=$images/guides
guide() { "$tools/python/bin/python3" -B "$repository/tests/deploy/guides.py" cluster "$@"; }

! no_tools "the guides on a cluster" helm || return 0
step "guides: an empty cluster"
mkdir -p "$work/bin" "$work/images"
"$repository/deploy/images/build.sh" "$work/images" jobs >/dev/null
ln -s "$images"/*.tar "$work/images/"
KUBE_DATASTORE=etcd KUBE_NODES=1 KUBE_IMAGES=$work/images start
# The version that the chart has.
"$here/images.sh" tag dev "$(sed -n 's/^appVersion: //p' "$chart/Chart.yaml")"
ln -s "$programs/kubectl" "$tools/bin/helm" "$PROGRAMS/novacron" "$work/bin/"
for page in $(guide); do
    step "guides: $page"
    guide "$page" >"$work/script"
    # Where the node's ports are free, as a desk's are: those of this machine may not be.
    (cd "$repository" && PATH=$work/bin:$PATH KUBECONFIG=$kubeconfig TMPDIR=$work timeout "$helm_seconds" nsenter --net="/run/netns/$prefix-node1" bash "$work/script") >"$work/said" 2>&1 ||
        fail "$page: $(tail -20 "$work/said")"
done
stop
