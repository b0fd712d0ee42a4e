import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { CountersignError, type KubernetesObject } from '../../src/model/index.ts';
import { encryptionProblems, render } from '../../src/render/index.ts';
import { type DecryptionKeys, decryptObject } from '../../src/sops/index.ts';
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
  await assert.rejects(decryptObject(object, keys), (thrown) => {
    assert.ok(thrown instanceof CountersignError);
    assert.equal(thrown.code, 'decryption-failed');
    assert.match(thrown.message, expected);
    assert.ok(!`${thrown.message}${thrown.hint}`.includes('horse'));
    return true;
  });
}

test('what sops encrypted for an age key or an OpenPGP key is opened by either', async () => {
  for (const [file, keys] of [
    ['both.yaml', AGE],
    ['both.yaml', OPENPGP],
    ['age.yaml', AGE],
    ['openpgp.yaml', OPENPGP],
  ] as const) {
    const { sops, ...open } = (await decryptObject(secret(file), keys)) as ReturnType<typeof secret>;
    assert.equal(sops, undefined);
    assert.deepEqual(open.stringData, PLAIN, file);
    assert.equal(open.metadata.name, 'database');
  }
  const data = (await decryptObject(secret('data.yaml'), AGE)) as ReturnType<typeof secret>;
  assert.equal(Buffer.from(data.data?.['password'] ?? '', 'base64').toString(), PLAIN.password);
});

test('a key that does not fit, a value that was altered, moved or cut is refused, and nothing of it is told', async () => {
  await fails(secret('age.yaml'), OPENPGP, /Secret shop\/database cannot be decrypted: none of the environment’s keys opens it/);
  await fails(secret('openpgp.yaml'), AGE, /none of the environment’s keys opens it/);
  await fails(secret('age.yaml'), { age: text('other.key'), openpgp: undefined }, /none of the environment’s keys opens it/);
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
    /`stringData\.password` was altered, or stood elsewhere/,
  );
  await fails(
    with_((v) => ({ ...v, password: (v['password'] ?? '').replace(/tag:.*?,/, 'tag:AAAA,') })),
    AGE,
    /was altered/,
  );
  await fails(
    with_((v) => ({ ...v, password: 'ENC[AES256_GCM,data:' })),
    AGE,
    /`stringData\.password` is not as SOPS writes it/,
  );
  const { stringData, ...rest } = secret('age.yaml');
  await fails({ ...rest, data: stringData } as unknown as KubernetesObject, AGE, /`data\.password` was altered, or stood elsewhere/);
});

test('what cannot be opened, or should not be encrypted, is said when it is judged', () => {
  const of = (content: string, canDecrypt = true) =>
    render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(content) }])
      .objects.flatMap((o) => encryptionProblems(o, canDecrypt))
      .map((v) => v.message);
  const age = text('age.yaml');
  assert.deepEqual(of(age), []);
  assert.deepEqual(of(age, false), ['Secret shop/database is encrypted by SOPS, and this environment has no keys']);
  const place = /is encrypted where only `data` and `stringData` of a Secret may be/;
  assert.match(of(age.replace('kind: Secret', 'kind: ConfigMap')).join(), place);
  const whole = render([{ path: 'all.yaml', mode: '100644', content: Buffer.from(text('all.yaml')) }]);
  assert.deepEqual([whole.objects.length, whole.violations.map((v) => v.code)], [0, ['cannot-be-decrypted']]);
  assert.match(whole.violations[0]?.message ?? '', place);
  assert.match(of(age.slice(0, age.indexOf('sops:'))).join(), /holds values that SOPS encrypted, but not the keys/);
  const cloud = `${age.slice(0, age.indexOf('sops:'))}sops: {kms: [{arn: x, enc: y}]}\n`;
  assert.match(of(cloud).join(), /is encrypted neither for an age key nor for an OpenPGP key/);
});
