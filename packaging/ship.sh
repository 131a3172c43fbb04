#!/usr/bin/env bash
# Packs a trained run as the expert that ships with the tool, signed by a key that lives as long as this script.
# usage: packaging/ship.sh RUN        (expert-cli must be on PATH)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run=${1:?name the folder of a finished run, for example runs/sql-nano}
data=experts/sql/data
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
export EXPERT_HOME=$made/home

expert-cli keygen "$made/release.key" --no-passphrase
expert-cli package "$run" --out "$made"
archive=$(ls "$made"/*.expert)
expert-cli sign "$archive" --key "$made/release.key"
expert-cli trust add sql --key "$made/release.pub" --comment "expert-cli's own experts; the private half was thrown away"
expert-cli verify "$archive"

rm -rf "$data/packages"
mkdir -p "$data/packages"
cp "$archive" "$archive.sha256" "$data/packages/"
install -m 644 "$EXPERT_HOME/trust.json" "$data/trust.json"
echo "shipped: $(ls "$data/packages"/*.expert), pinned in $data/trust.json"
