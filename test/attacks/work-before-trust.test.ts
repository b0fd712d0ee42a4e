import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { assess, type Gate, recall } from '../../src/gate/index.ts';
import { NO_REVISION } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, run, sshPerson } from '../kit/fleet.ts';
import { codes, gateOf } from '../kit/judge.ts';
import { configMap } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

// A service judges whatever anyone can push. Nothing of it is rendered, no rule is loaded and no approval read before a
// trusted signature stands under it; and what is read before that has limits on its sum.
const PATH = 'clusters/production';
const MIB = 1024 * 1024;
const directory = scratch();
const dana = sshPerson(directory, 'dana');
const lee = sshPerson(directory, 'lee');
let fleet: Fleet;
let good: string;
beforeEach(async (t) => {
  fleet = new Fleet(directory, (t as { name: string }).name.replaceAll(/[^a-z]+/gi, '-').slice(0, 40));
  fleet.remote(fleet.bare);
  good = fleet.commit(dana, 'good', { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { colour: 'blue' }) });
  await approveAs(lee, fleet, NO_REVISION, good);
  fleet.push();
});

type Touched = 'rendered' | 'made' | 'rules' | 'approvals' | 'file';

/** A gate as a service has it, and what was done of the work that must wait for trust. */
async function service(more: Partial<Gate> = {}, spec = {}): Promise<{ gate: Gate; touched: Touched[] }> {
  const touched: Touched[] = [];
  const gate = await gateOf(fleet, [dana, lee], { trust: trustDocument([dana, lee]), environment: { spec } });
  const note =
    <A extends unknown[], R>(what: Touched, then: (...args: A) => R) =>
    (...args: A): R => {
      touched.push(what);
      return then(...args);
    };
  return {
    touched,
    gate: {
      ...gate,
      untrusted: 'refused',
      read: note('rendered', gate.read),
      make: note('made', gate.make),
      rules: note('rules', gate.rules),
      repository: {
        ...gate.repository,
        approvals: note('approvals', gate.repository.approvals),
        file: note('file', gate.repository.file),
      },
      ...more,
    },
  };
}

test('nothing of an unsigned commit is rendered, and no rule or approval is read for it', async () => {
  const commit = fleet.commit(dana, 'unsigned', { [`${PATH}/cm.yaml`]: 'a: [' }, { sign: false });
  fleet.push();
  const { gate, touched } = await service();
  const { verdict } = await assess(gate, good, commit);
  assert.deepEqual([verdict.outcome, codes(verdict), touched], ['denied', ['unsigned'], []]);
  assert.deepEqual(
    verdict.warnings.map((w) => w.code),
    ['not-rendered'],
  );
});

test('the check shows every reason of the same commit', async () => {
  const commit = fleet.commit(dana, 'unsigned', { [`${PATH}/cm.yaml`]: 'a: [' }, { sign: false });
  fleet.push();
  const { gate } = await service({ untrusted: 'rendered' });
  assert.deepEqual(codes((await assess(gate, good, commit)).verdict), [
    'approval-missing',
    'manifest-unreadable',
    'unsigned',
  ]);
});

test('a signed commit that nobody has approved is not rendered either', async () => {
  const commit = fleet.commit(dana, 'signed', { [`${PATH}/cm.yaml`]: 'a: [' });
  fleet.push();
  const { gate, touched } = await service();
  const { verdict } = await assess(gate, good, commit);
  assert.deepEqual([codes(verdict), touched], [['approval-missing'], ['approvals']]);
});

test('a trusted change is rendered and asked about', async () => {
  const { gate, touched } = await service();
  const { verdict } = await assess(gate, NO_REVISION, good);
  assert.deepEqual([verdict.outcome, [...new Set(touched)].sort()], ['allowed', ['approvals', 'rendered', 'rules']]);
});

test('the TrustPolicy that an unsigned commit brings is not read', async () => {
  const commit = fleet.commit(dana, 'unsigned', { 'trust.yaml': 'x: '.repeat(1000) }, { sign: false });
  fleet.push();
  const { gate, touched } = await service({}, { trustPath: 'trust.yaml' });
  const { verdict } = await assess(gate, good, commit);
  // the one at the start of the change
  assert.deepEqual([codes(verdict), touched.filter((t) => t === 'file')], [['unsigned'], ['file']]);
});

test('commits above an untrusted step are not looked into', async () => {
  fleet.commit(dana, 'unsigned', { 'trust.yaml': 'x' }, { sign: false });
  const tip = fleet.commit(dana, 'signed', { 'trust.yaml': 'y' });
  fleet.push();
  const { gate, touched } = await service({}, { trustPath: 'trust.yaml' });
  assert.deepEqual([codes((await assess(gate, good, tip)).verdict), touched], [['unsigned'], ['file']]);
});

test('a commit larger than any is refused by name, without its bytes being held, and its neighbours are judged', async () => {
  const huge = rawCommit(`huge\n\n${'x'.repeat(60 * MIB)}`);
  const { gate } = await service();
  const { verdict } = await assess(gate, good, huge);
  assert.deepEqual(codes(verdict), ['commit-too-large']);
  const before = process.memoryUsage().arrayBuffers;
  const [read] = await gate.repository.commits([huge]);
  assert.deepEqual(read?.kind === 'malformed' && [read.id, read.code], [huge, 'commit-too-large']);
  assert.ok(process.memoryUsage().arrayBuffers - before < 30 * MIB, 'the bytes of the commit are still held');
  assert.equal((await gate.repository.commits([good]))[0]?.kind, 'commit');
});

test('an author line longer than any is refused', async () => {
  const { gate } = await service();
  const long = rawCommit('long', 'x'.repeat(100_000));
  assert.deepEqual(codes((await assess(gate, good, long)).verdict), ['malformed']);
});

test('facts of a commit do not hold its message', async () => {
  const { gate } = await service();
  const text = `subject\n\n${'body '.repeat(40_000)}\n\nCo-authored-by: Kim <kim@example.test>\nCo-authored-by: K <${'k'.repeat(400)}@x>\n`;
  const commit = rawCommit(text);
  const { verdict } = await assess(gate, good, commit);
  assert.deepEqual([codes(verdict), verdict.commits[0]?.subject], [['unsigned'], 'subject']);
});

// Ten trees of ten entries that are all the next tree: ten thousand million files, in a pack of a kilobyte.
test('trees that hold each other many times over are not unfolded', async () => {
  const { tree } = treeBomb();
  const { gate } = await service();
  const unsigned = run('git', ['commit-tree', tree, '-p', good, '-m', 'bomb'], { cwd: fleet.work, env: NAMES });
  fleet.push('--force', `${unsigned}:main`);
  assert.deepEqual(codes((await assess(gate, good, unsigned)).verdict), ['unsigned']);
  await assert.rejects(gate.repository.files(tree, '.'), { code: 'git-object-corrupt', message: /files/ });
  await assert.rejects(gate.repository.diff(good, unsigned), {
    code: 'git-object-corrupt',
    message: /would have to be read/,
  });
});

test('directories without a single file are counted too', async () => {
  const { gate } = await service();
  const empty = treeBomb('');
  await assert.rejects(gate.repository.files(empty.tree, '.'), {
    code: 'git-object-corrupt',
    message: /would have to be read/,
  });
});

test('a change of more commits than can be kept is refused before they are', async () => {
  const ids = Array.from({ length: 512 }, (_, i) => i.toString(16).padStart(40, '0'));
  const { gate } = await service();
  async function* endless() {
    for (let i = 0; ; i++) yield ids.map((id) => `${i.toString(16)}${id.slice(String(i).length)}`.slice(0, 40));
  }
  const repository: Gate['repository'] = {
    ...gate.repository,
    isAncestor: async () => true,
    commitIds: endless,
    commits: async (wanted) => wanted.map((id) => ({ kind: 'malformed', id, code: 'malformed', reason: 'x' })),
  };
  const { verdict } = await assess({ ...gate, repository }, good, fleet.head());
  assert.deepEqual(codes(verdict), ['change-too-long']);
  assert.match(verdict.violations[0]?.hint ?? '', /spec\.source\.baseline/);
});

test('a revision that renders otherwise than when it was allowed is an error, not a revision with fewer objects', async () => {
  const { gate } = await service();
  const { verdict } = await assess(gate, NO_REVISION, good);
  const entry = {
    type: 'change.judged',
    outcome: 'allowed',
    environment: 'production',
    from: NO_REVISION,
    to: good,
    tree: verdict.tree,
  };
  const view = {
    entry: () => ({ index: 1, entry }),
    latest: () => undefined,
    all: () => [],
    evidence: () => ({ ...verdict, content: undefined }),
  } as never;
  const { environment } = gate;
  const limits = { ...environment.spec.render.limits, values: 1 };
  const narrow = {
    ...gate,
    environment: { ...environment, spec: { ...environment.spec, render: { ...environment.spec.render, limits } } },
  };
  await assert.rejects(recall(narrow, view, 1), { code: 'render-failed', message: /can no longer be rendered/ });
});

const NAMES = {
  GIT_AUTHOR_NAME: 'mallory',
  GIT_AUTHOR_EMAIL: 'mallory@example.test',
  GIT_COMMITTER_NAME: 'mallory',
  GIT_COMMITTER_EMAIL: 'mallory@example.test',
};

/** A commit of anyone's making, on top of the good one; pushed. */
function rawCommit(message: string, name = 'mallory'): string {
  const tree = fleet.git(undefined, 'rev-parse', 'HEAD^{tree}');
  const person = `${name} <mallory@example.test> ${Math.floor(Date.now() / 1000)} +0000`;
  const input = `tree ${tree}\nparent ${good}\nauthor ${person}\ncommitter ${person}\n\n${message}`;
  const id = run('git', ['hash-object', '-t', 'commit', '-w', '--stdin', '--literally'], { cwd: fleet.work, input });
  fleet.push('--force', `${id}:main`);
  return id;
}

/** The uppermost of ten trees with ten entries each. */
function treeBomb(content: string | undefined = 'x'): { readonly tree: string } {
  const blob = run('git', ['hash-object', '-w', '--stdin'], { cwd: fleet.work, input: 'x' });
  const lines = (mode: string, type: string, id: string) =>
    Array.from({ length: 10 }, (_, i) => `${mode} ${type} ${id}\t${i}`).join('\n');
  const mktree = (input: string) =>
    run('git', ['mktree'], { cwd: fleet.work, input: `${input}${input === '' ? '' : '\n'}` });
  let tree = mktree(content === '' ? '' : lines('100644', 'blob', blob));
  for (let depth = 0; depth < 10; depth++) tree = mktree(lines('040000', 'tree', tree));
  const commit = run('git', ['commit-tree', tree, '-m', 'bomb'], { cwd: fleet.work, env: NAMES });
  fleet.push('--force', `${commit}:refs/heads/bomb`);
  return { tree };
}
