"""Prints the tables of docs/reproduction.md: tables.py FOLDER.. (folders that hold a compare.json)."""

import json
import pathlib
import sys


def signed(value):
    return f"{value:+.4f}".replace("-", "−")


def interval(bounds):
    return "–" if bounds is None else f"{signed(bounds[0])} to {signed(bounds[1])}"


for folder in map(pathlib.Path, sys.argv[1:]):
    found = json.loads((folder / "compare.json").read_text())
    arms = {arm["name"]: arm for arm in found["arms"]}
    runs = [run for arm in found["arms"] for run in arm["runs"]]
    ended = sum(run["outcome"] is not None for run in runs)
    tokens = sum(run["outcome"]["tokens"] for run in runs if run["outcome"])
    print(f"### {folder.name}\n")
    print(f"{ended} of {len(runs)} runs ended, {tokens:,} tokens in all, seeds {', '.join(map(str, found['seeds']))}.\n")
    for view in found["views"]:
        if len(found["views"]) > 1:
            print(f"{view['title']}:\n")
        print("| arm | validation loss (± over seeds) | difference | bootstrap 95 % | Student 95 % | verdict |")
        print("|---|---|---|---|---|---|")
        for row in view["rows"]:
            arm, paired = arms[row["arm"]], row["paired"] or {}
            loss = "–" if arm["mean"] is None else f"{arm['mean']:.4f}"
            if arm["deviation"] is not None:
                loss += f" ± {arm['deviation']:.4f}"
            difference = signed(paired["mean"]) if paired else "–"
            print(
                f"| {row['arm']} | {loss} | {difference} | {interval(paired.get('bootstrap'))} "
                f"| {interval(paired.get('student'))} | {row['verdict'].replace('_', ' ')} |"
            )
        for row in view["rows"]:
            if row.get("note"):
                print(f"\n{row['arm']}: {row['note']}")
        print()
