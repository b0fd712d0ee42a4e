import type { sourceRepository } from '../git/index.ts';

type Directories = Pick<ReturnType<typeof sourceRepository>, 'directoryIds'>;

/**
 * Tells environments that share a branch of commits that change their directories, as soon as one of them has fetched
 * those. The others find them at their own interval: there may be a thousand.
 */
export class BranchNews {
  readonly #repository: Directories;
  readonly #listeners: { readonly directory: string; readonly wake: () => void }[] = [];
  #tip: string | undefined;
  #ids: ReadonlyMap<string, string> | undefined;

  constructor(repository: Directories) {
    this.#repository = repository;
  }

  listen(directory: string, wake: () => void): void {
    this.#listeners.push({ directory, wake });
  }

  /**
   * Called after a fetch. Nothing is trusted yet: only ids are compared, by reading the trees above the directories.
   * Never throws: an unreadable commit is judged at the next interval.
   */
  async isAt(tip: string): Promise<void> {
    if (this.#tip === tip || this.#listeners.length < 2) return;
    this.#tip = tip;
    const directories = this.#listeners.map((l) => l.directory);
    const before = this.#ids;
    const ids = await this.#repository.directoryIds(tip, directories).catch(() => undefined);
    this.#ids = ids;
    if (before === undefined || ids === undefined) return;
    for (const { directory, wake } of this.#listeners) if (before.get(directory) !== ids.get(directory)) wake();
  }
}
