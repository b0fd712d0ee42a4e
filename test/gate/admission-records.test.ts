import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { AdmissionRecords, type RequestOnRecord } from '../../src/gate/index.ts';
import { CountersignError, type EntryBody } from '../../src/model/index.ts';
import { memoryRecorder } from '../kit/memory-recorder.ts';

const request: RequestOnRecord = {
  uid: '1',
  user: 'dev',
  groups: [],
  operation: 'CREATE',
  ref: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'settings' },
  subresource: '',
  dryRun: false,
  digest: undefined,
} as unknown as RequestOnRecord;

test('a refusal that could not be recorded is counted, and recorded as soon as it can be', async () => {
  mock.timers.enable({ apis: ['setInterval'] });
  const recorder = memoryRecorder(() => new Date());
  const state = { isAway: true };
  const asked: EntryBody[] = [];
  const recordSurely = async (body: EntryBody) => {
    if (state.isAway) throw new CountersignError('ledger-unusable', 'too many', { recover: 'retry' });
    asked.push(body);
    return undefined;
  };
  const said: string[] = [];
  const log = { error: (_: object, message: string) => said.push(message) };
  const records = new AdmissionRecords('production', { ...recorder, recordSurely }, () => new Date(), log);
  await records.refused(request, 'admission.denied', 'enforce', 'not in Git');
  await records.refused(request, 'admission.denied', 'enforce', 'not in Git');
  assert.match(said.join(), /cannot record a refusal yet: .*too many/);
  await records.close(); // the second attempt fails too
  state.isAway = false;
  await records.close();
  assert.deepEqual(
    asked.map((body) => (body.type === 'admission.denied' ? body.repeated : undefined)),
    [2],
  );
  mock.timers.reset();
});
