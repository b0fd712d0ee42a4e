import { moveToArchive, prepareArchive } from '../../src/ledger/index.ts';

// Archives old entries, and ends itself with SIGKILL before or after a step: nothing is flushed, closed or told.
const [data = '', place = '', step = '', side = ''] = process.argv.slice(2);
const around = async <T>(at: string, run: () => T | Promise<T>): Promise<T> => {
  if (at === step && side === 'before') process.kill(process.pid, 'SIGKILL');
  const result = await run();
  if (at === step && side === 'after') process.kill(process.pid, 'SIGKILL');
  return result;
};
const asked = { before: '2025-01-01T00:00:00.000Z', place, user: 'dana' };
const request = await prepareArchive(data, asked, new Date(), around);
if (request !== undefined) await moveToArchive(data, request, {}, around);
