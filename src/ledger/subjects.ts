import { DatabaseSync } from 'node:sqlite';
import { CountersignError, messageOf } from '../model/index.ts';

/**
 * Erases personal texts. Entries and evidence keep commitments that can no longer be opened, and every proof still
 * holds. Returns the number of commitments erased. If the same text is recorded later, it gets a new commitment.
 */
export function eraseSubjects(file: string, texts: readonly string[]): number {
  try {
    const db = new DatabaseSync(file, { timeout: 5000 });
    try {
      db.exec('PRAGMA secure_delete = ON');
      const erase = db.prepare('DELETE FROM subject WHERE text IN (SELECT value FROM json_each(?))');
      const { changes } = erase.run(JSON.stringify(texts));
      db.exec('PRAGMA wal_checkpoint(TRUNCATE)'); // so that no file contains it any more
      return Number(changes);
    } finally {
      db.close();
    }
  } catch (cause) {
    throw new CountersignError('ledger-unusable', `cannot write the ledger \`${file}\`: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/**
 * Does the same in a PostgreSQL database that replicas share. Each replica erases the texts from its copy within a
 * minute.
 */
export async function eraseSharedSubjects(url: string, texts: readonly string[]): Promise<number> {
  const { PostgresTables } = await import('./postgres.ts');
  const tables = new PostgresTables(url, () => {});
  try {
    await tables.connect();
    return await tables.erase(texts);
  } finally {
    await tables.close();
  }
}
