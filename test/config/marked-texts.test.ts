import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { field, markedTexts } from '../../src/model/index.ts';

// Keys that no pattern over names would take for files.
const schema = z.strictObject({
  anywhere: field.file.optional(),
  list: z.array(z.union([z.string().regex(/^[A-Z]+$/), z.strictObject({ bundle: field.file })])).default([]),
  named: z.record(z.string(), field.sshFile).optional(),
  place: z.discriminatedUnion('in', [
    z.strictObject({ in: z.literal('here'), store: field.directory }),
    z.strictObject({ in: z.literal('git'), store: field.gitSource }),
  ]),
  file: z.string().describe('A text that is no file, whatever it is called.').optional(),
});

const found = (value: unknown) =>
  markedTexts(schema, value).map(({ path, text, mark }) => `${path.join('.')} ${mark.place} ${text}`);

test('the schema says which texts are files of the service, whatever their keys are called', () => {
  assert.deepEqual(
    found({
      anywhere: 'a.txt',
      list: ['SOC', { bundle: 'b.tar.gz' }],
      named: { x: 'key' },
      place: { in: 'here', store: '/srv' },
      file: 'not one',
    }),
    [
      'anywhere service-file a.txt',
      'list.1.bundle service-file b.tar.gz',
      'named.x service-file key',
      'place.store service-directory /srv',
    ],
  );
});

test('of several forms only the one that the value has counts', () => {
  assert.deepEqual(found({ place: { in: 'git', store: '../elsewhere' } }), ['place.store git-repository ../elsewhere']);
});
