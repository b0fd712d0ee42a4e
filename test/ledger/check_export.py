"""Checks an exported ledger: python3 check_export.py DIR KEYFILE. Written from docs/ledger-format.md; standard library only."""

import base64
import hashlib
import json
import os
import re
import struct
import sys


class Wrong(Exception):
    pass


def demand(fine, message):
    if not fine:
        raise Wrong(message)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf_of(entry):
    return sha256(b"\x00", entry)


def node_of(left, right):
    return sha256(b"\x01", left, right)


def root_of(leaves):
    """RFC 6962 section 2.1, as it is defined there; without recursion for what is deep."""
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_of(root_of(leaves[:k]), root_of(leaves[k:]))


# --- Ed25519 (RFC 8032 section 5.1), verification only ---

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)


def add(a, b):
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    x, y, z, t = f - e, h - g, h + g, f + e
    return (x * y % P, z * t % P, y * z % P, x * t % P)


def multiply(k, point):
    result = (0, 1, 1, 0)
    while k:
        if k & 1:
            result = add(result, point)
        point = add(point, point)
        k >>= 1
    return result


def recover_x(y, sign):
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    return P - x if x & 1 != sign else x


def point_from(data):
    y = int.from_bytes(data, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    x = recover_x(y, sign)
    return None if x is None else (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (recover_x(BASE_Y, 0), BASE_Y, 1, recover_x(BASE_Y, 0) * BASE_Y % P)


def is_signed(public, message, signature):
    if len(public) != 32 or len(signature) != 64:
        return False
    a, r = point_from(public), point_from(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % L
    left, right = multiply(s, BASE), add(r, multiply(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# --- notes ---


def from_base64(text):
    data = base64.b64decode(text, validate=True)
    demand(base64.b64encode(data).decode() == text, "base64 has another spelling")
    return data


def read_keys(path):
    keys = []
    for line in open(path, encoding="utf-8").read().split("\n"):
        if not line.strip():
            continue
        name, key_id, encoded = line.strip().split("+", 2)
        key = from_base64(encoded)
        demand(len(key) == 33 and key[0] == 1, "the key is not Ed25519")
        demand(sha256(name.encode(), b"\n", key)[:4].hex() == key_id, "the key does not have its id")
        keys.append((name, bytes.fromhex(key_id), key[1:]))
    return keys


def read_checkpoint(note, keys):
    """(origin, size, root) of a checkpoint that one of the keys signed, else None."""
    text, separator, rest = note.rpartition("\n\n")
    if not separator or not rest.endswith("\n"):
        return None
    text += "\n"
    signed = set()
    for line in rest[:-1].split("\n"):
        match = re.fullmatch("— (\\S+) ([A-Za-z0-9+/=]+)", line)
        if match is None:
            return None
        name, data = match.group(1), from_base64(match.group(2))
        for key_name, key_id, public in keys:
            if key_name == name and data[:4] == key_id:
                if not is_signed(public, text.encode(), data[4:]):
                    return None
                signed.add(name)
    lines = text.split("\n")
    if len(lines) < 4 or lines[0] not in signed or not re.fullmatch("0|[1-9][0-9]*", lines[1]):
        return None
    root = from_base64(lines[2])
    return (lines[0], int(lines[1]), root) if len(root) == 32 else None


# --- canonical JSON ---


def number(value):
    """As ECMAScript writes it; entries hold whole numbers, for which Python agrees up to 2^53."""
    if isinstance(value, float):
        demand(value == value and abs(value) != float("inf"), "a number without end")
        if value.is_integer() and abs(value) < 1e21:
            return str(int(value))
        text = repr(value)
        return re.sub(r"e([+-])0*(\d)", r"e\1\2", text)
    return str(value)


ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def string(text):
    return '"' + "".join(ESCAPES.get(c) or ("\\u%04x" % ord(c) if ord(c) < 0x20 else c) for c in text) + '"'


def canonical(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string(value)
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, list):
        return "[" + ",".join(canonical(v) for v in value) + "]"
    keys = sorted(value, key=lambda k: k.encode("utf-16-be"))
    return "{" + ",".join(string(k) + ":" + canonical(value[k]) for k in keys) + "}"


def once(pairs):
    demand(len({k for k, _ in pairs}) == len(pairs), "a key stands twice")
    return dict(pairs)


# --- the export ---


def read(directory, path):
    with open(os.path.join(directory, path), "rb") as file:
        return file.read()


def files_in(directory):
    for folder, _, names in os.walk(directory):
        for name in names:
            yield os.path.relpath(os.path.join(folder, name), directory).replace(os.sep, "/")


def check_manifest(directory):
    data = read(directory, "manifest.json")
    manifest = json.loads(data)
    demand((canonical(manifest) + "\n").encode() == data, "manifest.json is not canonical")
    demand(manifest["format"] == "countersign-ledger-export/1", "this is another format")
    there = set(files_in(directory)) - {"manifest.json"}
    demand(there == set(manifest["files"]), "manifest.json does not name the files that there are")
    for path in there:
        demand(sha256(read(directory, path)).hex() == manifest["files"][path], path + " is not the file that was exported")


def tile_path(level, n, width):
    parts = ["%03d" % (n % 1000)]
    n //= 1000
    while n:
        parts.insert(0, "x%03d" % (n % 1000))
        n //= 1000
    return "tile/%s/%s%s" % (level, "/".join(parts), "" if width == 256 else ".p/%d" % width)


def entries_of(directory, size):
    for n in range((size + 255) // 256):
        width = min(256, size - 256 * n)
        data = read(directory, tile_path("entries", n, width))
        at = count = 0
        while at < len(data):
            (length,) = struct.unpack_from(">H", data, at)
            entry = data[at + 2 : at + 2 + length]
            demand(len(entry) == length, "an entry is cut off")
            yield entry
            at += 2 + length
            count += 1
        demand(count == width, "a tile of entries holds %d, not %d" % (count, width))


def check_tiles(directory, leaves):
    level, nodes = 0, leaves
    while nodes:
        for n in range((len(nodes) + 255) // 256):
            part = nodes[256 * n : 256 * n + 256]
            demand(read(directory, tile_path(level, n, len(part))) == b"".join(part), "tile %d/%d is of another tree" % (level, n))
        nodes = [root_of(nodes[256 * n : 256 * n + 256]) for n in range(len(nodes) // 256)]
        level += 1


def check_evidence(directory, entry):
    reference = entry.get("evidence")
    path = "" if reference is None else os.path.join("evidence", reference["sha256"] + ".json")
    if path and os.path.exists(os.path.join(directory, path)):
        data = read(directory, path)
        demand(sha256(data).hex() == reference["sha256"] and len(data) == reference["size"], "evidence was altered")


def check_receipt(text, entry, keys):
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    demand(separator and lines[0] == "c2sp.org/tlog-proof@v1", "this is no receipt")
    match = re.fullmatch("index (0|[1-9][0-9]*)", lines[1])
    checkpoint = read_checkpoint(note, keys)
    demand(match and checkpoint, "a receipt is not signed")
    node, fn, sn = leaf_of(entry), int(match.group(1)), checkpoint[1] - 1
    demand(fn <= sn, "a receipt is for an entry that is not covered")
    for line in lines[2:]:
        p = from_base64(line)
        demand(sn > 0 and len(p) == 32, "a receipt has too many hashes")
        if fn % 2 or fn == sn:
            node = node_of(p, node)
            while fn % 2 == 0 and fn:
                fn, sn = fn // 2, sn // 2
        else:
            node = node_of(node, p)
        fn, sn = fn // 2, sn // 2
    demand(sn == 0 and node == checkpoint[2], "a receipt does not prove its entry")


def check(directory, key_file):
    keys = read_keys(key_file)
    check_manifest(directory)
    checkpoint = read_checkpoint(read(directory, "checkpoint").decode(), keys)
    demand(checkpoint, "the checkpoint is not signed by this key")
    _, size, root = checkpoint
    leaves, last = [], ""
    for data in entries_of(directory, size):
        entry = json.loads(data.decode(), object_pairs_hook=once)
        demand(canonical(entry).encode() == data, "entry %d is not canonical" % len(leaves))
        demand(isinstance(entry["v"], int) and isinstance(entry["type"], str) and entry["time"] >= last, "entry %d is out of order" % len(leaves))
        last = entry["time"]
        check_evidence(directory, entry)
        leaves.append(leaf_of(data))
    demand(len(leaves) == size and root_of(leaves) == root, "the entries do not give the signed root")
    check_tiles(directory, leaves)
    for path in sorted(files_in(directory)):
        if path.startswith("checkpoints/"):
            earlier = read_checkpoint(read(directory, path).decode(), keys)
            demand(earlier is None or (earlier[1] <= size and root_of(leaves[: earlier[1]]) == earlier[2]), path + " is of another tree")
        if path.endswith(".tlog-proof"):
            check_receipt(read(directory, path).decode(), read(directory, path[: -len("tlog-proof")] + "json"), keys)
    if os.path.exists(os.path.join(directory, "subjects.jsonl")):
        for line in read(directory, "subjects.jsonl").decode().split("\n")[:-1]:
            subject = json.loads(line)
            commitment = "subject:" + sha256(bytes.fromhex(subject["salt"]), subject["text"].encode()).hex()
            demand(subject["commitment"] == commitment, "a name is not the one behind its commitment")
    return size


if __name__ == "__main__":
    try:
        print("ok: %d entries" % check(sys.argv[1], sys.argv[2]))
    except Exception as error:  # whatever cannot be read is as wrong as what does not fit
        print("wrong: %s" % error)
        sys.exit(1)
