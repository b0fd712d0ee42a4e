import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LoadRules, RulesInForce } from '../../src/gate/index.ts';
import { CountersignError, environmentSchema } from '../../src/model/index.ts';
import { environmentDocument } from '../kit/documents.ts';
import { rulesOf } from '../kit/rules.ts';

const environment = environmentSchema.parse(environmentDocument({ url: '/nowhere', namespaces: ['shop'] }));
const pool = await rulesOf({
  'rule.rego': 'package countersign.object\ndeny contains "bad" if input.object.metadata.name == "bad"\n',
});
const ref = { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'bad' };
const request = {
  ...{
    uid: '1',
    operation: 'CREATE',
    user: 'u',
    groups: [],
    ref,
    subresource: '',
    oldObject: undefined,
    dryRun: false,
    fieldManager: '',
  },
  object: { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'bad', namespace: 'shop' } },
} as const;

/**
 * Rules whose loading is held until somebody lets it go on, and an environment that is at `revision` while `coming` is
 * applied.
 */
function held() {
  const state: { revision: string; coming?: string } = { revision: 'a' };
  const asked: string[] = [];
  const waiting = new Map<string, PromiseWithResolvers<void>>();
  const load: LoadRules = async (revision) => {
    asked.push(revision);
    const wait = Promise.withResolvers<void>();
    waiting.set(revision, wait);
    await wait.promise;
    return { pool, waivers: [], images: { digest: '', of: new Map() }, bundle: revision };
  };
  const at = () => ({
    revision: state.revision,
    owned: new Map(),
    open: state.coming && { intent: { entry: { revision: state.coming } } },
  });
  const rules = new RulesInForce(environment, at as never, load, () => new Date());
  const ask = async () => {
    const { violations, bundle } = await rules.ask(request, {});
    return [bundle, ...violations.map((v) => v.message)];
  };
  const letGo = (revision: string) => (waiting.get(revision) as PromiseWithResolvers<void>).resolve();
  const fail = (revision: string) =>
    (waiting.get(revision) as PromiseWithResolvers<void>).reject(new CountersignError('policy-unusable', 'no'));
  return { state, asked, ask, letGo, fail };
}

const SAYS = 'Pod shop/bad: bad';

async function atFirst() {
  const all = held();
  const first = all.ask();
  all.letGo('a');
  assert.deepEqual(await first, ['a', SAYS]);
  return all;
}

test('the rules of a revision that is being applied are loaded before it is in force, and hold from then on', async () => {
  const { state, asked, ask, letGo } = await atFirst();
  state.coming = 'b';
  assert.deepEqual(await ask(), ['a', SAYS], 'those in force answer meanwhile');
  assert.deepEqual(await ask(), ['a', SAYS]);
  assert.deepEqual(asked, ['a', 'b']);
  letGo('b');
  assert.deepEqual(await ask(), ['a', SAYS], 'being loaded, they are not in force yet');
  state.revision = 'b';
  assert.deepEqual(await ask(), ['b', SAYS]);
  delete state.coming;
  assert.deepEqual(await ask(), ['b', SAYS]);
  assert.deepEqual(asked, ['a', 'b'], 'once');
});

test('what is asked while they are still being loaded waits for them', async () => {
  const { state, asked, ask, letGo } = await atFirst();
  state.coming = 'b';
  await ask();
  state.revision = 'b';
  delete state.coming;
  const waiting = ask();
  letGo('b');
  assert.deepEqual(await waiting, ['b', SAYS]);
  assert.deepEqual(asked, ['a', 'b']);
});

test('rules that could not be loaded ahead are not tried for each request, and again once they are in force', async () => {
  const { state, asked, ask, letGo, fail } = await atFirst();
  state.coming = 'b';
  await ask();
  fail('b');
  for (let i = 0; i < 5; i++) assert.deepEqual(await ask(), ['a', SAYS]);
  assert.deepEqual(asked, ['a', 'b']);
  state.revision = 'b';
  delete state.coming;
  const waiting = ask();
  letGo('b');
  assert.deepEqual(await waiting, ['b', SAYS]);
  assert.deepEqual(asked, ['a', 'b', 'b']);
});

test('a change that came to nothing leaves the rules as they were', async () => {
  const { state, asked, ask, letGo } = await atFirst();
  state.coming = 'b';
  await ask();
  letGo('b');
  delete state.coming;
  assert.deepEqual(await ask(), ['a', SAYS]);
  state.coming = 'c';
  assert.deepEqual(await ask(), ['a', SAYS]);
  state.revision = 'c';
  letGo('c');
  assert.deepEqual(await ask(), ['c', SAYS]);
  assert.deepEqual(asked, ['a', 'b', 'c']);
});
