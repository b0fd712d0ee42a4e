/** A map with a maximum size that forgets the least recently used item. */
export class Recent<T> {
  readonly #known = new Map<string, T>();
  #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#known.size;
  }

  get(key: string): T | undefined {
    const found = this.#known.get(key);
    if (found === undefined) return undefined;
    this.#known.delete(key);
    this.#known.set(key, found);
    return found;
  }

  set(key: string, value: T): void {
    this.#known.delete(key);
    this.#known.set(key, value);
    for (const oldest of this.#known.size > this.#limit ? this.#known.keys() : []) {
      this.#known.delete(oldest);
      break;
    }
  }

  delete(key: string): void {
    this.#known.delete(key);
  }

  /** Makes room for at least `count` items: iterating over more than fit would find none of them again. */
  hold(count: number): void {
    this.#limit = Math.max(this.#limit, count);
  }
}
