import { DatabaseSync } from 'node:sqlite';
import { CountersignError, messageOf } from '../model/index.ts';
import { PostgresTables } from './postgres.ts';

/**
 * Erases personal texts: entries and evidence keep commitments that nobody can open any more, and every proof holds as
 * before. Gives how many commitments were to them. What is recorded about the same text afterwards gets a new one.
 */
export function eraseSubjects(file: string, texts: readonly string[]): number {
  try {
    const db = new DatabaseSync(file);
    try {
      db.exec('PRAGMA busy_timeout = 5000; PRAGMA secure_delete = ON');
      const erase = db.prepare('DELETE FROM subject WHERE text IN (SELECT value FROM json_each(?))');
      const { changes } = erase.run(JSON.stringify(texts));
      db.exec('PRAGMA wal_checkpoint(TRUNCATE)'); // so that it is in no file any more
      return Number(changes);
    } finally {
      db.close();
    }
  } catch (cause) {
    throw new CountersignError('ledger-unusable', `the ledger \`${file}\` cannot be written: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** The same in a PostgreSQL that replicas share; each of them erases it from its copy within a minute. */
export async function eraseSharedSubjects(url: string, texts: readonly string[]): Promise<number> {
  const tables = new PostgresTables(url, () => {});
  try {
    await tables.connect();
    return await tables.erase(texts);
  } finally {
    await tables.close();
  }
}
