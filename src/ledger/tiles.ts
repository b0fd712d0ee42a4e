import { nodeHash, type ReadNode, rootOf } from './merkle.ts';

/** Leaves per tile, as in C2SP tlog-tiles. */
export const TILE_WIDTH = 256;
const TILE_HEIGHT = 8;
const HASH = 32;
/**
 * Bytes of a stored tile: its 256 hashes, then the 128, 64, … 2 above them. The node above those two is in the next
 * level.
 */
const TILE_BYTES = (2 * TILE_WIDTH - 2) * HASH;

/** A full tile: its level, its number on that level, and all its nodes. */
export type Tile = { readonly level: number; readonly n: number; readonly nodes: Uint8Array };

/**
 * Grows the tree leaf by leaf and returns each tile when it is full. It holds the tiles that are not full: at most 16
 * KiB per level.
 */
export class TreeWriter {
  #size = 0;
  // By height: the nodes of the tile being filled.
  readonly #heights: Buffer[][] = [];
  #full: Tile[] = [];

  get size(): number {
    return this.#size;
  }

  append(leaf: Uint8Array): void {
    let node = leaf as Buffer;
    for (let height = 0; ; height++) {
      const nodes = this.#at(height);
      nodes.push(node);
      if (nodes.length % 2 === 1) break;
      node = nodeHash(nodes[nodes.length - 2] as Buffer, node);
    }
    this.#size++;
    for (let level = 0; this.#at(level * TILE_HEIGHT).length === TILE_WIDTH; level++) this.#fill(level);
  }

  /** Returns the tiles filled since the last call. */
  takeFull(): Tile[] {
    const full = this.#full;
    this.#full = [];
    return full;
  }

  root(): Buffer {
    return rootOf(this.#size, ({ height }) => this.#at(height).at(-1) as Buffer);
  }

  /** Copies the tree, to return to this state if the next batch is not stored. */
  copy(): TreeWriter {
    const copy = new TreeWriter();
    copy.#size = this.#size;
    for (const nodes of this.#heights) copy.#heights.push([...nodes]);
    return copy;
  }

  #fill(level: number): void {
    const heights = this.#heights.slice(level * TILE_HEIGHT, (level + 1) * TILE_HEIGHT);
    const nodes = Buffer.concat(heights.flat());
    this.#full.push({ level, n: this.#size / TILE_WIDTH ** (level + 1) - 1, nodes });
    for (const height of heights) height.length = 0;
  }

  #at(height: number): Buffer[] {
    while (this.#heights.length <= height) this.#heights.push([]);
    return this.#heights[height] as Buffer[];
  }
}

/** Data that proofs are made from. */
export type TileSource = {
  /** Returns a full tile's nodes; undefined if there is none. */
  readonly tile: (level: number, n: number) => Uint8Array | undefined;
  /** Returns the leaves from `from` to before `to`, fewer than 256. */
  readonly leaves: (from: number, to: number) => readonly Uint8Array[];
};

const MAX_CACHED = 64; // one MiB

/** Reads nodes from stored tiles and, at the right edge, from leaves. For one tree of one size. */
export function nodeReader(source: TileSource, size: number): ReadNode {
  const cache = new Map<string, Uint8Array | undefined>();
  const tile = (level: number, n: number) => {
    const key = `${level}/${n}`;
    if (cache.has(key)) return cache.get(key);
    if (cache.size >= MAX_CACHED) cache.delete(cache.keys().next().value as string);
    const nodes = source.tile(level, n);
    cache.set(key, nodes);
    return nodes;
  };
  const edges = new Map<number, readonly (readonly Uint8Array[])[]>();
  const read: ReadNode = ({ height, index }) => {
    const level = Math.floor(height / TILE_HEIGHT);
    const inTile = height % TILE_HEIGHT;
    const perTile = TILE_WIDTH >> inTile;
    const n = Math.floor(index / perTile);
    const at = index % perTile;
    const isFull = (n + 1) * TILE_WIDTH ** (level + 1) <= size;
    const nodes = isFull ? tile(level, n) : undefined;
    const node = nodes === undefined ? edge(level, n)[inTile]?.[at] : nodeOfTile(nodes, inTile, at);
    if (node === undefined) throw new RangeError(`a tree of ${size} leaves has no node ${index} at height ${height}`);
    return node;
  };
  const edge = (level: number, n: number) => {
    const known = edges.get(level);
    if (known !== undefined) return known;
    const width = Math.floor(size / TILE_WIDTH ** level) - n * TILE_WIDTH;
    const bottom =
      level === 0
        ? source.leaves(n * TILE_WIDTH, n * TILE_WIDTH + width)
        : Array.from({ length: width }, (_, i) => rootOfTile(tile(level - 1, n * TILE_WIDTH + i)));
    const nodes: (readonly Uint8Array[])[] = [bottom];
    for (let below = bottom; below.length > 1; nodes.push(below)) below = pairs(below);
    edges.set(level, nodes);
    return nodes;
  };
  return read;
}

/** Returns one node of a stored tile: the `at`-th at a height from 0 to 7 above its hashes. */
function nodeOfTile(nodes: Uint8Array, inTile: number, at: number): Uint8Array {
  const before = 2 * TILE_WIDTH - 2 * (TILE_WIDTH >> inTile);
  return nodes.subarray((before + at) * HASH, (before + at + 1) * HASH);
}

function rootOfTile(nodes: Uint8Array | undefined): Uint8Array {
  if (nodes === undefined) throw new RangeError('a tile is missing');
  return nodeHash(nodes.subarray(TILE_BYTES - 2 * HASH, TILE_BYTES - HASH), nodes.subarray(TILE_BYTES - HASH));
}

function pairs(nodes: readonly Uint8Array[]): Uint8Array[] {
  return Array.from({ length: nodes.length >> 1 }, (_, i) =>
    nodeHash(nodes[2 * i] as Uint8Array, nodes[2 * i + 1] as Uint8Array),
  );
}

/** Returns the hashes of a tile in tlog-tiles: those of `width` nodes at the bottom of a tile. */
export function tileHashes(read: ReadNode, level: number, n: number, width: number): Buffer {
  return Buffer.concat(
    Array.from({ length: width }, (_, i) =>
      Buffer.from(read({ height: level * TILE_HEIGHT, index: n * TILE_WIDTH + i })),
    ),
  );
}

/**
 * Returns the path of a tile under `tile/`: level or `entries`, three digits per part, and the width if the tile is not
 * full.
 */
export function tilePath(level: number | 'entries', n: number, width = TILE_WIDTH): string {
  const parts = [String(n % 1000).padStart(3, '0')];
  for (let rest = Math.floor(n / 1000); rest > 0; rest = Math.floor(rest / 1000))
    parts.unshift(`x${String(rest % 1000).padStart(3, '0')}`);
  return `tile/${level}/${parts.join('/')}${width === TILE_WIDTH ? '' : `.p/${width}`}`;
}
