import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { openLedger } from '../../src/ledger/index.ts';
import type { Violation } from '../../src/model/index.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { commitId, recordChange } from '../kit/report-ledger.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { veraPdf } from '../kit/verapdf.ts';

const directory = scratch();
const [data, out] = [join(directory, 'data'), join(directory, 'out')];
const skip = inQuickRun() || without('Java and Maven');
// What somebody from outside can have printed: no glyph, other directions, controls, no end.
const HOSTILE = [
  'Řehoř 山田 🔏',
  '\u202Eevil\u2066 \u0007\u0000',
  'שלום عالم',
  `long ${'x'.repeat(10_000)}`,
  '=cmd|calc',
  '',
];

before(async () => {
  if (skip !== false) return;
  const ledger = await openLedger(data, 'countersign.dev/test');
  for (let n = 0; n < 40; n++) {
    const text = HOSTILE[n % HOSTILE.length] ?? '';
    const violation: Violation = { code: 'unsigned', message: `it is not signed: ${text}`, commit: commitId(n) };
    const denied = n % 5 === 0 ? ({ outcome: 'denied', violations: [violation] } as const) : {};
    await recordChange(ledger, commitId(n), {
      from: commitId(n - 1),
      subject: text,
      author: ledger.subject(`${text} <a@b>`),
      ...denied,
    });
  }
  const period = { from: '2020-01-01T00:00:00.000Z', to: '2100-01-01T00:00:00.000Z' };
  await ledger.record({ type: 'report.issued', report: 'earlier', ...period, manifest: '', checkpoint: 1 });
  const who = {
    name: ledger.subject(HOSTILE[0] ?? ''),
    role: HOSTILE[1] ?? '',
    remarks: HOSTILE[4] ?? '',
    user: ledger.subject('robin'),
  };
  await ledger.record({ type: 'report.reviewed', report: 'earlier', ...who });
  await ledger.close();
  const asked = [
    '--from',
    '2020-01-01',
    '--to',
    '2100-01-01',
    '--seed',
    HOSTILE[0] ?? '',
    '--framework',
    'soc2',
    'iso27001',
  ];
  const made = await countersign(['report', '--data', data, '--out', out, ...asked]);
  assert.equal(made.code, 0, made.stderr);
});

test('the PDF conforms to PDF/A-3a and PDF/UA-1, whatever names and subjects hold (veraPDF)', { skip }, () => {
  const [archive, access, ...others] = veraPdf(join(out, 'report.pdf'));
  assert.deepEqual([archive?.broken, archive?.name, archive?.conforms], [[], '3a', true]);
  assert.deepEqual([access?.broken, access?.name, access?.conforms, others], [[], 'ua1', true, []]);
  assert.ok((archive?.checks ?? 0) > 10_000, 'and much was checked');
});

test('the check itself says no where it should', { skip }, () => {
  const bytes = readFileSync(join(out, 'report.pdf'));
  const altered = join(directory, 'altered.pdf');
  writeFileSync(
    altered,
    Buffer.from(
      bytes
        .toString('latin1')
        .replace('<pdfuaid:part>1<', '<pdfuaid:part>2<')
        .replace('<pdfaid:part>3<', '<pdfaid:part>1<'),
      'latin1',
    ),
  );
  const [archive, access] = veraPdf(altered);
  assert.deepEqual([archive?.conforms, access?.conforms], [false, false]);
  assert.notDeepEqual([archive?.broken, access?.broken], [[], []]);
});
