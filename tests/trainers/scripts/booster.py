"""Gradient boosting: a booster's file every few rounds; --xgb-model goes on with as many rounds more as are asked."""

import argparse
import json
import os

import pace

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", dest="num_boost_round", type=int, default=100)
parser.add_argument("--save-every", dest="interval", type=int, default=10)
parser.add_argument("--xgb-model", default=None, help="booster to continue training from")
args = parser.parse_args()

pace.start()
trees = []
if args.xgb_model:
    with open(args.xgb_model) as file:
        trees = json.load(file)["learner"]["trees"]
os.makedirs("boosters", exist_ok=True)
for iteration in range(args.num_boost_round):
    pace.step(len(trees) + 1)
    trees.append({"id": len(trees), "split": [0.5]})
    print(f"[{iteration}]\ttrain-logloss:{1 / len(trees):.5f}", flush=True)
    if (iteration + 1) % args.interval == 0:
        with open(os.path.join("boosters", f"model_{iteration + 1}.json"), "w") as file:
            json.dump({"version": [3, 0, 0], "learner": {"trees": trees}}, file)
pace.end()
with open("booster.json", "w") as file:
    json.dump({"version": [3, 0, 0], "learner": {"trees": trees}}, file)
