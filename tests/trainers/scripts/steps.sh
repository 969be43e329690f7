#!/bin/sh
# Several steps: data, training, export. Started over it would begin with the data.
set -e
mkdir -p prepared exported
date > prepared/data.txt
python epoch_files.py "$@" --out trained
cp "$(ls trained/epoch_*.pt | tail -n 1)" exported/model.pt
