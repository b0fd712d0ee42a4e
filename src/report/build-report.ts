import { canonicalJson, digestOf } from '../model/index.ts';
import { accessBook, accessChangesOf, recordedPolicies } from './access.ts';
import { type ChangeFacts, factsOf, verdictsOf } from './changes.ts';
import { controlsOf } from './controls.ts';
import { differencesOf } from './differences.ts';
import { flowBook } from './flow.ts';
import type { ReportInput } from './input.ts';
import { metricsOf } from './metrics.ts';
import type { ReportModel } from './model.ts';
import { policyBook, ruleBook } from './policies.ts';
import { reconciliationOf, tipBook } from './reconciliation.ts';
import { changeBook, emergenciesOf, exceptionsByChange, registerOf } from './register.ts';
import { ChangeRows } from './rows.ts';
import { drawSample } from './sample.ts';
import { scopeOf } from './scope.ts';
import { memoryShelf, type Shelf } from './shelf.ts';
import { ReportSource } from './source.ts';

/**
 * Builds the model. The same input gives the same bytes. `shelf` stores the records of changes, of which there may be
 * many. Throws a TypeError for missing evidence.
 */
export function buildReport(input: ReportInput, shelf: Shelf = memoryShelf()): ReportModel {
  const model = modelOf(input, shelf);
  const { supersedes, ...definition } = input.definition;
  if (supersedes === undefined) return model;
  // The previous report is rebuilt from the data of its time, so that verifying this report also verifies its
  // statements about the other.
  const entries = { [Symbol.iterator]: () => firstOf(input.entries, supersedes.entries - input.first) };
  const differences = differencesOf(modelOf({ ...input, entries, definition }, memoryShelf()), model);
  return { ...model, supersedes: { entry: supersedes.entry, report: supersedes.report, differences } };
}

function* firstOf(entries: Iterable<string>, count: number): Generator<string> {
  let left = count;
  for (const entry of entries) {
    if (left-- <= 0) return;
    yield entry;
  }
}

function modelOf(input: ReportInput, shelf: Shelf): ReportModel {
  const { definition, from, to, origin, checkpoint } = input;
  const source = new ReportSource(input);
  const isIn = (name: string) => definition.environments.length === 0 || definition.environments.includes(name);
  const asOf = source.all.at(-1)?.entry.time ?? from;
  const listed = recordedPolicies(source, isIn);
  const [access, policies, rules] = [accessBook(source, listed), policyBook(), ruleBook()];
  const [ofChanges, moved, flow] = [changeBook(source), tipBook(source), flowBook()];
  const changes: ChangeFacts[] = [];
  const refusedChanges: string[] = [];
  const alike = new Map<string, ChangeFacts['attributes']>();
  for (const read of verdictsOf(source)) {
    const { verdict, change } = read;
    access.see(read);
    policies.see(read);
    moved.see(read);
    if (change === undefined) continue;
    rules.see(verdict);
    if (change.reasons.length > 0) refusedChanges.push(change.id);
    ofChanges.see(change, verdict);
    flow.see(change);
    changes.push(factsOf(change, alike));
    shelf.add(canonicalJson(change));
  }
  const emergencies = emergenciesOf(source, definition.reviewHours, asOf);
  const exceptions = registerOf(source, changes, ofChanges.drafts(), emergencies, asOf);
  const ids = changes.map((c) => c.id);
  const reconciliation = reconciliationOf(source, changes, moved.carried, exceptions);
  const issued = source.of('report.issued').filter(({ entry }) => entry.from === from && entry.to === to);
  const refused = source
    .within('admission.denied')
    .filter(({ entry }) => entry.mode === 'enforce' && entry.repeated === undefined)
    .map(({ index, entry: { time, environment, user, operation, object, reason } }) => ({
      entry: index,
      time,
      environment,
      actor: user,
      what: `${operation} ${object.kind} ${object.namespace === '' ? '' : `${object.namespace}/`}${object.name}`,
      reason,
    }));
  const count = (outcome: string) => changes.filter((c) => c.outcome === outcome).length;
  const { sample, frameworks } = definition;
  const root = checkpoint.split('\n')[2] ?? '';
  return {
    v: 2,
    title: 'Change management evidence report',
    id: digestOf([from, to, origin, checkpoint, definition]).slice(0, 16),
    entity: definition.entity,
    classification: definition.classification,
    status: asOf >= to ? 'final' : 'draft',
    period: { from, to },
    asOf,
    ledger: {
      origin,
      begins: input.first === 0 ? (source.all[0]?.entry.time ?? '') : '',
      first: input.first,
      entries: source.all.length,
      checkpoint,
      anchors: source.of('checkpoint.anchored').length,
      erased: source.within('subject.forgotten').map(({ index, entry }) => ({
        entry: index,
        time: entry.time,
        claimedBy: entry.claimedBy,
        reason: entry.reason,
        commitments: entry.commitments,
        exceptions: entry.exceptions ?? [],
        approvedBy: entry.approvedBy ?? '',
      })),
    },
    scope: scopeOf(source, changes, emergencies, definition, isIn),
    frameworks: frameworks.map(({ id, name }) => ({ id, name })),
    summary: {
      changes: changes.length,
      applied: count('applied'),
      denied: count('denied'),
      failed: count('failed'),
      exceptions: exceptions.length,
      open: exceptions.filter((e) => e.disposition === 'open').length,
      admissionsDenied: refused.length,
    },
    controls: controlsOf(changes, exceptions, reconciliation, frameworks),
    gaps: frameworks.flatMap((f) =>
      Object.values(f.requirements)
        .flat()
        .flatMap(({ id, title, gap }) => (gap === undefined ? [] : [{ framework: f.id, id, title, gap }])),
    ),
    reconciliation,
    exceptions,
    emergencies,
    access: access.records(),
    accessChanges: accessChangesOf(source, changes, listed),
    policies: policies.records(),
    rules: rules.records(),
    metrics: metricsOf(changes, { from, to }, definition.failureHours),
    within: { failureHours: definition.failureHours, reviewHours: definition.reviewHours },
    flow: flow.flow({ from, to }, asOf),
    sample:
      sample === undefined
        ? null
        : { ...sample, items: drawSample(changes, { root, from, to }, sample.seed, sample.size) },
    earlier: issued.map(({ index, entry }) => ({
      entry: index,
      time: entry.time,
      report: entry.report,
      seed: entry.sample?.seed ?? '',
      size: entry.sample?.size ?? 0,
    })),
    reviews: source
      .of('report.reviewed')
      .filter(({ entry }) => issued.some((i) => i.entry.report === entry.report))
      .map(({ index, entry: { time, report, name, role, remarks, user } }) => ({
        entry: index,
        time,
        report,
        name,
        role,
        remarks,
        user,
      })),
    supersedes: null,
    changes: new ChangeRows(shelf, ids, refusedChanges, exceptionsByChange(exceptions)),
    refused,
  };
}
