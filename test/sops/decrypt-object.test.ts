import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { CountersignError, type KubernetesObject } from '../../src/model/index.ts';
import { encryptionProblems, render } from '../../src/render/index.ts';
import { type DecryptionKeys, openSealed } from '../../src/sops/index.ts';
import { parseYaml } from '../../src/yaml/index.ts';

// Files and keys that sops 3.13.3, age and GnuPG made (see `fixtures/README.md`).
const text = (name: string) => readFileSync(new URL(`fixtures/${name}`, import.meta.url), 'utf8');
const secret = (name: string) =>
  parseYaml(text(name))[0]?.value as KubernetesObject & {
    data?: Record<string, string>;
    stringData?: Record<string, string>;
    sops: Record<string, unknown>;
  };
const AGE = { age: text('age.key'), openpgp: undefined };
const OPENPGP = { age: undefined, openpgp: text('openpgp.key') };
const PLAIN = { password: 'correct horse battery staple', empty: '', umlaut: 'grün ✓', lines: 'one\ntwo\n' };

async function fails(object: KubernetesObject, keys: DecryptionKeys, expected: RegExp): Promise<void> {
  await assert.rejects(openSealed({ object }, keys), (thrown) => {
    assert.ok(thrown instanceof CountersignError);
    assert.equal(thrown.code, 'decryption-failed');
    assert.match(thrown.message, expected);
    assert.ok(!`${thrown.message}${thrown.hint}`.includes('horse'));
    return true;
  });
}

test('recipients that are not as sops writes them are refused in the same words, and not repeated', async () => {
  const sealed = secret('age.yaml');
  for (const age of ['text', 5, [null], [{ recipient: 7 }], [{ recipient: 'two\nlines' }], { 0: 'a' }])
    await assert.rejects(
      openSealed({ object: { ...sealed, sops: { ...sealed.sops, age } } as KubernetesObject }, OPENPGP),
      {
        code: 'decryption-failed',
        hint: /^it is encrypted for no one;/,
      },
    );
});

test('what sops encrypted for an age key or an OpenPGP key is opened by either', async () => {
  for (const [file, keys] of [
    ['both.yaml', AGE],
    ['both.yaml', OPENPGP],
    ['age.yaml', AGE],
    ['openpgp.yaml', OPENPGP],
  ] as const) {
    const { sops, ...open } = (await openSealed({ object: secret(file) }, keys)).object as ReturnType<typeof secret>;
    assert.equal(sops, undefined);
    assert.deepEqual(open.stringData, PLAIN, file);
    assert.equal(open.metadata.name, 'database');
  }
  const data = (await openSealed({ object: secret('data.yaml') }, AGE)).object as ReturnType<typeof secret>;
  assert.equal(Buffer.from(data.data?.['password'] ?? '', 'base64').toString(), PLAIN.password);
});

test('a key that does not fit, a value that was altered, moved or cut is refused, and nothing of it is told', async () => {
  await fails(
    secret('age.yaml'),
    OPENPGP,
    /Secret shop\/database cannot be decrypted: none of the environment’s keys can decrypt it/,
  );
  await fails(secret('openpgp.yaml'), AGE, /none of the environment’s keys can decrypt it/);
  await fails(
    secret('age.yaml'),
    { age: text('other.key'), openpgp: undefined },
    /none of the environment’s keys can decrypt it/,
  );
  await fails(secret('age.yaml'), { age: 'AGE-SECRET-KEY-1NONSENSE', openpgp: 'nonsense' }, /none of/);
  const with_ = (change: (values: Record<string, string>) => Record<string, string>) => {
    const object = secret('age.yaml');
    return { ...object, stringData: change(object.stringData ?? {}) };
  };
  const flipped = (value: string) => value.replace(/data:(.)/, (_, c: string) => `data:${c === 'A' ? 'B' : 'A'}`);
  await fails(
    with_((v) => ({ ...v, password: flipped(v['password'] ?? '') })),
    AGE,
    /`stringData\.password` was altered/,
  );
  await fails(
    with_((v) => ({ ...v, password: v['umlaut'] ?? '' })),
    AGE,
    /`stringData\.password` was altered, or was encrypted at a different place/,
  );
  await fails(
    with_((v) => ({ ...v, password: (v['password'] ?? '').replace(/tag:.*?,/, 'tag:AAAA,') })),
    AGE,
    /was altered/,
  );
  await fails(
    with_((v) => ({ ...v, password: 'ENC[AES256_GCM,data:' })),
    AGE,
    /`stringData\.password` does not have the format of SOPS/,
  );
  const { stringData, ...rest } = secret('age.yaml');
  await fails(
    { ...rest, data: stringData } as unknown as KubernetesObject,
    AGE,
    /`data\.password` was altered, or was encrypted at a different place/,
  );
});

test('what cannot be opened, or should not be encrypted, is said when it is judged', () => {
  const of = (content: string, canDecrypt = true) =>
    render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(content) }])
      .objects.flatMap((o) => encryptionProblems(o, canDecrypt))
      .map((v) => v.message);
  const age = text('age.yaml');
  assert.deepEqual(of(age), []);
  assert.deepEqual(of(age, false), ['Secret shop/database is encrypted by SOPS, but this environment has no keys']);
  const place = /is encrypted outside `data` and `stringData` of a Secret/;
  assert.match(of(age.replace('kind: Secret', 'kind: ConfigMap')).join(), place);
  const whole = render([{ path: 'all.yaml', mode: '100644', content: Buffer.from(text('all.yaml')) }]);
  assert.deepEqual([whole.objects.length, whole.violations.map((v) => v.code)], [0, ['cannot-be-decrypted']]);
  assert.match(whole.violations[0]?.message ?? '', place);
  assert.match(of(age.slice(0, age.indexOf('sops:'))).join(), /has values encrypted by SOPS, but not the data keys/);
  const cloud = `${age.slice(0, age.indexOf('sops:'))}sops: {kms: [{arn: x, enc: y}]}\n`;
  assert.match(of(cloud).join(), /is not encrypted for an age key or an OpenPGP key/);
});

const rendered = (content: string) =>
  render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(content) }]).objects;
const sealedFails = async (content: string, expected: RegExp, at = 0) => {
  const object = rendered(content)[at];
  assert.ok(object !== undefined);
  await assert.rejects(openSealed(object, AGE), (thrown) => {
    assert.ok(thrown instanceof CountersignError);
    assert.equal(thrown.code, 'decryption-failed');
    assert.match(thrown.message, expected);
    return true;
  });
};

test('a MAC is verified over every document of the file, in its order, numbers and truth values included', async () => {
  const [numbers] = rendered(text('numbers.yaml'));
  assert.ok(numbers !== undefined);
  const { object, seal } = await openSealed(numbers, AGE);
  assert.deepEqual(object['stringData'], {
    '80': 'another',
    '8080': 'a key that looks like a number',
    zeta: 'last letter first',
  });
  const both = rendered(text('multi.yaml'));
  const seals = await Promise.all(both.map(async (o) => (await openSealed(o, AGE)).seal));
  assert.equal(seals[0]?.key, seals[1]?.key);
  assert.notEqual(seal?.key, seals[0]?.key);
});

test('what is not as SOPS wrote it is refused: a value added, taken away, exchanged with its neighbour or in clear', async () => {
  const changed = /a value was added, removed, moved or changed since SOPS wrote it/;
  const age = text('age.yaml');
  await sealedFails(age.replace('stringData:\n', 'stringData:\n  added: clear\n'), changed);
  await sealedFails(age.replace(/^ {2}umlaut: .*\n/m, ''), changed);
  await sealedFails(age.replace(/^ {2}password: .*$/m, '  password: clear'), changed);
  await sealedFails(age.replace('name: database', 'name: mine'), changed);
  await sealedFails(age.replace('namespace: shop', 'namespace: mallory'), changed);
  await sealedFails(age.replace(/^( {2}umlaut: .*)\n( {2}lines: .*)$/m, '$2\n$1'), changed);
  await sealedFails(text('numbers.yaml').replace('generation: 3', 'generation: 4'), changed);
  await sealedFails(text('numbers.yaml').replace('immutable: true', 'immutable: false'), changed);
  await sealedFails(text('multi.yaml').replace('name: queue', 'name: mine'), changed, 0);
  await sealedFails(
    `${text('multi.yaml')}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: shop}\n`,
    changed,
  );
});

test('a MAC that is missing, broken or of another time is refused', async () => {
  const missing = /its MAC is missing or was altered/;
  const age = text('age.yaml');
  await sealedFails(age.replace(/^ {2}mac: .*\n/m, ''), missing);
  await sealedFails(age.replace(/^( {2}mac: ENC\[AES256_GCM,data:)./m, '$1_'), missing);
  await sealedFails(age.replace('2026-11-22T00:31:42Z', '2026-11-22T00:31:43Z'), missing);
  await sealedFails(age.replace(/^ {2}lastmodified: .*\n/m, ''), missing);
});

test('under mac_only_encrypted what is in clear may change, but not below data and stringData', async () => {
  const only = text('only.yaml');
  const opened = async (content: string) => {
    const [object] = rendered(content);
    assert.ok(object !== undefined);
    return openSealed(object, AGE);
  };
  await opened(only);
  const renamed = await opened(only.replace('name: numbers', 'name: mine').replace('generation: 3', 'generation: 9'));
  assert.equal(renamed.object.metadata.name, 'mine');
  await sealedFails(only.replace(/^( +)zeta: .*$/m, '$1zeta: clear'), /`stringData\.zeta` is not encrypted/);
  await sealedFails(only.replace(/^( +)zeta: .*\n/m, ''), /a value was added, removed/);
  await sealedFails(
    only.replace('mac_only_encrypted: true', 'mac_only_encrypted: false'),
    /a value was added, removed/,
  );
});

test('a type that is not the value’s is refused: it stands beside what is authenticated', async () => {
  const age = text('age.yaml');
  for (const type of ['int', 'float', 'bool'])
    await sealedFails(
      age.replace(/^( {2}password: .*)type:str/m, `$1type:${type}`),
      new RegExp(`\`stringData\\.password\` claims to be of type ${type}`),
    );
});

test('an object that a program made must have the values of the file it comes from', async () => {
  const [object] = rendered(text('age.yaml'));
  assert.ok(object !== undefined);
  const { sealedWith } = object;
  const made: KubernetesObject = {
    ...object.object,
    metadata: { name: 'prod-database', namespace: 'shop', labels: { app: 'x' } },
  };
  await openSealed({ object: made, ...(sealedWith === undefined ? {} : { sealedWith }) }, AGE);
  const less = { ...made, stringData: { umlaut: (made['stringData'] as Record<string, string>)['umlaut'] ?? '' } };
  await assert.rejects(openSealed({ object: less, ...(sealedWith === undefined ? {} : { sealedWith }) }, AGE), {
    message: /its values differ from those in its file/,
  });
});
