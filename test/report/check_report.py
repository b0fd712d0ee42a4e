"""Checks a report: python3 check_report.py DIR KEYFILE. Written from docs/report-format.md and docs/ledger-format.md; standard library only."""

import csv
import hmac
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "ledger"))
import check_export as ledger  # noqa: E402  hashes, Ed25519 and notes, from docs/ledger-format.md

demand = ledger.demand


def read(directory, name):
    with open(os.path.join(directory, name), "rb") as file:
        return file.read()


def open_note(note, keys):
    """The text of a note that one of the keys signed."""
    text, separator, rest = note.rpartition("\n\n")
    demand(separator and rest.endswith("\n"), "the manifest is no note")
    text += "\n"
    for line in rest[:-1].split("\n"):
        match = re.fullmatch("— (\\S+) ([A-Za-z0-9+/=]+)", line)
        demand(match, "a line of the signatures is none")
        data = ledger.from_base64(match.group(2))
        for name, key_id, public in keys:
            if name == match.group(1) and data[:4] == key_id and ledger.is_signed(public, text.encode(), data[4:]):
                return text
    raise ledger.Wrong("the manifest is not signed by this key")


def manifest_of(directory, keys):
    lines = open_note(read(directory, "manifest.txt").decode(), keys).rstrip("\n").split("\n")
    demand(lines[0] == "countersign.dev/report/v2", "the manifest is of another format")
    files = {}
    for line in lines[1:]:
        digest, name = line.split("  ", 1)
        demand(re.fullmatch("[0-9a-z.-]+", name), "a name in the manifest is none")
        demand(ledger.sha256(read(directory, name)).hex() == digest, f"{name} is not the file that was signed")
        files[name] = digest
    return files


def root_after(first, before, leaves):
    """The root over all entries: subtree roots before the first of the period, largest first, and the leaves from it on."""
    stack = []
    size = first
    position = 0
    for node in before:
        width = 1 << ((size - position).bit_length() - 1)
        stack.append((width, node))
        position += width
    for leaf in leaves:
        stack.append((1, leaf))
        while len(stack) > 1 and stack[-1][0] == stack[-2][0]:
            right, left = stack.pop(), stack.pop()
            stack.append((left[0] * 2, ledger.node_of(left[1], right[1])))
    result = stack.pop()[1]
    while stack:
        result = ledger.node_of(stack.pop()[1], result)
    return result


def table(directory, name):
    with open(os.path.join(directory, name), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_counts(model, population, exceptions):
    demand(len(population) == model["summary"]["changes"] == len(model["changes"]), "changes are not counted alike")
    for outcome in ("applied", "denied", "failed"):
        count = sum(1 for row in population if row["outcome"] == outcome)
        demand(count == model["summary"][outcome], f"{outcome} changes are not counted alike")
    demand(len(exceptions) == model["summary"]["exceptions"], "exceptions are not counted alike")
    demand(sum(1 for row in exceptions if row["disposition"] == "open") == model["summary"]["open"], "open exceptions are not counted alike")
    for row in exceptions:
        demand(row["id"].split(".")[0] == "E" + row["ledger_index"], "an exception is not named by its entry")
    applied = [row for row in population if row["outcome"] == "applied"]
    control = next(c for c in model["controls"] if c["id"] == "CS-02")
    demand(control["population"] == len(applied), "not every applied change is tested")
    passed = sum(1 for row in applied if all(row["attr_" + a] == "pass" or row["attr_" + a] == "n.a." for a in "CDE"))
    demand(control["passed"] == passed, "the results of CS-02 are not those of the population")


def check_leaves(population, entries, first):
    for row in population:
        entry = entries[int(row["ledger_index"]) - first]
        demand(ledger.leaf_of(entry).hex() == row["leaf_hash"], f"{row['change_id']} has another leaf")
        judged = json.loads(entry)
        demand(judged["type"] == "change.judged" and judged["to"] == row["commit"], f"{row['change_id']} is another change")


def check_sample(model, population, root):
    drawn = [(item["stratum"], item["rank"], item["change"]) for item in model["sample"]["items"]]
    made = []
    for stratum in sorted({row["change_type"] for row in population if row["outcome"] == "applied"}):
        key = "|".join([root, model["period"]["from"], model["period"]["to"], stratum, model["sample"]["seed"]]).encode()
        ids = [row["change_id"] for row in population if row["outcome"] == "applied" and row["change_type"] == stratum]
        ranked = sorted((hmac.new(key, one.encode(), "sha256").hexdigest(), one) for one in ids)
        made += [(stratum, rank, one) for rank, one in ranked[: model["sample"]["size"]]]
    demand(drawn == made, "the sample is not what the seed draws")


def main(directory, key_file):
    keys = ledger.read_keys(key_file)
    files = manifest_of(directory, keys)
    span = json.loads(read(directory, "range.json"))
    checkpoint = ledger.read_checkpoint(span["checkpoint"], keys)
    demand(checkpoint, "the checkpoint is not signed by this key")
    entries = read(directory, "entries.jsonl").split(b"\n")[:-1]
    demand(span["first"] + len(entries) == checkpoint[1], "the entries do not end where the checkpoint does")
    before = [ledger.from_base64(node) for node in span["before"]]
    demand(root_after(span["first"], before, map(ledger.leaf_of, entries)) == checkpoint[2], "the entries do not give the root")
    evidence = {ledger.sha256(line).hex() for line in read(directory, "evidence.jsonl").split(b"\n")[:-1]}
    for entry in map(json.loads, entries):
        demand(entry["type"] != "change.judged" or entry["evidence"]["sha256"] in evidence, "the evidence of a verdict is missing")
    model = json.loads(read(directory, "report.json"))
    population = table(directory, "population.csv")
    check_counts(model, population, table(directory, "exceptions.csv"))
    check_leaves(population, entries, span["first"])
    if model["sample"] is not None:
        check_sample(model, population, span["checkpoint"].split("\n")[2])
    print(f"{len(files)} files, {len(entries)} entries, {len(population)} changes: as they should be")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2])
    except (ledger.Wrong, KeyError, IndexError, ValueError, OSError, StopIteration) as wrong:
        sys.exit(f"wrong: {wrong}")
