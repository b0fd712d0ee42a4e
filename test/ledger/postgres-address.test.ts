import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createKey, openLedger } from '../../src/ledger/index.ts';
import { databaseAddress, parseDatabaseAddress, tlsOptions } from '../../src/ledger/postgres-address.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const key = join(directory, 'ledger.key');
writeFileSync(key, createKey());
const plain = {
  user: 'gate',
  password: undefined,
  hosts: [{ host: 'db', port: 5432 }],
  database: 'countersign',
  tls: undefined,
};

test('an address is taken apart', () => {
  for (const [text, more] of [
    ['postgres://gate@db/countersign', {}],
    ['postgresql://gate@db/countersign', {}],
    [
      'postgres://gate:pass%40word@db.example.com:5433/countersign',
      { password: 'pass@word', hosts: [{ host: 'db.example.com', port: 5433 }] },
    ],
    ['postgres://gate%2Fa@[::1]/a%20b', { user: 'gate/a', hosts: [{ host: '[::1]', port: 5432 }], database: 'a b' }],
    [
      'postgres://gate@a:5432,b:5433,[::1]/countersign?target_session_attrs=read-write',
      {
        hosts: [
          { host: 'a', port: 5432 },
          { host: 'b', port: 5433 },
          { host: '[::1]', port: 5432 },
        ],
      },
    ],
    ['postgres://gate@db/countersign?target_session_attrs=primary&sslmode=disable', { tls: 'off' }],
    ['postgres://gate@db/countersign?sslmode=disable', { tls: 'off' }],
    ['postgres://gate@db/countersign?sslmode=require', { tls: {} }],
    [
      'postgres://gate@db/countersign?sslmode=verify-full&sslrootcert=/etc/ca.crt',
      { tls: { rootFile: '/etc/ca.crt' } },
    ],
    [
      'postgres://gate@db/countersign?sslcert=a.crt&sslkey=a.key&sslmode=verify-ca',
      { tls: { certFile: 'a.crt', keyFile: 'a.key' } },
    ],
  ] as const)
    assert.deepEqual(parseDatabaseAddress(text), { kind: 'parsed', value: { ...plain, ...more } }, text);
});

test('an address that a library could read more out of is refused, and not repeated', async () => {
  const at = 'postgres://gate:a-password@db/countersign';
  for (const [text, why] of [
    ['mysql://gate@db/countersign', /form/],
    ['socket:/var/run gate', /form/],
    ['postgres://db/countersign', /form/],
    ['postgres://gate@db', /form/],
    [`${at}#x`, /form/],
    ['postgres://gate@db/a/b', /form/],
    ['postgres://a@b@db/countersign', /form/],
    ['postgres://@db/countersign', /no user/],
    ['postgres://gate@db/', /no database/],
    ['postgres://gate@/countersign', /host/],
    ['postgres://gate@%2Fvar%2Frun/countersign', /host/],
    ['postgres://gate@db,,other/countersign', /host/],
    ['postgres://gate@db,other,DB,other/countersign', /twice|host/],
    ['postgres://gate@a,b,c,d,e,f,g,h,i/countersign', /more than 8/],
    [`${at}?target_session_attrs=any`, /target_session_attrs/],
    [`${at}?target_session_attrs=read-write&target_session_attrs=read-write`, /twice/],
    ['postgres://gate@0x7f.1/countersign', /host/],
    ['postgres://gate@db:0/countersign', /port/],
    ['postgres://ga%te@db/countersign', /control characters|%/],
    ['postgres://gate%00@db/countersign', /control characters/],
    ['postgres://gate:a%0Ab@db/countersign', /control characters/],
    ['postgres://gate@db/a%00', /control characters/],
    [`${at}?host=elsewhere`, /an option other than sslmode/],
    [`${at}?options=-c%20search_path%3Dother`, /an option/],
    [`${at}?sslmode=disable&ssl=true`, /an option/],
    [`${at}?sslmode`, /an option/],
    [`${at}?sslmode=require&sslrootcert=%00`, /an option/],
    [`${at}?sslmode=require&sslrootcert=%`, /an option/],
    [`${at}?sslmode=require&sslmode=disable`, /twice/],
    [`${at}?sslmode=no-verify`, /sslmode/],
    [`${at}?sslmode=prefer`, /sslmode/],
    [`${at}?sslrootcert=ca.crt`, /sslmode/],
    [`${at}?sslmode=disable&sslrootcert=ca.crt`, /sslmode/],
    [`${at}?sslmode=require&sslrootcert=-x`, /sslrootcert/],
    [`${at}?sslmode=require&sslcert=a.crt`, /must be set together/],
    [`${at}?sslmode=require&sslkey=a.key`, /must be set together/],
    [`${at}${'a'.repeat(2048)}`, /longer/],
  ] as const) {
    assert.throws(
      () => databaseAddress(text),
      (thrown: { code: string; message: string }) => {
        assert.equal(thrown.code, 'config-invalid');
        assert.match(thrown.message, why, text);
        assert.doesNotMatch(thrown.message, /a-password|gate/);
        return true;
      },
    );
  }
  await assert.rejects(
    openLedger(join(directory, 'data'), 'countersign.dev/test', {
      postgres: `${at}?host=elsewhere`,
      key: { files: [key] },
    }),
    {
      code: 'config-invalid',
    },
  );
});

test('files of an address are read; one that is not there is named', () => {
  const file = join(directory, 'ca.crt');
  writeFileSync(file, 'a certificate');
  assert.deepEqual(tlsOptions({ rootFile: file, certFile: file, keyFile: file }), {
    ca: 'a certificate',
    cert: 'a certificate',
    key: 'a certificate',
  });
  assert.deepEqual(tlsOptions({ rootFile: 'system' }), {});
  assert.equal(tlsOptions('off'), false);
  assert.equal(tlsOptions(undefined), undefined);
  assert.throws(() => tlsOptions({ rootFile: join(directory, 'nothing') }), {
    code: 'key-missing',
    message: /nothing/,
  });
});
