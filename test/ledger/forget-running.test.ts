import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createKey, type Ledger, LedgerReader, openLedger } from '../../src/ledger/index.ts';
import { CountersignError } from '../../src/model/index.ts';
import { openControl } from '../../src/serve/http.ts';
import { trustDocument, writeConfiguration } from '../kit/documents.ts';
import { type Person, run, sshPerson } from '../kit/fleet.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, until } from '../kit/service.ts';

// `ledger forget` beside a service that runs, and where replicas share a database.
const directory = scratch();
const NAME = 'alice.oncall';
const noPostgres = inQuickRun() || without('PostgreSQL');
const [dana, lee] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee')];
const configuration = writeConfiguration(join(directory, 'config'), [trustDocument([dana, lee])]);
const key = join(directory, 'shared.key');
writeFileSync(key, createKey(), { mode: 0o600 });
let serial = 0;
let postgres: Postgres | undefined;
before(async () => {
  if (noPostgres === false) postgres = await Postgres.start();
});
after(() => postgres?.stop());

type Place = { readonly data: string; readonly url?: string; readonly owner?: string };
const onDisk = async (): Promise<Place> => ({ data: join(directory, `data-${serial++}`) });
const shared = async (): Promise<Place> => ({ ...(await onDisk()), ...(await (postgres as Postgres).ledger()) });

const openAt = ({ data, url }: Place): Promise<Ledger> =>
  openLedger(data, 'countersign.dev/test', url === undefined ? {} : { postgres: url, key: { files: [key] } });

async function useBreakGlass(ledger: Ledger, name: string): Promise<number> {
  const { index } = await ledger.record({
    type: 'breakglass.used',
    environment: 'production',
    user: ledger.subject(name),
    operation: 'UPDATE',
    object: { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web' },
    reason: 'INC-1',
    until: new Date(Date.now() + 1000).toISOString(),
  });
  return index;
}

const settle = (ledger: Ledger, uses: number[]) =>
  ledger.record({
    type: 'breakglass.settled',
    environment: 'production',
    uses,
    user: ledger.subject('lee'),
    reason: 'fine',
  });

/** What a service has open while it runs, as far as its control socket needs it. */
async function serving(place: Place) {
  const ledger = await openAt(place);
  const closing: (() => void | Promise<void>)[] = [];
  const log = { warn: () => {}, info: () => {} };
  const parts = { options: { data: place.data, ledger: place.url }, closing, recorder: ledger, ledger, log };
  await openControl([], parts as never, { reports: undefined, front: undefined } as never);
  const stop = async () => {
    for (const close of closing.reverse()) await close();
    await ledger.close();
  };
  return { ledger, stop };
}

const forget = ({ data }: Place, name: string, ...more: string[]) =>
  countersign(['ledger', 'forget', name, '--reason', 'HR-311', '--data', data, '--config', configuration, ...more]);

function signing(person: Person): string[] {
  const repo = join(directory, `repo-${serial++}`);
  mkdirSync(repo);
  run('git', ['-C', repo, 'init', '-q']);
  run('git', ['-C', repo, 'config', 'gpg.format', 'ssh']);
  run('git', ['-C', repo, 'config', 'user.signingkey', person.signingKey]);
  return ['--repo', repo];
}

function read({ data }: Place) {
  const reader = new LedgerReader(join(data, 'ledger.db'));
  try {
    return {
      entries: reader.all('subject.forgotten', '').map(({ entry }) => entry),
      users: reader.all('breakglass.used', 'production').map(({ entry }) => entry.user),
    };
  } finally {
    reader.close();
  }
}

for (const { where, skip, place } of [
  { where: 'SQLite', skip: false, place: onDisk },
  { where: 'PostgreSQL', skip: noPostgres, place: shared },
] as const)
  describe(`a service on ${where} that is asked to forget`, { skip }, () => {
    test('records it and erases it, and goes on', async () => {
      const at = await place();
      const { ledger, stop } = await serving(at);
      await settle(ledger, [await useBreakGlass(ledger, NAME)]);
      const asked = await forget(at, NAME);
      assert.equal(asked.code, 0, asked.stderr);
      assert.match(asked.stdout, /erased; 1 commitment/);
      assert.deepEqual(
        read(at).entries.map((e) => [e.reason, e.commitments, e.exceptions]),
        [['HR-311', 1, undefined]],
      );
      if (at.owner !== undefined)
        assert.deepEqual(
          await (postgres as Postgres).ask(at.owner, `SELECT 1 FROM countersign.subject WHERE text = '${NAME}'`),
          [],
        );
      else assert.match(read(at).users[0] ?? '', /^subject:/);
      await settle(ledger, [
        await useBreakGlass(ledger, 'Kim <kim@example.test>'),
        await useBreakGlass(ledger, 'kim@example.test'),
      ]);
      assert.match(
        (await forget(at, 'kim@example.test')).stdout,
        /2 stored texts with it:[\s\S]*erased; 2 commitments/,
      );
      assert.ok((await ledger.record({ type: 'service.stopped', reason: 'x' })).index > 0);
      await stop();
    });

    test('does not while an exception is open, without a second person, for the wrong person or another text', async () => {
      const at = await place();
      const { ledger, stop } = await serving(at);
      await useBreakGlass(ledger, NAME);
      await useBreakGlass(ledger, dana.email);
      await useBreakGlass(ledger, 'bob.oncall');
      const file = (name: string) => join(directory, `${name}-${serial++}.sig`);
      assert.match((await forget(at, NAME)).stderr, /1 exception that name them is open/);
      const [own, forBob, nobody] = [file('own'), file('bob'), file('nobody')];
      assert.equal((await forget(at, dana.email, '--sign', own, ...signing(dana))).code, 0);
      assert.match((await forget(at, dana.email, '--approved-by', own)).stderr, /`dana` is not a second person/);
      assert.equal((await forget(at, 'bob.oncall', '--sign', forBob, ...signing(lee))).code, 0);
      assert.match((await forget(at, NAME, '--approved-by', forBob)).stderr, /the approval does not count/);
      assert.equal(
        (await forget(at, NAME, '--sign', nobody, ...signing(sshPerson(directory, `mallory-${serial++}`)))).code,
        0,
      );
      assert.match((await forget(at, NAME, '--approved-by', nobody)).stderr, /the approval does not count/);
      assert.deepEqual([read(at).entries, read(at).users], [[], [NAME, dana.email, 'bob.oncall']]);

      const good = file('good');
      assert.equal((await forget(at, NAME, '--sign', good, ...signing(lee))).code, 0);
      assert.equal((await forget(at, NAME, '--approved-by', good)).code, 0);
      assert.deepEqual(
        read(at).entries.map((e) => [e.approvedBy, e.exceptions?.length]),
        [['lee', 1]],
      );
      await stop();
    });
  });

test('without a service, what replicas share is erased there, and their copies follow', {
  skip: noPostgres,
}, async () => {
  const at = await shared();
  const ledger = await openAt(at);
  await settle(ledger, [await useBreakGlass(ledger, NAME)]);
  await ledger.close();
  const other: Place = { ...at, data: join(directory, `other-${serial++}`) };
  const second = await openAt(other);
  assert.deepEqual(read(other).users, [NAME]);
  const asked = await forget(at, NAME, '--ledger', at.url ?? '', '--ledger-key', key);
  assert.equal(asked.code, 0, asked.stderr);
  assert.deepEqual(
    await (postgres as Postgres).ask(at.owner ?? '', `SELECT 1 FROM countersign.subject WHERE text = '${NAME}'`),
    [],
  );
  await until(
    () => read(other).entries.length === 1,
    10_000,
    () => 'the other replica does not see the entry',
  );
  await second.close();
});

test('a service whose ledger is away forgets nothing: the entry comes first', async () => {
  const at = await onDisk();
  const { ledger, stop } = await serving(at);
  await settle(ledger, [await useBreakGlass(ledger, NAME)]);
  ledger.hold(new CountersignError('ledger-unusable', 'away', { recover: 'retry' }));
  assert.notEqual((await forget(at, NAME)).code, 0);
  assert.deepEqual([read(at).entries, read(at).users], [[], [NAME]]);
  ledger.hold(undefined);
  assert.equal((await forget(at, NAME)).code, 0);
  await stop();
});
