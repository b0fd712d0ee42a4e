import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openLedger } from '../../src/ledger/index.ts';
import { configMap } from '../kit/manifests.ts';
import { clockFrom } from '../kit/old-ledger.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

const PATH = 'clusters/production';
const stage = await openStage(scratch());
const going = new Set<() => void>();
after(() => {
  for (const end of going) end();
});

/** Asks for a write that no commit has, again and again; returns the answers that were not the gate's refusal. */
async function askedMeanwhile(name: string, task: () => Promise<void>): Promise<{ asked: number; odd: string[] }> {
  const dev = await stage.as('dev');
  const odd: string[] = [];
  let [asked, isOver] = [0, false];
  const end = () => {
    isOver = true;
  };
  going.add(end);
  const load = (async () => {
    while (!isOver) {
      const { status, body } = await dev.request('POST', `/api/v1/namespaces/${name}/configmaps?dryRun=All`, {
        apiVersion: 'v1',
        kind: 'ConfigMap',
        metadata: { name: `x-${asked++}`, namespace: name },
      });
      if (!/denied the request/.test(String(body['message']))) odd.push(`${status} ${String(body['message'])}`);
    }
  })();
  await task().finally(end);
  await load;
  return { asked, odd };
}

test('a running service changes its key and drops the old one, with requests answered meanwhile, and goes on', async () => {
  const name = 'rotated';
  const { fleet, service } = await stage.running(name);
  const data = stage.data(name);
  const keys: string[] = [];
  const { asked, odd } = await askedMeanwhile(name, async () => {
    for (const more of [[], ['--drop-old']]) {
      const { code, stdout, stderr } = await countersign(['ledger', 'rotate-key', '--data', data, ...more]);
      assert.equal(code, 0, stderr);
      keys.push(stdout.split('\n').find((line) => /^\S+\+[0-9a-f]{8}\+/.test(line)) ?? '');
    }
  });
  assert.ok(asked > 0);
  assert.deepEqual(odd, [], 'every request was decided');
  assert.equal(keys[0], keys[1]);
  assert.equal(readFileSync(join(data, 'ledger.pub'), 'utf8').split('\n')[0], keys[1]);
  const twice = await countersign(['ledger', 'rotate-key', '--data', data, '--drop-old']);
  assert.deepEqual([twice.code, /there is no old key to drop/.test(twice.stderr)], [2, true]);
  const commit = await stage.change(fleet, 'after', { [`${PATH}/cm.yaml`]: configMap(name, 'settings', { k: 'new' }) });
  await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  assert.equal(await service.stop(), 0, service.log);
  assert.deepEqual(
    [service.entries('key.rotated', '').length, service.entries('key.retired', '').length],
    [1, 1],
    service.log,
  );
  assert.equal((await countersign(['ledger', 'verify', '--data', data])).code, 0);
});

test('a running service archives old entries, with requests answered meanwhile, and goes on', async () => {
  const name = 'archived';
  const data = stage.data(name);
  const ledger = await openLedger(data, 'countersign.dev/test', { clock: clockFrom('2024-05-01T00:00:00Z') });
  for (let n = 0; n < 500; n++) await ledger.record({ type: 'heartbeat', everySeconds: 60, environments: [] });
  await ledger.close();
  const { fleet, service } = await stage.running(name);
  const place = `${data}.archive`;
  const { asked, odd } = await askedMeanwhile(name, async () => {
    const args = ['ledger', 'archive', '--before', '2025-01-01', '--to', place, '--data', data];
    const { code, stdout, stderr } = await countersign(args);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^(499|500) entries from 1 to/);
  });
  assert.ok(asked > 0);
  assert.deepEqual(odd, [], 'every request was decided');
  assert.equal(readdirSync(place).length, 1);
  const commit = await stage.change(fleet, 'after', { [`${PATH}/cm.yaml`]: configMap(name, 'settings', { k: 'new' }) });
  await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  assert.equal(await service.stop(), 0, service.log);
  const { code, stdout } = await countersign(['ledger', 'verify', '--data', data]);
  assert.equal(code, 0, stdout);
  assert.match(stdout, /archived: .* every byte was checked/);
});

test('a running service opens a new epoch for a loss that someone else can show, and refuses where nothing is lost', async () => {
  const name = 'epochs';
  const { fleet, service, configuration } = await stage.running(name);
  const data = stage.data(name);
  assert.equal(await service.stop(), 0, service.log);
  const backup = `${data}.backup`;
  cpSync(data, backup, { recursive: true });
  const second = await stage.serve(configuration, name);
  for (const k of ['a', 'b', 'c', 'd']) {
    const lost = await stage.change(fleet, k, { [`${PATH}/cm.yaml`]: configMap(name, 'settings', { k }) });
    await second.entry('apply.result', 'production', (e) => e.revision === lost && e.outcome === 'applied');
  }
  assert.equal(await second.stop(), 0, second.log);
  cpSync(join(data, 'checkpoint'), `${data}.checkpoint`);
  rmSync(data, { recursive: true });
  cpSync(backup, data, { recursive: true });
  // Without an anchor outside of the data directory, it goes on where the backup was.
  const third = await stage.serve(configuration, name);
  await third.says('countersign is running');
  await third.says('no anchor outside of the data directory');
  const epoch = (...more: string[]) =>
    countersign(['ledger', 'new-epoch', '--data', data, '--reason', 'backup of yesterday', ...more]);
  const refused = await epoch();
  assert.deepEqual([refused.code, /nothing is lost/.test(refused.stderr)], [2, true], refused.stderr);
  const opened = await epoch('--checkpoint', `${data}.checkpoint`);
  assert.equal(opened.code, 0, opened.stderr);
  assert.match(opened.stdout, /epoch-2/);
  const next = await stage.change(fleet, 'next', { [`${PATH}/cm.yaml`]: configMap(name, 'settings', { k: 'next' }) });
  await third.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.equal(await third.stop(), 0, third.log);
  const verified = await countersign(['ledger', 'verify', '--data', data, '--checkpoint', `${data}.checkpoint`]);
  assert.equal(verified.code, 0, verified.stdout);
});
