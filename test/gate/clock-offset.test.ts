import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { assess, type ClockOffset, type Gate } from '../../src/gate/index.ts';
import type { Ledger } from '../../src/ledger/index.ts';
import { NO_REVISION } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { gateOf } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';

// A gate that knows that its clock is wrong waits. Nobody is blamed for it, and nothing is recorded about a change.
const directory = scratch();
const [dana, lee] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee')];
const HOUR = 3_600_000;
const PATH = 'clusters/production';
let fleet: Fleet;
let approved = '';
let ledger: Ledger;
let recorder: Gate['recorder'];

before(async () => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  approved = fleet.commit(dana, 'x', {
    [`${PATH}/ns.yaml`]: namespace('shop'),
    [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { k: '1' }),
  });
  await approveAs(lee, fleet, NO_REVISION, approved);
  fleet.push();
  const opened = await recorderAt(join(directory, 'ledger'));
  ({ ledger, recorder } = opened);
});
after(() => ledger.close());

/** The gate with a clock that is off by so much, and what a witness says of that. */
const gateAt = async (off: number, heard: ClockOffset | undefined, people = [dana, lee]): Promise<Gate> => ({
  ...(await gateOf(fleet, people)),
  recorder,
  clock: () => new Date(Date.now() + off),
  clockOffset: () => heard,
});
const behind = (ms: number): ClockOffset => ({ behindMs: ms, witness: 'the API server' });

test('behind an hour or a day, nothing is judged and nothing is recorded; once it is right the same change is allowed', async () => {
  for (const off of [-HOUR, -24 * HOUR]) {
    const size = ledger.size;
    await assert.rejects(assess(await gateAt(off, behind(-off)), NO_REVISION, approved), {
      code: 'clock-wrong',
      recover: 'retry',
      message: /behind the API server: nothing is judged until it is right/,
    });
    assert.equal(ledger.size, size, 'not even that the commit was seen, at a wrong time');
  }
  const { verdict } = await assess(await gateAt(0, behind(200)), NO_REVISION, approved);
  assert.equal(verdict.outcome, 'allowed', JSON.stringify(verdict.violations));
});

test('ahead, a change that is right is allowed, and one that would be denied waits', async () => {
  for (const off of [HOUR, 72 * HOUR]) {
    const { verdict } = await assess(await gateAt(off, behind(-off)), NO_REVISION, approved);
    assert.equal(verdict.outcome, 'allowed', JSON.stringify(verdict.violations));
    const size = ledger.size;
    const unsigned = await gateAt(off, behind(-off), [lee]);
    await assert.rejects(assess(unsigned, NO_REVISION, approved), {
      code: 'clock-wrong',
      message: /ahead of the API server: nothing is denied until it is right/,
    });
    assert.deepEqual(
      ledger.read
        .all('change.judged', 'production')
        .filter(({ index, entry }) => index >= size && entry.outcome === 'denied'),
      [],
    );
  }
});

test('where the witness agrees with the clock, an approval dated ahead is the approver’s, and is denied', async () => {
  const { verdict } = await assess(await gateAt(-HOUR, behind(0)), NO_REVISION, approved);
  assert.equal(verdict.outcome, 'denied');
  assert.ok(
    verdict.violations.some((v) => v.code === 'approval-from-the-future'),
    JSON.stringify(verdict.violations),
  );
});

test('within the skew that the TrustPolicy allows, nothing waits', async () => {
  const { verdict } = await assess(await gateAt(-4000, behind(4000)), NO_REVISION, approved);
  assert.equal(verdict.outcome, 'allowed');
});
