import type { PolicyPool } from './policy-pool.ts';

/** Policy threads shared by several environments. They end when no environment uses them. */
export class SharedPools {
  readonly #pools = new Map<string, { readonly pool: PolicyPool; readonly users: Set<object> }>();

  get(key: string): PolicyPool | undefined {
    return this.#pools.get(key)?.pool;
  }

  take(key: string, user: object, open: () => PolicyPool): PolicyPool {
    const known = this.#pools.get(key) ?? { pool: open(), users: new Set() };
    this.#pools.set(key, known);
    known.users.add(user);
    return known.pool;
  }

  async give(key: string, user: object): Promise<void> {
    const known = this.#pools.get(key);
    known?.users.delete(user);
    if (known === undefined || known.users.size > 0) return;
    this.#pools.delete(key);
    await known.pool.close();
  }
}
