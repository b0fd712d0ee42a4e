import { DatabaseSync } from 'node:sqlite';
import { CountersignError, messageOf } from '../model/index.ts';

/**
 * Erases a personal text: entries and evidence keep a commitment that nobody can open any more, and every proof holds as
 * before. Gives how many commitments were to it. What is recorded about the same text afterwards gets a new one.
 */
export function eraseSubject(file: string, text: string): number {
  try {
    const db = new DatabaseSync(file);
    try {
      db.exec('PRAGMA busy_timeout = 5000; PRAGMA secure_delete = ON');
      const { changes } = db.prepare('DELETE FROM subject WHERE text = ?').run(text);
      db.exec('PRAGMA wal_checkpoint(TRUNCATE)'); // so that it is in no file any more
      return Number(changes);
    } finally {
      db.close();
    }
  } catch (cause) {
    throw new CountersignError('ledger-unusable', `the ledger \`${file}\` cannot be written: ${messageOf(cause)}`, { cause });
  }
}
