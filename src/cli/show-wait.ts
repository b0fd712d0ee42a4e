import type { Io } from '../terminal/index.ts';

const QUIET_MS = 1000; // a command that is done by then says nothing
const ASK_MS = 2000;

/**
 * Waits for `work`, and meanwhile prints on `io.err` what it waits for: `what` after a second, and each new answer of
 * `progress`. An answer that cannot be had is passed over: only `work` decides.
 */
export async function showWait<T>(
  io: Pick<Io, 'err'>,
  what: string,
  work: Promise<T>,
  progress: () => Promise<string | undefined> = async () => undefined,
): Promise<T> {
  let said = '';
  let over = false;
  const say = (text: string | undefined) => {
    if (over || text === undefined || text === said) return;
    said = text;
    io.err(`waiting: ${text}\n`);
  };
  const first = setTimeout(() => say(what), QUIET_MS);
  const asking = setInterval(() => void progress().then(say, () => {}), ASK_MS);
  try {
    return await work;
  } finally {
    over = true;
    clearTimeout(first);
    clearInterval(asking);
  }
}
