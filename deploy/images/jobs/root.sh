#!/bin/sh
# root.sh FOLDER ROOT: makes ROOT what the image of jobs is: our programs of FOLDER that jobs run, a shell, what the scripts of deploy/backup call, and
# those scripts. The only image with a shell; nothing in it listens but the members of a drill.
set -eu
programs=$1 root=$2
cd "$(dirname "$0")/.."

for program in novacron novacron-consensus; do
    ./root.sh "$programs/$program" "$root"
done
for program in bash curl awk cat cmp cut date dirname grep mkdir mktemp mv rm sed seq sha256sum sleep sort tail tee; do
    ./root.sh "$(command -v "$program")" "$root"
done
ln -sf bash "$root/usr/bin/sh"
# Where scripts say that their shell is.
[ -e "$root/bin" ] || ln -s usr/bin "$root/bin"
mkdir -p "$root/backup"
cp ../backup/*.sh "$root/backup/"
