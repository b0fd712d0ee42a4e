import assert from 'node:assert/strict';
import { chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openLedger } from '../../src/ledger/index.ts';
import { askService } from '../../src/open/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

const directory = scratch();
const STRANGER = 65534;
const needsRoot = { skip: process.getuid?.() === 0 ? false : 'only root can act for a stranger' };

/** A process that answers every command, on a socket named in a data directory. */
async function answering(key: string): Promise<{ readonly data: string; readonly socket: string }> {
  const data = join(directory, `data-${key}`);
  await (await openLedger(data, 'countersign.dev/test')).close();
  const place = mkdtempSync(join(tmpdir(), 'countersign-'));
  const socket = join(place, 'control.sock');
  const server = createServer((_, response) => response.end(JSON.stringify({ ok: true, result: { key } })));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  after(() => {
    server.close();
    rmSync(place, { recursive: true, force: true });
  });
  writeFileSync(join(data, 'control.path'), socket);
  return { data, socket };
}

test(
  'a control socket elsewhere is believed only if it belongs to the owner of the data directory',
  needsRoot,
  async () => {
    const { data, socket } = await answering('a');
    assert.equal((await askService(data, 'status', {}))?.ok, true);
    for (const path of [socket, join(socket, '..')]) {
      chownSync(path, STRANGER, STRANGER);
      await assert.rejects(askService(data, 'status', {}), {
        message: /belongs to uid 65534, and the data directory to uid 0/,
        hint: /if no service runs .* remove `\S+control\.path`/,
      });
      chownSync(path, 0, 0);
    }
    rmSync(join(socket, '..'), { recursive: true });
    assert.equal(await askService(data, 'status', {}), undefined, 'the service was killed');
  },
);

test('a key that is not the one in use is not handed on, whoever names it', async () => {
  const { data } = await answering('countersign.dev/test+deadbeef+AAAA');
  const { code, stdout, stderr } = await countersign(['ledger', 'rotate-key', '--data', data]);
  assert.deepEqual([code, stdout], [2, '']);
  assert.match(stderr, /named a key that is not the one in `ledger\.pub`/);
});
