import type { ChangeFacts } from './changes.ts';
import type { Attribute, ControlResult, ExceptionRecord, ExceptionType, Framework, Reconciliation } from './model.ts';

type Control = {
  readonly id: string;
  readonly title: string;
  /** Tested for each applied change. */
  readonly attributes: readonly Attribute[];
  readonly types: readonly ExceptionType[];
  readonly checks: readonly Reconciliation['id'][];
};

/** Tests of each control; `reports/frameworks` maps controls to requirements. */
const CONTROLS: readonly Control[] = [
  {
    id: 'CS-01',
    title: 'Changes come from known, signed authors',
    attributes: ['B'],
    types: ['unsigned', 'bad-signature', 'unknown-signer'],
    checks: [],
  },
  {
    id: 'CS-02',
    title: 'Changes are approved by someone who did not make them',
    attributes: ['C', 'D', 'E'],
    types: [
      'self-approval',
      'too-few-approvals',
      'approver-not-entitled',
      'approval-after-apply',
      'tree-changed-after-approval',
    ],
    checks: [],
  },
  {
    id: 'CS-03',
    title: 'Changes pass the rules before they run',
    attributes: ['F'],
    types: ['policy-overridden', 'not-enforced'],
    checks: [],
  },
  {
    id: 'CS-04',
    title: 'Only the gate deploys, and what it deploys is what was approved',
    attributes: ['G', 'H'],
    types: ['out-of-band-change', 'gate-tampered', 'apply-interrupted', 'apply-failed'],
    checks: ['R3', 'R4', 'R7'],
  },
  {
    id: 'CS-05',
    title: 'Emergencies are recorded and reviewed',
    attributes: ['J'],
    types: ['break-glass', 'late-emergency-review'],
    checks: [],
  },
  {
    id: 'CS-06',
    title: 'The population of changes is whole',
    attributes: [],
    types: ['force-push'],
    checks: ['R1', 'R2'],
  },
  {
    id: 'CS-07',
    title: 'The gate is there, and its absence is noticed',
    attributes: [],
    types: ['gate-outage'],
    checks: ['R6'],
  },
  {
    id: 'CS-08',
    title: 'Records are whole and cannot be altered unnoticed',
    attributes: [],
    types: ['ledger-fault', 'clock-skew', 'record-refused'],
    checks: ['R5'],
  },
  { id: 'CS-09', title: 'Changes are authorised by a request', attributes: ['A'], types: [], checks: [] },
];

/**
 * Returns the result of each control. All applied changes are tested; each check of the population counts as one test.
 */
export function controlsOf(
  changes: readonly ChangeFacts[],
  register: readonly ExceptionRecord[],
  checks: readonly Reconciliation[],
  frameworks: readonly Framework[],
): ControlResult[] {
  const applied = changes.filter((c) => c.outcome === 'applied');
  return CONTROLS.map(({ id, title, attributes, types, checks: ids }) => {
    const tested =
      attributes.length === 0
        ? []
        : attributes.every((a) => a === 'J')
          ? applied.filter((c) => c.type === 'emergency')
          : applied;
    const results = tested.map((c) => attributes.map((a) => c.attributes[a]));
    const mine = checks.filter((c) => ids.includes(c.id));
    const fails = results.filter((r) => r.includes('fail')).length;
    const unclear = results.filter((r) => !r.includes('fail') && r.includes('cannot tell')).length;
    const rows = register.filter((e) => types.includes(e.type));
    const population = tested.length + mine.length;
    const undetermined = unclear + mine.filter((c) => c.status === 'not determinable').length;
    const passed = tested.length - fails - unclear + mine.filter((c) => c.status === 'ties').length;
    return {
      id,
      title,
      requirements: frameworks.map((f) => ({ framework: f.id, ids: (f.requirements[id] ?? []).map((r) => r.id) })),
      population,
      tested: population,
      passed,
      exceptions: rows.length,
      dispositioned: rows.filter((e) => e.disposition !== 'open').length,
      undetermined,
    };
  });
}
