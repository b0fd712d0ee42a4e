import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { test } from 'node:test';
import { configMap } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

const stage = await openStage(scratch());

test('a copied data directory beside the running service: the second one says who signs, and ends; the first one goes on', async () => {
  const { fleet, service, configuration } = await stage.running('twin');
  cpSync(stage.data('twin'), stage.data('copy'), {
    recursive: true,
    force: true,
    filter: (path) => !/control|lock$/.test(path),
  });
  const second = stage.start(await stage.arguments(configuration), 'copy');
  assert.notEqual(await second.ended, 0);
  assert.match(second.log, /another service signs this ledger: instance [0-9a-f]{32} since/);
  const commit = await stage.change(fleet, 'the first sees this', {
    'clusters/production/cm.yaml': configMap('twin', 'settings', { colour: 'green' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  assert.deepEqual(
    second.entries('change.judged', 'production').filter((e) => e.entry.to === commit),
    [],
  );
});
