import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { before, test } from 'node:test';
import { RulesInForce, rulesOf } from '../../src/gate/index.ts';
import { trustPolicySchema, type Verdict } from '../../src/model/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { codes, gateOf, judge } from '../kit/judge.ts';
import { deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { imageBundle, keyPair, mockSigstore, type StatementOptions } from '../kit/sigstore.ts';

const directory = scratch();
const dana = sshPerson(directory, 'dana');
const clock = new Date(Math.floor(Date.now() / 1000) * 1000 + 5000); // the mock's root begins when it is made
const sigstore = await mockSigstore(clock);
const stranger = await mockSigstore(clock);
const CI = {
  issuer: 'https://token.actions.githubusercontent.com',
  subject: 'https://github.com/example/shop/.github/workflows/build.yml@refs/heads/main',
};
const release = keyPair();
const pem = (keys: typeof release) => keys.publicKey.export({ format: 'pem', type: 'spki' }) as string;
const IMAGE = `registry.example.com/web@sha256:${'a'.repeat(64)}`;
const DIGEST = `sha256:${'a'.repeat(64)}`;
const SIGNERS = [
  { name: 'ci', identity: { issuer: CI.issuer, subject: 'https://github.com/example/*' } },
  { name: 'release', key: pem(release) },
];

const WEAK = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'pem', type: 'spki' });

let fleet: Fleet;
before(() => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
});

function trust(signers: readonly object[] | 'nobody' = SIGNERS): object {
  const document = trustDocument([dana], { required: 0 }) as { spec: object };
  return {
    ...document,
    spec: {
      ...document.spec,
      sigstore: { trustedRoot: sigstore.root },
      ...(signers === 'nobody' ? {} : { images: { signers } }),
    },
  };
}

type Asked = {
  readonly parameters?: object;
  readonly trust?: object;
  readonly image?: string;
  readonly files?: Record<string, string | undefined>;
};

async function judged(bundles: Record<string, string>, asked: Asked = {}): Promise<Verdict> {
  const files = Object.fromEntries(Object.entries(bundles).map(([name, text]) => [`countersign/images/${name}`, text]));
  const web = deployment('shop', 'web', { image: asked.image ?? IMAGE });
  fleet.git(undefined, 'rm', '-rfq', '--ignore-unmatch', 'countersign');
  const commit = fleet.commit(dana, 'x', {
    'clusters/production/web.yaml': web,
    ...files,
    [`note-${Math.random()}`]: '1',
  });
  fleet.push();
  return judge(fleet, [dana], commit, {
    trust: asked.trust ?? trust(),
    environment: { parameters: asked.parameters ?? { imageSigners: ['ci', 'release'] } },
  });
}
const bundle = (more: Partial<StatementOptions> = {}, by = sigstore) =>
  imageBundle(by, { digest: DIGEST, identity: CI, ...more });
const unusable = (verdict: Verdict) =>
  verdict.warnings.filter((w) => w.code === 'image-evidence-unusable').map((w) => w.message);

test('an image that a known signer signed is let through, by certificate or by key, one bundle a file or one a line', async () => {
  for (const [name, text] of [
    ['web.sigstore.json', await bundle()],
    ['web.sigstore.json', JSON.stringify(JSON.parse(await bundle()), null, 2)],
    ['web.jsonl', `${await bundle({ digest: `sha256:${'c'.repeat(64)}` })}\n${await bundle()}\n`],
    ['web.sigstore', await imageBundle(sigstore, { digest: DIGEST, key: release })],
  ] as const) {
    const verdict = await judged({ [name]: text });
    assert.deepEqual([codes(verdict), unusable(verdict)], [[], []], name);
  }
});

test('without a bundle, by a tag, or for another digest it is denied; without the parameter nothing is asked', async () => {
  assert.deepEqual(codes(await judged({})), ['signed-images']);
  assert.deepEqual(
    codes(await judged({ 'web.sigstore.json': await bundle() }, { image: 'registry.example.com/web:1.2' })),
    ['signed-images'],
  );
  assert.deepEqual(codes(await judged({ 'web.sigstore.json': await bundle({ digest: `sha256:${'b'.repeat(64)}` }) })), [
    'signed-images',
  ]);
  assert.deepEqual(codes(await judged({}, { parameters: {} })), []);
});

for (const [what, make, message] of [
  [
    'whose payload was changed',
    () => bundle({ tamper: (p) => Buffer.from(p.toString().replace('registry', 'registrY')) }),
    /log|signature|hash/i,
  ],
  [
    'by somebody whom nobody named',
    () => bundle({ identity: { ...CI, subject: 'https://github.com/evil/shop/build.yml@refs/heads/main' } }),
    /as a signer of images/,
  ],
  [
    'by the right name under another issuer',
    () => bundle({ identity: { ...CI, issuer: 'https://evil.example' } }),
    /as a signer of images/,
  ],
  ['by another authority', () => bundle({}, { ...sigstore, ca: stranger.ca }), /certificate|trust|authority/i],
  [
    'logged where nobody trusts the log',
    () => bundle({}, { ...sigstore, tlog: stranger.tlog }),
    /log|inclusion|timestamp/i,
  ],
  ['without a log', () => bundle({ logged: false }), /timestamp|log/i],
  [
    'by a key that nobody named',
    () => imageBundle(sigstore, { digest: DIGEST, key: keyPair() }),
    /no key of the TrustPolicy/,
  ],
  [
    'by the key, without a log',
    () => imageBundle(sigstore, { digest: DIGEST, key: release, logged: false }),
    /no key of the TrustPolicy/,
  ],
  ['over something else than a statement', () => bundle({ payloadType: 'text/plain' }), /not an in-toto statement/],
  [
    'over a statement about nothing',
    () => bundle({ statement: { _type: 'https://in-toto.io/Statement/v1', subject: [], predicateType: 'x' } }),
    /has no subject/,
  ],
  [
    'over a statement without a digest',
    () =>
      bundle({ statement: { _type: 'https://in-toto.io/Statement/v1', subject: [{ name: 'x' }], predicateType: 'x' } }),
    /names no image/,
  ],
  [
    'over a statement of no version',
    () => bundle({ statement: { subject: [{ digest: { sha256: 'a'.repeat(64) } }], predicateType: 'x' } }),
    /not an in-toto statement/,
  ],
  ['that is no JSON', async () => '{', /./],
  ['that is no bundle', async () => '{}', /./],
  ['that is too large', async () => JSON.stringify({ x: 'y'.repeat(1024 * 1024) }), /larger than/],
] as const) {
  test(`a bundle ${what} counts for nothing, and a warning says why`, async () => {
    const verdict = await judged({ 'web.sigstore.json': await make() });
    assert.deepEqual(codes(verdict), ['signed-images']);
    assert.equal(unusable(verdict).length, 1);
    assert.match(unusable(verdict)[0] ?? '', message);
  });
}

test('a key that needs no log counts without one, and what its bundle says of a log is not believed', async () => {
  const asked = { trust: trust([{ name: 'release', key: pem(release), log: false }]) };
  assert.deepEqual(
    codes(
      await judged(
        { 'a.sigstore.json': await imageBundle(sigstore, { digest: DIGEST, key: release, logged: false }) },
        asked,
      ),
    ),
    [],
  );
  assert.deepEqual(
    codes(await judged({ 'a.sigstore.json': await imageBundle(stranger, { digest: DIGEST, key: release }) }, asked)),
    [],
  );
});

test('a bundle that cosign made counts', async () => {
  const read = (name: string) => readFileSync(new URL(`fixtures/${name}`, import.meta.url), 'utf8');
  const image = 'registry.example.com/web@sha256:fa1cb20075dfa1ebfaa7ea09129bbb794494ff0a90dc357b729074f6dcf59d35';
  const parameters = { imageSigners: ['release'], imageSources: ['https://github.com/example/shop'] };
  const asked = { image, parameters, trust: trust([{ name: 'release', key: read('cosign.pub'), log: false }]) };
  const verdict = await judged({ 'web.sigstore.json': read('attested.sigstore.json') }, asked);
  assert.deepEqual([codes(verdict), unusable(verdict)], [[], []]);
});

test('provenance is asked for its source', async () => {
  const from = (repository: string, predicateType = 'https://slsa.dev/provenance/v1') =>
    bundle({ predicateType, predicate: { buildDefinition: { externalParameters: { workflow: { repository } } } } });
  const parameters = { imageSources: ['https://github.com/example/shop'] };
  assert.deepEqual(
    codes(await judged({ 'p.sigstore.json': await from('https://github.com/example/shop') }, { parameters })),
    [],
  );
  assert.deepEqual(
    codes(await judged({ 'p.sigstore.json': await from('https://github.com/example/shop2') }, { parameters })),
    ['image-provenance'],
  );
  assert.deepEqual(
    codes(
      await judged(
        { 'p.sigstore.json': await from('https://github.com/example/shop', 'https://example.com/other') },
        { parameters },
      ),
    ),
    ['image-provenance'],
  );
});

test('without signers in the policy nothing is read, and keys that cannot be used are told', async () => {
  const verdict = await judged({ 'a.sigstore.json': 'nonsense' }, { trust: trust('nobody') });
  assert.deepEqual([codes(verdict), unusable(verdict)], [['signed-images'], []]);
  for (const key of ['nonsense', WEAK])
    await assert.rejects(openTrustStore(trustPolicySchema.parse(trust([{ name: 'x', key }]))), {
      code: 'key-unusable',
    });
  const { spec, ...rest } = trust() as { spec: object };
  const { sigstore: _, ...without } = spec as { sigstore?: object };
  await assert.rejects(
    openTrustStore(trustPolicySchema.parse({ ...rest, spec: without })),
    /needs certificate authorities or a log/,
  );
  for (const signers of [[{ name: 'x' }], [{ name: 'x', key: pem(release), identity: CI }], []])
    assert.equal(trustPolicySchema.safeParse(trust(signers)).success, false);
});

test('at admission the same is asked, by the bundles of the revision that is applied', async () => {
  const signed = await judged({ 'web.sigstore.json': await bundle() });
  const gate = await gateOf(fleet, [dana], { trust: trust(), environment: { parameters: { imageSigners: ['ci'] } } });
  const at = () => ({ revision: signed.to, owned: new Map() }) as never;
  const rules = new RulesInForce(gate.environment, at, rulesOf(gate), gate.clock);
  const ask = async (image: string) => {
    const object = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'a', namespace: 'shop' },
      spec: { containers: [{ name: 'a', image }] },
    };
    const ref = { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'a' };
    const request = {
      uid: '1',
      operation: 'CREATE',
      user: 'u',
      groups: [],
      ref,
      subresource: '',
      object,
      oldObject: undefined,
      dryRun: false,
      fieldManager: '',
    };
    return (await rules.ask(request, {})).violations.map((v) => v.rule).filter((r) => r === 'signed-images');
  };
  assert.deepEqual(await ask(IMAGE), []);
  assert.deepEqual(await ask(`registry.example.com/web@sha256:${'b'.repeat(64)}`), ['signed-images']);
});
