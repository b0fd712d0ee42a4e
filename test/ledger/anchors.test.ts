import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { CheckpointRef, sshSignature } from '../../src/git/index.ts';
import { cosignedAt, parseWitness } from '../../src/ledger/cosignature.ts';
import {
  type Anchor,
  AnchorKeeper,
  fileAnchor,
  type Ledger,
  openLedger,
  openSigner,
  timestampAnchor,
  verifierText,
  witnessAnchor,
} from '../../src/ledger/index.ts';
import { httpAddress } from '../../src/model/index.ts';
import { run } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';
import { startWitness } from '../kit/witness.ts';

const directory = scratch();
let n = 0;
const ORIGIN = 'countersign.dev/test';
const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: `error ${i}` }) as const;

async function filled(entries = 3): Promise<{ at: string; ledger: Ledger }> {
  const at = join(directory, String(n++));
  const ledger = await openLedger(at, ORIGIN);
  for (let i = 0; i < entries; i++) await ledger.record(body(i));
  return { at, ledger };
}

function keeper(ledger: Ledger, anchors: readonly Anchor[], told: string[] = []): AnchorKeeper {
  return new AnchorKeeper({
    ledger,
    keyText: verifierText(ledger.verifier),
    anchors,
    clock: () => new Date(),
    warn: (m) => told.push(m),
  });
}

/** The ledger as it was before the last entries, opened anew: its own anchor went back with it. */
async function putBack(at: string, ledger: Ledger, more: () => Promise<void>): Promise<Ledger> {
  const old = join(directory, String(n++));
  await ledger.close();
  cpSync(at, old, { recursive: true });
  const goesOn = await openLedger(at, ORIGIN);
  for (let i = 0; i < 4; i++) await goesOn.record(body(i));
  await goesOn.close();
  await more();
  return openLedger(old, ORIGIN);
}

test('a checkpoint is kept in a file elsewhere, that is on record, and a ledger behind it signs no more', async () => {
  const { at, ledger } = await filled();
  const path = join(directory, 'elsewhere', 'checkpoint');
  await keeper(ledger, [fileAnchor(path)]).keep();
  assert.equal(readFileSync(path, 'utf8').split('\n')[1], '4');
  const anchored = ledger.read.latest(['checkpoint.anchored'], '')?.entry;
  assert.deepEqual([anchored?.size, anchored?.anchor], [4, `file ${path}`]);
  const old = await putBack(at, ledger, async () => {
    const newer = await openLedger(at, ORIGIN);
    await keeper(newer, [fileAnchor(path)]).keep();
    await newer.close();
  });
  const told: string[] = [];
  await assert.rejects(keeper(old, [fileAnchor(path)], told).check(), {
    code: 'ledger-inconsistent',
    recover: 'halt',
    message: /rolled back to an older state/,
  });
  await assert.rejects(old.record(body(9)), { code: 'ledger-inconsistent' }, 'nothing more is signed');
  await old.close();
});

test('a forked ledger does not extend what was kept, and signs no more', async () => {
  const { at, ledger } = await filled();
  await ledger.close();
  const fork = join(directory, String(n++));
  cpSync(at, fork, { recursive: true });
  const [one, other] = [await openLedger(at, ORIGIN), await openLedger(fork, ORIGIN)];
  for (const [i, l] of [one, other].entries()) for (let k = 0; k < 3; k++) await l.record(body(100 * i + k));
  const path = join(directory, 'forked');
  await keeper(one, [fileAnchor(path)]).keep();
  await assert.rejects(keeper(other, [fileAnchor(path)]).check(), {
    code: 'ledger-inconsistent',
    message: /does not extend the checkpoint/,
  });
  await one.close();
  await other.close();
});

test('a place that is not reached is told and asked again, and the others are kept all the same', async () => {
  const { ledger } = await filled();
  const told: string[] = [];
  const path = join(directory, 'reached');
  const away = witnessAnchor(
    httpAddress('http://127.0.0.1:9'),
    (await witnessKey()) ?? '',
    join(directory, 'away'),
    ledger.read,
  );
  const places = keeper(ledger, [away, fileAnchor(path)], told);
  await places.check();
  await places.keep();
  assert.match(told.join('\n'), /cannot store the checkpoint in witness/);
  assert.equal(readFileSync(path, 'utf8').split('\n')[1], '4');
  assert.ok((await ledger.record(body(1))).index > 0);
  await ledger.close();
});

async function witnessKey(): Promise<string> {
  const witness = await startWitness('');
  await witness.stop();
  return witness.key;
}

test('a place that cannot be reached is named, since when and why, until it is reached again', async () => {
  const { ledger } = await filled();
  let isAway = true;
  const anchor: Anchor = {
    name: 'elsewhere',
    read: async () => undefined,
    write: async () => {
      if (isAway) throw new Error('no route');
    },
  };
  const kept = keeper(ledger, [anchor]);
  await kept.keep();
  const [first] = kept.unreached;
  assert.deepEqual([first?.name, first?.reason], ['elsewhere', 'no route']);
  await kept.keep();
  assert.deepEqual(kept.unreached, [first], 'since the first time');
  isAway = false;
  await kept.keep();
  assert.deepEqual(kept.unreached, []);
  await ledger.close();
});

test('a witness co-signs what extends what it saw, and halts a ledger that it knows to be longer', async () => {
  const { at, ledger } = await filled(300);
  const witness = await startWitness(verifierText(ledger.verifier));
  const kept = join(at, 'anchors');
  await keeper(ledger, [witnessAnchor(httpAddress(witness.url), witness.key, kept, ledger.read)]).keep();
  assert.equal(witness.seen(), 301);
  for (let i = 0; i < 300; i++) await ledger.record(body(i));
  await keeper(ledger, [witnessAnchor(httpAddress(witness.url), witness.key, join(at, 'lost'), ledger.read)]).keep();
  assert.equal(witness.seen(), 602, 'it says what it saw last where that is not known here any more');
  const note = readFileSync(join(at, 'lost', 'witness-witness.test_w1'), 'utf8');
  assert.ok(Math.abs((cosignedAt(note, parseWitness(witness.key)) ?? 0) - Date.now() / 1000) < 60);
  assert.equal(cosignedAt(note.replace('\n602\n', '\n603\n'), parseWitness(witness.key)), undefined);
  const old = await putBack(at, ledger, async () => {
    const newer = await openLedger(at, ORIGIN);
    await keeper(newer, [witnessAnchor(httpAddress(witness.url), witness.key, join(at, 'lost'), newer.read)]).keep();
    await newer.close();
  });
  const told: string[] = [];
  await old.record(body(1));
  await keeper(
    old,
    [witnessAnchor(httpAddress(witness.url), witness.key, join(directory, 'nothing'), old.read)],
    told,
  ).keep();
  assert.match(told.join('\n'), /has seen \d+ entries of this ledger, but it holds/);
  await assert.rejects(old.record(body(2)), { code: 'ledger-inconsistent' });
  await old.close();
  await witness.stop();
});

test('a witness that answers with another’s signature, or with anything else, has co-signed nothing', async () => {
  const { at, ledger } = await filled();
  const [witness, other] = [
    await startWitness(verifierText(ledger.verifier)),
    await startWitness(verifierText(ledger.verifier)),
  ];
  const told: string[] = [];
  const kept = join(at, 'wrong');
  await keeper(ledger, [witnessAnchor(httpAddress(witness.url), other.key, kept, ledger.read)], told).keep();
  assert.match(told.join('\n'), /answers without a valid signature of its own/);
  await keeper(
    ledger,
    [witnessAnchor(httpAddress(`${witness.url}/elsewhere`), witness.key, kept, ledger.read)],
    told,
  ).keep();
  assert.match(told.join('\n'), /answers 404/);
  assert.equal(existsSync(kept), false, 'nothing is kept');
  assert.equal(ledger.read.latest(['checkpoint.anchored'], ''), undefined, 'nor recorded');
  await ledger.close();
  await witness.stop();
  await other.stop();
});

test('a signed commit in a repository: git itself verifies it, and a ledger behind it signs no more', async () => {
  const { at, ledger } = await filled();
  const bare = join(directory, 'checkpoints.git');
  run('git', ['init', '--quiet', '--bare', bare]);
  run('git', ['-C', bare, 'config', 'receive.denyNonFastForwards', 'true']);
  const gitOf = (l: Ledger, data: string): Anchor => {
    const signer = openSigner(data, ORIGIN, undefined);
    const ref = new CheckpointRef({
      url: bare,
      directory: join(data, 'anchors', 'git'),
      git: { file: 'git', path: process.env['PATH'] ?? '' },
      access: async () => ({}),
      sign: (payload) => sshSignature(payload, l.verifier.publicKey, signer.sign),
      clock: () => new Date(),
    });
    return { name: 'git', read: () => ref.read(), write: (note) => ref.write(note) };
  };
  await keeper(ledger, [gitOf(ledger, at)]).keep();
  for (let i = 0; i < 3; i++) await ledger.record(body(i));
  await keeper(ledger, [gitOf(ledger, at)]).keep();
  const ref = 'refs/countersign/checkpoints';
  assert.equal(run('git', ['-C', bare, 'rev-list', '--count', ref]).trim(), '2');
  const field = (text: string | Buffer) => Buffer.concat([Buffer.from([0, 0, 0, text.length]), Buffer.from(text)]);
  const key = Buffer.concat([field('ssh-ed25519'), field(ledger.verifier.publicKey)]).toString('base64');
  writeFileSync(join(directory, 'signers'), `ledger ssh-ed25519 ${key}\n`);
  run('git', ['-C', bare, '-c', `gpg.ssh.allowedSignersFile=${join(directory, 'signers')}`, 'verify-commit', ref]);
  const old = await putBack(at, ledger, async () => {
    const newer = await openLedger(at, ORIGIN);
    await keeper(newer, [gitOf(newer, at)]).keep();
    await newer.close();
  });
  await assert.rejects(keeper(old, [gitOf(old, at)]).check(), {
    code: 'ledger-inconsistent',
    message: /rolled back to an older state/,
  });
  await old.close();
});

test('a time-stamping authority’s token is checked and kept, and openssl verifies it', async () => {
  const { at, ledger } = await filled();
  const tsa = await startTsa();
  const kept = join(at, 'anchors');
  await keeper(ledger, [timestampAnchor(httpAddress(tsa.url), tsa.certificate, kept)]).keep();
  const note = join(kept, 'timestamp-127.0.0.1');
  run('openssl', ['ts', '-verify', '-in', `${note}.tsr`, '-data', note, '-CAfile', tsa.file]);
  assert.equal(ledger.read.latest(['checkpoint.anchored'], '')?.entry.anchor, 'timestamp 127.0.0.1');
  const told: string[] = [];
  const other = await startTsa();
  await keeper(ledger, [timestampAnchor(httpAddress(tsa.url), other.certificate, join(at, 'other'))], told).keep();
  assert.match(told.join('\n'), /returns no valid token/, 'one of another authority is not kept');
  await ledger.close();
  await tsa.stop();
  await other.stop();
});

let authorities = 0;

/** A real authority: `openssl ts` behind a few lines of HTTP. */
async function startTsa(): Promise<{ url: string; certificate: string; file: string; stop: () => Promise<void> }> {
  const home = join(directory, `tsa-${authorities++}`);
  mkdirSync(home);
  const config = join(home, 'tsa.cnf');
  writeFileSync(
    config,
    `[tsa]\ndefault_tsa=t\n[t]\nserial=${home}/serial\ncrypto_device=builtin\nsigner_cert=${home}/cert.pem\nsigner_key=${home}/key.pem\nsigner_digest=sha256\ndefault_policy=1.2.3\ndigests=sha256\naccuracy=secs:1\nordering=no\ntsa_name=no\ness_cert_id_chain=no\ness_cert_id_alg=sha256\n`,
  );
  const request = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=tsa',
  ];
  run('openssl', [
    ...request,
    '-addext',
    'extendedKeyUsage=critical,timeStamping',
    '-keyout',
    join(home, 'key.pem'),
    '-out',
    join(home, 'cert.pem'),
  ]);
  writeFileSync(join(home, 'serial'), '01\n');
  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on('data', (d: Buffer) => chunks.push(d));
    incoming.on('end', () => {
      writeFileSync(join(home, 'query'), Buffer.concat(chunks));
      run('openssl', [
        'ts',
        '-reply',
        '-config',
        config,
        '-queryfile',
        join(home, 'query'),
        '-out',
        join(home, 'reply'),
      ]);
      response.writeHead(200, { 'content-type': 'application/timestamp-reply' }).end(readFileSync(join(home, 'reply')));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const file = join(home, 'cert.pem');
  return {
    url: `http://127.0.0.1:${port}/`,
    certificate: readFileSync(file, 'utf8'),
    file,
    stop: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
