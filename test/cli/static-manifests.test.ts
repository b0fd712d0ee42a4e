import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { staticProblems } from '../../src/cluster/index.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

const directory = scratch();
let configuration = '';
const manifests = (...flags: readonly string[]) => countersign(['manifests', '--config', configuration, ...flags]);
const configure = (name: string, ...environments: readonly object[]) =>
  writeConfiguration(join(directory, name), [...environments, trustDocument([sshPerson(directory, 'dana')])]);
const environment = (more: object = {}) =>
  environmentDocument({ url: 'https://git.example.test/fleet', namespaces: ['shop'], ...more });

before(() => {
  configuration = configure('config', environment());
});

const text = (at: string, name: string) => readFileSync(join(at, 'policies', name), 'utf8');

test('policies for the API server are written with their configuration, in a directory that is then ours', async () => {
  const at = join(directory, 'fresh');
  const written = await manifests('--static', at, '--static-path', '/etc/kubernetes/countersign');
  assert.equal(written.code, 0, written.stderr);
  assert.match(written.stdout, /--admission-control-config-file=\/etc\/kubernetes\/countersign\/admission\.yaml/);
  assert.deepEqual(readdirSync(join(at, 'policies')).sort(), ['10-own.yaml', '20-names.yaml', '40-probe.yaml']);
  assert.match(
    readFileSync(join(at, 'admission.yaml'), 'utf8'),
    /staticManifestsDir: \/etc\/kubernetes\/countersign\/policies\n/,
  );
  for (const name of readdirSync(join(at, 'policies')))
    assert.doesNotMatch(text(at, name), /ValidatingWebhookConfiguration|paramRef|paramKind/);
  const { digest } = JSON.parse(readFileSync(join(at, 'countersign.json'), 'utf8')) as { digest: string };
  assert.ok(text(at, '40-probe.yaml').includes(`countersign static ${digest} own,names`));
  assert.equal((await manifests('--static', at, '--static-path', '/etc/kubernetes/countersign', '--check')).code, 0);
  assert.deepEqual(
    readdirSync(directory).filter((name) => name.includes('.new')),
    [],
    'nothing is left beside it',
  );
});

test('the same directory is written again: the fence comes and goes, and the digest with it', async () => {
  const at = join(directory, 'again');
  const first = await manifests('--static', at, '--fence');
  assert.equal(first.code, 0, first.stderr);
  assert.match(text(at, '30-fence.yaml'), /- shop\n/);
  const before = text(at, '40-probe.yaml');
  assert.equal((await manifests('--static', at)).code, 0);
  assert.equal(existsSync(join(at, 'policies', '30-fence.yaml')), false);
  assert.notEqual(text(at, '40-probe.yaml'), before);
  const behind = await manifests('--static', at, '--fence', '--check');
  assert.equal(behind.code, 1);
  assert.match(behind.stdout, /`policies\/30-fence\.yaml`: it is missing/);
  assert.match(behind.stdout, /`policies\/40-probe\.yaml`: it differs from what would be written now/);
});

test('what was written in part has no probe, which would say that all of it is there', async () => {
  const at = join(directory, 'part');
  assert.equal((await manifests('--static', at)).code, 0);
  mkdirSync(join(at, 'policies', '30-fence.yaml', 'in the way'), { recursive: true });
  assert.notEqual((await manifests('--static', at, '--fence')).code, 0);
  assert.equal(existsSync(join(at, 'policies', '40-probe.yaml')), false);
  rmSync(join(at, 'policies', '30-fence.yaml'), { recursive: true });
  assert.equal((await manifests('--static', at, '--fence')).code, 0);
  assert.match(text(at, '40-probe.yaml'), /own,names,fence/);
});

test('a check sees a governed namespace that was added, and changes nothing', async () => {
  const at = join(directory, 'behind');
  assert.equal((await manifests('--static', at)).code, 0);
  const before = text(at, '20-names.yaml');
  const more = configure('more', environment(), environment({ name: 'second', namespaces: ['pay'] }));
  const behind = await countersign(['manifests', '--config', more, '--static', at, '--check']);
  assert.equal(behind.code, 1);
  assert.match(behind.stdout, /`policies\/20-names\.yaml`: it differs/);
  assert.equal(text(at, '20-names.yaml'), before);
  const one = ['--environment', 'production'];
  const chosen = await countersign(['manifests', '--config', more, '--static', at, ...one, '--check']);
  assert.equal(chosen.code, 0, chosen.stdout);
});

test('a directory with files of others is refused, and left as it is', async () => {
  const at = join(directory, 'others');
  mkdirSync(at);
  writeFileSync(join(at, 'manifest.yaml'), 'a: 1\n');
  const refused = await manifests('--static', at);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /has files that Countersign did not write/);
  assert.deepEqual(readdirSync(at), ['manifest.yaml']);
  assert.equal((await manifests('--static', at, '--check')).code, 2);
});

test('what others put beside our policies must be readable too, before anything is written', async () => {
  const at = join(directory, 'beside');
  assert.equal((await manifests('--static', at)).code, 0);
  const beside = join(at, 'policies', '99-other.yaml');
  for (const [content, why] of [
    ['kind: Nonsense\n', /`99-other\.yaml`: it may only hold/],
    ['a: [\n', /`99-other\.yaml`: /],
  ] as const) {
    writeFileSync(beside, content);
    const refused = await manifests('--static', at, '--fence');
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, why);
    assert.equal(existsSync(join(at, 'policies', '30-fence.yaml')), false);
  }
  rmSync(beside);
  assert.equal((await manifests('--static', at, '--fence')).code, 0);
});

test('every rule of the API server’s loader is checked', () => {
  const object = (kind: string, name: string, spec: object = {}) => ({
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind,
    metadata: { name },
    spec,
  });
  const policy = (name: string, spec: object = {}) => object('ValidatingAdmissionPolicy', name, spec);
  const binding = (name: string, policyName: string, spec: object = {}) =>
    object('ValidatingAdmissionPolicyBinding', name, { policyName, ...spec });
  const good = [policy('a.static.k8s.io'), binding('b.static.k8s.io', 'a.static.k8s.io')];
  const of = (...files: (readonly [string, readonly unknown[]])[]) => staticProblems(new Map(files)).join('; ');
  assert.equal(of(['a.yaml', good]), '');
  assert.equal(of(['a.yaml', [good[0]]], ['b.json', [good[1]]]), '');
  assert.match(of(['a.txt', good]), /its name does not end in/);
  assert.match(of(['a.yaml', []]), /it is empty/);
  assert.match(of(['a.yaml', [null]]), /it may only hold/);
  assert.match(
    of(['a.yaml', good], ['b.yaml', [object('ValidatingWebhookConfiguration', 'w.static.k8s.io')]]),
    /only hold/,
  );
  assert.match(of(['a.yaml', [policy('a'), binding('b.static.k8s.io', 'a')]]), /`a` does not end in \.static\.k8s\.io/);
  assert.match(of(['a.yaml', good], ['b.yaml', [good[0]]]), /`a\.static\.k8s\.io` is also in `a\.yaml`/);
  const configured = [policy('a.static.k8s.io', { paramKind: {} }), binding('b.static.k8s.io', 'a.static.k8s.io')];
  assert.match(of(['a.yaml', configured]), /`a\.static\.k8s\.io` has parameters/);
  const bound = [good[0], binding('b.static.k8s.io', 'a.static.k8s.io', { paramRef: {} })];
  assert.match(of(['a.yaml', bound]), /`b\.static\.k8s\.io` has parameters/);
  assert.match(of(['a.yaml', [...good, binding('c.static.k8s.io', 'other')]]), /which is in none of the files/);
  assert.match(
    of(['a.yaml', [...good, policy('c.static.k8s.io')]]),
    /no binding names the policy `c\.static\.k8s\.io`/,
  );
});

test('what cannot be written is refused with what to give instead', async () => {
  const at = join(directory, 'never');
  for (const [flags, why] of [
    [['--static', at, '--static-path', 'relative'], /`relative` is not an absolute path/],
    [['--static', at, '--environment', 'nowhere'], /there is no environment `nowhere`/],
    [['--fence'], /--fence and --check are for files[\s\S]*add --static DIR/],
    [['--check'], /--fence and --check are for files/],
    [[], /the container image is missing[\s\S]*add --image/],
  ] as const) {
    const refused = await manifests(...flags);
    assert.equal(refused.code, 2, flags.join(' '));
    assert.match(refused.stderr, why);
  }
  for (const [mode, flags, why] of [
    ['off', [], /no environment has an admission mode of enforce, warn, audit/],
    ['audit', ['--fence'], /no environment has an admission mode of enforce\b[\s\S]*leave out --fence/],
  ] as const) {
    const refused = await countersign([
      ...['manifests', '--config', configure(`in-${mode}`, environment({ mode })), '--static', at, ...flags],
    ]);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, why);
  }
  const closed = configure('closed', environment({ admission: { breakGlass: { groups: [], holdFor: '1h' } } }));
  const refused = await countersign(['manifests', '--config', closed, '--static', at]);
  assert.match(refused.stderr, /no environment has break-glass groups, so no one could open what this closes/);
  assert.equal(existsSync(at), false);
});

test('the fence leaves alone what the webhook lets through for others', async () => {
  const at = join(directory, 'fenced');
  const fenceOf = async (more: object) => {
    rmSync(at, { recursive: true, force: true });
    const written = await countersign([
      'manifests',
      '--config',
      configure('fenced-config', environment(more)),
      '--static',
      at,
      '--fence',
    ]);
    assert.equal(written.code, 0, written.stderr);
    return text(at, '30-fence.yaml');
  };
  assert.match(await fenceOf({}), /- CONNECT\n/);
  assert.doesNotMatch(await fenceOf({ admission: { connect: 'record' } }), /- CONNECT\n/);
  assert.doesNotMatch(await fenceOf({}), /not-scale/);
  const ignore = [{ kind: 'Deployment', fields: ['/spec/replicas'] }];
  assert.match(await fenceOf({ spec: { drift: { ignore } } }), /not-scale/);
  assert.match(await fenceOf({ admission: { operators: ['user:maker'] } }), /"maker"/);
});
