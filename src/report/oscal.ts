import { createHash } from 'node:crypto';
import type { ControlResult, Disposition, ExceptionRecord, ReportModel } from './model.ts';

const VERSION = '1.2.1';
const NS = 'https://countersign.dev/ns/oscal';

/**
 * Returns assessment results in OSCAL 1.2.1 (pages.nist.gov/OSCAL): an observation and a finding per control, an
 * observation and a risk per exception. Every UUID is derived from the report (version 5), so that the same report
 * gives the same bytes. `files` has the SHA-256 of the report's other files.
 */
export function assessmentResults(model: ReportModel, files: ReadonlyMap<string, string>): object {
  const id = (what: string) => uuid(`${model.id} ${what}`);
  const methods = ['EXAMINE', 'TEST'];
  const objective = (control: string) => `${control.toLowerCase()}-objective`;
  return {
    'assessment-results': {
      uuid: id('assessment-results'),
      metadata: metadata(model, id),
      'import-ap': { href: `#${id('plan')}` },
      'local-definitions': {
        activities: model.controls.map((c) => ({
          uuid: id(`activity ${c.id}`),
          title: `Test of ${c.id}`,
          description: `Every applied change and every check that belongs to it is tested: ${c.title}.`,
          'related-controls': { 'control-selections': [{ 'include-controls': [{ 'control-id': controlId(c) }] }] },
        })),
      },
      results: [
        {
          uuid: id('result'),
          title: model.title,
          description: `${model.summary.changes} changes from ${model.period.from} to ${model.period.to}.`,
          start: model.period.from,
          end: model.period.to,
          props: [
            prop('ledger-entries', String(model.ledger.entries)),
            prop('ledger-first', String(model.ledger.first)),
          ],
          'local-definitions': {
            components: [
              {
                uuid: id('gate'),
                type: 'software',
                title: 'Countersign',
                description: 'The gate through which changes reach the cluster.',
                status: { state: 'operational' },
              },
            ],
            ...(model.scope.environments.length === 0
              ? {}
              : {
                  'inventory-items': model.scope.environments.map((e) => ({
                    uuid: id(`environment ${e.name}`),
                    description: `Environment ${e.name}, ${e.refs.join(', ') || 'branch not known'}`,
                    props: [prop('revision', e.revision || 'none')],
                  })),
                }),
          },
          'reviewed-controls': {
            'control-selections': [{ 'include-controls': model.controls.map((c) => ({ 'control-id': controlId(c) })) }],
            'control-objective-selections': [
              { 'include-objectives': model.controls.map((c) => ({ 'objective-id': objective(c.id) })) },
            ],
          },
          ...(model.reviews.length === 0
            ? {}
            : {
                attestations: model.reviews.map((r) => ({
                  parts: [
                    {
                      uuid: id(`attestation ${r.entry}`),
                      name: 'sign-off',
                      title: text(`${r.name}, ${r.role}`),
                      props: [prop('ledger-index', String(r.entry)), prop('report', r.report)],
                      prose: text(r.remarks),
                    },
                  ],
                })),
              }),
          observations: [
            ...model.controls.map((c) => ({
              uuid: id(`observation ${c.id}`),
              title: c.title,
              description: said(c),
              methods,
              types: ['control-objective'],
              'relevant-evidence': [
                {
                  href: `#${id('file population.csv')}`,
                  description: 'The whole population with the result of each test.',
                },
              ],
              collected: model.asOf,
            })),
            ...model.exceptions.map((e) => ({
              uuid: id(`observation ${e.id}`),
              title: `${e.id}: ${e.type}`,
              description: text(`${e.object} ${e.cause}`),
              props: [
                prop('ledger-index', String(e.entry)),
                prop('disposition', e.disposition),
                prop('severity', e.severity),
                ...(e.owner === '' ? [] : [prop('owner', e.owner)]),
              ],
              methods,
              types: ['finding'],
              'relevant-evidence': [
                { href: `#${id('file exceptions.csv')}`, description: `Row ${e.id} of the register.` },
              ],
              collected: e.time,
            })),
          ],
          ...(model.exceptions.length === 0 ? {} : { risks: model.exceptions.map((e) => risk(e, id)) }),
          findings: model.controls.map((c) => ({
            uuid: id(`finding ${c.id}`),
            title: c.title,
            description: said(c),
            target: {
              type: 'objective-id',
              'target-id': objective(c.id),
              status: isSatisfied(c)
                ? { state: 'satisfied' }
                : { state: 'not-satisfied', reason: c.exceptions > c.dispositioned ? 'fail' : 'other' },
            },
            'related-observations': [{ 'observation-uuid': id(`observation ${c.id}`) }],
          })),
        },
      ],
      'back-matter': backMatter(model, files, id),
    },
  };
}

/**
 * Returns a plan of action and milestones for open exceptions; undefined if there are none (OSCAL requires an item).
 */
export function planOfAction(model: ReportModel, files: ReadonlyMap<string, string>): object | undefined {
  const id = (what: string) => uuid(`${model.id} poam ${what}`);
  const open = model.exceptions.filter((e) => e.disposition === 'open');
  if (open.length === 0) return undefined;
  return {
    'plan-of-action-and-milestones': {
      uuid: id('plan-of-action'),
      metadata: metadata(model, id),
      'system-id': { 'identifier-type': 'https://ietf.org/rfc/rfc4122', id: uuid(model.ledger.origin) },
      observations: open.map((e) => ({
        uuid: id(`observation ${e.id}`),
        description: text(`${e.object} ${e.cause}`),
        props: [prop('ledger-index', String(e.entry))],
        methods: ['EXAMINE'],
        collected: e.time,
      })),
      risks: open.map((e) => risk(e, id)),
      'poam-items': open.map((e) => ({
        uuid: id(`item ${e.id}`),
        title: `${e.id}: ${e.type}`,
        description: text(`${e.object} ${e.cause}`),
        'related-observations': [{ 'observation-uuid': id(`observation ${e.id}`) }],
        'related-risks': [{ 'risk-uuid': id(`risk ${e.id}`) }],
      })),
      'back-matter': backMatter(model, files, id),
    },
  };
}

type Id = (what: string) => string;

function metadata(model: ReportModel, id: Id): object {
  return {
    title: model.title,
    'last-modified': model.asOf,
    version: model.id,
    'oscal-version': VERSION,
    props: [
      prop('ledger', model.ledger.origin),
      prop('ledger-root', model.ledger.checkpoint.split('\n')[2] || 'none'),
      prop('status', model.status),
    ],
    roles: [{ id: 'assessed', title: 'Whose changes these are' }],
    parties: [{ uuid: id('entity'), type: 'organization', name: text(model.entity) }],
    'responsible-parties': [{ 'role-id': 'assessed', 'party-uuids': [id('entity')] }],
  };
}

function backMatter(model: ReportModel, files: ReadonlyMap<string, string>, id: Id): object {
  return {
    resources: [
      {
        uuid: id('plan'),
        title: 'Assessment plan',
        description:
          'All changes of the period are tested, by the attributes and checks that docs/report-format.md names; ' +
          `${model.frameworks.map((f) => f.name).join(', ') || 'no framework was chosen'}.`,
      },
      ...[...files].map(([name, digest]) => ({
        uuid: id(`file ${name}`),
        title: name,
        rlinks: [{ href: name, hashes: [{ algorithm: 'SHA-256', value: digest }] }],
      })),
    ],
  };
}

const STATUS: Readonly<Record<Disposition, string>> = {
  open: 'open',
  prevented: 'closed',
  remediated: 'closed',
  'false-positive': 'closed',
  accepted: 'deviation-approved',
};

function risk(e: ExceptionRecord, id: Id): object {
  return {
    uuid: id(`risk ${e.id}`),
    title: `${e.id}: ${e.type}`,
    description: text(`${e.object} ${e.cause}`),
    statement: `Severity ${e.severity}.`,
    status: STATUS[e.disposition],
    'related-observations': [{ 'observation-uuid': id(`observation ${e.id}`) }],
    ...(e.disposition === 'open'
      ? {}
      : {
          'risk-log': {
            entries: [
              {
                uuid: id(`log ${e.id}`),
                title: e.disposition,
                description: text(e.reason || e.disposition),
                start: e.at || e.time,
                'status-change': STATUS[e.disposition],
              },
            ],
          },
        }),
  };
}

function isSatisfied(c: ControlResult): boolean {
  return c.exceptions === c.dispositioned && c.undetermined === 0 && c.passed === c.tested;
}

function said(c: ControlResult): string {
  return (
    `${c.tested} tested, ${c.passed} passed, ${c.exceptions} exceptions of ` +
    `which ${c.dispositioned} are dealt with, ${c.undetermined} not determinable.`
  );
}

function controlId(c: ControlResult): string {
  return c.id.toLowerCase();
}

function prop(name: string, value: string): object {
  return { name, ns: NS, value: text(value) };
}

// OSCAL does not allow line breaks, empty texts, or a leading space.
function text(value: string): string {
  return (
    value
      .toWellFormed()
      .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, ' ')
      .trim()
      .slice(0, 4000) || '(none)'
  );
}

const NAMESPACE = Buffer.from('6ba7b8119dad11d180b400c04fd430c8', 'hex'); // namespace of URLs (RFC 9562, section 6.6)

/** Returns a version 5 UUID (RFC 9562, section 5.5) for one of our names. */
function uuid(name: string): string {
  const hash = createHash('sha1').update(NAMESPACE).update(`${NS}/${name}`).digest().subarray(0, 16);
  hash.writeUInt8((hash.readUInt8(6) & 0x0f) | 0x50, 6);
  hash.writeUInt8((hash.readUInt8(8) & 0x3f) | 0x80, 8);
  return hash.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
