import { databaseAddress, openSigner } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';
import { ledgerKey } from '../open/index.ts';
import { hostName } from './http.ts';
import { interval } from './ledger.ts';
import { parseSelector } from './loops.ts';
import { parseAnchor } from './open-anchor.ts';
import type { ServeOptions } from './options.ts';

/** Refuses unusable flags before anything is waited for. Throws with the flag's name in the message. */
export function checkServeOptions(options: ServeOptions): void {
  const check = (flag: string, read: () => unknown) => {
    try {
      read();
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.message.includes(flag)) throw thrown;
      const { hint, cause } = thrown;
      throw new CountersignError(thrown.code, `${flag}: ${thrown.message}`, {
        cause,
        ...(hint === undefined ? {} : { hint }),
      });
    }
  };
  if (options.ledger !== undefined) check('--ledger', () => databaseAddress(options.ledger as string));
  check('--ledger-key', () => {
    const key = ledgerKey(options);
    if (key !== undefined) openSigner(options.data, 'countersign', key);
  });
  for (const anchor of options.anchor ?? []) check('--anchor', () => parseAnchor(anchor));
  check('--anchor-every', () => interval(options.anchorEvery, '--anchor-every'));
  check('--heartbeat', () => interval(options.heartbeat, '--heartbeat'));
  check('--selector', () => parseSelector(options.selector));
  for (const name of options.httpName) check('--http-name', () => hostName(name));
}
