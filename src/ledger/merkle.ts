import { createHash } from 'node:crypto';

/** RFC 6962 section 2.1: the hash of an entry as a leaf. */
export function leafHash(entry: Uint8Array): Buffer {
  return createHash('sha256').update(LEAF).update(entry).digest();
}

/** RFC 6962 section 2.1: the hash of two subtrees. */
function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  return createHash('sha256').update(NODE).update(left).update(right).digest();
}

const LEAF = Buffer.from([0]);
const NODE = Buffer.from([1]);

/**
 * The roots of the perfect subtrees that cover the first `size` leaves, largest first: all that is needed to go on
 * appending and to know the root. 20 hashes for a million leaves.
 */
export class CompactRange {
  #size = 0;
  #nodes: Buffer[] = [];

  constructor(size = 0, nodes: readonly Uint8Array[] = []) {
    if (nodes.length !== bitsOf(size)) throw new RangeError(`a range of ${size} leaves has ${bitsOf(size)} nodes, not ${nodes.length}`);
    this.#size = size;
    this.#nodes = nodes.map((n) => Buffer.from(n));
  }

  get size(): number {
    return this.#size;
  }

  get nodes(): readonly Buffer[] {
    return this.#nodes;
  }

  append(leaf: Uint8Array): void {
    let node = Buffer.from(leaf);
    for (let n = this.#size; n % 2 === 1; n = Math.floor(n / 2)) node = nodeHash(this.#nodes.pop() as Buffer, node) as Buffer<ArrayBuffer>;
    this.#nodes.push(node);
    this.#size++;
  }

  /** The root; of no leaves, the hash of nothing. */
  root(): Buffer {
    const last = this.#nodes.at(-1);
    if (last === undefined) return createHash('sha256').digest();
    return this.#nodes.slice(0, -1).reduceRight<Buffer>((right, left) => nodeHash(left, right), last);
  }

  copy(): CompactRange {
    return new CompactRange(this.#size, this.#nodes);
  }
}

function bitsOf(n: number): number {
  let bits = 0;
  for (let rest = n; rest > 0; rest = Math.floor(rest / 2)) bits += rest % 2;
  return bits;
}
