import { bytesOf, canonicalPieces } from '../model/index.ts';
import {
  agesChart,
  agesOf,
  controlsChart,
  exceptionsChart,
  flowChart,
  leadTimeChart,
  presenceChart,
  type Scene,
} from './charts.ts';
import { attach, type Document, type Embedded, Embedding } from './embed.ts';
import { recordedChanges } from './evident.ts';
import { ATTRIBUTES, type ChangeRecord, type ReportModel } from './model.ts';
import { FOOT, MARGIN, Page } from './page.ts';
import { csvOf, populationTable, sampled } from './tables.ts';

const MAX_ROWS = 500; // for tables whose rows are all in CSV and JSON
const MAX_RECORDS = 60; // changes shown in full

/**
 * Renders the report as a PDF (PDF/A-3a and PDF/UA-1, with report.json and population.csv inside), the same bytes for
 * the same model. Fonts are embedded; a missing glyph is shown as its code point.
 */
export async function renderPdf(
  model: ReportModel,
  write: (bytes: Uint8Array) => void,
  given?: EmbeddedFiles,
): Promise<void> {
  const files = given ?? (await embeddedFiles(model));
  const date = new Date(model.asOf);
  const { default: PDFDocument } = await import('pdfkit'); // loaded on demand: the service itself makes no PDF
  const doc = new PDFDocument({
    size: 'A4',
    layout: 'landscape',
    margins: { top: MARGIN, bottom: MARGIN + FOOT, left: MARGIN, right: MARGIN },
    bufferPages: true,
    pdfVersion: '1.7',
    subset: 'PDF/A-3a',
    tagged: true,
    lang: 'en',
    displayTitle: true,
    info: {
      Title: `${model.title} ${model.period.from.slice(0, 10)} to ${model.period.to.slice(0, 10)}`,
      Author: model.ledger.origin,
      Creator: 'Countersign',
      Producer: 'Countersign',
      CreationDate: date,
      ModDate: date,
    },
  });
  const done = new Promise<void>((resolve, reject) => {
    doc.on('data', write);
    doc.on('end', () => resolve());
    doc.on('error', reject);
  });
  (doc as unknown as { appendXML(xml: string): void }).appendXML(UNIVERSAL);
  const page = new Page(doc);
  cover(page, model);
  page.contents('Contents');
  superseded(page, model);
  scope(page, model);
  controls(page, model);
  population(page, model);
  exceptions(page, model);
  emergencies(page, model);
  access(page, model);
  policies(page, model);
  metrics(page, model);
  sample(page, model);
  changes(page, model);
  records(page, model);
  appendix(page, model, files.json.sha256);
  signOff(page, model);
  for (const [name, file, type, description] of [
    ['report.json', files.json, 'application/json', 'The report as data'],
    ['population.csv', files.population, 'text/csv', 'Every change of the period'],
  ] as const)
    attach(doc as unknown as Document, file, { name, type, description, date });
  page.finish(`${model.title} · ${model.id} · ${model.status} · ${model.classification}`);
  doc.end();
  return done;
}

/** Files embedded in the PDF, identical to the separate ones. */
export type EmbeddedFiles = { readonly json: Embedded; readonly population: Embedded };

async function embeddedFiles(model: ReportModel): Promise<EmbeddedFiles> {
  const [json, population] = [new Embedding(), new Embedding()];
  for (const bytes of bytesOf(jsonOf(model))) {
    json.write(bytes);
    await json.settle();
  }
  for (const bytes of bytesOf(csvOf(populationTable(model)))) {
    population.write(bytes);
    await population.settle();
  }
  return { json: await json.end(), population: await population.end() };
}

/** Yields `report.json` in chunks: canonical JSON and a line end. */
export function jsonOf({ changes, ...others }: ReportModel): Generator<string> {
  return canonicalPieces(others, new Map([['changes', changes.lines()]]), '\n');
}

// PDF/UA-1 besides PDF/A-3a: the identifier, and the schema that PDF/A requires for it (ISO 14289-1, section 5).
const UNIVERSAL = `
        <rdf:Description xmlns:pdfuaid="http://www.aiim.org/pdfua/ns/id/" rdf:about=""><pdfuaid:part>1</pdfuaid:part></rdf:Description>
        <rdf:Description xmlns:pdfaExtension="http://www.aiim.org/pdfa/ns/extension/" xmlns:pdfaSchema="http://www.aiim.org/pdfa/ns/schema#" xmlns:pdfaProperty="http://www.aiim.org/pdfa/ns/property#" rdf:about="">
          <pdfaExtension:schemas><rdf:Bag><rdf:li rdf:parseType="Resource">
            <pdfaSchema:namespaceURI>http://www.aiim.org/pdfua/ns/id/</pdfaSchema:namespaceURI>
            <pdfaSchema:prefix>pdfuaid</pdfaSchema:prefix>
            <pdfaSchema:schema>PDF/UA identification</pdfaSchema:schema>
            <pdfaSchema:property><rdf:Seq><rdf:li rdf:parseType="Resource">
              <pdfaProperty:category>internal</pdfaProperty:category>
              <pdfaProperty:description>PDF/UA version</pdfaProperty:description>
              <pdfaProperty:name>part</pdfaProperty:name>
              <pdfaProperty:valueType>Integer</pdfaProperty:valueType>
            </rdf:li></rdf:Seq></pdfaSchema:property>
          </rdf:li></rdf:Bag></pdfaExtension:schemas>
        </rdf:Description>`;

function cover(page: Page, model: ReportModel): void {
  const { summary, ledger } = model;
  page.title(model.title);
  page.lead(`${model.entity}: ${day(model.period.from)} to ${day(model.period.to)} (UTC, end not included)`);
  page.pairs([
    ['Report', model.id],
    [
      'Status',
      model.status === 'final' ? 'final: the period is over' : 'draft: the period is not over by the newest entry',
    ],
    ['Classification', model.classification],
    ...(ledger.begins > model.period.from
      ? [['Begins', `the ledger has nothing from before ${ledger.begins}: what was before cannot be told`] as const]
      : []),
    ['Ledger', `${ledger.origin}, entries ${ledger.first} to ${ledger.first + ledger.entries - 1}`],
    ['As of', model.asOf],
    ['Frameworks', model.frameworks.map((f) => f.name).join('; ') || 'none chosen'],
  ]);
  page.figures([
    ['changes judged', summary.changes],
    ['applied', summary.applied],
    ['denied', summary.denied],
    ['exceptions', summary.exceptions],
    ['of them open', summary.open],
    ['requests refused', summary.admissionsDenied],
  ]);
  page.note(
    'Every change to the governed namespaces in the period is tested, not a sample. A denied change or a ' +
      'refused request is the control at work; an exception is something a reader ' +
      'should ask about. What could not be told is said to be so, and counts for nothing.',
  );
  page.note(
    'This report is evidence for an auditor to test. It draws ' +
      'no conclusion about the design or the operation of controls.',
  );
}

function scope(page: Page, model: ReportModel): void {
  page.heading('Scope', true);
  page.table(
    [
      { title: 'Environment', width: 90, text: (e) => e.name },
      {
        title: 'Repository, branch, path',
        width: 200,
        text: (e) => e.source.replaceAll(' ', '\n') || 'not stated in the period',
      },
      { title: 'Namespaces', width: 120, text: (e) => e.namespaces.join('\n') },
      { title: 'Admission', width: 60, text: (e) => e.admission },
      { title: 'Branches that moved', width: 110, text: (e) => e.refs.join('\n') || 'none' },
      { title: 'Revision at the end', width: 160, mono: true, text: (e) => e.revision.slice(0, 20) || 'not known' },
    ],
    model.scope.environments,
    'No environment is on the ledger in the period.',
  );
  page.subheading('Not in scope');
  page.note(
    model.scope.excluded.length === 0
      ? 'No environment of this ledger is left out. What is in ' +
          'namespaces that no environment governs is not part of it.'
      : `Left out of this report, by its definition: ${model.scope.excluded.join(', ')}.`,
  );
  page.subheading('Changes to the configuration');
  page.table(
    [
      { title: 'Entry', width: 60, text: (c) => String(c.entry) },
      { title: 'Time (UTC)', width: 110, text: (c) => clock(c.time) },
      { title: 'Environment', width: 110, text: (c) => c.environment },
      { title: 'What', width: 100, text: (c) => c.what },
      { title: 'Before', width: 180, text: (c) => c.before || 'nothing' },
      { title: 'After', width: 180, text: (c) => c.after || 'nothing' },
    ],
    model.scope.changed.slice(0, MAX_ROWS),
    'None by the statements of the period.',
  );
  page.subheading('Who can get past the gate');
  const groups = model.scope.environments.filter((e) => e.breakGlass.length > 0);
  if (groups.length > 0)
    page.note(
      'Break-glass may be used by members of ' +
        `${groups.map((e) => `${e.breakGlass.join(', ')} (${e.name})`).join('; ')}.`,
    );
  page.note(
    model.scope.bypass.length === 0
      ? 'No one used break-glass in the period. Members of the break-glass groups may open it, and anyone who ' +
          'may change the API server’s configuration can remove the gate; what is then changed is found as drift.'
      : `Break-glass was used by ${model.scope.bypass.join(', ')}. Anyone who may change the API ` +
          'server’s configuration can remove the gate; what is then changed is found as drift.',
  );
}

function controls(page: Page, model: ReportModel): void {
  page.heading('Summary of controls', true);
  page.chart(controlsChart(model.controls, page.width));
  page.table(
    [
      { title: 'Control', width: 44, text: (c) => c.id },
      { title: 'What', width: 170, text: (c) => c.title },
      {
        title: 'Requirements',
        width: 180,
        text: (c) =>
          c.requirements
            .filter((r) => r.ids.length > 0)
            .map((r) => `${r.framework}: ${r.ids.join(', ')}`)
            .join('\n') || 'none chosen',
      },
      { title: 'Population', width: 62, text: (c) => String(c.population) },
      { title: 'Tested', width: 52, text: (c) => String(c.tested) },
      { title: 'Passed', width: 52, text: (c) => String(c.passed) },
      { title: 'Exceptions', width: 64, text: (c) => String(c.exceptions) },
      { title: 'Dealt with', width: 58, text: (c) => String(c.dispositioned) },
      { title: 'Not determinable', width: 64, text: (c) => String(c.undetermined) },
    ],
    model.controls,
    'No control is known.',
  );
  if (model.gaps.length === 0) return;
  page.subheading('What this does not cover');
  page.table(
    [
      { title: 'Framework', width: 90, text: (g) => g.framework },
      { title: 'Requirement', width: 80, text: (g) => g.id },
      { title: 'About', width: 260, text: (g) => g.title },
      { title: 'Gap', width: 310, text: (g) => g.gap },
    ],
    model.gaps,
    '',
  );
}

function population(page: Page, model: ReportModel): void {
  page.heading('Is the population whole?', true);
  page.note(
    'Each check counts one thing from two sources. A check whose ' +
      'source is not there is not determinable: it is never a pass.',
  );
  page.table(
    [
      { title: 'Check', width: 150, text: (r) => `${r.id}  ${r.check}` },
      { title: 'One source', width: 120, text: (r) => `${r.left.count}  ${r.left.source}` },
      { title: 'The other', width: 130, text: (r) => `${r.right.count}  ${r.right.source}` },
      { title: 'Difference', width: 60, text: (r) => String(r.left.count - r.right.count) },
      { title: 'Explained by', width: 150, text: (r) => r.explained },
      { title: 'Unexplained', width: 62, text: (r) => String(r.unexplained) },
      { title: 'Status', width: 70, text: (r) => r.status },
    ],
    model.reconciliation,
    '',
  );
  if (model.ledger.erased.length > 0) {
    page.subheading('Names that were erased');
    page.table(
      [
        { title: 'Entry', width: 60, text: (e) => String(e.entry) },
        { title: 'Time (UTC)', width: 110, text: (e) => clock(e.time) },
        { title: 'Asked by (a claim)', width: 120, text: (e) => e.claimedBy },
        { title: 'Reason', width: 180, text: (e) => e.reason },
        { title: 'Commitments', width: 80, text: (e) => String(e.commitments) },
        { title: 'Open exceptions', width: 100, text: (e) => e.exceptions.join(', ') || 'none' },
        { title: 'Approved by', width: 92, text: (e) => e.approvedBy || 'no one' },
      ],
      model.ledger.erased.slice(0, MAX_ROWS),
      '',
    );
  }
  const presence = presenceChart(model, page.width);
  if (presence === undefined) return;
  page.subheading('When the gate was there', 110);
  page.chart(presence);
}

function exceptions(page: Page, model: ReportModel): void {
  page.heading('Register of exceptions', true);
  drawn(page, exceptionsChart(model, page.width));
  cut(page, model.exceptions.length, 'exceptions.csv');
  page.table(
    [
      { title: 'Id', width: 44, text: (e) => e.id },
      { title: 'Detected (UTC)', width: 74, text: (e) => clock(e.time) },
      { title: 'Type', width: 88, text: (e) => `${e.type}\n${e.severity}` },
      { title: 'Environment', width: 66, text: (e) => e.environment || 'all' },
      { title: 'Change, object', width: 108, text: (e) => [e.change, e.object].filter((t) => t !== '').join('\n') },
      { title: 'Actor', width: 86, text: (e) => e.actor || 'not known' },
      { title: 'Cause', width: 130, text: (e) => e.cause },
      { title: 'Exposed', width: 50, text: (e) => (e.exposed === undefined ? 'cannot tell' : span(e.exposed)) },
      {
        title: 'Disposition',
        width: 100,
        text: (e) =>
          [
            e.disposition,
            e.owner && `owner ${e.owner}`,
            e.by && `by ${e.by}`,
            e.at && clock(e.at),
            e.reason,
            e.ticket,
            e.link,
            e.days > 0 && `${e.days} days`,
          ]
            .filter((t) => t !== '' && t !== false)
            .join('\n'),
      },
    ],
    model.exceptions.slice(0, MAX_ROWS),
    `None found in ${model.summary.changes} changes and ${model.ledger.entries} ledger entries.`,
  );
  const ages = agesChart(model, page.width);
  if (ages === undefined) return;
  page.subheading('How long open ones are open', 150);
  page.chart(ages);
  page.table(
    [
      { title: 'Age', width: 160, text: (a) => a.age },
      { title: 'Critical or high', width: 120, text: (a) => String(a.grave) },
      { title: 'Medium or low', width: 120, text: (a) => String(a.other) },
    ],
    agesOf(model),
    '',
  );
}

function emergencies(page: Page, model: ReportModel): void {
  page.heading('Emergency changes');
  page.table(
    [
      { title: 'Entry', width: 44, text: (e) => String(e.entry) },
      { title: 'Opened (UTC)', width: 78, text: (e) => clock(e.opened) },
      { title: 'Closed', width: 78, text: (e) => (e.closed === '' ? 'open' : clock(e.closed)) },
      { title: 'Environment', width: 70, text: (e) => e.environment },
      {
        title: 'By',
        width: 90,
        text: (e) => [e.requester, e.approver && `approved by ${e.approver}`].filter((t) => t !== '').join('\n'),
      },
      { title: 'Reason, ticket', width: 130, text: (e) => [e.reason, e.ticket].filter((t) => t !== '').join('\n') },
      {
        title: 'What was done',
        width: 140,
        text: (e) => e.uses.map((u) => `${clock(u.at)} ${u.what}`).join('\n') || 'nothing',
      },
      {
        title: 'Review',
        width: 110,
        text: (e) =>
          [e.result, e.reviewer && `by ${e.reviewer}`, `due ${clock(e.reviewDue)}`].filter((t) => t !== '').join('\n'),
      },
    ],
    model.emergencies,
    'Break-glass was not opened or used in the period.',
  );
}

function access(page: Page, model: ReportModel): void {
  page.heading('Who may sign and approve', true);
  page.note(
    'Taken from the verdicts of the period and from TrustPolicies that stand on the ledger, of repositories ' +
      'and of the configuration. The first one of a period tells ' +
      'since when someone is on record there, which may be longer.',
  );
  page.table(
    [
      { title: 'Principal', width: 100, text: (p) => p.principal },
      { title: 'Kind', width: 56, text: (p) => p.kind },
      { title: 'Roles', width: 110, text: (p) => p.roles.join(', ') },
      { title: 'Signed', width: 46, text: (p) => String(p.signed) },
      { title: 'Approved', width: 54, text: (p) => String(p.approved) },
      {
        title: 'First and last use',
        width: 100,
        text: (p) => (p.firstUse === '' ? 'not used' : `${clock(p.firstUse)}\n${clock(p.lastUse)}`),
      },
      {
        title: 'In a TrustPolicy',
        width: 96,
        text: (p) =>
          p.listedFrom === ''
            ? 'not on record'
            : `from ${clock(p.listedFrom)}\n${p.listedUntil === '' ? 'still' : `to ${clock(p.listedUntil)}`}`,
      },
      { title: 'Keys', width: 180, mono: true, text: (p) => p.keys.map((k) => k.key).join('\n') },
    ],
    model.access,
    'No one signed or approved anything in the period.',
  );
  page.subheading('Changes in the period');
  page.table(
    [
      { title: 'Entry', width: 50, text: (c) => String(c.entry) },
      { title: 'Time (UTC)', width: 110, text: (c) => clock(c.time) },
      { title: 'Environment', width: 90, text: (c) => c.environment },
      { title: 'Change', width: 70, text: (c) => c.change },
      { title: 'Joined', width: 140, text: (c) => c.joined.join(', ') },
      { title: 'Left', width: 140, text: (c) => c.left.join(', ') },
      { title: 'Otherwise', width: 142, text: (c) => c.otherwise.join(', ') },
    ],
    model.accessChanges,
    'No change of a TrustPolicy was recorded in the period.',
  );
}

// Matches the definitions in `metricsOf` (docs/report-format.md, Delivery metrics).
function formulas({ within }: ReportModel): string[] {
  return [
    'Deployment: an applied change that wrote or removed an object, ' +
      'or one that failed after it began. Frequency: deployments / weeks of the period.',
    'Lead time: applied at, less the time a commit claims, for each commit; ' +
      'median and the value that nine of ten do not exceed (nearest rank).',
    'Change fail rate: deployments that were undone, ' +
      `or followed by a rollback or an emergency within ${within.failureHours} h, / deployments.`,
    'Recovery: from a failure to the next applied change of the environment. Rework rate: ' +
      'deployments that are emergencies / deployments.',
  ];
}

// For readers who only have these pages.
function definitions({ within }: ReportModel): string[] {
  return [
    'Change: one transition of one environment from one revision to another; ' +
      'judged again, it is the same change, and its last verdict counts.',
    'Applied: an intent that names this verdict has an applied result. Failed: ' +
      'only failed results, or the cluster refused it. Denied: the last verdict says no.',
    'Type: emergency (a review of break-glass names one of its commits), ' +
      'rollback, access (the TrustPolicy changed), or standard.',
    'Control: population and tested are the applied changes its attributes are for, ' +
      'and one for each of its checks; passed, where no attribute fails or cannot be told, and the check ties.',
    'Exception: one row for each thing that happened, by its entry. Prevented: ' +
      'nothing reached the cluster. Open: no one has said what became of it, and nothing reverted it.',
    `A review of break-glass is late ${within.reviewHours} h after its end.`,
  ];
}

function drawn(page: Page, scene: Scene | undefined): void {
  if (scene !== undefined) page.chart(scene);
}

function policies(page: Page, model: ReportModel): void {
  page.heading('Rules');
  page.table(
    [
      { title: 'Environment', width: 110, text: (p) => p.environment },
      { title: 'Set (digest)', width: 230, mono: true, text: (p) => p.bundle.slice(0, 32) },
      { title: 'From (UTC)', width: 110, text: (p) => clock(p.from) },
      { title: 'To', width: 110, text: (p) => (p.to === '' ? 'in force' : clock(p.to)) },
      { title: 'Verdicts', width: 60, text: (p) => String(p.verdicts) },
      { title: 'Denied', width: 60, text: (p) => String(p.denied) },
      { title: 'Waived', width: 60, text: (p) => String(p.waived) },
    ],
    model.policies,
    'No rules judged in the period.',
  );
  page.subheading('Rules that spoke');
  page.table(
    [
      { title: 'Rule', width: 300, text: (r) => (r.title === '' ? r.rule : `${r.rule}\n${r.title}`) },
      { title: 'Severity', width: 80, text: (r) => r.severity },
      { title: 'Controls', width: 120, text: (r) => r.controls.join(', ') },
      { title: 'Violations', width: 80, text: (r) => String(r.denied) },
      { title: 'Warnings', width: 80, text: (r) => String(r.warned) },
      { title: 'Waived', width: 80, text: (r) => String(r.waived) },
    ],
    model.rules,
    'No rule found anything in the period.',
  );
}

function metrics(page: Page, model: ReportModel): void {
  page.heading('Delivery', true);
  drawn(page, leadTimeChart(model, page.width));
  page.note('Operational, and no test of a control. With fewer than five there are too few to say anything.');
  for (const formula of formulas(model)) page.note(formula);
  const few = (n: number, text: string) => (n < 5 ? `${text}\n(n = ${n}: too few)` : `${text}\n(n = ${n})`);
  page.table(
    [
      { title: 'Environment', width: 110, text: (m) => m.environment },
      { title: 'Deployments', width: 90, text: (m) => `${m.deployments}\n${m.perWeek} a week` },
      {
        title: 'Lead time: median, 90 %',
        width: 140,
        text: (m) => few(m.leadTime.n, `${span(m.leadTime.median)}, ${span(m.leadTime.p90)}`),
      },
      {
        title: 'Change fail rate',
        width: 120,
        text: (m) => few(m.deployments, `${percent(m.failRate)}, ${m.failed} failed`),
      },
      {
        title: 'Recovery: median',
        width: 140,
        text: (m) => few(m.recoveryTime.n, `${span(m.recoveryTime.median)}, ${m.recoveryTime.open} open`),
      },
      { title: 'Rework rate', width: 140, text: (m) => few(m.deployments, percent(m.reworkRate)) },
    ],
    model.metrics,
    'No environment had a change in the period.',
  );
}

const LETTERS = Object.keys(ATTRIBUTES) as (keyof typeof ATTRIBUTES)[];
const MARK = { pass: 'pass', fail: 'FAIL', 'n.a.': 'n.a.', 'cannot tell': '?' } as const;

const COUNT_NAMES: Readonly<Record<string, string>> = {
  changes: 'changes',
  applied: 'changes applied',
  denied: 'changes denied',
  failed: 'changes failed',
  exceptions: 'exceptions',
  open: 'exceptions open',
  admissionsDenied: 'requests refused at admission',
};

function superseded(page: Page, { supersedes }: ReportModel): void {
  if (supersedes === null) return;
  const { entry, report, differences } = supersedes;
  const { counts, changes, exceptions } = differences;
  page.heading('What this report supersedes', true);
  page.note(
    `It takes the place of report ${report} of the same period (entry ${entry}). What is otherwise in this one:`,
  );
  const rows = [
    ...counts.map((c) => ({ what: COUNT_NAMES[c.name] ?? c.name, before: String(c.before), after: String(c.after) })),
    ...changes.map((c) => ({ what: `change ${c.id}`, before: c.before || 'not in it', after: c.after || 'not in it' })),
    ...exceptions.map((e) => ({
      what: `exception ${e.id}`,
      before: e.before || 'not in it',
      after: e.after || 'not in it',
    })),
  ];
  cut(page, rows.length, 'report.json');
  page.table(
    [
      { title: 'What', width: 300, text: (r) => r.what },
      { title: 'Before', width: 200, text: (r) => r.before },
      { title: 'Now', width: 240, text: (r) => r.after },
    ],
    rows.slice(0, MAX_ROWS),
    'Nothing but when it was made.',
  );
}

function sample(page: Page, model: ReportModel): void {
  page.heading('The auditor’s sample', true);
  earlier(page, model);
  if (model.sample === null) {
    page.note(
      'No sample was drawn. The auditor chooses a seed after this report’s checkpoint is known: ' +
        '`countersign report … --seed TEXT --sample 25` draws, the same for everybody.',
    );
    return;
  }
  page.note(
    `Seed \`${model.sample.seed}\`, the ${model.sample.size} lowest ranks of each stratum. rank = ` +
      'HMAC-SHA256 (key: checkpoint root, from, to, stratum and seed, joined by |; message: change id), in hex.',
  );
  const rows = sampled(model);
  page.table(
    [
      { title: 'Change', width: 50, text: (r) => r.change.id },
      { title: 'Stratum', width: 62, text: (r) => r.item.stratum },
      { title: 'Applied (UTC)', width: 76, text: (r) => clock(r.change.appliedAt) },
      { title: 'Environment', width: 76, text: (r) => r.change.environment },
      { title: 'Title', width: 160, text: (r) => r.change.subject },
      ...LETTERS.map((letter) => ({
        title: letter,
        width: 31,
        text: (r: (typeof rows)[number]) => MARK[r.change.attributes[letter]],
      })),
    ],
    rows,
    'No change was applied in the period.',
  );
  legend(page);
}

function earlier(page: Page, model: ReportModel): void {
  if (model.earlier.length === 0) return;
  page.note('Reports of this period that were made before, by the ledger:');
  page.table(
    [
      { title: 'Entry', width: 60, text: (e) => String(e.entry) },
      { title: 'Time (UTC)', width: 120, text: (e) => clock(e.time) },
      { title: 'Report', width: 160, text: (e) => e.report },
      {
        title: 'Drawn',
        width: 400,
        text: (e) => (e.size === 0 ? 'nothing' : `${e.size} of each stratum, seed ${e.seed}`),
      },
    ],
    model.earlier,
    '',
  );
}

function legend(page: Page): void {
  page.note(
    `${LETTERS.map((letter) => `${letter}: ${ATTRIBUTES[letter]}`).join('. ')}. ?: cannot be told, and is no pass.`,
  );
}

function changes(page: Page, model: ReportModel): void {
  page.heading('Changes', true);
  drawn(page, flowChart(model, page.width));
  const { unit, rows } = model.flow;
  const busy = rows.filter((r) => r.applied + r.allowed + r.failed + r.denied > 0);
  if (busy.length > 0)
    page.table(
      [
        { title: `${unit[0]?.toUpperCase()}${unit.slice(1)} from (UTC)`, width: 120, text: (r) => r.from },
        { title: 'Applied', width: 80, text: (r) => String(r.applied) },
        { title: 'Not applied yet', width: 90, text: (r) => String(r.allowed) },
        { title: 'Failed', width: 80, text: (r) => String(r.failed) },
        { title: 'Denied', width: 80, text: (r) => String(r.denied) },
      ],
      busy,
      '',
    );
  page.subheading('One by one');
  cut(page, model.changes.length, 'population.csv');
  page.table<ChangeRecord>(
    [
      { title: 'Change', width: 48, text: (c) => c.id },
      { title: 'Judged (UTC)', width: 76, text: (c) => clock(c.time) },
      { title: 'Environment', width: 66, text: (c) => c.environment },
      { title: 'Revision', width: 72, mono: true, text: (c) => c.to.slice(0, 12) },
      { title: 'Title', width: 124, text: (c) => c.subject },
      { title: 'Authors', width: 102, text: (c) => [...new Set(c.commits.map((k) => k.author))].join(', ') },
      {
        title: 'Signed by',
        width: 60,
        text: (c) => [...new Set(c.commits.map((k) => k.signer))].filter((s) => s !== '').join(', ') || 'no one',
      },
      {
        title: 'Approved by',
        width: 64,
        text: (c) => [...new Set(c.approvals.map((a) => a.principal))].join(', ') || 'no one',
      },
      {
        title: 'Outcome',
        width: 76,
        text: (c) => (c.outcome === 'applied' ? `applied\n${clock(c.appliedAt)}` : c.outcome),
      },
      { title: 'Exceptions', width: 58, text: (c) => c.exceptions.join('\n') },
    ],
    model.changes.select((_, i) => i < MAX_ROWS),
    'No change was judged in the period.',
  );
  page.subheading('Why changes were denied');
  const { refused } = model.changes;
  page.table<ChangeRecord>(
    [
      { title: 'Change', width: 50, text: (c) => c.id },
      { title: 'Revision', width: 82, mono: true, text: (c) => c.to.slice(0, 12) },
      { title: 'Reasons', width: 610, text: (c) => c.reasons.join('\n') },
    ],
    model.changes.of(refused.slice(0, MAX_ROWS)),
    `None of ${model.changes.length} changes was denied.`,
  );
}

function records(page: Page, model: ReportModel): void {
  const wanted = recordedChanges(model);
  page.heading('Records of changes', true);
  page.note('Those of the sample, and those with an exception.');
  if (wanted.length > MAX_RECORDS)
    page.note(`${MAX_RECORDS} of ${wanted.length} are told here; all stand in report.json.`);
  if (wanted.length === 0) page.note('There are none.');
  for (const c of model.changes.of(wanted.slice(0, MAX_RECORDS))) {
    page.subheading(`${c.id}  ${c.subject.slice(0, 120)}`);
    page.pairs([
      ['Revision', `${c.to}, tree ${c.tree}, from ${c.from || 'nothing'}`],
      ['Environment', `${c.environment}, ${c.ref}; ${c.type}, ${c.outcome}`],
      ['Tickets', c.tickets.join(', ') || 'none named'],
      [
        'Commits',
        c.commits
          .map(
            (k) =>
              `${k.id.slice(0, 12)} by ${k.author}, ` +
              `${k.status}${k.signer === '' ? '' : ` (${k.signer}, ${k.scheme} ${k.key})`}, ` +
              `said ${clock(k.committedAt)}, first seen ${clock(k.seen)}`,
          )
          .join('\n'),
      ],
      [
        'Approvals',
        c.approvals
          .map((a) => `${a.principal}, class ${a.class}, ${a.match}, ${clock(a.issuedAt)}: ${a.reason}`)
          .join('\n') || 'none',
      ],
      [
        'Rules',
        `set ${c.policy.bundle.slice(0, 16)}: ${c.policy.denied} denied, ` +
          `${c.policy.warned} warned, ${c.policy.waived} waived`,
      ],
      [
        'Deployment',
        c.appliedAt === ''
          ? c.error || 'none'
          : `${clock(c.applyStartedAt)} to ${clock(c.appliedAt)}, ${c.written} written, ` +
            `${c.removed} removed${c.healthy ? ', healthy' : ''}; entries ${c.applyEntries.join(', ')}`,
      ],
      ['Tests', LETTERS.map((letter) => `${letter} ${MARK[c.attributes[letter]]}`).join(' · ')],
      ['Exceptions', c.exceptions.join(', ') || 'none'],
      ['Ledger', `entry ${c.entry}, leaf ${c.leaf}`],
    ]);
  }
}

function appendix(page: Page, model: ReportModel, digest: string): void {
  page.heading('How to verify this report', true);
  page.note(
    '1. `countersign verify report.pdf --key ledger.pub` checks everything below, and what sampled commits ' +
      'and approvals are signed with (signed.jsonl), offline, with the public key alone. `node verify.mjs ' +
      '--key ledger.pub` needs nothing but Node, and checks hashes, the log, counts and the sample.',
  );
  page.note(
    '2. By hand: `manifest.txt` is a signed note (C2SP signed-note, ' +
      'Ed25519) over the SHA-256 of every file of the report.',
  );
  page.note(
    '3. SHA-256 over a zero byte followed by a line of entries.jsonl is a leaf; ' +
      'with the hashes in range.json the leaves give the root of the checkpoint (RFC 6962).',
  );
  page.note(
    '4. Each number in report.json is counted from entries.jsonl ' +
      'and evidence.jsonl by the rules in docs/report-format.md.',
  );
  page.note(`5. Of report.json, which lies in this file too, the SHA-256 is ${digest}.`);
  page.subheading('Attributes that are tested');
  legend(page);
  page.subheading('How numbers are made');
  for (const text of definitions(model)) page.note(text);
  page.subheading('Limits');
  page.note(
    'Times are those of the ledger’s clock unless a claim is named. A ticket is recognised by its number. ' +
      'That environments are apart is not told from the ledger. What happened while the gate was ' +
      'away is known from drift, and from the API server’s audit log where that was given to the gate.',
  );
  page.subheading('Checkpoint', 110);
  page.mono(model.ledger.checkpoint);
}

function signOff(page: Page, model: ReportModel): void {
  page.heading('Sign-off by management', true);
  if (model.reviews.length > 0) {
    page.note('By the ledger, of reports of this period:');
    page.table(
      [
        { title: 'Entry', width: 50, text: (r) => String(r.entry) },
        { title: 'Time (UTC)', width: 110, text: (r) => clock(r.time) },
        { title: 'Report', width: 120, text: (r) => r.report },
        { title: 'Name', width: 120, text: (r) => r.name },
        { title: 'Role', width: 120, text: (r) => r.role },
        { title: 'Remarks', width: 222, text: (r) => r.remarks },
      ],
      model.reviews,
      '',
    );
    return;
  }
  page.note(
    'Optional. Who reviewed this report, and what follows from it: `countersign report sign-off ' +
      'REPORT --name NAME --role ROLE` puts it on the ledger, and the next report of this period has it.',
  );
  page.pairs([
    ['Name', '______________________________'],
    ['Role', '______________________________'],
    ['Date', '______________________________'],
    ['Remarks', '______________________________________________________________'],
  ]);
}

function cut(page: Page, all: number, file: string): void {
  if (all > MAX_ROWS) page.note(`${MAX_ROWS} of ${all} are shown; all stand in ${file}.`);
}

function day(time: string): string {
  return time.slice(0, 10);
}

function clock(time: string): string {
  return time.slice(0, 19).replace('T', ' ');
}

function percent(share: number | undefined): string {
  return share === undefined ? 'none' : `${(share * 100).toFixed(1)} %`;
}

function span(value: number | undefined): string {
  if (value === undefined) return 'none';
  if (value < 120) return `${value} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172_800) return `${(value / 3600).toFixed(1)} h`;
  return `${(value / 86_400).toFixed(1)} d`;
}
