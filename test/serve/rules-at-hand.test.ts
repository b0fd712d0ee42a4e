import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LoadRules, RulesAt } from '../../src/gate/index.ts';
import { type AdmissionMode, CountersignError, environmentSchema, NO_REVISION } from '../../src/model/index.ts';
import { RulesAtHand } from '../../src/serve/rules-at-hand.ts';
import { environmentDocument } from '../kit/documents.ts';

const RULES = { bundle: 'b' } as RulesAt;

/** An environment that another replica runs; `remote` is what a fetch brings, `clone` what is here. */
function standby(mode: AdmissionMode = 'enforce') {
  const environment = environmentSchema.parse(environmentDocument({ url: '/nowhere', namespaces: ['shop'], mode }));
  const at = { revision: 'a', coming: undefined as string | undefined, isHere: false, isAway: false, fetched: 0 };
  const remote = new Set(['a']);
  const clone = new Set<string>();
  const said: string[] = [];
  const load: LoadRules = async (revision) => {
    if (clone.has(revision)) return RULES;
    throw new CountersignError('policy-unusable', `the object ${revision} is not in the repository`, {
      recover: 'retry',
    });
  };
  const look = async () => {
    if (at.isAway)
      throw new CountersignError('git-unreachable', 'git.example.test does not answer', { recover: 'retry' });
    at.fetched++;
    for (const one of remote) clone.add(one);
    return { tip: '', approvals: '' };
  };
  const state = () => ({
    revision: at.revision,
    open: at.coming === undefined ? undefined : { intent: { entry: { revision: at.coming } } },
  });
  const say = (_: object, message: string) => void said.push(message);
  const times = { freshMs: 60_000, firstPauseMs: 0, mostPauseMs: 0, graceMs: 200 };
  const rules = new RulesAtHand(
    { environment, look, load, state: state as never, isHere: () => at.isHere, log: { info: say, warn: say } },
    times,
  );
  return { at, remote, clone, said, rules };
}

test('a replica that does not run an environment fetches what its rules need before it is asked', async () => {
  const { at, clone, remote, rules } = standby();
  assert.match(rules.holdsBack ?? '', /being loaded/);
  await rules.look();
  assert.deepEqual([rules.missing, rules.holdsBack, clone.has('a')], [undefined, undefined, true]);
  remote.add('b');
  at.coming = 'b';
  await rules.look();
  assert.ok(clone.has('b'), 'those of a revision that is being applied, too');
  at.revision = 'b';
  at.coming = undefined;
  assert.equal(rules.missing, undefined, 'from the moment it is in force');
});

test('a request that comes first brings the objects itself, and is refused only if they cannot be had', async () => {
  const { at, rules } = standby();
  at.isAway = true;
  await assert.rejects(
    rules.load('a'),
    /the object a is not in the repository; and git\.example\.test does not answer/,
  );
  at.isAway = false;
  assert.equal(await rules.load('a'), RULES);
  await assert.rejects(rules.load('never'), /the object never/);
});

test('it says once what it lacks and when it is mended, and is asked all the same after a while', async () => {
  const { at, said, rules } = standby();
  at.isAway = true;
  for (let i = 0; i < 3; i++) await rules.look();
  assert.match(rules.missing ?? '', /git\.example\.test does not answer/);
  assert.equal(rules.holdsBack, rules.missing);
  await new Promise((done) => setTimeout(done, 250));
  assert.equal(rules.holdsBack, undefined, 'break-glass needs no rules');
  assert.notEqual(rules.missing, undefined);
  at.isAway = false;
  await rules.look();
  assert.equal(rules.missing, undefined);
  assert.deepEqual(
    said.map((s) => s.replace(/: .*/, '')),
    ['this replica refuses requests that need its rules', 'this replica can evaluate its rules now'],
  );
});

test('who runs the environment fetches by its own loop; others do now and then, for waivers', async () => {
  const { at, clone, rules } = standby();
  clone.add('a');
  at.isHere = true;
  await rules.look();
  assert.equal(at.fetched, 0);
  at.isHere = false;
  await rules.look();
  assert.equal(at.fetched, 1);
  await rules.look();
  assert.equal(at.fetched, 1, 'not at every look');
});

test('where no rules are asked, or none are in force yet, none are missing', async () => {
  const off = standby('off');
  await off.rules.look();
  assert.deepEqual([off.rules.missing, off.at.fetched], [undefined, 0]);
  const fresh = standby();
  fresh.at.revision = NO_REVISION;
  assert.equal(fresh.rules.missing, undefined);
});
